"""A server for the whole run, with the default decoder."""
import pytest
from server import MODEL, Server


@pytest.fixture(scope="session")
def server():
    with Server("--model", MODEL, "--max-context", "512") as running:
        yield running


@pytest.fixture(scope="session")
def url(server):
    return server.url


@pytest.fixture(scope="session")
def base_url(server):
    return server.url + "/v1"
