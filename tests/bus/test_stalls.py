"""Streams that are too long in coming, their first chunk or the next, over real HTTP and the bus."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from audit import check_books, history, kinds
from faulty import WORD, chats, failing, register, streamed, token, whole, whole_stream
from messages import ask, calling, chat_body, stream
from nats.aio.client import Client
from trunkline.client import Gateway
from trunkline_events import headers
from trunkline_events.thread import Aborted, AttemptFailed, UsageRecorded
from upstream import SILENCE, SSE, Reply

pytest_plugins = ["gateway"]

COMMENT = b": keep-alive\n\n"
SHORT_S = 0.4
LONG_S = 30.0
"""Seconds that no test waits."""


@pytest.fixture
def nats(gw: Gateway) -> Client:
    return gw._connection.nats


async def comments(*before: bytes) -> AsyncIterator[bytes]:
    """A stream that says something, then only that it is still there."""
    for piece in before:
        yield piece
    while True:
        yield COMMENT
        await asyncio.sleep(0.02)


async def paced(count: int, seconds: float) -> AsyncIterator[bytes]:
    for _ in range(count):
        yield token()
        await asyncio.sleep(seconds)
    yield token("", "stop")
    yield b"data: [DONE]\n\n"


def chattering(*before: bytes) -> Reply:
    return Reply(status=200, headers=SSE, pieces=comments(*before))


@pytest.mark.parametrize("reply", [lambda: SILENCE, lambda: streamed(after="stall"), chattering])
async def test_a_first_chunk_that_is_too_long_in_coming_sends_the_request_on(
    gw: Gateway, nats: Client, reply: object
) -> None:
    """Whether the upstream says nothing, only its headers, or only comments."""
    assert callable(reply)
    async with failing(lambda _: reply()) as upstream:
        await register(gw, upstream.url, first_token_timeout_s=SHORT_S, stall_timeout_s=LONG_S)
        body = chat_body("m", stream=True, route={"fallbacks": ["echo"]})
        *chunks, end = await stream(nats, body, {headers.THREAD: "t"}, within=LONG_S / 2)
        async with asyncio.timeout(LONG_S / 2):
            await upstream.left.wait() if reply is not chattering else None
        assert chats(upstream) == 1
    assert (end.fields[headers.MODEL], end.fields[headers.ATTEMPTS]) == ("echo", "2")
    assert [chunk.fields[headers.SEQ] for chunk in chunks] == [str(n + 1) for n in range(len(chunks))]
    recorded = await history(gw, "t")
    assert kinds(recorded) == ["route-decided", "attempt-failed", "route-decided", "usage-recorded"]
    failed = recorded[1].body
    assert isinstance(failed, AttemptFailed)
    assert (failed.failure, failed.latency_ms >= SHORT_S * 1000) == ("timeout", True)
    check_books(recorded)


async def test_a_first_chunk_that_never_comes_is_told_as_a_timeout(gw: Gateway, nats: Client) -> None:
    async with failing(lambda _: SILENCE) as upstream:
        await register(gw, upstream.url, first_token_timeout_s=SHORT_S)
        told, end = await stream(nats, chat_body("m", stream=True, route={"attempts": 1}), {headers.THREAD: "t"})
    assert (told.error["code"], told.error["metadata"]["failure"], end.data) == ("timeout", "timeout", b"")
    assert "first chunk" in told.error["message"]


@pytest.mark.parametrize("after", ["silence", "comments"])
async def test_a_stall_after_20_tokens_ends_in_an_error_and_what_came_is_settled(
    gw: Gateway, nats: Client, after: str
) -> None:
    tokens = [token()] * 20
    reply = chattering(*tokens) if after == "comments" else streamed(*tokens, after="stall")
    async with failing(lambda _: reply) as upstream:
        await register(gw, upstream.url, first_token_timeout_s=LONG_S, stall_timeout_s=SHORT_S)
        body = chat_body("m", stream=True, route={"fallbacks": ["echo"]})
        *chunks, told, end = await stream(nats, body, {headers.THREAD: "t"}, within=LONG_S / 2)
        assert chats(upstream) == 1
    assert len(chunks) == 20
    assert (told.error["code"], told.fields[headers.ERROR_CODE]) == ("timeout", "504")
    assert "next chunk" in told.error["message"]
    assert (end.data, end.fields[headers.SEQ]) == (b"", "21")
    recorded = await history(gw, "t")
    assert kinds(recorded) == ["route-decided", "usage-recorded"]
    settled = recorded[-1].body
    assert isinstance(settled, UsageRecorded)
    assert (settled.partial, settled.estimated, settled.finish) == (True, True, "error")
    assert settled.usage.output_tokens == 20 * len(WORD)
    assert settled.ttft_ms is not None
    assert settled.latency_ms >= settled.ttft_ms + SHORT_S * 1000 - 50
    check_books(recorded)


async def test_a_slow_stream_that_goes_on_is_not_cut(gw: Gateway, nats: Client) -> None:
    """Longer than both timeouts as a whole, and than each of its waits by far less."""
    reply = Reply(status=200, headers=SSE, pieces=paced(12, 0.1))
    async with failing(lambda _: reply) as upstream:
        await register(gw, upstream.url, first_token_timeout_s=0.8, stall_timeout_s=0.8)
        *chunks, end = await stream(nats, chat_body("m", stream=True), {headers.THREAD: "t"})
    assert [chunk for chunk in chunks if headers.ERROR_CODE in chunk.fields] == []
    assert (len(chunks), end.fields[headers.FINISH]) == (13, "stop")


async def test_an_abort_during_a_stall_is_an_abort(gw: Gateway, nats: Client) -> None:
    async with failing(lambda _: streamed(*[token()] * 20, after="stall")) as upstream:
        await register(gw, upstream.url, stall_timeout_s=LONG_S)
        fields = {headers.THREAD: "t", headers.REQUEST: "r"}
        async with calling(nats, chat_body("m", stream=True), fields) as call:
            for _ in range(20):
                await call.next()
            await gw.chat.abort("r")
            *_, told, end = await call.rest()
        async with asyncio.timeout(LONG_S / 2):
            await upstream.left.wait()
    assert (told.error["code"], end.fields[headers.FINISH]) == ("aborted", "aborted")
    aborted = (await history(gw, "t"))[-1].body
    assert isinstance(aborted, Aborted)
    assert aborted.usage.output_tokens == 20 * len(WORD)


async def test_a_caller_that_leaves_during_a_stall_cuts_it(gw: Gateway, nats: Client) -> None:
    async with failing(lambda _: streamed(*[token()] * 20, after="stall")) as upstream:
        await register(gw, upstream.url, stall_timeout_s=LONG_S)
        async with calling(nats, chat_body("m", stream=True), {headers.THREAD: "t"}) as call:
            await call.next()
        async with asyncio.timeout(LONG_S / 2):
            await upstream.left.wait()
            async for event in gw.events("thread", id="t", since=0):
                if isinstance(event.body, Aborted):
                    assert event.body.finish == "abandoned"
                    break


async def test_a_plain_answer_has_its_whole_time(gw: Gateway, nats: Client) -> None:
    """The timeouts of streams are not for it: nothing of it can be seen before it is whole."""

    async def late() -> AsyncIterator[bytes]:
        await asyncio.sleep(4 * 0.1)
        yield whole().body[0]

    async with failing(lambda _: Reply(pieces=late())) as upstream:
        await register(gw, upstream.url, first_token_timeout_s=0.1, stall_timeout_s=0.1)
        done = await ask(nats, chat_body("m"))
    assert done.json["choices"][0]["message"]["content"] == "fine"


async def test_a_plain_answer_that_never_comes_is_a_timeout_that_another_candidate_makes_good(
    gw: Gateway, nats: Client
) -> None:
    async with failing(lambda _: SILENCE) as upstream:
        await register(gw, upstream.url, timeout_s=2 * SHORT_S)
        done = await ask(nats, chat_body("m", route={"fallbacks": ["echo"]}), {headers.THREAD: "t"})
    assert done.fields[headers.MODEL] == "echo"
    failed = (await history(gw, "t"))[1].body
    assert isinstance(failed, AttemptFailed)
    assert failed.failure == "timeout"


async def test_a_silent_first_choice_and_a_good_second_number_their_chunks_as_one_stream(
    gw: Gateway, nats: Client
) -> None:
    """While nothing came, chunks that say nothing were sent: they count."""
    async with failing(lambda _: SILENCE) as bad, failing(lambda _: whole_stream()) as good:
        await register(gw, bad.url, "bad", "b", first_token_timeout_s=1.5)
        await register(gw, good.url, "good", "g")
        body = chat_body("b", stream=True, route={"fallbacks": ["g"]})
        *chunks, end = await stream(nats, body, {headers.THREAD: "t", headers.REQUEST: "r"})
    numbers = [int(message.fields[headers.SEQ]) for message in (*chunks, end)]
    assert numbers == list(range(1, len(numbers) + 1))
    assert len(chunks) > 6
