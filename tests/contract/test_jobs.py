"""Files, fine-tuning and batches with the openai client, in the words of OpenAI's own guides; only the base URL is ours."""
import json
import time

import openai
import pytest
import requests
from server import BUILD, Server, tiny_model
from test_openapi import Description

MODEL = "tiny-llama"
# The rows of OpenAI's guide, and more of the kind: ten are needed.
MARV = [("What's the capital of France?", "Paris, as if everyone doesn't know that already."),
        ("Who wrote 'Romeo and Juliet'?", "Oh, just some guy named William Shakespeare. Ever heard of him?"),
        ("How far is the Moon from Earth?", "Around 384,400 kilometers. Give or take a few, like that really matters.")]
MARV += [(f"What is {n} times {n}?", f"{n * n}. Did you lose your fingers?") for n in range(3, 15)]
END = 240  # seconds: training takes what it takes on a busy machine


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    with Server("--model", str(tiny_model()), "--data", str(tmp_path_factory.mktemp("jobs") / "data")) as running:
        yield running.url


@pytest.fixture(scope="module")
def client(url):
    return openai.OpenAI(base_url=url + "/v1", api_key="none", max_retries=0, timeout=120)


@pytest.fixture(scope="module")
def description(url):
    return Description(requests.get(url + "/openapi.json", timeout=60).json())


def until(ask, ends):
    end = time.monotonic() + END
    while (now := ask()).status not in ends:
        assert time.monotonic() < end and now.status != "failed", now
    return now


def jsonl(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def training_file(client, tmp_path_factory):
    system = {"role": "system", "content": "Marv is a factual chatbot that is also sarcastic."}
    rows = [{"messages": [system, {"role": "user", "content": q}, {"role": "assistant", "content": a}]} for q, a in MARV]
    with open(jsonl(tmp_path_factory.mktemp("data") / "mydata.jsonl", rows), "rb") as file:
        return client.files.create(file=file, purpose="fine-tune")


def test_files(client, url, description, training_file):
    assert training_file.filename == "mydata.jsonl" and training_file.purpose == "fine-tune"
    assert client.files.retrieve(training_file.id) == training_file
    assert training_file.id in [f.id for f in client.files.list(purpose="fine-tune")]
    assert len(client.files.content(training_file.id).text.splitlines()) == len(MARV)
    other = client.files.create(file=("a.jsonl", b"{}\n"), purpose="batch")
    description.check(requests.get(f"{url}/v1/files/{other.id}", timeout=60).json(), "File")
    assert client.files.delete(other.id).deleted
    with pytest.raises(openai.NotFoundError):
        client.files.retrieve(other.id)


@pytest.mark.skipif(not (BUILD / "bin" / "tailor-tune").exists(), reason="this build has no tailor-tune")
def test_fine_tuning_guide(client, url, description, training_file):
    job = client.fine_tuning.jobs.create(
        training_file=training_file.id,
        model=MODEL,
        suffix="marv",
        method={"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 2}}},
    )
    assert job.object == "fine_tuning.job" and job.status == "validating_files" and job.training_file == training_file.id
    assert job.id in [j.id for j in client.fine_tuning.jobs.list(limit=10)]
    done = until(lambda: client.fine_tuning.jobs.retrieve(job.id), ("succeeded", "failed"))
    assert done.status == "succeeded", done
    used = done.hyperparameters
    assert used.n_epochs == 2 and isinstance(used.batch_size, int) and used.learning_rate_multiplier > 0 and done.seed == 1
    assert done.method.supervised.hyperparameters.to_dict() == used.to_dict()
    assert done.fine_tuned_model.startswith(f"ft:{MODEL}:") and ":marv:" in done.fine_tuned_model and done.trained_tokens > 0

    events = client.fine_tuning.jobs.list_events(fine_tuning_job_id=job.id, limit=10)
    assert len(events.data) == 10 and events.data[0].object == "fine_tuning.job.event"
    assert any(e.type == "metrics" and "train_loss" in e.data for e in client.fine_tuning.jobs.list_events(job.id))
    checkpoints = client.fine_tuning.jobs.checkpoints.list(job.id).data
    assert [c.fine_tuned_model_checkpoint for c in checkpoints] == [done.fine_tuned_model] and checkpoints[0].step_number > 0
    assert client.files.content(done.result_files[0]).text.startswith("step,train_loss")

    completion = client.chat.completions.create(
        model=done.fine_tuned_model,
        messages=[{"role": "system", "content": "Marv is a factual chatbot that is also sarcastic."},
                  {"role": "user", "content": "What's the capital of France?"}],
        max_tokens=8,
    )
    assert completion.model == done.fine_tuned_model and completion.choices[0].message.content is not None
    assert client.models.retrieve(done.fine_tuned_model).id == done.fine_tuned_model

    path = f"{url}/v1/fine_tuning/jobs"
    description.check(requests.get(f"{path}/{job.id}", timeout=60).json(), "FineTuningJob")
    description.check(requests.get(path, timeout=60).json(), "FineTuningJobList")
    description.check(requests.get(f"{path}/{job.id}/events", timeout=60).json(), "FineTuningEventList")
    description.check(requests.get(f"{path}/{job.id}/checkpoints", timeout=60).json(), "FineTuningCheckpointList")

    deleted = client.models.delete(done.fine_tuned_model)
    assert deleted.deleted and deleted.id == done.fine_tuned_model and deleted.object == "model"
    description.check(deleted.to_dict(), "DeletedModel")
    for gone in (client.models.retrieve, client.models.delete):
        with pytest.raises(openai.NotFoundError):
            gone(done.fine_tuned_model)
    assert client.fine_tuning.jobs.retrieve(job.id).fine_tuned_model == done.fine_tuned_model
    with pytest.raises(openai.BadRequestError) as base:
        client.models.delete(MODEL)
    assert base.value.code == "model_not_fine_tuned" and base.value.param == "model"


@pytest.mark.skipif(not (BUILD / "bin" / "tailor-tune").exists(), reason="this build has no tailor-tune")
def test_cancel_pause_and_resume(client, training_file):
    long = {"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 50}}}
    job = client.fine_tuning.jobs.create(training_file=training_file.id, model=MODEL, method=long)
    until(lambda: client.fine_tuning.jobs.retrieve(job.id), ("running",))
    assert client.fine_tuning.jobs.pause(job.id).status == "paused"
    assert client.fine_tuning.jobs.resume(job.id).status == "queued"
    assert client.fine_tuning.jobs.cancel(job.id).status == "cancelled"
    with pytest.raises(openai.BadRequestError):
        client.fine_tuning.jobs.cancel(job.id)


def test_a_bad_training_file_fails_with_its_line(client, url, description):
    rows = [json.dumps({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]})] * 11
    rows[4] = '{"messages": []}'
    file = client.files.create(file=("bad.jsonl", "\n".join(rows).encode()), purpose="fine-tune")
    job = client.fine_tuning.jobs.create(training_file=file.id, model=MODEL)
    failed = until(lambda: client.fine_tuning.jobs.retrieve(job.id), ("succeeded", "failed"))
    assert failed.status == "failed" and failed.error.code == "invalid_training_file" and failed.error.param == "training_file"
    assert "bad.jsonl:5" in failed.error.message
    description.check(requests.get(f"{url}/v1/fine_tuning/jobs/{job.id}", timeout=60).json(), "FineTuningJob")


def requests_of(count, tokens, **more):
    return [{"custom_id": f"request-{i}", "method": "POST", "url": "/v1/chat/completions",
             "body": {"model": MODEL, "messages": [{"role": "system", "content": "You are a helpful assistant."},
                                                   {"role": "user", "content": "Hello world!"}], "max_tokens": tokens, **more}} for i in range(count)]


def test_batch_guide(client, url, description, tmp_path):
    rows = requests_of(2, 4)
    rows[1]["body"]["temperature"] = 7
    with open(jsonl(tmp_path / "batchinput.jsonl", rows), "rb") as file:
        batch_input_file = client.files.create(file=file, purpose="batch")
    batch = client.batches.create(input_file_id=batch_input_file.id, endpoint="/v1/chat/completions", completion_window="24h",
                                  metadata={"description": "nightly eval job"})
    assert batch.object == "batch" and batch.status in ("validating", "in_progress")
    done = until(lambda: client.batches.retrieve(batch.id), ("completed", "failed"))
    assert done.status == "completed" and done.metadata == {"description": "nightly eval job"}, done
    assert (done.request_counts.total, done.request_counts.completed, done.request_counts.failed) == (2, 1, 1)
    assert done.usage.output_tokens <= 4 and done.usage.total_tokens == done.usage.input_tokens + done.usage.output_tokens
    (answered,) = map(json.loads, client.files.content(done.output_file_id).text.splitlines())
    assert answered["custom_id"] == "request-0" and answered["response"]["status_code"] == 200 and answered["error"] is None
    assert answered["response"]["body"]["object"] == "chat.completion"
    (refused,) = map(json.loads, client.files.content(done.error_file_id).text.splitlines())
    assert refused["custom_id"] == "request-1" and refused["response"]["body"]["error"]["param"] == "temperature"
    assert batch.id in [b.id for b in client.batches.list(limit=10)]
    description.check(requests.get(f"{url}/v1/batches/{batch.id}", timeout=60).json(), "Batch")
    description.check(requests.get(f"{url}/v1/batches", timeout=60).json(), "BatchList")


def test_batch_cancel_and_failure(client, url, description):
    def create(rows):
        file = client.files.create(file=("in.jsonl", "".join(json.dumps(r) + "\n" for r in rows).encode()), purpose="batch")
        return client.batches.create(input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h")

    batch = create(requests_of(2000, 64, ignore_eos=True))
    assert client.batches.cancel(batch.id).status == "cancelling"
    assert until(lambda: client.batches.retrieve(batch.id), ("cancelled", "completed", "failed")).status == "cancelled"
    failed = create(requests_of(1, 4) * 2)
    failed = until(lambda: client.batches.retrieve(failed.id), ("completed", "failed"))
    assert failed.status == "failed" and failed.errors.data[0].line == 2 and failed.errors.data[0].code == "duplicate_custom_id"
    description.check(requests.get(f"{url}/v1/batches/{failed.id}", timeout=60).json(), "Batch")
    with pytest.raises(openai.BadRequestError) as wrong:
        client.batches.create(input_file_id="file-none", endpoint="/v1/chat/completions", completion_window="24h")
    assert wrong.value.param == "input_file_id"
