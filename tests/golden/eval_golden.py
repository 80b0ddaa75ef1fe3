"""Scores, intervals and paired tests of scikit-learn, scipy and NumPy for src/eval/*_test.cpp.

Run: python tests/golden/eval_golden.py     (writes tests/golden/data/eval_golden.json)
"""

import json
import pathlib
import warnings

import numpy as np
from scipy import optimize, special, stats
from sklearn import metrics as m

from counter_rng import Rng

warnings.filterwarnings("ignore")
OUT = pathlib.Path(__file__).parent / "data" / "eval_golden.json"


def make_rows(seed, n, classes, accuracy, absent=()):
    """Skewed classes, confident and less confident answers, float32 probabilities that sum to about 1."""
    rng = Rng(seed)
    weights = 1.0 / (1.0 + np.arange(classes))
    for c in absent:
        weights[c] = 0
    edges = np.cumsum(weights) / weights.sum()
    truth = np.minimum(np.searchsorted(edges, rng.uniform(n)), classes - 1)
    logits = rng.normal(n * classes).reshape(n, classes)
    logits[np.arange(n), truth] += np.where(rng.uniform(n) < accuracy, 3.0, 0.0)
    p = np.exp(logits)
    p = (p / p.sum(1, keepdims=True)).astype(np.float32)
    return truth, p


def nan_to_none(x):
    return None if np.isnan(x) else float(x)


def scores(truth, predicted, classes):
    labels = list(range(classes))
    p, r, f, s = m.precision_recall_fscore_support(truth, predicted, labels=labels, zero_division=0)
    out = {
        "confusion": m.confusion_matrix(truth, predicted, labels=labels).ravel().tolist(),
        "accuracy": m.accuracy_score(truth, predicted),
        "per_class": {"precision": p.tolist(), "recall": r.tolist(), "f1": f.tolist(), "support": s.tolist()},
        "balanced_accuracy": m.balanced_accuracy_score(truth, predicted),
        "matthews": m.matthews_corrcoef(truth, predicted),
        "kappa": nan_to_none(m.cohen_kappa_score(truth, predicted)),
    }
    for average in ("macro", "weighted", "micro"):
        out[average] = [
            float(x) for x in m.precision_recall_fscore_support(truth, predicted, average=average, zero_division=0)[:3]
        ]
    return out


def ece(truth, p, bins=15):
    """Guo et al. 2017, equation 3, with bins (lower, upper]."""
    confidence = p.max(1)
    correct = p.argmax(1) == truth
    edges = np.arange(bins + 1) / bins
    total = 0.0
    for low, high in zip(edges[:-1], edges[1:]):
        inside = (confidence > low) & (confidence <= high)
        if inside.any():
            total += inside.mean() * abs(correct[inside].mean() - confidence[inside].mean())
    return total


def calibration(truth, p, bins=15):
    confidence = p.max(1)
    right = p.argmax(1) == truth
    rows, mean, accuracy = [], [], []
    for b in range(bins):
        inside = (confidence > b / bins) & (confidence <= (b + 1) / bins)
        rows.append(int(inside.sum()))
        mean.append(float(confidence[inside].mean()) if inside.any() else 0.0)
        accuracy.append(float(right[inside].mean()) if inside.any() else 0.0)
    order = np.argsort(-confidence, kind="stable")
    risk = np.cumsum(~right[order]) / np.arange(1, len(order) + 1)

    def loss(log_t):
        z = np.log(p) / np.exp(log_t)
        return m.log_loss(truth, special.softmax(z, axis=1), labels=list(range(p.shape[1])))

    best = optimize.minimize_scalar(loss, bounds=(np.log(0.05), np.log(20)), method="bounded", options={"xatol": 1e-9})
    return {
        "bin_rows": rows,
        "bin_confidence": mean,
        "bin_accuracy": accuracy,
        "aurc": float(risk.mean()),
        "auroc": m.roc_auc_score(right, confidence),
        "temperature": float(np.exp(best.x)),
        "scaled_log_loss": float(best.fun),
    }


def case(seed, n, classes, accuracy, absent=()):
    truth, p32 = make_rows(seed, n, classes, accuracy, absent)
    p = p32.astype(np.float64)
    predicted = p.argmax(1)
    out = {
        "classes": classes,
        "truth": truth.tolist(),
        "probabilities": [float(x) for x in p32.ravel()],
        "predicted": predicted.tolist(),
        "scores": scores(truth, predicted, classes),
        "log_loss": m.log_loss(truth, p, labels=list(range(classes))),
        "brier": m.brier_score_loss(truth, p, labels=list(range(classes))),
        "ece": ece(truth, p),
        "calibration": calibration(truth, p),
    }
    if classes > 2:
        out["top_3"] = m.top_k_accuracy_score(truth, p, k=3, labels=list(range(classes)))
    return out


def macro(truth, predicted):
    return m.precision_recall_fscore_support(truth, predicted, average="macro", zero_division=0)[:3]


def bootstrap(truth, predicted, resamples, seed):
    rows = []
    for b in range(resamples):
        i = Rng(seed, b).below(len(truth), len(truth))
        rows.append([np.mean(truth[i] == predicted[i]), *macro(truth[i], predicted[i])])
    rows = np.array(rows)
    value = [np.mean(truth == predicted), *macro(truth, predicted)]
    return {
        "resamples": resamples,
        "seed": seed,
        "value": [float(x) for x in value],
        "low": np.percentile(rows, 2.5, axis=0).tolist(),
        "high": np.percentile(rows, 97.5, axis=0).tolist(),
    }


def wilson(k, n):
    ci = stats.binomtest(k, n).proportion_ci(0.95, method="wilson")
    return {"k": k, "n": n, "low": ci.low, "high": ci.high}


def mcnemar(b, c):
    n = b + c
    exact = stats.binomtest(min(b, c), n, 0.5).pvalue
    chi2 = stats.chi2.sf(max(0.0, abs(b - c) - 1) ** 2 / n, 1)
    mid = min(1.0, 2 * stats.binom.cdf(min(b, c), n, 0.5) - stats.binom.pmf(min(b, c), n, 0.5))
    return {"b": b, "c": c, "exact": float(exact), "chi2": float(chi2), "mid_p": float(mid)}


def paired(truth, a, b, resamples, seed):
    def f1(t, p):
        return macro(t, p)[2]

    d = f1(truth, a) - f1(truth, b)
    draws = []
    for r in range(resamples):
        i = Rng(seed, r).below(len(truth), len(truth))
        draws.append(f1(truth[i], a[i]) - f1(truth[i], b[i]))
    draws = np.array(draws)
    low_share = 1 + (draws <= 1e-12).sum()
    high_share = 1 + (draws >= -1e-12).sum()
    differing = np.flatnonzero(a != b)
    extreme = 1
    for r in range(resamples):
        swap = np.zeros(len(truth), dtype=bool)
        swap[differing] = (Rng(seed, (1 << 32) + r).bits(len(differing)) >> np.uint64(63)) != 0
        x = np.where(swap, b, a)
        y = np.where(swap, a, b)
        extreme += abs(f1(truth, x) - f1(truth, y)) >= abs(d) - 1e-12
    return {
        "a": a.tolist(),
        "b": b.tolist(),
        "resamples": resamples,
        "seed": seed,
        "difference": float(d),
        "low": float(np.percentile(draws, 2.5)),
        "high": float(np.percentile(draws, 97.5)),
        "bootstrap_p": float(min(1.0, 2 * min(low_share, high_share) / (1 + resamples))),
        "permutation_p": float(extreme / (1 + resamples)),
    }


def holm(p):
    p = np.asarray(p)
    order = np.argsort(p)
    adjusted = np.minimum(1, np.maximum.accumulate(p[order] * (len(p) - np.arange(len(p)))))
    out = np.empty(len(p))
    out[order] = adjusted
    return {"p": p.tolist(), "adjusted": out.tolist()}


def binary(seed, n):
    rng = Rng(seed)
    positive = (rng.uniform(n) < 0.3).astype(int)
    score = np.round(rng.normal(n) + 1.2 * positive, 1)  # rounding makes ties
    return {
        "positive": positive.tolist(),
        "score": score.tolist(),
        "roc_auc": m.roc_auc_score(positive, score),
        "average_precision": m.average_precision_score(positive, score),
    }


def latency():
    values = np.round(np.exp(Rng(41).normal(20)), 3)
    percents = (0, 5, 50, 90, 95, 99, 100)
    return {
        "values": values.tolist(),
        "percentiles": {str(q): float(np.percentile(values, q, method="inverted_cdf")) for q in percents},
    }


def main():
    cases = [
        case(1, 200, 7, 0.7, absent=(3,)),
        case(2, 120, 2, 0.8),
        case(3, 60, 12, 0.3, absent=(0, 5)),  # predicted classes that are nobody's truth
    ]
    one = np.zeros(5, dtype=int)
    degenerate = scores(one, one, 2)
    truth, p = make_rows(9, 150, 5, 0.7)
    a = p.argmax(1)
    b = make_rows(9, 150, 5, 0.7)[1]
    b = (b + 0.25 * Rng(77).uniform(b.size).reshape(b.shape)).argmax(1)
    golden = {
        "cases": cases,
        "degenerate": {"truth": one.tolist(), "predicted": one.tolist(), "scores": degenerate},
        "bootstrap": {"truth": truth.tolist(), "predicted": a.tolist(), "classes": 5, **bootstrap(truth, a, 300, 11)},
        "wilson": [wilson(0, 10), wilson(10, 10), wilson(7, 12), wilson(81, 263)],
        "mcnemar": [mcnemar(3, 9), mcnemar(0, 6), mcnemar(40, 61), mcnemar(30, 30), mcnemar(200, 260)],
        "paired": {"truth": truth.tolist(), "classes": 5, **paired(truth, a, b, 300, 5)},
        "holm": [holm([0.01, 0.04, 0.03, 0.005]), holm([0.5, 0.6, 0.9])],
        "binary": binary(21, 90),
        "latency": latency(),
        "normal_quantiles": {str(q): float(stats.norm.ppf(q)) for q in (0.001, 0.025, 0.5, 0.6, 0.975, 0.999999)},
    }
    OUT.parent.mkdir(exist_ok=True)
    OUT.write_text(json.dumps(golden, indent=None, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
