"""openapi.json is valid, and real answers hold what it describes and nothing else."""
import copy
import json

import jsonschema
import pytest
import requests
from server import MODEL, Server, model_with_tools, small_packages
from openapi_spec_validator import validate

CHAT = {"messages": [{"role": "user", "content": "Say hello."}], "max_tokens": 4}
WEATHER = {"type": "function", "function": {"name": "weather", "parameters": {
    "type": "object", "properties": {"city": {"type": "string", "maxLength": 8}, "days": {"type": "integer", "minimum": 1, "maximum": 7}},
    "required": ["city", "days"], "additionalProperties": False}}}


def closed(schema):
    """The schema, without room for fields that it does not name."""
    if isinstance(schema, dict):
        schema = {key: closed(value) for key, value in schema.items()}
        if "properties" in schema and "additionalProperties" not in schema:
            schema["additionalProperties"] = False
    elif isinstance(schema, list):
        schema = [closed(item) for item in schema]
    return schema


class Description:
    def __init__(self, document):
        self.document = document
        self.answers = closed(copy.deepcopy({"components": document["components"]}))

    def check(self, value, name):
        schema = {**self.answers, "$ref": f"#/components/schemas/{name}"}
        jsonschema.Draft202012Validator(schema).validate(value)


@pytest.fixture(scope="module")
def description(url):
    return Description(requests.get(url + "/openapi.json", timeout=60).json())


def test_is_valid(description):
    validate(description.document)
    for name, schema in description.document["components"]["schemas"].items():
        for example in schema.get("examples", ()):
            description.check(example, name)


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/health", "/v1/health", "/ping", "/version", "/openapi.json", "/v1/models",
                                  "/v1/models/" + MODEL, "/v1/models/nonesuch", "/tokenizer_info"])
def test_answers(url, description, path):
    answer = requests.get(url + path, timeout=60)
    operations = description.document["paths"]
    operation = operations.get(path) or operations["/v1/models/{id}"]
    check_answer(description, operation["get"], answer)


@pytest.mark.parametrize("path, body, status", [
    ("/v1/chat/completions", CHAT, 200),
    ("/v1/chat/completions", {**CHAT, "logprobs": True, "top_logprobs": 2, "n": 2, "stop": ["e"]}, 200),
    ("/v1/chat/completions", {**CHAT, "temperature": "hot"}, 400),
    ("/v1/completions", {"prompt": "The parcel", "max_tokens": 2, "logprobs": 1, "echo": True}, 200),
    ("/v1/completions", {}, 400),
    ("/v1/embeddings", {"input": ["a", "b"]}, 200),
    ("/v1/embeddings", {"input": "a", "encoding_format": "base64"}, 200),
    ("/v1/rerank", {"query": "a", "documents": ["a", "b"], "return_documents": True}, 200),
    ("/rerank", {"query": "a", "documents": [{"text": "a"}]}, 200),
    ("/v1/classify", {"input": "a"}, 400),
    ("/v1/tag", {"input": "a"}, 400),
    ("/v1/extract", {"question": "a", "context": "b"}, 400),
    ("/tokenize", {"content": "a b", "with_pieces": True}, 200),
    ("/tokenize", {"messages": CHAT["messages"]}, 200),
    ("/detokenize", {"tokens": [400, 401]}, 200),
    ("/apply-template", {"messages": CHAT["messages"]}, 200),
    ("/apply-template", {"model": "nonesuch", "messages": CHAT["messages"]}, 404),
])
def test_answers_to_bodies(url, description, path, body, status):
    answer = requests.post(url + path, json=body, timeout=120)
    assert answer.status_code == status, answer.text
    check_answer(description, description.document["paths"][path]["post"], answer)


def check_answer(description, operation, answer):
    told = operation["responses"][str(answer.status_code)]
    if "$ref" in told:
        told = description.document["components"]["responses"][told["$ref"].rsplit("/", 1)[1]]
    assert answer.headers["X-Request-Id"]
    description.check(answer.json(), told["content"]["application/json"]["schema"]["$ref"].rsplit("/", 1)[1])


def events_of(answer):
    assert answer.headers["Content-Type"] == "text/event-stream", answer.text
    events = [line[6:] for line in answer.content.decode().split("\n") if line.startswith("data: ")]
    assert events[-1] == "[DONE]"
    return [json.loads(event) for event in events[:-1]]


@pytest.mark.parametrize("path, name, body", [
    ("/v1/chat/completions", "ChatCompletionChunk", {**CHAT, "logprobs": True, "top_logprobs": 1, "stop": ["e"]}),
    ("/v1/completions", "CompletionChunk", {"prompt": "The parcel", "max_tokens": 4, "logprobs": 1, "echo": True}),
])
def test_events(url, description, path, name, body):
    body = {**body, "stream": True, "stream_options": {"include_usage": True}}
    events = events_of(requests.post(url + path, json=body, timeout=120))
    assert len(events) > 2
    for event in events:
        description.check(event, name)


def test_figures(url, description):
    content = description.document["paths"]["/metrics"]["get"]["responses"]["200"]["content"]
    for accept in ("text/plain", "application/openmetrics-text"):
        answer = requests.get(url + "/metrics", headers={"Accept": accept}, timeout=60)
        assert answer.headers["Content-Type"].partition(";")[0] == accept and accept in content


@pytest.fixture(scope="module")
def tools_url():
    with Server("--model", str(model_with_tools()), "--max-context", "2048") as running:
        yield running.url


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "weather"}}])
def test_calls_of_tools(tools_url, description, choice):
    path = "/v1/chat/completions"
    body = {"messages": [{"role": "user", "content": "Rain?"}], "tools": [WEATHER], "tool_choice": choice, "max_tokens": 900}
    whole = requests.post(tools_url + path, json=body, timeout=120)
    assert whole.status_code == 200, whole.text
    check_answer(description, description.document["paths"][path]["post"], whole)
    (told,) = whole.json()["choices"]
    (call,) = told["message"]["tool_calls"]
    assert told["finish_reason"] == "tool_calls" and told["message"]["content"] is None
    jsonschema.validate(json.loads(call["function"]["arguments"]), WEATHER["function"]["parameters"])

    events = events_of(requests.post(tools_url + path, json={**body, "stream": True}, timeout=120))
    for event in events:
        description.check(event, "ChatCompletionChunk")
    deltas = [event["choices"][0]["delta"] for event in events]
    assert deltas[0] == {"role": "assistant", "content": ""} and events[-1]["choices"][0]["finish_reason"] == "tool_calls"
    (calls,) = [delta["tool_calls"] for delta in deltas if "tool_calls" in delta]
    assert [c["index"] for c in calls] == [0] and calls[0]["function"]["name"] == "weather"
    jsonschema.validate(json.loads(calls[0]["function"]["arguments"]), WEATHER["function"]["parameters"])


@pytest.fixture(scope="module")
def packages_url(tmp_path_factory):
    packages = small_packages()
    config = tmp_path_factory.mktemp("packages") / "serve.yaml"
    config.write_text("models:\n" + "".join(f'  - {{name: {name}, package: "{packages / name}"}}\n' for name in ("rows", "tags", "spans")))
    with Server("--config", str(config)) as running:
        yield running.url


@pytest.mark.parametrize("path, body", [
    ("/v1/classify", {"model": "rows", "input": ["How much is it?", "It is broken."], "nearest": 2}),
    ("/v1/classify", {"model": "rows", "input": "How much is it?", "label_only": True}),
    ("/v1/tag", {"model": "tags", "input": ["Anna moved to Oslo.", ""], "words": True}),
    ("/v1/extract", {"model": "spans", "question": "Who?", "context": "Ada did."}),
    ("/v1/chat/completions", {"model": "rows", "messages": CHAT["messages"]}),
    ("/v1/chat/completions", {"model": "tags", "messages": CHAT["messages"]}),
])
def test_answers_of_packages(packages_url, description, path, body):
    answer = requests.post(packages_url + path, json=body, timeout=120)
    assert answer.status_code == 200, answer.text
    check_answer(description, description.document["paths"][path]["post"], answer)
    if path == "/v1/chat/completions":
        events = events_of(requests.post(packages_url + path, json={**body, "stream": True}, timeout=120))
        for event in events:
            description.check(event, "ChatCompletionChunk")
        assert events[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
        assert events[1]["choices"][0]["delta"] == {"content": answer.json()["choices"][0]["message"]["content"]}


def test_models_of_packages(packages_url, description):
    models = requests.get(packages_url + "/v1/models", timeout=60).json()
    assert [model["id"] for model in models["data"]] == ["rows", "tags", "spans"]
    description.check(models, "ModelList")
