"""The figures of docs/BENCHMARKS.md: ours and the peer's, one after the other on the same inputs, with CPU seconds.

    make bench DATA=../shared/data [PARTS="embed score lora fit few-shot spam long"]
    python3 scripts/bench.py --smoke      every program once on a few rows of the example; says nothing about speed
"""
import argparse
import csv
import json
import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

TREE = Path(__file__).resolve().parents[1]
CACHE = Path(os.environ.get("TAILOR_CACHE") or Path.home() / ".cache" / "tailor")
MODELS = Path(os.environ.get("TAILOR_MODELS_DIR") or CACHE / "deps" / "models")
MINILM, SMOLLM2 = MODELS / "all-minilm-l6-v2", MODELS / "smollm2-135m-instruct" / "SmolLM2-135M-Instruct.Q4_1.gguf"
PEERS = TREE / "benchmarks" / "peers"
THREADS = str(len(os.sched_getaffinity(0)))


class Failed(Exception):
    pass


class Skipped(Exception):
    pass


class Bench:
    def __init__(self, arguments):
        self.build, self.data, self.smoke = arguments.build, arguments.data, arguments.smoke
        # By commit: an interrupted benchmark goes on, and figures of another version are not taken for this one's.
        self.out = TREE / "build" / ("bench-smoke" if self.smoke else f"bench-{commit()}")
        if self.smoke:
            shutil.rmtree(self.out, ignore_errors=True)
        self.out.mkdir(parents=True, exist_ok=True)
        self.python = CACHE / "peers" / "bin" / "python"

    def run(self, command, quiet=False):
        """Runs a command, shown as one would type it; its last line of output."""
        return self.output(command, quiet)[-1]

    def output(self, command, quiet=False):
        """The same; all lines of output."""
        print("$ " + " ".join(str(c).replace(str(TREE) + "/", "") for c in command), flush=True)
        done = subprocess.run([str(c) for c in command], stdout=subprocess.PIPE, text=True, cwd=TREE, check=False)
        if done.returncode != 0:
            raise Failed(f"{Path(str(command[0])).name} ended with {done.returncode}")
        lines = done.stdout.strip().splitlines() or [""]
        if not quiet:
            print("  " + lines[-1], flush=True)
        return lines

    def peer(self, command):
        """The same of a peer; None in a smoke run, which has none."""
        return None if self.smoke else self.run([self.python, *command])

    def program(self, name):
        path = self.build / "benchmarks" / f"bench_{name}"
        if not path.exists():
            raise Skipped(f"bench_{name} is not built")
        return path

    def rows(self, part="train"):
        """(text, label) of Banking77, or of the example in a smoke run."""
        source, text, label = (TREE / "examples/estate-agency/inquiries.csv", "message", "intent") if self.smoke else \
            (self.data / "banking77" / f"{part}.csv", "text", "label")
        with open(source, newline="", encoding="utf-8") as file:
            rows = [(" ".join(r[text].split()), r[label]) for r in csv.DictReader(file)]
        return rows[:24] if self.smoke else rows

    def lines(self, name, values):
        path = self.out / name
        path.write_text("".join(v + "\n" for v in values), encoding="utf-8")
        return path

    def fit(self, name, arguments, budget, seed=0):
        """A run of `tailor fit`; its result.json. A finished one is not run again."""
        out = self.out / f"fit-{name}"
        if not (out / "result.json").exists():
            resume = (out / "run.json").exists()
            command = ["--resume", out] if resume else [*arguments, "--budget", budget, "--seed", str(seed), "--out", out]
            self.run([self.build / "bin" / "tailor", "fit", *command, "--quiet"], quiet=True)
        return json.loads((out / "result.json").read_text())

    def imported(self, stem, suffix):
        """A model as `fit` imported it into the cache."""
        found = sorted((CACHE / "imported").glob(f"{stem}-*-{suffix}.gguf"))
        if not found:
            raise Failed(f"no {stem} in {CACHE / 'imported'}: `tailor fit` has not imported it")
        return found[-1]

    def import_models(self):
        example = [TREE / "examples/estate-agency/inquiries.csv", "--text", "message", "--label", "intent"]
        self.fit("import", [*example, "--method", "features" if self.smoke else "features,zero-shot"], "1m" if self.smoke else "4m")


def ratio(ours, peers, key):
    if peers is not None:
        a, b = json.loads(ours)[key], json.loads(peers)[key]
        print(f"  => {a / b:.2f} x the peer's {key.replace('_', ' ')}")


def embed(bench):
    """Texts embedded per CPU-second; peer: sentence-transformers. Threads: 1."""
    texts = bench.lines("embed.txt", [t for t, _ in bench.rows()][:2000])
    vectors = bench.out / "vectors.f32"
    ours = bench.run([bench.program("embed_texts"), "--model", bench.imported("all-minilm-l6-v2", "f16"), "--texts", texts, "--threads", "1",
                      "--repeats", "1" if bench.smoke else "3", "--vectors", vectors])
    ratio(ours, bench.peer([PEERS / "embed_texts.py", "--model", MINILM, "--texts", texts, "--threads", "1", "--compare", vectors]),
          "texts_per_cpu_second")


def score(bench):
    """Messages per CPU-second, all labels scored; peer: prompt plus label once per label in transformers, F32, batch 16."""
    rows = bench.rows("test")[::10]
    texts, truth = bench.lines("score.txt", [t for t, _ in rows]), bench.lines("score-truth.txt", [label for _, label in rows])
    labels = bench.out / "labels.json"
    labels.write_text(json.dumps(sorted({label for _, label in bench.rows()})))
    model = SMOLLM2 if bench.smoke else bench.imported(SMOLLM2.stem, "f16")
    ours = [bench.program("score_labels"), "--model", model, "--labels", labels, "--texts", texts, "--truth", truth, "--limit", "3" if bench.smoke else "300", "--threads", THREADS]
    whole = bench.run(ours)
    best = bench.run([*ours, "--best"])
    a, b = (json.loads(x)["examples_per_cpu_second"] for x in (best, whole))
    print(f"  => best label alone: {a / b:.2f} x all labels")
    ratio(whole, bench.peer([PEERS / "score_labels.py", "--model", SMOLLM2.parent, "--gguf", SMOLLM2.name, "--labels", labels, "--texts", texts,
                             "--limit", "4", "--threads", THREADS]), "examples_per_cpu_second")


def lora(bench):
    """LoRA training of the decoder, examples per CPU-second; peer: PEFT on the same rows from the same start."""
    program = bench.program("tune_decoder_lora")
    if bench.smoke:
        raise Skipped("its rows are made by the peer's tokenizer (`make peers`, then `make bench`)")
    tokens, peer = bench.out / "rows.safetensors", TREE / "benchmarks" / "tune_decoder_tokens.py"
    bench.run([bench.python, peer, "tokens", bench.data / "banking77", SMOLLM2.parent, tokens, "400"])
    ours = bench.output([program, SMOLLM2, tokens, "14", THREADS])
    peers = bench.output([bench.python, peer, "peft", bench.data / "banking77", SMOLLM2.parent, "14", THREADS])
    losses, speeds = zip(*(([float(line.split()[3]) for line in lines if line.startswith("step ")],
                            float(re.search(r"([\d.]+) examples/CPU-s", lines[-1])[1])) for lines in (ours, peers)))
    if len(losses[0]) != len(losses[1]):
        raise Failed(f"{len(losses[0])} steps against {len(losses[1])}")
    print(f"  => {speeds[0] / speeds[1]:.2f} x the peer's examples per cpu second; "
          f"losses of {len(losses[0])} steps at most {max(abs(a - b) for a, b in zip(*losses)):.1e} apart")


def show(result):
    for t in result["trials"]:
        metrics = t.get("metrics") or {}
        score_text = f"accuracy {metrics['accuracy']['value']:.4f}  macro-F1 {metrics['macro_f1']['value']:.4f}" if metrics else t.get("reason", "")
        print(f"  {t['method']:<24} {t.get('base_model') or '-':<26} {t['status']:<8} {score_text}  {t.get('train_seconds') or 0:.0f} s, "
              f"{(t.get('cpu_seconds') or 0):.0f} CPU-s, {(t.get('peak_memory_bytes') or 0) / 1e9:.2f} GB")
    print(f"  => {result['recommended']['method']}; {result['elapsed_seconds']:.0f} s of {result['budget_seconds']:.0f} s budget; "
          f"peak {max(t.get('peak_memory_bytes') or 0 for t in result['trials']) / 1e9:.2f} GB", flush=True)


def recommended_accuracy(result):
    chosen = next(t for t in result["trials"] if t["method"] == result["recommended"]["method"] and
                  t.get("base_model") == result["recommended"].get("base_model"))
    return chosen["metrics"]["accuracy"]["value"]


def banking(bench, train="train.csv"):
    directory = bench.data / "banking77"
    return [directory / train, "--text", "text", "--label", "label", "--test", directory / "test.csv"]


def fit(bench):
    """`tailor fit` on Banking77 with 20 minutes, three seeds (a smoke run: on the example, one method)."""
    if bench.smoke:
        return show(bench.fit("import", [], ""))
    found = []
    for seed in range(3):
        result = bench.fit(f"banking77-20m-{seed}", banking(bench), "20m", seed)
        show(result)
        found.append(recommended_accuracy(result))
    print(f"  => recommended candidate, mean of 3 seeds: accuracy {sum(found) / 3:.4f}")


def few_shot(bench):
    """`tailor fit` on Banking77's lists of 10 and 5 rows a class."""
    for name in ("fewshot_10", "fewshot_5"):
        show(bench.fit(name, banking(bench, name + ".csv"), "20m"))


def spam(bench):
    """`tailor fit` on SMS spam."""
    directory = bench.data / "sms_spam"
    with open(directory / "train.csv", newline="", encoding="utf-8") as file:
        names = next(csv.reader(file))
    label = "label" if "label" in names else names[-1]
    text = next(n for n in names if n != label)
    show(bench.fit("sms_spam", [directory / "train.csv", "--text", text, "--label", label, "--test", directory / "test.csv"], "20m"))


def long(bench):
    """`tailor fit` on Banking77 with 90 minutes: every candidate must be ok."""
    show(bench.fit("banking77-90m", banking(bench), "90m"))


PARTS = {"embed": embed, "score": score, "lora": lora, "fit": fit, "few-shot": few_shot, "spam": spam, "long": long}
SMOKE = ("embed", "score", "lora", "fit")


def commit():
    command = ["git", "describe", "--always", "--dirty"]
    return subprocess.run(command, cwd=TREE, stdout=subprocess.PIPE, text=True, check=False).stdout.strip() or "unknown"


def machine():
    model = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), platform.machine())
    return f"{model}, {THREADS} cores, {platform.platform()}, commit {commit()}, load {os.getloadavg()[0]:.1f}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=Path, default=TREE / "build" / "release")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--totals", type=Path, help="append 'passed failed skipped' to this file")
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    arguments = parser.parse_args()
    if not arguments.smoke and (arguments.data is None or not (arguments.data / "banking77").is_dir()):
        parser.error("name the directory of the data sets, which holds banking77/ and sms_spam/: make bench DATA=directory")
    unknown = set(arguments.parts) - set(PARTS)
    if unknown:
        parser.error(f"there is no part {unknown.pop()}; there are {', '.join(PARTS)}")
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")

    bench = Bench(arguments)
    if not arguments.smoke and not bench.python.exists():
        parser.error("the peers are not installed: `make peers` does it (about 3 GB)")
    print("machine: " + machine())
    counts = {"passed": 0, "failed": 0, "skipped": 0}
    for name in arguments.parts or (SMOKE if arguments.smoke else PARTS):
        print(f"\n[{name}] {PARTS[name].__doc__}", flush=True)
        try:
            bench.import_models()
            PARTS[name](bench)
            counts["passed"] += 1
        except Skipped as reason:
            counts["skipped"] += 1
            print(f"SKIPPED 1: bench {name}: {reason}")
        except (Failed, OSError, ValueError, KeyError) as error:
            counts["failed"] += 1
            print(f"bench {name} failed: {error!r}", file=sys.stderr)
    if arguments.totals:
        with open(arguments.totals, "a") as file:
            file.write("{passed} {failed} {skipped}\n".format(**counts))
    return 1 if counts["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
