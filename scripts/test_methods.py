"""Every method of `tailor tune` on everything it applies to, a few steps each: python3 scripts/test_methods.py [--keep DIR]

Rows come from the project's own example (examples/estate-agency), cut to what takes seconds; what a method applies to is
asked of the program (`tailor tune --method list`). A cell holds where the run ends well and the package answers as the
trainer did: the same label, tag or answer for at least 99.5 % of the test rows, numbers and losses equal but for the f16
weights. Then `tailor predict` and `tailor generate` must answer as the run recorded. With --keep finished runs are not
repeated, so that an interrupted check goes on.
"""
import argparse
import csv
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import test_totals

TREE = Path(__file__).resolve().parents[1]
EXAMPLE = TREE / "examples" / "estate-agency" / "inquiries.csv"
INTENTS = ("deposit", "property_search", "repair_request", "viewing_change")
ROWS_A_CLASS = 24
SAME = 0.995          # share of test rows that trainer and package answer alike
NUMBERS_APART = 0.02  # of a regression's own unit (standard deviations of the target are near 30 here)
LOSS_APART = 0.02     # nats a token: the package's weights and cache are f16
ENCODER, DECODER = "all-minilm-l6-v2", "smollm2-135m-instruct"
USES = ("labels", "pairs", "several labels", "numbers", "tags", "answers", "decoder labels", "chat")


def words_of(text):
    """Words with tags that follow from their letters: enough to have something to learn."""
    words = re.findall(r"\w+|[^\w\s]", text)[:40]
    return words, ["B-number" if w.isdigit() else "B-name" if w[0].isupper() else "O" for w in words]


def make_data(directory):
    """The files of each use, from the example."""
    kept = {name: [] for name in INTENTS}
    with open(EXAMPLE, newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if row["intent"] in kept and len(kept[row["intent"]]) < ROWS_A_CLASS and len(row["message"]) < 160:
                kept[row["intent"]].append(row["message"])
    rows = [(text, intent) for group in zip(*kept.values()) for text, intent in zip(group, INTENTS)]

    def table(name, header, lines):
        with open(directory / name, "w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([header, *lines])

    def objects(name, lines):
        (directory / name).write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")

    table("labels.csv", ("message", "intent"), rows)
    table("pairs.csv", ("first", "second", "relation"),
          [(a, b, "same" if x == y else "different") for i, (a, x) in enumerate(rows) for b, y in [rows[(i * 4 + i % 3) % len(rows)]]])
    table("several.csv", ("message", "signs"),
          [(text, json.dumps([s for s, there in (("asks", "?" in text), ("counts", any(c.isdigit() for c in text)),
                                                 ("long", len(text) > 80)) if there])) for text, _ in rows])
    table("numbers.csv", ("message", "length"), [(text, len(text)) for text, _ in rows])
    objects("tags.jsonl", [dict(zip(("tokens", "tags"), words_of(text))) for text, _ in rows])
    objects("answers.jsonl", [{"question": "What is the last word?", "context": text,
                               "answers": {"text": [last.group()], "answer_start": [last.start()]}}
                              for text, _ in rows for last in [list(re.finditer(r"\w+", text))[-1]]])
    objects("chat.jsonl", [{"messages": [{"role": "user", "content": text},
                                         {"role": "assistant", "content": json.dumps({"intent": intent})}]} for text, intent in rows])


class Check:
    def __init__(self, tailor, directory, methods):
        self.tailor, self.directory, self.methods = tailor, directory, methods
        self.failed, self.ran = [], 0

    def run(self, arguments):
        done = subprocess.run([self.tailor, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, check=False)
        return done.returncode, done.stdout, done.stderr

    def arguments(self, use):
        d, model = self.directory, DECODER if use in ("decoder labels", "chat") else ENCODER
        return {"labels": [d / "labels.csv", "--text", "message", "--label", "intent"],
                "pairs": [d / "pairs.csv", "--text", "first", "--text-pair", "second", "--label", "relation"],
                "several labels": [d / "several.csv", "--text", "message", "--label", "signs", "--task", "multi-label"],
                "numbers": [d / "numbers.csv", "--text", "message", "--target", "length", "--task", "regression"],
                "tags": [d / "tags.jsonl", "--task", "token-classification"],
                "answers": [d / "answers.jsonl", "--task", "span-extraction"],
                "decoder labels": [d / "labels.csv", "--text", "message", "--label", "intent"],
                "chat": [d / "chat.jsonl", "--answers", "2"]}[use] + ["--model", model]

    def teacher(self, use):
        """A package whose answers `distill` learns: made by another method of the same check."""
        by = {"pairs": "full", "decoder labels": "lora", "chat": "lora"}.get(use)
        if by is None:  # where it is to be refused, any will do
            use, by = "labels", "full"
        return self.directory / "runs" / f"{use.replace(' ', '-')}-{by}" / "package"

    def steps(self, method, use):
        if method == "features":
            return []  # it trains nothing
        return ["--max-steps", "3" if use in ("decoder labels", "chat") else "6"]

    def tune(self, method, use):
        """result.json of the run, or a sentence on what went wrong."""
        out = self.directory / "runs" / f"{use.replace(' ', '-')}-{method}"
        if not (out / "result.json").exists():
            shutil.rmtree(out, ignore_errors=True)
            more = ["--teacher", self.teacher(use)] if method == "distill" else []
            code, _, err = self.run(["tune", *self.arguments(use), "--method", method, *self.steps(method, use), *more, "--out", out, "--quiet"])
            if code != 0:
                return out, err.strip()
        return out, json.loads((out / "result.json").read_text())

    def differs(self, out, result, use):
        """What the package answers in another way than the trainer; empty: nothing."""
        served, n = result["served"], result["served"].get("n_scored", result["test"]["n_scored"])
        if use == "chat":
            if served["largest_difference"] > LOSS_APART:
                return f"losses are {served['largest_difference']:.3f} apart"
            answers = [json.loads(line) for line in (out / "answers.jsonl").read_text().splitlines()]
            code, text, err = self.run(["generate", out / "package", *[a["prompt"][-1]["content"] for a in answers], "--json"])
            if code != 0:
                return err.strip()
            said = [json.loads(line)["text"] for line in text.splitlines()]
            return "" if said == [a["tuned"] for a in answers] else "generate answers in another way"
        if use == "numbers":
            apart = served["largest_difference"]
            return f"numbers are {apart:.3f} apart" if apart > NUMBERS_APART * result["target"]["deviation"] else ""
        key, of = {"tags": ("same_tags", served.get("words")), "answers": ("same_answers", n)}.get(use, ("same_labels", n))
        if served[key] < SAME * of:
            return f"{of - served[key]} of {of} answers differ"
        if use not in ("labels", "decoder labels"):
            return ""
        recorded = [json.loads(line) for line in (out / "test_predictions.jsonl").read_text().splitlines()]
        with open(self.directory / "labels.csv", newline="", encoding="utf-8") as file:
            texts = [row["message"] for row in csv.DictReader(file)]
        code, text, err = self.run(["predict", out / "package", *[texts[row["row"]] for row in recorded[:2]], "--json"])
        if code != 0:
            return err.strip()
        said = [json.loads(line)["label"] for line in text.splitlines() if line.startswith("{")]
        return "" if said == [row["predicted"] for row in recorded[:2]] else "predict answers in another way"

    def cell(self, method, use, applies):
        began = time.monotonic()
        out, result = self.tune(method, use)
        if isinstance(result, str):
            refused = "bias" in result or "tunes" in result or "is for" in result
            if refused and (not applies or (method == "bitfit" and use in ("decoder labels", "chat"))):
                return "refused"
            self.failed.append(f"{method} on {use}: {result[-400:]}")
            return "FAILED"
        if not applies:
            self.failed.append(f"{method} on {use}: was to be refused")
            return "FAILED"
        what = self.differs(out, result, use)
        if what:
            self.failed.append(f"{method} on {use}: {what}")
            return "DIFFERS"
        self.ran += 1
        return f"{time.monotonic() - began:.0f} s"

    def go(self, uses, methods):
        print(f"{'method':<18}" + "".join(f"{use:>16}" for use in uses), flush=True)
        for method in methods or self.methods:
            said = self.methods[method]
            print(f"{method:<18}", end="", flush=True)
            for use in uses:
                decoder = use in ("decoder labels", "chat")
                applies = "decoders" in said if decoder else said.startswith("encoders, any task" if use not in ("labels", "pairs") else "encoders")
                print(f"{self.cell(method, use, applies):>16}", end="", flush=True)
            print(flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=Path, default=TREE / "build" / "release")
    parser.add_argument("--keep", type=Path, help="directory of the runs; finished ones are not repeated")
    parser.add_argument("--totals", type=Path, help="append 'passed failed skipped' to this file")
    parser.add_argument("--uses", default=",".join(USES), help="some of: %(default)s")
    parser.add_argument("methods", nargs="*", metavar="METHOD", help="only these")
    arguments = parser.parse_args()
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    uses = arguments.uses.split(",")
    if set(uses) - set(USES):
        parser.error(f"--uses: {sorted(set(uses) - set(USES))[0]} is none of {', '.join(USES)}")
    tailor = arguments.build / "bin" / "tailor"
    if not (arguments.build / "bin" / "tailor-tune").exists():
        print(f"SKIPPED 1: methods: {arguments.build} has no tailor-tune")
        return 0
    listed = subprocess.run([tailor, "tune", "--method", "list"], stdout=subprocess.PIPE, text=True, check=True).stdout
    methods = {line.split()[0]: line.split(maxsplit=1)[1][:30] for line in listed.splitlines()}
    unknown = set(arguments.methods) - set(methods)
    if unknown:
        parser.error(f"there is no method {unknown.pop()}")
    with tempfile.TemporaryDirectory() as temporary:
        directory = arguments.keep or Path(temporary)
        (directory / "runs").mkdir(parents=True, exist_ok=True)
        make_data(directory)
        check = Check(tailor, directory, methods)
        check.go(uses, arguments.methods)
    for line in check.failed:
        print(f"FAILED {line}")
    print(f"[test] methods: {check.ran} passed, {len(check.failed)} failed")
    test_totals.add(arguments.totals, check.ran, len(check.failed), 0)
    return 1 if check.failed else 0


if __name__ == "__main__":
    sys.exit(main())
