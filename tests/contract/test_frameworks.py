"""LangChain and LlamaIndex as they come from PyPI."""
import pytest
from server import MODEL
from pydantic import BaseModel

ASK = "Say hello in one word."


class Place(BaseModel):
    """A city."""

    city: str


@pytest.fixture(scope="module")
def langchain(base_url):
    module = pytest.importorskip("langchain_openai")
    return module.ChatOpenAI(base_url=base_url, api_key="none", model=MODEL, temperature=0, max_tokens=32, max_retries=0)


def test_langchain_chat(langchain):
    answer = langchain.invoke(ASK)
    assert answer.content and answer.usage_metadata["output_tokens"] > 0 and answer.response_metadata["finish_reason"]
    chunks = list(langchain.stream(ASK))
    assert len(chunks) > 1 and "".join(c.content for c in chunks)
    assert [bool(a.content) for a in langchain.batch([ASK, "Name a colour."])] == [True, True]
    assert langchain.bind(logprobs=True).invoke(ASK).response_metadata["logprobs"]["content"]


def test_langchain_structured_output(langchain):
    place = langchain.with_structured_output(Place, method="json_schema").invoke("Name a city.")
    assert isinstance(place, Place)


def test_langchain_embeddings(base_url):
    module = pytest.importorskip("langchain_openai")
    # Its default sends token ids of OpenAI's own vocabulary.
    vectors = module.OpenAIEmbeddings(base_url=base_url, api_key="none", model=MODEL, check_embedding_ctx_length=False)
    two = vectors.embed_documents(["a red house", "a blue car"])
    assert len(two) == 2 and two[0] == pytest.approx(vectors.embed_query("a red house"), abs=1e-3)


def test_llama_index(base_url):
    module = pytest.importorskip("llama_index.llms.openai_like")
    types = pytest.importorskip("llama_index.core.llms")
    model = module.OpenAILike(api_base=base_url, api_key="none", model=MODEL, is_chat_model=True, max_tokens=16, temperature=0, context_window=512)
    messages = [types.ChatMessage(role="user", content=ASK)]
    assert model.chat(messages).message.content
    assert "".join(part.delta or "" for part in model.stream_chat(messages))
    writer = module.OpenAILike(api_base=base_url, api_key="none", model=MODEL, is_chat_model=False, max_tokens=8, context_window=512)
    assert writer.complete("The capital of France is").text


def test_llama_index_embeddings(base_url):
    module = pytest.importorskip("llama_index.embeddings.openai_like")
    model = module.OpenAILikeEmbedding(api_base=base_url, api_key="none", model_name=MODEL)
    one, two = model.get_text_embedding_batch(["a red house", "a blue car"])
    assert one == pytest.approx(model.get_query_embedding("a red house"), abs=1e-3) and one != two
