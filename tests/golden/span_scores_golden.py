"""Reference scores of tagged words, from seqeval.

Run:    python tests/golden/span_scores_golden.py
Writes: tests/golden/data/span_scores.json  tags in several schemes, the spans that seqeval reads of them, its scores
Needs:  numpy, seqeval
"""

import json
import pathlib

import numpy as np
from seqeval.metrics import accuracy_score, classification_report, f1_score, precision_score, recall_score
from seqeval.metrics.sequence_labeling import get_entities

OUT = pathlib.Path(__file__).parent / "data" / "span_scores.json"
TYPES = ["animal", "place", "thing"]


def random_tags(rng, letters, n):
    """Any order of tags, also such as no annotator writes."""
    return ["O" if rng.random() < 0.4 else f"{rng.choice(list(letters))}-{rng.choice(TYPES)}" for _ in range(n)]


def main():
    rng = np.random.default_rng(11)
    rows = {}
    for letters in ("BI", "BIES", "I"):
        rows[letters] = [random_tags(rng, letters, int(n)) for n in rng.integers(1, 14, 25)]
    truth = rows["BI"]
    predicted = [[tag if rng.random() < 0.75 else random_tags(rng, "BI", 1)[0] for tag in row] for row in truth]
    report = classification_report(truth, predicted, output_dict=True, zero_division=0)
    out = {
        "schemes": [{"rows": r, "spans": [[[kind, int(a), int(b)] for kind, a, b in get_entities(row)] for row in r]}
                    for r in rows.values()],
        "truth": truth, "predicted": predicted, "types": TYPES,
        "precision": precision_score(truth, predicted), "recall": recall_score(truth, predicted),
        "f1": f1_score(truth, predicted), "accuracy": accuracy_score(truth, predicted),
        "by_type": {t: {k: float(report[t][k]) for k in ("precision", "recall", "f1-score", "support")} for t in TYPES},
    }
    OUT.write_text(json.dumps(out) + "\n")


if __name__ == "__main__":
    main()
