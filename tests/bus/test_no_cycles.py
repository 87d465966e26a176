"""A chat leaves nothing behind for the collector of cycles: that would cost a twentieth of all CPU."""

import gc

import aiohttp
import pytest

pytest_plugins = ["gateway", "edge_kit"]

CHATS = 30


@pytest.mark.parametrize("stream", [False, True])
async def test_a_chat_over_http_leaves_no_cycles(http: aiohttp.ClientSession, *, stream: bool) -> None:
    body = {"model": "tokens", "messages": [{"role": "user", "content": "hello"}], "stream": stream}

    async def chat() -> None:
        async with http.post("/v1/chat/completions", json=body) as answer:
            assert answer.status == 200
            await answer.read()

    for _ in range(5):
        await chat()
    gc.collect()
    gc.disable()
    try:
        for _ in range(CHATS):
            await chat()
        left = gc.collect()
    finally:
        gc.enable()
    assert left < CHATS, f"{left} objects after {CHATS} chats"
