"""Tests on the real data sets, a few minutes each: python3 scripts/test_data.py DATA [--totals FILE]

`fit` with methods that train no network must reach the accuracy known for them, and `predict` on the package must give the
same answers on the test file as the run recorded.
"""
import argparse
import csv
import json
import subprocess
import sys
import tempfile
import time
import unittest
from pathlib import Path

import test_totals

TREE = Path(__file__).resolve().parents[1]
TAILOR = TREE / "build" / "release" / "bin" / "tailor"
DATA = Path()


class RealData(unittest.TestCase):
    def setUp(self):
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.run_directory = Path(temporary.name) / "run"

    def tailor(self, *arguments):
        done = subprocess.run([TAILOR, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
        self.assertEqual(done.returncode, 0, done.stdout[-3000:])
        return done.stdout

    def fit(self, train, test, methods, budget="10m"):
        self.tailor("fit", train, "--text", "text", "--label", "label", "--test", test, "--method", methods, "--budget", budget, "--out",
                    self.run_directory, "--quiet")
        result = json.loads((self.run_directory / "result.json").read_text())
        for trial in result["trials"]:
            self.assertEqual(trial["status"], "ok", trial.get("reason"))
        return {t["method"]: {k: v["value"] for k, v in t["metrics"].items()} for t in result["trials"]}, result

    def predicted_accuracy(self, test):
        scored = self.run_directory.parent / "scored.csv"
        self.tailor("predict", self.run_directory / "package", "--input", test, "--output", scored, "--quiet")
        with open(test, newline="", encoding="utf-8") as truth, open(scored, newline="", encoding="utf-8") as answers:
            pairs = [(a["label"], b["label"]) for a, b in zip(csv.DictReader(truth), csv.DictReader(answers), strict=True)]
        return sum(a == b for a, b in pairs) / len(pairs)

    def test_banking77_ten_rows_a_class(self):
        directory = DATA / "banking77"
        metrics, _ = self.fit(directory / "fewshot_10.csv", directory / "test.csv", "majority,tfidf,features")
        self.assertLess(metrics["majority"]["accuracy"], 0.03)
        self.assertGreaterEqual(metrics["features"]["accuracy"], 0.85)
        self.assertLess(metrics["tfidf"]["accuracy"], metrics["features"]["accuracy"])

    def test_banking77_and_its_package(self):
        directory = DATA / "banking77"
        metrics, result = self.fit(directory / "train.csv", directory / "test.csv", "tfidf,features")
        self.assertGreaterEqual(metrics["features"]["accuracy"], 0.92)
        self.assertEqual(result["recommended"]["method"], "features")
        self.assertGreaterEqual(self.predicted_accuracy(directory / "test.csv"), 0.92)

    def test_sms_spam(self):
        directory = DATA / "sms_spam"
        metrics, _ = self.fit(directory / "train.csv", directory / "test.csv", "tfidf,features")
        self.assertGreaterEqual(max(m["macro_f1"] for m in metrics.values()), 0.96)


def main():
    global DATA
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--totals", type=Path)
    arguments = parser.parse_args()
    DATA = arguments.data
    begin = time.monotonic()
    result = unittest.TextTestRunner(verbosity=2).run(unittest.defaultTestLoader.loadTestsFromTestCase(RealData))
    bad = len(result.failures) + len(result.errors)
    test_totals.add(arguments.totals, result.testsRun - bad, bad, 0)
    print(f"[test] real data: {time.monotonic() - begin:.1f} s")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
