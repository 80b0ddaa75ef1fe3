"""lm-evaluation-harness, `local-completions`: its scores are ours, computed without a server and by the server's own echo.

With weights of 32 bits: quantized ones give numbers that change with what is computed together, and the harness cannot
ask for batch_invariant.
"""
import json
import subprocess

import pytest
import requests
from server import BUILD, Server, tiny_model

lm_eval = pytest.importorskip("lm_eval")

ROWS = [{"question": "The capital of France is", "choices": ["Paris", "a banana", "seven"], "gold": 0},
        {"question": "Two and two make", "choices": ["a river", "four", "blue"], "gold": 1},
        {"question": "Grass is usually", "choices": ["loud", "wooden", "green"], "gold": 2},
        {"question": "At night the sky is", "choices": ["dark", "edible", "a Tuesday"], "gold": 0}]
TASK = """task: contract
dataset_path: json
dataset_kwargs: {{data_files: {{test: {rows}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: question
doc_to_choice: choices
doc_to_target: gold
metric_list: [{{metric: acc}}]
"""


@pytest.fixture(scope="module")
def url():
    with Server("--model", str(tiny_model()), "--max-context", "512") as running:
        yield running.url


@pytest.fixture(scope="module")
def in_process():
    """Scores of all choices of all rows, as `predict` and as offline commands compute them."""
    rows = "".join(json.dumps({"question": row["question"], "choices": row["choices"]}) + "\n" for row in ROWS)
    run = subprocess.run([BUILD / "tests" / "answer_scores", tiny_model()], input=rows, capture_output=True, text=True, timeout=120, check=False)
    assert run.returncode == 0, run.stderr
    return [json.loads(line) for line in run.stdout.splitlines()]


def continuation(url, context, text):
    """Log probability of `text` after `context`, from an echo of both."""
    whole = requests.post(url + "/v1/completions", timeout=120, json={"model": "tiny-llama", "prompt": context + text, "max_tokens": 0, "echo": True,
                                                                       "logprobs": 1, "batch_invariant": True}).json()
    scores = whole["choices"][0]["logprobs"]
    first = next(i for i, offset in enumerate(scores["text_offset"]) if offset >= len(context))
    return sum(scores["token_logprobs"][first:])


@pytest.mark.parametrize("concurrent", [1, 4])
def test_scores(url, in_process, tmp_path, monkeypatch, concurrent):
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    (tmp_path / "contract.yaml").write_text(TASK.format(rows=rows))
    results = lm_eval.simple_evaluate(
        model="local-completions",
        model_args={"model": "tiny-llama", "base_url": url + "/v1/completions", "tokenizer_backend": "remote", "num_concurrent": concurrent},
        tasks=["contract"], task_manager=lm_eval.tasks.TaskManager(include_path=str(tmp_path), include_defaults=False), log_samples=True,
        bootstrap_iters=0)
    samples = results["samples"]["contract"]
    assert len(samples) == len(ROWS)
    right = 0
    for sample in samples:
        row = ROWS[sample["doc_id"]]
        told = [float(answer[0][0]) for answer in sample["resps"]]
        ours = [continuation(url, row["question"], " " + choice) for choice in row["choices"]]
        assert told == pytest.approx(ours, abs=1e-3)
        assert told == pytest.approx(in_process[sample["doc_id"]]["labels"], abs=1e-3)
        assert told == pytest.approx(in_process[sample["doc_id"]]["losses"], abs=1e-3)
        right += max(range(3), key=ours.__getitem__) == row["gold"]
    assert results["results"]["contract"]["acc,none"] == pytest.approx(right / len(ROWS))
