"""Linear models, TF-IDF and neighbours of scikit-learn for src/learn/*_test.cpp.

Run: python tests/golden/learn_golden.py     (writes tests/golden/data/learn_golden.json)

Inputs are drawn by counter_rng.py, whose numbers src/core/rng.h repeats, so dense features need not be stored.
"""

import json
import pathlib
import warnings

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import NearestNeighbors

from counter_rng import Rng

warnings.filterwarnings("ignore")
OUT = pathlib.Path(__file__).parent / "data" / "learn_golden.json"

WORDS = (
    "viewing appointment flat rent deposit contract keys landlord heating broken invoice price garden parking address"
    " tomorrow morning please when where cancel confirm document passport income moving date available still waiting"
).split()
UNICODE_TEXTS = [
    "",
    "a",
    "Die Kaution beträgt 1.500 € – WO überweise ich sie?",
    "ΟΔΟΣ ΣΟΦΙΑΣ, Σ'",  # final sigma
    "İstanbul'da daire kiralık mı?",  # lower case of I with dot is two code points
    "naïve cafe\u0301 façade",  # a combining mark splits a word
    "你好,这个房子还在吗?\u3000租金多少",
    "Где находится квартира №5?",
    "x² ½ ٣٤ snake_case __ _a1 b",
    "no-break\u00a0space\u2009thin\u200bzero width\ttab\nline\r\n\x1cfs",
    "emoji 🏠🏠 house 👍🏽 ok",
    "ß ﬁne Ǆ straße STRASSE",
    "हिन्दी में किराया कितना है",
    "don't can't e.g. A1-B2 3.50 a b cd",
]


def texts(seed, n):
    rng = Rng(seed)
    out = []
    for _ in range(n):
        length = 3 + int(rng.below(9, 1)[0])
        picked = [WORDS[i] for i in np.minimum(rng.below(len(WORDS), length), rng.below(len(WORDS), length))]
        out.append(" ".join(picked).capitalize() + "?")
    return out


def clusters(seed, n, d, classes):
    """Unit-length rows around class centres, as sentence embeddings look, with a common direction."""
    rng = Rng(seed)
    centres = rng.normal(classes * d).reshape(classes, d)
    weights = 1.0 / (1.0 + 0.3 * np.arange(classes))
    edges = np.cumsum(weights) / weights.sum()
    y = np.minimum(np.searchsorted(edges, rng.uniform(n)), classes - 1)
    x = 0.5 + centres[y] + 1.4 * rng.normal(n * d).reshape(n, d)
    x = (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)
    return x, y


def logistic(x, y, xt, c, **kw):
    weights = kw.pop("sample_weight", None)
    model = LogisticRegression(C=c, tol=1e-10, max_iter=20000, **kw)
    model.fit(np.asarray(x, dtype=np.float64) if isinstance(x, np.ndarray) else x, y, sample_weight=weights)
    return {
        "c": c,
        "coef_norm": float(np.linalg.norm(model.coef_)),
        "probabilities": np.round(model.predict_proba(xt), 7).ravel().tolist(),
        "classes": model.classes_.tolist(),
    }


def dense_case(seed, n, d, classes, cs):
    x, y = clusters(seed, n, d, classes)
    train, test = x[: n - 20], x[n - 20 :].astype(np.float64)
    weights = Rng(seed, 1).uniform(n - 20).astype(np.float32)
    return {
        "seed": seed,
        "rows": n,
        "cols": d,
        "classes": classes,
        "labels": y.tolist(),
        "x": [float(v) for v in x.ravel()],
        "plain": [logistic(train, y[: n - 20], test, c) for c in cs],
        "balanced": logistic(train, y[: n - 20], test, cs[0], class_weight="balanced"),
        "weighted": logistic(train, y[: n - 20], test, cs[0], sample_weight=weights.astype(np.float64)),
        "weighted_balanced": logistic(
            train, y[: n - 20], test, cs[0], class_weight="balanced", sample_weight=weights.astype(np.float64)
        ),
    }


def tfidf_case(train, test, **kw):
    v = TfidfVectorizer(**kw)
    a = v.fit_transform(train).tocsr()
    b = v.transform(test).tocsr()
    a.sort_indices()
    b.sort_indices()

    def csr(m):
        return {
            "starts": m.indptr.tolist(),
            "columns": m.indices.tolist(),
            "values": [float(f"{x:.8g}") for x in m.data],
        }

    return {"terms": v.get_feature_names_out().tolist(), "train": csr(a), "test": csr(b)}


def neighbours_case(seed):
    x, y = clusters(seed, 140, 12, 4)
    base, queries = x[:120].astype(np.float64), x[120:].astype(np.float64)
    k = 7
    distance, index = NearestNeighbors(n_neighbors=k, metric="cosine", algorithm="brute").fit(base).kneighbors(queries)
    similarity = 1 - distance

    def probabilities(weights):
        p = np.zeros((len(queries), 4))
        for i in range(len(queries)):
            for j in range(k):
                p[i, y[index[i, j]]] += weights[i, j]
        return (p / p.sum(1, keepdims=True)).ravel().tolist()

    soft = np.exp((similarity - similarity.max(1, keepdims=True)) / 0.05)
    return {
        "x": [float(v) for v in x.ravel()],
        "labels": y.tolist(),
        "k": k,
        "index": index.ravel().tolist(),
        "similarity": similarity.ravel().tolist(),
        "uniform": probabilities(np.ones_like(similarity)),
        "softmax_0_05": probabilities(soft),
    }


def main():
    train, test = texts(3, 60) + UNICODE_TEXTS, texts(4, 10) + UNICODE_TEXTS[::-1]
    # A limit between two different counts, so that the choice is not open.
    counts = np.sort(np.asarray(TfidfVectorizer(use_idf=False, norm=None).fit_transform(train).sum(0)).ravel())[::-1]
    limit = next(i for i in range(15, 40) if counts[i - 1] > counts[i])
    word_x = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
    labels = [int(v) for v in Rng(5).below(3, len(train))]
    sparse_train = word_x.fit_transform(train)
    golden = {
        "rng": [hex(int(b)) for b in Rng(7, 3).bits(4)] + Rng(7, 3).normal(3).tolist(),
        "logistic": [dense_case(11, 170, 8, 5, [0.1, 1.0, 30.0]), dense_case(12, 90, 6, 2, [0.5, 10.0])],
        "tfidf": {
            "train": train,
            "test": test,
            "words_1_2": tfidf_case(train, test, ngram_range=(1, 2)),
            "words_and_marks": tfidf_case(train, test, ngram_range=(1, 2), token_pattern=r"(?u)\w+|[^\w\s]"),
            "words_2_3_min_df": tfidf_case(train, test, ngram_range=(2, 3), min_df=2, sublinear_tf=True),
            "words_limit": {
                "max_features": limit,
                **tfidf_case(train, test, max_features=limit, max_df=0.4, smooth_idf=False),
            },
            "char_wb_3_5": tfidf_case(train[-14:], test[-14:], analyzer="char_wb", ngram_range=(3, 5)),
            "char_wb_1_2": tfidf_case(train[-14:], test[-14:], analyzer="char_wb", ngram_range=(1, 2), lowercase=False, norm=None),
        },
        "sparse_logistic": {
            "labels": labels,
            "fit": logistic(sparse_train, labels, word_x.transform(test), 5.0),
        },
        "neighbours": neighbours_case(31),
    }
    OUT.parent.mkdir(exist_ok=True)
    OUT.write_text(json.dumps(golden, separators=(",", ":"), ensure_ascii=True) + "\n")


if __name__ == "__main__":
    main()
