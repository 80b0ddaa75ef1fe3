"""The figures of docs/BENCHMARKS.md: ours and the peer's, one after the other on the same inputs, with CPU seconds.

    make bench DATA=../shared/data [PARTS="embed score tune-decoder …"]    all of them: --help
    python3 scripts/bench.py --smoke      every program once on a few rows of the example; says nothing about speed
"""
import argparse
import csv
import json
import os
import platform
import shutil
import statistics
import sys
from pathlib import Path

import bench_chaos
import bench_methods
import bench_serving
import bench_serving_labels
import test_totals
from bench_base import MINILM, PEERS, SMOLLM2, THREADS, TREE, Bench, Failed, Skipped, commit
from bench_training import estimates, llama_finetune, long_rows, roofline, tokenise, train


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
    bench.import_models()
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


PARTS = {"embed": embed, "score": score, "tune-decoder": tune_decoder, "tune-encoder": tune_encoder, "tune-estimates": estimates,
         "roofline": roofline, "long-rows": long_rows, "llama-finetune": llama_finetune, "tokenise": tokenise,
         "fit": fit, "few-shot": few_shot, "spam": spam, "long": long, "quality": quality, **bench_methods.PARTS,
         "chats": bench_serving.chats, "one-stream": bench_serving.one_stream, "small-requests": bench_serving.small_requests,
         **bench_serving_labels.PARTS, **bench_chaos.PARTS}
SMOKE = ("embed", "score", "tune-decoder", "tokenise", "fit", "chats", "one-stream", "small-requests", "labels-served", "embed-served",
         *bench_chaos.SMOKE)


def machine():
    model = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), platform.machine())
    return f"{model}, {THREADS} cores, {platform.platform()}, commit {commit()}, load {os.getloadavg()[0]:.1f}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=Path, default=TREE / "build" / "release")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--totals", type=Path, help="append 'passed failed skipped' to this file")
    parser.add_argument("--minutes", type=int, default=60, help="of the part soak")
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
            PARTS[name](bench)
            counts["passed"] += 1
        except Skipped as reason:
            counts["skipped"] += 1
            print(f"SKIPPED 1: bench {name}: {reason}")
        except (Failed, OSError, ValueError, KeyError) as error:
            counts["failed"] += 1
            print(f"bench {name} failed: {error!r}", file=sys.stderr)
    test_totals.add(arguments.totals, **counts)
    return 1 if counts["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
