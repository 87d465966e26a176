"""HTTP clients that go away: the upstream call is cut within a second, and what was generated is billed."""

import asyncio
import json
import time

import pytest
from audit import check_books, history, kinds
from far import WHOLE, WORD, serving, then_silent, wait_for_the_end
from raw_http import Raw, post, raw
from trunkline.client import Gateway
from trunkline.gateway.edge import Edge
from trunkline_events.thread import Aborted
from upstream import SILENCE, Reply, Upstream

pytest_plugins = ["gateway", "edge_kit"]

NOISE = 0.7
"""Seconds that two busy cores may add."""


def half_close(client: Raw) -> None:
    client.writer.write_eof()


def close(client: Raw) -> None:
    client.writer.close()


@pytest.mark.parametrize("leave", [Raw.reset, half_close, close])
@pytest.mark.parametrize(
    ("reply", "stream", "chunks"),
    [
        pytest.param(SILENCE, False, 0, id="plain"),
        pytest.param(SILENCE, True, 0, id="before the first chunk"),
        pytest.param(then_silent(WORD, WORD), True, 2, id="after the second chunk"),
    ],
)
async def test_whoever_leaves_is_noticed_within_a_second_and_billed(
    edge: Edge, gw: Gateway, reply: Reply, stream: bool, chunks: int, leave: object
) -> None:
    async with serving(gw, Upstream(reply)) as upstream, raw(edge.url) as client:
        messages = [{"role": "user", "content": "hello"}]
        body = {"model": "m", "stream": stream, "messages": messages, "max_tokens": 100}
        client.write(post(body, x_trunkline_thread="t"))
        async with asyncio.timeout(15):
            await upstream.asked.wait()
        if chunks:
            await client.head()
            heard = b""
            while heard.count(b"word ") < chunks:
                heard += await client.chunk()
        left = time.monotonic()
        leave(client)  # type: ignore[operator]
        async with asyncio.timeout(5):
            await upstream.left.wait()
        assert time.monotonic() - left < 1 + NOISE
        await wait_for_the_end(gw)
        recorded = await history(gw, "t")
        check_books(recorded)
        assert kinds(recorded) == ["route-decided", "aborted"]
        ending = recorded[-1].body
        assert isinstance(ending, Aborted)
        assert ending.usage.output_tokens >= chunks
        assert edge.in_flight == 0


async def test_who_leaves_after_the_answer_aborts_nothing(edge: Edge, gw: Gateway) -> None:
    async with serving(gw, Upstream(Reply([json.dumps(WHOLE).encode()]))), raw(edge.url) as client:
        body = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}
        client.write(post(body, x_trunkline_thread="t"))
        assert (await client.answer()).status == 200
        client.reset()
        await wait_for_the_end(gw)
        assert kinds(await history(gw, "t")) == ["route-decided", "usage-recorded"]
