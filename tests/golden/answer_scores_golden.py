"""Reference scores of extracted answers: the functions of SQuAD's evaluation script (evaluate-v2.0.py), as its authors
define them.

Run:    python tests/golden/answer_scores_golden.py
Writes: tests/golden/data/answer_scores.json
Needs:  nothing
"""

import collections
import json
import pathlib
import re
import string

OUT = pathlib.Path(__file__).parent / "data" / "answer_scores.json"
CASES = [  # answer, references (none: the text has no answer)
    ("the Norman conquest", ["Norman Conquest", "a conquest of England"]),
    ("in 1066", ["1066", "in the year 1066"]),
    ("Paris, France", ["Paris"]),
    ("", []),
    ("something", []),
    ("", ["Paris"]),
    ("the", ["a"]),
    ("ÉTIENNE’s  hat", ["Étienne’s hat"]),
    ("U.S.A.", ["USA", "the United States"]),
    ("two two three", ["two three three", "three"]),
    ("An apple a day", ["apple day", "day apple"]),
    ("3.5 million", ["35 million", "3.5 millions"]),
    ("Straße\tnach\nKöln", ["straße nach köln"]),
]


def normalize_answer(s):
    s = "".join(ch for ch in s.lower() if ch not in set(string.punctuation))
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", s).split())


def compute_exact(gold, said):
    return int(normalize_answer(gold) == normalize_answer(said))


def compute_f1(gold, said):
    gold, said = normalize_answer(gold).split(), normalize_answer(said).split()
    if not gold or not said:
        return int(gold == said)
    same = sum((collections.Counter(gold) & collections.Counter(said)).values())
    if same == 0:
        return 0
    precision, recall = same / len(said), same / len(gold)
    return 2 * precision * recall / (precision + recall)


def main():
    rows = []
    for said, references in CASES:
        golds = references or [""]
        rows.append({"answer": said, "references": references, "words": normalize_answer(said).split(),
                     "exact": max(compute_exact(g, said) for g in golds), "f1": max(compute_f1(g, said) for g in golds)})
    OUT.write_text(json.dumps(rows) + "\n")


if __name__ == "__main__":
    main()
