"""The openai client as it comes from PyPI."""
import asyncio
import http.server
import json
import math
import threading
import urllib.request

import openai
import pytest
from server import MODEL, Server, model_with_tools
from pydantic import BaseModel

# The same numbers whatever was computed before or beside it.
SAME = {"seed": 1, "extra_body": {"batch_invariant": True}}
ASK = [{"role": "user", "content": "Say hello in one word."}]


@pytest.fixture(scope="module")
def client(base_url):
    return openai.OpenAI(base_url=base_url, api_key="none", max_retries=0, timeout=120)


class Place(BaseModel):
    city: str
    people: int


def test_models(client):
    models = client.models.list().data
    assert [m.id for m in models] == [MODEL]
    assert client.models.retrieve(MODEL).object == "model"
    with pytest.raises(openai.NotFoundError) as failure:
        client.models.retrieve("nonesuch")
    assert failure.value.code == "model_not_found"


def test_chat(client):
    answer = client.chat.completions.create(model=MODEL, messages=ASK, max_tokens=8, temperature=0, **SAME)
    assert answer.choices[0].message.content and answer.choices[0].message.role == "assistant"
    assert answer.choices[0].finish_reason in ("stop", "length")
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    again = client.chat.completions.create(model=MODEL, messages=ASK, max_tokens=8, temperature=0, **SAME)
    assert again.choices[0].message.content == answer.choices[0].message.content
    assert answer.system_fingerprint and answer.id.startswith("chatcmpl-") and answer.id != again.id


def test_chat_in_parts_and_with_roles(client):
    messages = [{"role": "developer", "content": "Be short."},
                {"role": "user", "content": [{"type": "text", "text": "Say "}, {"type": "text", "text": "hello."}]},
                {"role": "assistant", "content": "Hello."}, {"role": "user", "content": "Again."}]
    assert client.chat.completions.create(model=MODEL, messages=messages, max_completion_tokens=4).choices[0].message.content


def test_seed_and_choices(client):
    def drawn():
        return client.chat.completions.create(model=MODEL, messages=ASK, max_tokens=8, temperature=1, n=3, **SAME)

    first, second = drawn(), drawn()
    assert [c.message.content for c in first.choices] == [c.message.content for c in second.choices]
    assert [c.index for c in first.choices] == [0, 1, 2]


def test_stop(client):
    whole = client.chat.completions.create(model=MODEL, messages=ASK, max_tokens=16, temperature=0, **SAME).choices[0].message.content
    letter = whole[-1]
    part = client.chat.completions.create(model=MODEL, messages=ASK, max_tokens=16, temperature=0, **SAME, stop=[letter]).choices[0]
    assert part.message.content == whole[:whole.index(letter)] and part.finish_reason == "stop"


def test_logprobs(client):
    answer = client.chat.completions.create(model=MODEL, messages=ASK, max_tokens=4, logprobs=True, top_logprobs=3, temperature=0, **SAME)
    content = answer.choices[0].logprobs.content
    assert content and all(len(token.top_logprobs) == 3 for token in content)
    assert all(token.logprob == pytest.approx(token.top_logprobs[0].logprob) for token in content)
    assert bytes(b for token in content for b in token.bytes).decode() == answer.choices[0].message.content


def test_stream(client):
    whole = client.chat.completions.create(model=MODEL, messages=ASK, max_tokens=12, temperature=0, **SAME)
    chunks = list(client.chat.completions.create(model=MODEL, messages=ASK, max_tokens=12, temperature=0, **SAME, stream=True,
                                                 stream_options={"include_usage": True}))
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == whole.choices[0].message.content
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == whole.choices[0].finish_reason
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens
    assert chunks[-1].usage.prompt_tokens == whole.usage.prompt_tokens
    assert len({c.id for c in chunks}) == 1


def test_stream_helper(client):
    with client.chat.completions.stream(model=MODEL, messages=ASK, max_tokens=64, stop=[".", "!"], temperature=0, logprobs=True,
                                        top_logprobs=1) as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_completion()
    assert "content.delta" in kinds and "logprobs.content.delta" in kinds and kinds[-1] in ("chunk", "content.done", "logprobs.content.done")
    assert final.choices[0].message.content
    assert len(final.choices[0].logprobs.content) >= 1


def test_a_stream_that_is_left(client):
    with client.chat.completions.create(model=MODEL, messages=ASK, max_tokens=400, stream=True, extra_body={"ignore_eos": True}) as stream:
        next(iter(stream))
    assert client.chat.completions.create(model=MODEL, messages=ASK, max_tokens=2).choices


def test_parse(client):
    ask = [{"role": "user", "content": "Paris has two million people. Name city and people."}]
    answer = client.chat.completions.parse(model=MODEL, messages=ask, response_format=Place, max_tokens=80, temperature=0, **SAME)
    assert isinstance(answer.choices[0].message.parsed, Place)
    with client.chat.completions.stream(model=MODEL, messages=ask, response_format=Place, max_tokens=80, temperature=0, **SAME) as stream:
        assert stream.get_final_completion().choices[0].message.parsed == answer.choices[0].message.parsed
    with pytest.raises(openai.LengthFinishReasonError):
        client.chat.completions.parse(model=MODEL, messages=ask, response_format=Place, max_tokens=2)


def test_tools():
    weather = {"type": "function", "function": {"name": "weather", "strict": True, "parameters": {
        "type": "object", "properties": {"city": {"type": "string", "maxLength": 8}}, "required": ["city"], "additionalProperties": False}}}
    with Server("--model", str(model_with_tools()), "--max-context", "2048") as running:
        client = openai.OpenAI(base_url=running.url + "/v1", api_key="none", max_retries=0, timeout=120)
        asked = {"model": "tiny-tools", "messages": ASK, "tools": [weather], "tool_choice": "required", "max_tokens": 600}
        answer = client.chat.completions.create(**asked).choices[0]
        (call,) = answer.message.tool_calls
        assert answer.finish_reason == "tool_calls" and call.id and call.type == "function" and call.function.name == "weather"
        assert len(json.loads(call.function.arguments)["city"]) <= 8
        with client.chat.completions.stream(**asked) as stream:
            final = stream.get_final_completion().choices[0]
        (call,) = final.message.tool_calls
        assert final.finish_reason == "tool_calls" and call.function.name == "weather" and list(call.function.parsed_arguments) == ["city"]


def test_json_object(client):
    answer = client.chat.completions.create(model=MODEL, messages=ASK, max_tokens=100, temperature=0, response_format={"type": "json_object"},
                                            extra_body={"structured_outputs": None})
    if answer.choices[0].finish_reason == "stop":
        assert isinstance(json.loads(answer.choices[0].message.content), dict)


def test_completions(client):
    answer = client.completions.create(model=MODEL, prompt=["The capital of France is", [504, 3575, 282]], max_tokens=4, logprobs=2, n=2)
    assert [c.index for c in answer.choices] == [0, 1, 2, 3]
    assert all(len(c.logprobs.tokens) == len(c.logprobs.token_logprobs) == len(c.logprobs.top_logprobs) for c in answer.choices)
    text = "The capital of France is Paris"
    scored = client.completions.create(model=MODEL, prompt=text, max_tokens=0, echo=True, logprobs=1).choices[0]
    assert scored.text == text and scored.logprobs.token_logprobs[0] is None
    assert all(p <= 0 for p in scored.logprobs.token_logprobs[1:])
    assert "".join(scored.logprobs.tokens) == text
    chunks = list(client.completions.create(model=MODEL, prompt=text, max_tokens=4, stream=True, echo=True, logprobs=1, temperature=0, **SAME))
    assert "".join(c.choices[0].text for c in chunks).startswith(text)


def test_embeddings(client):
    usual = client.embeddings.create(model=MODEL, input=["a red house", "a blue car"])  # the client asks for base64
    floats = client.embeddings.create(model=MODEL, input=["a red house", "a blue car"], encoding_format="float")
    assert len(usual.data) == 2 and [d.index for d in usual.data] == [0, 1]
    assert usual.data[1].embedding == pytest.approx(floats.data[1].embedding, abs=1e-3)
    assert math.fsum(x * x for x in usual.data[0].embedding) == pytest.approx(1, abs=1e-3)
    assert len(client.embeddings.create(model=MODEL, input="x", dimensions=16).data[0].embedding) == 16


@pytest.mark.parametrize("change, failure, code", [
    ({"model": "nonesuch"}, openai.NotFoundError, "model_not_found"),
    ({"messages": [{"role": "wizard", "content": "x"}]}, openai.BadRequestError, None),
    ({"messages": []}, openai.BadRequestError, None),
    ({"temperature": 3}, openai.BadRequestError, None),
    ({"messages": [{"role": "user", "content": "word " * 2000}]}, openai.BadRequestError, "context_length_exceeded"),
    ({"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "nonsense"}}}}, openai.BadRequestError,
     "unsupported_parameter"),
])
def test_errors(client, change, failure, code):
    with pytest.raises(failure) as seen:
        client.chat.completions.create(**{"model": MODEL, "messages": ASK, "max_tokens": 4, **change})
    assert seen.value.code == code
    assert seen.value.request_id and seen.value.message
    assert seen.value.param is None or seen.value.param.startswith(next(iter(change)))


def test_raw_headers(client):
    raw = client.chat.completions.with_raw_response.create(model=MODEL, messages=ASK, max_tokens=2, user="someone",
                                                           extra_headers={"X-Request-Id": "mine-1"})
    assert raw.headers["x-request-id"] == "mine-1" and raw.headers["x-ignored-params"] == "user"
    assert raw.parse().choices
    assert client.chat.completions.create(model=MODEL, messages=ASK, max_tokens=2)._request_id.startswith("req-")


def test_timeout(client):
    with pytest.raises(openai.APITimeoutError):
        client.with_options(timeout=0.05).chat.completions.create(model=MODEL, messages=ASK, max_tokens=400, extra_body={"ignore_eos": True})


def test_async(base_url):
    async def ask():
        async with openai.AsyncOpenAI(base_url=base_url, api_key="none", max_retries=0, timeout=120) as client:
            answers = await asyncio.gather(*(client.chat.completions.create(model=MODEL, messages=ASK, max_tokens=4, seed=i) for i in range(4)))
            stream = await client.chat.completions.create(model=MODEL, messages=ASK, max_tokens=4, stream=True)
            return answers, [chunk async for chunk in stream]

    answers, chunks = asyncio.run(ask())
    assert all(a.choices[0].message.content for a in answers) and chunks[-1].choices[0].finish_reason


def test_retries_when_the_server_is_full(url):
    """A proxy answers once with the error that a full server gives, then passes on."""
    seen = []

    class Full(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            seen.append(body)
            if len(seen) == 1:
                told = json.dumps({"error": {"message": "full", "type": "server_overloaded", "param": None, "code": "server_overloaded"}}).encode()
                self.send_response(503)
                self.send_header("Retry-After", "1")
            else:
                asked = urllib.request.Request(url + self.path, body, {"Content-Type": "application/json"})
                with urllib.request.urlopen(asked, timeout=120) as answer:
                    told = answer.read()
                self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(told)))
            self.end_headers()
            self.wfile.write(told)

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Full) as proxy:
        threading.Thread(target=proxy.serve_forever, daemon=True).start()
        client = openai.OpenAI(base_url=f"http://127.0.0.1:{proxy.server_port}/v1", api_key="none", max_retries=2)
        assert client.chat.completions.create(model=MODEL, messages=ASK, max_tokens=2).choices
        assert len(seen) == 2
        seen.clear()
        with pytest.raises(openai.InternalServerError) as failure:
            client.with_options(max_retries=0).chat.completions.create(model=MODEL, messages=ASK)
        assert failure.value.status_code == 503 and failure.value.code == "server_overloaded"
        proxy.shutdown()
