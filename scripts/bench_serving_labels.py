"""Label packages behind the API: of a decoder beside llama-server's constrained decoding, of MiniLM beside embedding offline."""
import json

from bench_base import MINILM, SMOLLM2, THREADS, Failed
from bench_serving import Server, llama

CONNECTIONS = 16
PORT = 18620
SERVED = {"zero-shot": SMOLLM2, "features": MINILM}


def package(bench, method):
    """A package of the method on Banking77's list of 10 rows a class (a smoke run: on the example)."""
    if bench.smoke:
        data = ["examples/estate-agency/inquiries.csv", "--text", "message", "--label", "intent"]
    else:
        banking = bench.data / "banking77"
        data = [banking / "fewshot_10.csv", "--text", "text", "--label", "label", "--test", banking / "test.csv"]
    bench.fit(f"served-{method}", [*data, "--methods", method, "--model", SERVED[method]], "1m" if bench.smoke else "10m")
    return bench.out / f"fit-served-{method}" / "package"


def ours(bench, directory):
    """A server of the package; ready when it answers."""
    return Server([bench.build / "bin" / "tailor", "serve", directory, "--port", PORT, "--data", bench.out / "serve-data"], PORT,
                  bench.out / "serve-labels.log")


def posted(bench, port, path, bodies, name, connections=CONNECTIONS):
    """Rate and latency of these bodies, and the answers in their order."""
    asked = bench.lines(f"{name}.jsonl", [json.dumps(body) for body in bodies])
    told = bench.out / f"{name}-answers.jsonl"
    line = bench.run([bench.program("post_load"), port, "--path", path, "--bodies", asked, "--connections", connections, "--answers", told], quiet=True)
    result = json.loads(line)
    print(f"  {name}, {connections} connections: {result['requests_per_second']:.1f} requests/s; p50 {result['p50_ms']:.0f} ms, p99 {result['p99_ms']:.0f} ms",
          flush=True)
    return result, [json.loads(answer) for answer in told.read_text().splitlines()]


class Prompt:
    """The package's prompt as text, and its labels as they stand behind it (src/prompt/template.h)."""

    def __init__(self, directory):
        saved = json.loads((directory / "prompt.json").read_text())
        self.template, self.labels = saved["prompt"], saved["labels"]
        if self.template["chat"] or saved["demonstration_choice"] != "none" or not self.template["instruction"]:
            raise Failed("the package's prompt is not one that this program writes")
        if saved["calibration"]["bias"]:
            print("  (the package's scores are calibrated, which constrained decoding cannot be)")
        self.calibrated = bool(saved["calibration"]["bias"])
        readable = [label.replace("_", " ") for label in self.labels]
        begun = any(a != b and b.startswith(a) for a in readable for b in readable)
        self.end = "\n" if begun else ""  # so that a label which begins another can end
        self.of_text = dict(zip(readable, self.labels))

    def text(self, message):
        t, opening = self.template, self.template["instruction"]
        if t["list_labels"]:
            opening += f"\n{t['label_name']}s: " + "; ".join(self.of_text)
        return f"{opening}\n{t['message_name']}: {message}\n{t['label_name']}:"

    def grammar(self):
        return "root ::= " + " | ".join(json.dumps(" " + text + self.end, ensure_ascii=False) for text in self.of_text)


def asked_texts(bench):
    return [" ".join(text.split()) for text, _ in bench.rows("test")][:: 1 if bench.smoke else 10][: 8 if bench.smoke else 300]


def beside_llama_server(bench, directory):
    """A package's labels over HTTP, 16 connections; peer: llama-server, greedy under a grammar of the labels, the same file and prompts."""
    texts, prompt = asked_texts(bench), Prompt(directory)
    with ours(bench, directory):
        alone, labels = posted(bench, PORT, "/v1/classify", [{"input": text, "label_only": True} for text in texts], "label-only")
        _, whole = posted(bench, PORT, "/v1/classify", [{"input": text} for text in texts], "all-labels")
    label = lambda answer: answer["data"][0]["label"]
    same = sum(label(a) == label(b) for a, b in zip(labels, whole))
    print(f"  => the same label as full scores: {same} of {len(texts)}", flush=True)
    if bench.smoke:
        return
    peers = []
    base = {"n_predict": 32, "temperature": 0, "cache_prompt": True, "grammar": prompt.grammar()}
    bodies = [{**base, "prompt": prompt.text(text)} for text in texts]
    model = next(file for file in (directory / "tuned.gguf", directory / "base.gguf") if file.exists())
    for more in ((), ("--kv-unified",), ("-fa", "off")):
        with llama(bench, model, CONNECTIONS, ("-c", str(CONNECTIONS * 1024), *more)) as server:
            peers.append(posted(bench, server.port, "/completion", bodies, "llama-server" + "".join(more)))
    rate, answers = max(peers, key=lambda p: p[0]["requests_per_second"])
    said = [prompt.of_text.get(answer["content"].strip()) for answer in answers]
    agree = sum(a == label(b) for a, b in zip(said, whole))
    print(f"  => llama-server's best says the label of full scores for {agree} of {len(texts)}", flush=True)
    print(f"  => {alone['requests_per_second'] / rate['requests_per_second']:.2f} x llama-server's best requests/s", flush=True)


def labels_served(bench):
    """Labels of an untuned decoder over HTTP beside llama-server's constrained decoding."""
    beside_llama_server(bench, package(bench, "zero-shot"))


def labels_tuned(bench):
    """The same of a tuned decoder, kept in f16 and in Q4_0."""
    with open(bench.data / "banking77" / "test.csv", newline="", encoding="utf-8") as file:
        few = bench.lines("tuned-test.csv", [line.rstrip("\n") for line in file][:101])  # its score is not what this is about
    data = [bench.data / "banking77" / "fewshot_10.csv", "--text", "text", "--label", "label", "--test", few]
    for kind in ("f16", "q4_0"):
        out = bench.out / f"tuned-{kind}"
        if not (out / "result.json").exists():
            command = ["--resume", out] if (out / "run.json").exists() else [*data, "--model", SMOLLM2, "--method", "lora", "--epochs", "2", "--quantize", kind, "--out", out]
            bench.run([bench.build / "bin" / "tailor", "tune", *command, "--quiet"], quiet=True)
        print(f"  {kind}:", flush=True)
        beside_llama_server(bench, out / "package")


def embed_served(bench):
    """Labels of a MiniLM-based package over HTTP, a text a request, beside embedding the same texts offline on the same cores."""
    directory = package(bench, "features")
    texts = [" ".join(text.split()) for text, _ in bench.rows("test")]
    file = bench.lines("embed-served.txt", texts)
    offline = json.loads(bench.run([bench.program("embed_texts"), "--model", directory / "base.gguf", "--texts", file, "--threads", THREADS,
                                    "--repeats", "1" if bench.smoke else "3"]))
    rate = offline["texts"] / offline["wall_seconds"]
    best = None
    with ours(bench, directory):
        for connections in (4,) if bench.smoke else (8, 16, 32, 64):
            result, _ = posted(bench, PORT, "/v1/classify", [{"input": text, "probabilities": False} for text in texts], "embed-served", connections)
            if result["p99_ms"] <= 100 and (best is None or result["requests_per_second"] > best["requests_per_second"]):
                best = result
    if best is None:
        print("  => no number of connections had p99 within 100 ms", flush=True)
        return
    print(f"  => {best['requests_per_second'] / rate:.2f} x the offline rate of {rate:.0f} texts/s, at {best['connections']} connections, "
          f"p99 {best['p99_ms']:.0f} ms", flush=True)


PARTS = {"labels-served": labels_served, "labels-tuned": labels_tuned, "embed-served": embed_served}
