"""The figures of docs/BENCHMARKS.md: ours and the peer's, one after the other on the same inputs, with CPU seconds.

    make bench DATA=../shared/data [PARTS="embed score tune-decoder tune-encoder fit few-shot spam long quality"]
    python3 scripts/bench.py --smoke      every program once on a few rows of the example; says nothing about speed
"""
import argparse
import csv
import json
import os
import platform
import re
import shutil
import statistics
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


def train(bench, name, sort, method, steps, peer_steps, rows, batch, peer_method=None, **settings):
    """A training by tailor-tune and by the peer on the same rows in the same order; their figures, examples a CPU-second."""
    program, peer = bench.build / "bin" / "tailor-tune", PEERS / "tune.py"
    if not program.exists():
        raise Skipped("tailor-tune is not built")
    if bench.smoke:
        raise Skipped("its rows are made by the peer's tokenizer (`make peers`, then `make bench`)")
    encoder = sort == "encoder"
    model, base = (MINILM, MINILM) if encoder else (SMOLLM2.parent, SMOLLM2)
    tokens, out = bench.out / f"{sort}-{rows}.safetensors", bench.out / name
    if not tokens.exists():
        bench.run([bench.python, peer, "tokens", sort, bench.data / "banking77", model, tokens, rows])
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    rate = 2e-4 if "lora" in method else 2e-5
    heads = {"head_learning_rate": rate, "dropout": 0} if encoder else {}
    job = {"format": "tailor-tune-job", "version": 1, "method": method, "task": "sequence-classification" if encoder else "causal-lm-labels",
           "base": str(base), "tokens": str(tokens), "out": str(out), "seed": 0, "threads": int(THREADS), "evaluate_every_epochs": 0,
           "settings": {"max_steps": steps, "batch_size": batch, "learning_rate": rate, "schedule": "constant", "warmup_ratio": 0,
                        "weight_decay": 0.01, **heads, **settings}}
    (out / "job.json").write_text(json.dumps(job, indent=1))
    bench.run([program, out / "job.json"], quiet=True)
    ours = json.loads((out / "result.json").read_text())
    theirs = json.loads(bench.run([bench.python, peer, "train", peer_method or method, model, tokens, peer_steps, batch, THREADS], quiet=True))
    speed = ours["examples"] / ours["process_cpu_seconds" if method == "head" else "cpu_seconds"]
    apart = max(abs(a - b) for a, b in zip(ours["losses"], theirs["losses"]))
    print(f"  {name}: {speed:.2f} examples a CPU second, {ours['peak_memory_bytes'] / 2**20:.0f} MB; peer {theirs['examples_per_cpu_second']:.2f}, "
          f"{theirs['peak_mb']:.0f} MB => {speed / theirs['examples_per_cpu_second']:.2f} x, {ours['peak_memory_bytes'] / 2**20 / theirs['peak_mb']:.2f} "
          f"of the memory; losses at most {apart:.1e} apart", flush=True)


def tune_decoder(bench):
    """Tuning SmolLM2-135M on Banking77 prompts, batch 8; peer: transformers + PEFT."""
    train(bench, "decoder-lora", "decoder", "lora", 40, 14, 1200, 8)
    train(bench, "decoder-qlora", "decoder", "qlora", 40, 14, 1200, 8, peer_method="lora")
    train(bench, "decoder-full", "decoder", "full", 20, 12, 1200, 8)
    train(bench, "decoder-upper-layers", "decoder", "upper-layers", 120, 12, 320, 8)  # three epochs


def tune_encoder(bench):
    """Tuning MiniLM on Banking77, batch 32; peer: transformers."""
    train(bench, "encoder-full", "encoder", "full", 60, 40, 10000, 32)
    train(bench, "encoder-lora", "encoder", "lora", 60, 40, 10000, 32)
    train(bench, "encoder-upper-layers", "encoder", "upper-layers", 252, 40, 2000, 32)  # four epochs
    train(bench, "encoder-head", "encoder", "head", 9390, 40, 10000, 32)  # thirty epochs, the method's default


ESTIMATED = [("all-minilm-l6-v2", method, batch, []) for method in ("full", "lora", "contrastive") for batch in (8, 32, 128)] + [
    ("all-minilm-l6-v2", method, 32, []) for method in ("dora", "bitfit", "ia3", "upper-layers", "adapter-houlsby", "head")] + [
    ("smollm2-135m-instruct", "lora", batch, []) for batch in (1, 4, 8, 16)] + [
    ("smollm2-135m-instruct", "lora", 16, ["--set", "micro_batch_tokens=160"]), ("smollm2-135m-instruct", "lora", 8, ["--lora-r", "64"])] + [
    ("smollm2-135m-instruct", method, 8, []) for method in
    ("qlora", "dora", "pissa", "full", "upper-layers", "layernorm", "ia3", "adapter-pfeiffer", "prompt-tuning", "prefix-tuning")]


def tune_estimates(bench):
    """What tailor-tune says of memory before the first step and of time after ten, beside what it takes."""
    with open(bench.data / "banking77" / "train.csv", newline="") as file:
        rows = [(row["text"], row["label"]) for row in csv.DictReader(file)]
    names = sorted({label for _, label in rows})
    few = [row for row in rows if row[1] in names[:8]][:240]
    off = []
    for model, method, batch, more in ESTIMATED:
        if bench.smoke and (method, batch) != ("lora", 8):
            continue
        train = bench.out / ("estimates-few.csv" if "smollm2" in model else "estimates.csv")
        with open(train, "w", newline="") as file:
            csv.writer(file).writerows([("text", "label"), *(few if "smollm2" in model else rows[::3])])
        out = bench.out / "estimates"
        shutil.rmtree(out, ignore_errors=True)
        bench.run([bench.build / "bin" / "tailor", "tune", train, "--text", "text", "--label", "label", "--method", method, "--model", model,
                   "--batch-size", batch, "--max-steps", 24 if "smollm2" in model else 60, "--threads", THREADS, "--out", out, "--quiet", *more], quiet=True)
        result = json.loads((out / "result.json").read_text())
        said = result["estimates"]
        memory = said["peak_memory_bytes"] / result["peak_memory_bytes"] - 1
        time = said["training_seconds"] / result["wall_seconds"] - 1
        off.append((memory, time))
        print(f"  {model} {method} batch {batch} {' '.join(more)}: {result['peak_memory_bytes'] / 2**20:.0f} MB, said {memory:+.1%}; "
              f"{result['wall_seconds']:.1f} s, said {time:+.1%}", flush=True)
    print(f"  {len(off)} trainings: memory {min(m for m, _ in off):+.1%} to {max(m for m, _ in off):+.1%}, "
          f"time {min(t for _, t in off):+.1%} to {max(t for _, t in off):+.1%}")


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


# What `tailor tune` reaches: the data file and what is said beside it (docs/methods/ recommends it).
QUALITY = {
    "5 rows a class": ("fewshot_5.csv", ["--method", "contrastive"]),
    "10 rows a class": ("fewshot_10.csv", ["--method", "contrastive"]),
    "all rows": ("train.csv", ["--method", "full", "--epochs", "10", "--hidden-dropout", "0.1", "--ema-decay", "0.999", "--refit"]),
}


def quality(bench):
    """`tailor tune` on Banking77 with 5, 10 and all rows a class: test accuracy, mean and deviation of three seeds."""
    for title, (train, options) in QUALITY.items():
        found, seconds = [], []
        for seed in (1, 2, 3):
            out = bench.out / f"quality-{Path(train).stem}-{seed}"
            if not (out / "result.json").exists():
                command = ["--resume", out] if (out / "run.json").exists() else [*banking(bench, train), *options, "--seed", str(seed), "--out", out]
                bench.run([bench.build / "bin" / "tailor", "tune", *command, "--quiet"], quiet=True)
            result = json.loads((out / "result.json").read_text())
            found.append(100 * result["test"]["metrics"]["accuracy"]["value"])
            seconds.append(result["cpu_seconds"] + result.get("refit", {}).get("cpu_seconds", 0))
            print(f"  {title}, seed {seed}: {found[-1]:.2f} %, {seconds[-1]:.0f} CPU seconds of training, {result['elapsed_seconds']:.0f} s in all", flush=True)
        print(f"  => {title}: {statistics.mean(found):.2f} +- {statistics.stdev(found):.2f} %, {statistics.mean(seconds):.0f} CPU seconds", flush=True)


PARTS = {"embed": embed, "score": score, "tune-decoder": tune_decoder, "tune-encoder": tune_encoder, "tune-estimates": tune_estimates, "fit": fit, "few-shot": few_shot, "spam": spam, "long": long, "quality": quality}
SMOKE = ("embed", "score", "tune-decoder", "fit")


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
