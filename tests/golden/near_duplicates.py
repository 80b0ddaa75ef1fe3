"""Reference for src/data/near_duplicates: brute-force Jaccard, and MinHash LSH of the datasketch package.

Run:    python tests/golden/near_duplicates.py
Needs:  datasketch
Writes: tests/golden/data/near_duplicates.json
        {"texts": [...], "pairs": [[first, second, jaccard], ...] (all, by brute force, >= 0.8),
         "datasketch": [[first, second], ...] (what its LSH finds, verified), "similarities": [[first, second, jaccard], ...]}
"""
import itertools
import json
import pathlib
import random
import re
import unicodedata

from datasketch import MinHash, MinHashLSH

WORDS = ("please could you tell me when the viewing of flat house garden on Saturday Monday is possible and how much rent "
         "deposit agent keys boiler leaking window broken contract notice month landlord tenant reference parking balcony "
         "Straße café naïve 2 12 £950 ...").split()


def skeleton(text):
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    kept = "".join(c if unicodedata.category(c)[0] in "LM" or unicodedata.category(c) == "Nd" else " " for c in folded)
    return " ".join(kept.split())


def shingles(text, kind):
    if kind == "characters":
        units, length, glue = list(text), 5, ""
    else:
        units, length, glue = text.split(" "), 3, " "
    if len(units) <= length:
        return {text}
    return {glue.join(units[i:i + length]) for i in range(len(units) - length + 1)}


def kinds(text):
    n = text.count(" ") + 1
    return [k for k, has in (("characters", n <= 40), ("words", n >= 30)) if has]


def similarity(a, b):
    best = 0.0
    for kind in set(kinds(a)) & set(kinds(b)):
        x, y = shingles(a, kind), shingles(b, kind)
        best = max(best, len(x & y) / len(x | y))
    return best


def change(rng, text):
    words = text.split(" ")
    for _ in range(rng.randint(1, 3)):
        i = rng.randrange(len(words))
        move = rng.randrange(5)
        if move == 0:
            words[i] = words[i].upper()
        elif move == 1:
            words[i] = words[i] + rng.choice(["!", ",", "s", "?"])
        elif move == 2:
            words[i] = rng.choice(WORDS)
        elif move == 3 and len(words) > 2:
            del words[i]
        else:
            words.insert(i, rng.choice(WORDS))
    return " ".join(words)


def main():
    rng = random.Random(7)
    texts = []
    for length in [3, 5, 8, 12, 20, 28, 33, 38, 42, 60, 120]:
        for _ in range(9):
            texts.append(" ".join(rng.choice(WORDS) for _ in range(length)))
            for _ in range(2):
                texts.append(change(rng, texts[-1]))
    rng.shuffle(texts)
    forms = [skeleton(t) for t in texts]
    scores = {(i, j): similarity(forms[i], forms[j]) for i, j in itertools.combinations(range(len(texts)), 2)}
    pairs = [[i, j, s] for (i, j), s in scores.items() if s >= 0.8]

    found = set()
    for kind in ("characters", "words"):
        lsh = MinHashLSH(threshold=0.8, num_perm=128)
        sketches = {}
        for row, form in enumerate(forms):
            if kind not in kinds(form):
                continue
            sketch = MinHash(num_perm=128, seed=1)
            for shingle in shingles(form, kind):
                sketch.update(shingle.encode())
            sketches[row] = sketch
            lsh.insert(row, sketch)
        for row, sketch in sketches.items():
            for other in lsh.query(sketch):
                pair = (min(row, other), max(row, other))
                if row != other and scores[pair] >= 0.8:
                    found.add(pair)
    close = [[i, j, s] for (i, j), s in scores.items() if 0.3 < s < 0.8]
    out = {"texts": texts, "pairs": pairs, "datasketch": sorted(found), "similarities": rng.sample(close, min(100, len(close)))}
    path = pathlib.Path(__file__).parent / "data" / "near_duplicates.json"
    path.write_text(json.dumps(out, ensure_ascii=False, indent=0) + "\n")
    print(len(texts), "texts,", len(pairs), "pairs,", len(found), "found by datasketch")


if __name__ == "__main__":
    main()
