"""Reference ids, token types and vectors of pairs of texts, from transformers.

Run:    python tests/golden/pair_golden.py MINILM_DIRECTORY
Writes: tests/golden/data/pairs.json
Needs:  torch, transformers, tokenizers, safetensors, and encoder_family.json (the tiny DistilBERT's and RoBERTa's files)

Pairs are cut with transformers' truncation "longest_first" at each of LIMITS. `vectors` are means over the last hidden
states of all-MiniLM-L6-v2 (a BERT with two token types), whole pairs, not normalised.
"""

import json
import pathlib
import sys
import tempfile

import torch
from transformers import AutoModel, AutoTokenizer, DistilBertTokenizer

DATA = pathlib.Path(__file__).parent / "data"
LIMITS = [5, 12, 13, 24, 64]
PAIRS = [
    ("The flat in Mill Lane is free from May.", "Is the flat still free?"),
    ("short", "a second text that is a good deal longer than the first one, so that it alone is cut"),
    ("a first text that is a good deal longer than the second one, so that it alone is cut", "short"),
    ("both texts have quite a number of words in them, and both must give", "up some of their words, since neither is short at all"),
    ("", "nothing before"),
    ("nothing after", ""),
    ("Größe: 12 m², ok?", "naïve café – 3,50 €"),
    ("words [SEP] that look special", "</s> here <s> too"),
]


def encoded(tokenizer):
    backend = tokenizer.backend_tokenizer
    out = []
    for limit in LIMITS:
        rows = []
        for a, b in PAIRS:
            backend.encode_special_tokens = True
            backend.enable_truncation(limit, strategy="longest_first")
            e = backend.encode(a, b)
            rows.append({"ids": e.ids, "types": e.type_ids})
        out.append(rows)
    return out


def main(minilm):
    family = json.loads((DATA / "encoder_family.json").read_text())
    tokenizer = AutoTokenizer.from_pretrained(minilm)
    model = AutoModel.from_pretrained(minilm).eval()
    vectors = []
    for a, b in PAIRS[:4]:
        with torch.no_grad():
            states = model(**tokenizer(a, b, return_tensors="pt")).last_hidden_state
        vectors.append([round(x, 6) for x in states[0].double().mean(0).tolist()])
    out = {"pairs": PAIRS, "limits": LIMITS, "bert": encoded(tokenizer), "vectors": vectors}
    with tempfile.TemporaryDirectory() as d:
        pathlib.Path(d, "vocab.txt").write_text("".join(w + "\n" for w in family["distilbert"]["vocab"]))
        out["distilbert"] = encoded(DistilBertTokenizer.from_pretrained(d))
    with tempfile.TemporaryDirectory() as d:
        for name, value in family["roberta"]["files"].items():
            pathlib.Path(d, name).write_text(json.dumps(value))
        out["roberta"] = encoded(AutoTokenizer.from_pretrained(d))
    (DATA / "pairs.json").write_text(json.dumps(out, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
