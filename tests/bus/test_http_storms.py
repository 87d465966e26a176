"""Many HTTP clients at once, rude ones among them, on one process: nobody waits for them, nothing is left of them."""

import asyncio
import json
import time
from contextlib import AsyncExitStack

import messages
import pytest
from audit import check_books, events, open_attempts
from embedded_kit import eventually
from messages import register
from raw_http import Raw, post, raw
from storm import held, stream_many, streamed, text_of, words
from trunkline.client import Gateway
from trunkline.gateway.edge import Edge, Limits
from trunkline_events import headers

pytest_plugins = ["gateway", "edge_kit"]
pytestmark = pytest.mark.soak

MEGABYTE = 1024 * 1024


@pytest.fixture
def edge_limits() -> Limits:
    return Limits(read_s=2.0)


async def _at_rest(edge: Edge) -> None:
    server = edge.server
    assert server is not None
    await eventually(lambda: not server.connections and edge.in_flight == 0, within=20)
    await eventually(lambda: len(edge.bus.replies) == 0, within=20)


async def _nothing_open(gw: Gateway) -> None:
    recorded = await events(gw, "thread")
    async with asyncio.timeout(30):
        while open_attempts(recorded):
            recorded = await events(gw, "thread")
    check_books(recorded)


def spoken(body: bytes) -> list[bytes]:
    """The chunks of a stream, as they came."""
    events = [event.removeprefix(b"data: ") for event in body.split(b"\n\n") if event.startswith(b"data: {")]
    return [event for event in events if not silent(event)]


def silent(chunk: bytes) -> bool:
    """Whether it says nothing and only shows that its stream lives: how many there are depends on the time it took."""
    choices = json.loads(chunk)["choices"]
    return bool(choices) and choices[0]["delta"] == {} and choices[0]["finish_reason"] is None


@pytest.mark.timeout(120)
async def test_a_thousand_streams_at_once_are_each_byte_for_byte_what_the_bus_gives(edge: Edge, gw: Gateway) -> None:
    count = 1000
    heard = await stream_many(edge.url, count, 40)
    assert [status for status, _ in heard] == [200] * count
    assert [text_of(body) for _, body in heard] == [words(number, 40) for number in range(count)]
    for number in range(0, count, 50):
        body = streamed(number, 40).partition(b"\r\n\r\n")[2]
        given = await messages.stream(gw._connection.nats, body, {headers.REQUEST: f"r{number}"})
        assert spoken(heard[number][1]) == [one.data for one in given if one.data and not silent(one.data)]
    await _at_rest(edge)


async def test_a_storm_of_clients_that_leave_leaves_nothing_behind(edge: Edge, gw: Gateway) -> None:
    async def rude(number: int) -> None:
        async with raw(edge.url) as client:
            client.write(streamed(number, 5, "slow"))
            if number % 3:
                await client.head()
            if number % 3 == 2:
                await client.chunk()
            client.reset()

    await asyncio.gather(*(rude(number) for number in range(60)))
    await _at_rest(edge)
    await _nothing_open(gw)
    before = held()
    for turn in range(1, 4):
        await asyncio.gather(*(rude(turn * 1000 + number) for number in range(60)))
        await _at_rest(edge)
    await _nothing_open(gw)
    after = held()
    assert after[1] <= before[1] + 3
    assert after[0] - before[0] < 30 * MEGABYTE


@pytest.mark.soak
async def test_readers_that_stand_still_slow_nobody_and_are_cut(edge: Edge, gw: Gateway) -> None:
    await register(gw, long="tokens:60000")
    before = held()
    slow: list[Raw] = []
    async with asyncio.timeout(60), AsyncExitStack() as stack:
        for number in range(20):
            client = await stack.enter_async_context(raw(edge.url, receive_buffer=4096))
            client.reader._transport.pause_reading()  # type: ignore[attr-defined]
            client.write(post({"model": "long", "stream": True, "messages": words_of(number)}))
            slow.append(client)
        began = time.monotonic()
        status, body = (await stream_many(edge.url, 1, 40))[0]
        assert (status, text_of(body)) == (200, words(0, 40))
        quick = time.monotonic() - began
        await eventually(lambda: edge.in_flight == 0, within=40)
        assert quick < 20
        assert held()[0] - before[0] < 20 * 8 * MEGABYTE
    await _at_rest(edge)
    await _nothing_open(gw)
    assert held()[1] <= before[1] + 3


def words_of(number: int) -> list[dict[str, str]]:
    return [{"role": "user", "content": words(number, 2)}]


async def test_a_slow_reader_that_reads_gets_every_byte(edge: Edge, gw: Gateway) -> None:
    await register(gw, many="tokens:3000")
    async with raw(edge.url, receive_buffer=4096) as client:
        client.write(post({"model": "many", "stream": True, "messages": words_of(1)}))
        await client.head()
        got = b""
        async with asyncio.timeout(60):
            while chunk := await client.chunk():
                got += chunk
                await asyncio.sleep(0.001)
        told = [json.loads(line[6:]) for line in got.decode().split("\n\n") if line.startswith("data: {")]
        assert len([one for one in told if one["choices"][0]["delta"].get("content")]) == 3000
        assert got.endswith(b"data: [DONE]\n\n")
