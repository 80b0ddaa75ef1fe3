"""openapi.json is valid, and real answers hold what it describes and nothing else."""
import copy
import json

import jsonschema
import pytest
import requests
from server import MODEL
from openapi_spec_validator import validate

CHAT = {"messages": [{"role": "user", "content": "Say hello."}], "max_tokens": 4}


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


@pytest.mark.parametrize("path, name, body", [
    ("/v1/chat/completions", "ChatCompletionChunk", {**CHAT, "logprobs": True, "top_logprobs": 1, "stop": ["e"]}),
    ("/v1/completions", "CompletionChunk", {"prompt": "The parcel", "max_tokens": 4, "logprobs": 1, "echo": True}),
])
def test_events(url, description, path, name, body):
    body = {**body, "stream": True, "stream_options": {"include_usage": True}}
    answer = requests.post(url + path, json=body, timeout=120)
    assert answer.headers["Content-Type"] == "text/event-stream"
    events = [line[6:] for line in answer.text.splitlines() if line.startswith("data: ")]
    assert events[-1] == "[DONE]" and len(events) > 3
    for event in events[:-1]:
        description.check(json.loads(event), name)
