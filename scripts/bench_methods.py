"""Parts of scripts/bench.py about what tuning reaches: tags and tickets on real data, rates and ranking of the methods.

Every choice (rate, number of steps) is made on validation rows; test rows are scored once, by the run that was chosen.
"""
import csv
import json
import random
import shutil
import statistics

# Orders as published. Of methods that an encoder has, too: means of WikiSQL and MNLI-m (GPT-3, Hu et al. 2021, table 4, the larger
# sizes). Of a decoder: PEFT's own comparison (MetaMathQA to GSM8K, Llama-3.2-3B), each method at its best rate there.
PUBLISHED_ENCODER = {"lora": 82.8, "adapter-houlsby": 82.35, "full": 81.65, "bitfit": 81.15}
PUBLISHED_DECODER = {"lora": 47.8, "full": 47.2, "ia3": 45.5, "prefix-tuning": 41.6, "p-tuning": 35.0, "prompt-tuning": 34.3}
DECODER_RATES = {"lora": 1e-3, "full": 1e-4, "ia3": 1e-2, "prefix-tuning": 1e-2, "p-tuning": 1e-3, "prompt-tuning": 3e-2}
ENCODER_METHODS = ["full", "upper-layers", "head", "bitfit", "layernorm", "lora", "rslora", "dora", "lora-plus", "pissa", "ia3",
                   "adapter-houlsby", "adapter-pfeiffer", "adapter-parallel", "contrastive"]
FIRST_RATES = {"full": 2e-4, "upper-layers": 2e-4, "head": 1e-3, "bitfit": 5e-3, "layernorm": 5e-3, "lora": 1e-3, "rslora": 1e-3, "dora": 1e-3,
               "lora-plus": 2.5e-4, "pissa": 2e-4, "ia3": 5e-3, "adapter-houlsby": 2e-3, "adapter-pfeiffer": 2e-3, "adapter-parallel": 1e-3,
               "contrastive": 5e-5}  # of src/fit/tuned_search.cpp


def tuned(bench, name, arguments, threads=None):
    """result.json of a run of `tailor tune`. A finished one is not run again."""
    out = bench.out / name
    if not (out / "result.json").exists():
        shutil.rmtree(out, ignore_errors=True)
        limit = ["--threads", threads] if threads else []
        bench.run([bench.build / "bin" / "tailor", "tune", *arguments, *limit, "--out", out, "--quiet"], quiet=True)
    return json.loads((out / "result.json").read_text())


def reached(result):
    """The metric of the best evaluation."""
    return max((e[result["metric"]] for e in result["evaluations"]), default=float("nan"))


def best_of(bench, name, arguments, rates, threads=None):
    """The run whose rate is best on validation rows, and its rate."""
    runs = [(tuned(bench, f"{name}-{rate:g}", [*arguments, "--learning-rate", f"{rate:g}"], threads), rate) for rate in rates]
    for result, rate in runs:
        print(f"  {name} rate {rate:g}: {result['metric']} {reached(result):.4f} on validation rows, best at step {result['best_step']} of {result['total_steps']}",
              flush=True)
    return max(runs, key=lambda run: reached(run[0]))


def interval(metric):
    return f"{metric['value']:.4f} ({metric['low']:.4f} to {metric['high']:.4f})" if "low" in metric else f"{metric['value']:.4f}"


def tags(bench, threads=None):
    """Entities of WNUT-17 and slots of SNIPS by all-minilm-l6-v2, method full; F1 of spans as seqeval counts them."""
    for name, published, epochs in (("ner_wnut17", "best of the shared task 0.419, RoBERTa-base 0.55", 6), ("snips", "BERT 0.969", 3)):
        directory = bench.data / name
        arguments = [directory / "train.jsonl", "--test", directory / "test.jsonl", "--task", "token-classification", "--method", "full",
                     "--epochs", epochs, *(["--validation", directory / "val.jsonl"] if (directory / "val.jsonl").exists() else [])]
        result = tuned(bench, f"tags-{name}", arguments, threads)
        metrics, served = result["test"]["metrics"], result["served"]
        print(f"  => {name}: F1 {interval(metrics['f1'])}, precision {metrics['precision']['value']:.4f}, recall {metrics['recall']['value']:.4f} on "
              f"{result['test']['n_scored']} test texts, best at step {result['best_step']} of {result['total_steps']}; served: {served['same_tags']} of {served['words']} tags the same; published: {published}")


def tickets_of_snips(bench, rows):
    """Commands as conversations that are answered with one JSON object: the intent, and the slots by name."""
    paths = {}
    for part, most in (("train", rows), ("test", 200)):
        lines = (bench.data / "snips" / f"{part}.jsonl").read_text(encoding="utf-8").splitlines()
        random.Random(1).shuffle(lines)
        path = paths[part] = bench.out / f"snips-{part}-{most}.jsonl"
        with open(path, "w", encoding="utf-8") as file:
            for line in lines[:most]:
                row = json.loads(line)
                answer = {"intent": row["label"], **{s["label"]: row["text"][s["start"]:s["end"]] for s in row["spans"]}}
                turns = [("system", "Answer with one JSON object: the intent, and each slot by its name."), ("user", row["text"]),
                         ("assistant", json.dumps(answer, ensure_ascii=False))]
                file.write(json.dumps({"messages": [{"role": r, "content": c} for r, c in turns]}, ensure_ascii=False) + "\n")
    return paths


def chat(bench, threads=None):
    """SmolLM2-135M taught to answer commands with JSON (SNIPS, 1,500 rows, LoRA): loss, and form of 48 answers, before and after."""
    files = tickets_of_snips(bench, 1500)
    result = tuned(bench, "chat-snips", [files["train"], "--test", files["test"], "--method", "lora", "--epochs", "2", "--answers", "48"], threads)
    for when in ("untouched", "served"):
        answers = result[when]["answers"]
        print(f"  {when}: loss {result[when]['loss']:.4f} a token; of {answers['n']} answers {answers['valid_json']:.3f} valid JSON, {answers['exact']:.3f} exact, "
              f"{answers['ended']:.3f} ended, Rouge-L {answers['rouge_l']:.3f}")
    print(f"  => {result['examples']} examples in {result['wall_seconds']:.0f} s; losses of package and trainer at most {result['served']['largest_difference']:.4f} apart")


def read_rows(path):
    """(text, label) of a file."""
    with open(path, newline="", encoding="utf-8") as file:
        return [(row["text"], row["label"]) for row in csv.DictReader(file)]


def write_rows(path, rows):
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("text", "label"), *rows])
    return path


def by_label(path):
    """The texts of each label, in the order of the file."""
    texts = {}
    for text, label in read_rows(path):
        texts.setdefault(label, []).append(text)
    return texts


def sample(bench, rows, seed):
    """Rows of Banking77's training file, as many of each class as there are room for."""
    found = by_label(bench.data / "banking77" / "train.csv")
    draw = random.Random(seed)
    for texts in found.values():
        draw.shuffle(texts)
    order = [(text, label) for i in range(max(map(len, found.values()))) for label, texts in sorted(found.items()) for text in texts[i:i + 1]]
    return write_rows(bench.out / f"banking77-{rows}-{seed}.csv", order[:rows])


def rates(bench, threads=None, methods=None, epochs=2):
    """Validation accuracy after two epochs on 2,000 rows of Banking77 at a third of, at and at three times each method's first rate."""
    data = sample(bench, 2000, 0)
    print(f"  {'method':<18}{'first rate':>12}{'a third':>10}{'first':>10}{'three times':>13}")
    for method in methods or ENCODER_METHODS:
        found = []
        for times in (1 / 3, 1, 3):
            rate = FIRST_RATES[method] * times
            result = tuned(bench, f"rates-{method}-{times:.2f}", [data, "--text", "text", "--label", "label", "--method", method, "--learning-rate", f"{rate:g}",
                                                                  "--epochs", epochs, "--test-fraction", "0.01"], threads)
            found.append(reached(result))
        print(f"  {method:<18}{FIRST_RATES[method]:>12g}{found[0]:>10.4f}{found[1]:>10.4f}{found[2]:>13.4f}", flush=True)


def spearman(a, b):
    def ranks(values):
        return [1 + sum(w < v for w in values) + (sum(w == v for w in values) - 1) / 2 for v in values]
    x, y = ranks(a), ranks(b)
    mx, my = statistics.mean(x), statistics.mean(y)
    up = sum((p - mx) * (q - my) for p, q in zip(x, y))
    down = (sum((p - mx) ** 2 for p in x) * sum((q - my) ** 2 for q in y)) ** 0.5
    return up / down if down else float("nan")


def ranking(bench, threads=None, seeds=(1, 2, 3), suites=("banking77", "snips", "snips-decoder")):
    """Methods with a published order, few rows; the rate by the first seed's validation rows; test accuracy.

    banking77, snips    an encoder on 770 rows of Banking77 and 140 of SNIPS' intents, four epochs, all test rows
    snips-decoder       SmolLM2 on the same 140 rows, four epochs, 150 rows to choose the rate by, 300 test rows
    """
    for suite in suites:
        name, decoder = suite.removesuffix("-decoder"), suite.endswith("-decoder")
        train = bench.data / "banking77" / "fewshot_10.csv" if name == "banking77" else few(bench, name, 140)
        test = some(bench, bench.data / name / "test.csv", 300) if decoder else bench.data / name / "test.csv"
        published, rates_of = (PUBLISHED_DECODER, DECODER_RATES) if decoder else (PUBLISHED_ENCODER, FIRST_RATES)
        found = {}
        for method in published:
            def arguments(seed):
                kind = ["--model", "smollm2-135m-instruct", "--evaluate-every-epochs", 4] if decoder else []
                return [train, "--text", "text", "--label", "label", "--test", test, "--method", method, "--epochs", 4, "--seed", seed, *kind,
                        "--validation", held_out(bench, name, seed, 150 if decoder else 500)]
            run = f"ranking-{suite}-{method}"
            result, rate = best_of(bench, f"{run}-{seeds[0]}", arguments(seeds[0]), [rates_of[method] * t for t in (1 / 3, 1, 3)], threads)
            results = [result, *(tuned(bench, f"{run}-{seed}", [*arguments(seed), "--learning-rate", f"{rate:g}"], threads) for seed in seeds[1:])]
            found[method] = [100 * r["test"]["metrics"]["accuracy"]["value"] for r in results]
            spread = statistics.stdev(found[method]) if len(seeds) > 1 else 0.0
            print(f"  {suite} {method:<18} rate {rate:g}: {statistics.mean(found[method]):.2f} +- {spread:.2f} % ({', '.join(f'{x:.2f}' for x in found[method])}); "
                  f"95 % interval of the first seed {interval(results[0]['test']['metrics']['accuracy'])}", flush=True)
        rho = spearman([statistics.mean(found[m]) for m in published], list(published.values()))
        print(f"  => {suite}: Spearman's correlation with the published order {' > '.join(published)}: {rho:.2f}")


def some(bench, file, rows):
    """Rows of a file, drawn."""
    return write_rows(bench.out / f"{file.parent.name}-{file.stem}-{rows}.csv", random.Random(1).sample(read_rows(file), rows))


def few(bench, name, rows):
    """A small training file: the same number of rows of each class."""
    found = by_label(bench.data / name / "train.csv")
    return write_rows(bench.out / f"{name}-few.csv", [(text, label) for label, texts in sorted(found.items()) for text in texts[:rows // len(found)]])


def held_out(bench, name, seed, rows):
    """Rows of the full training file that the small one does not hold, to choose rates by."""
    small = bench.data / name / "fewshot_10.csv" if name == "banking77" else bench.out / f"{name}-few.csv"
    used = {text for text, _ in read_rows(small)}
    rest = [row for row in read_rows(bench.data / name / "train.csv") if row[0] not in used]
    return write_rows(bench.out / f"{name}-held-out-{seed}-{rows}.csv", random.Random(seed).sample(rest, rows))


PARTS = {"tags": tags, "chat": chat, "rates": rates, "ranking": ranking}
