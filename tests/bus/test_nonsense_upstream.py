"""Nonsense of an upstream on the bus: what is settled makes sense, and what can't be carried is not lost in silence."""

import json
from typing import Any

import pytest
from audit import check_books, history, kinds
from faulty import failing, register, streamed, token
from messages import ask, chat_body, stream
from nats.aio.client import Client
from trunkline.client import Gateway
from trunkline_events import headers
from trunkline_events.thread import UsageRecorded
from upstream import Reply

pytest_plugins = ["gateway"]

SECRET = "hunter2-of-somebody"


@pytest.fixture
def nats(gw: Gateway) -> Client:
    connection: Client = gw._connection.nats
    return connection


@pytest.mark.parametrize("before", [0, 3])
async def test_a_chunk_larger_than_the_bus_carries_ends_the_stream_with_an_error(
    gw: Gateway, nats: Client, before: int
) -> None:
    size = nats.max_payload
    pieces = [*[token()] * before, token("x" * size), token(), token("", "stop"), b"data: [DONE]\n\n"]
    async with failing(lambda _: streamed(*pieces)) as upstream:
        await register(gw, upstream.url)
        body = chat_body("m", stream=True, max_tokens=1000, route={"attempts": 2, "fallbacks": ["echo"]})
        *chunks, told, end = await stream(nats, body, {headers.THREAD: "t"})
    assert [chunk.fields[headers.SEQ] for chunk in chunks] == [str(n + 1) for n in range(before)]
    assert (told.error["code"], told.error["retryable"]) == ("internal", False)
    assert "max_payload" in told.error["message"]
    assert (end.data, end.fields[headers.SEQ], end.fields[headers.FINISH]) == (b"", str(before + 1), "error")
    recorded = await history(gw, "t")
    assert kinds(recorded) == ["route-decided", "usage-recorded"]
    settled = recorded[-1].body
    assert isinstance(settled, UsageRecorded)
    assert (settled.finish, settled.partial, settled.estimated) == ("error", True, True)
    assert settled.usage.output_tokens == size + before * len("word "), "it was generated"
    check_books(recorded)


def answer(usage: Any) -> Reply:
    choice = {"index": 0, "message": {"role": "assistant", "content": "fine"}, "finish_reason": SECRET}
    return Reply([json.dumps({"id": "1", "choices": [choice], "usage": usage}).encode()])


@pytest.mark.parametrize("count", [10**13, 2**70, -(10**9), "7", 0.5, None])
async def test_usage_and_reasons_that_cannot_be_are_settled_as_not_told(gw: Gateway, nats: Client, count: Any) -> None:
    async with failing(lambda _: answer({"prompt_tokens": count, "completion_tokens": count})) as upstream:
        await register(gw, upstream.url)
        await gw.threads.configure(thread_id="t", budget={"limit_usd": "0.1"})
        got = await ask(nats, chat_body("m", max_tokens=1000), {headers.THREAD: "t"})
    assert got.json["choices"][0]["finish_reason"] == SECRET, "the caller gets what was said"
    assert (got.fields[headers.FINISH], SECRET in str(got.fields)) == ("stop", False)
    recorded = await history(gw, "t")
    settled = recorded[-1].body
    assert isinstance(settled, UsageRecorded)
    assert (settled.finish, settled.estimated, settled.cost_nanos > 0) == ("stop", True, True)
    assert SECRET not in str(recorded)
    check_books(recorded)
