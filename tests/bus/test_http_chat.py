"""Chats over HTTP, as any OpenAI client sends them."""

from collections.abc import AsyncIterator

import aiohttp
import pytest
from trunkline.client import Gateway

pytest_plugins = ["gateway", "edge_kit"]

HELLO = {"model": "echo", "messages": [{"role": "user", "content": "hello there"}]}


@pytest.fixture
async def http(edge_url: str, gw: Gateway) -> AsyncIterator[aiohttp.ClientSession]:
    """A client of the edge."""
    async with aiohttp.ClientSession(base_url=edge_url) as session:
        yield session


async def test_a_chat_is_answered_with_its_receipt_in_the_headers(http: aiohttp.ClientSession) -> None:
    async with http.post("/v1/chat/completions", json=HELLO) as answer:
        assert answer.status == 200
        body = await answer.json()
        assert body["choices"][0]["message"]["content"] == "hello there"
        assert answer.headers["x-trunkline-model"] == "echo"
        assert answer.headers["x-trunkline-provider"] == "scripted"
        assert answer.headers["x-trunkline-attempts"] == "1"
        assert float(answer.headers["x-trunkline-cost-usd"]) > 0
        assert int(answer.headers["x-trunkline-event"]) > 0
        assert answer.headers["x-request-id"]
