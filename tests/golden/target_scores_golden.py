"""Reference scores of predicted numbers and of predicted sets of labels, from SciPy and scikit-learn.

Run:    python tests/golden/target_scores_golden.py
Writes: tests/golden/data/target_scores.json
Needs:  numpy, scipy, scikit-learn
"""

import json
import pathlib

import numpy as np
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import accuracy_score, f1_score, mean_absolute_error, root_mean_squared_error

OUT = pathlib.Path(__file__).parent / "data" / "target_scores.json"


def main():
    rng = np.random.default_rng(7)
    truth = np.round(rng.normal(3, 2, 40), 1)  # rounded, so that ranks are shared
    predicted = np.round(truth + rng.normal(0, 1, 40), 1)
    sets = (rng.random((30, 5)) < [0.5, 0.3, 0.2, 0.1, 0.0]).astype(int)
    said = np.where(rng.random((30, 5)) < 0.2, 1 - sets, sets)
    said[:, 4] = 0  # a label that neither holds nor is said
    out = {
        "truth": truth.tolist(), "predicted": predicted.tolist(),
        "rmse": root_mean_squared_error(truth, predicted), "mae": mean_absolute_error(truth, predicted),
        "pearson": pearsonr(truth, predicted).statistic, "spearman": spearmanr(truth, predicted).statistic,
        "sets": sets.flatten().tolist(), "said": said.flatten().tolist(), "labels": 5,
        "micro_f1": f1_score(sets, said, average="micro", zero_division=0),
        "macro_f1": f1_score(sets, said, average="macro", zero_division=0),
        "subset_accuracy": accuracy_score(sets, said),
    }
    OUT.write_text(json.dumps(out) + "\n")


if __name__ == "__main__":
    main()
