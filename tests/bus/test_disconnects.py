"""Callers that leave a stream: its upstream is cut within a second, and what was generated is billed."""

import asyncio
import time
from collections.abc import AsyncIterator

import pytest
import upstream as up
from audit import check_books, events, history, kinds, open_attempts
from embedded_kit import eventually
from far import LAST, THREAD, USAGE, WHOLE, WORD, serving, then_silent, wait_for_the_end
from messages import ask, calling, chat_body
from nats.aio.client import Client
from trunkline.client import Gateway
from trunkline_actors.answers import PROBE_SECONDS
from trunkline_actors.attempting import Attempting
from trunkline_actors.endings import Metering
from trunkline_actors.shell import Decided
from trunkline_events import headers
from trunkline_events.thread import Aborted, RouteDecided, UsageRecorded
from upstream import SILENCE, Reply, Upstream

pytest_plugins = ["gateway"]

NOISE = 0.7
"""Seconds that two busy cores may add."""


@pytest.fixture
def nats(gw: Gateway) -> Client:
    return gw._connection.nats


# --- callers that leave


@pytest.mark.parametrize(
    ("reply", "chunks"),
    [
        pytest.param(SILENCE, 0, id="before the head"),
        pytest.param(then_silent(), 0, id="before the first chunk"),
        pytest.param(then_silent(WORD), 1, id="after the first chunk"),
        pytest.param(then_silent(*[WORD] * 20), 20, id="in the middle"),
        pytest.param(then_silent(*[WORD] * 5, LAST), 6, id="after the last chunk"),
        pytest.param(then_silent(*[WORD] * 5, LAST, USAGE), 6, id="after the usage"),
    ],
)
async def test_a_stream_whose_caller_leaves_is_cut_within_a_second_and_billed(
    gw: Gateway, nats: Client, reply: Reply, chunks: int
) -> None:
    async with serving(gw, Upstream(reply)) as upstream:
        async with calling(nats, chat_body("m", stream=True, max_tokens=200), THREAD) as call:
            for _ in range(chunks):
                await call.next()
            await upstream.asked.wait()
        await nats.flush()
        left = time.monotonic()
        async with asyncio.timeout(5):
            await upstream.left.wait()
        assert time.monotonic() - left < PROBE_SECONDS + NOISE
        await wait_for_the_end(gw)
        assert len(upstream.requests) == 1
    recorded = await history(gw, "t")
    assert kinds(recorded) == ["route-decided", "aborted"]
    decided, aborted = (event.body for event in recorded)
    assert isinstance(decided, RouteDecided)
    assert isinstance(aborted, Aborted)
    assert (aborted.finish, aborted.partial) == ("abandoned", True)
    words = sum(piece.count(b"word") for piece in reply.body)
    assert aborted.usage.output_tokens >= words
    assert words * 4_000 <= aborted.cost_nanos <= decided.reserve_nanos
    check_books(recorded)
    books = await gw.threads.get(thread_id="t")
    assert (books["open"], books["reserved_usd"]) == ([], "0")


async def test_a_stream_that_speaks_is_cut_as_well(gw: Gateway, nats: Client) -> None:
    said = 0

    async def speak() -> AsyncIterator[bytes]:
        nonlocal said
        while True:
            said += 1
            yield up.events(WORD).body[0]
            await asyncio.sleep(0.02)

    async with serving(gw, Upstream(Reply(headers=up.SSE, pieces=speak()))):
        async with calling(nats, chat_body("m", stream=True), THREAD) as call:
            await call.next()
        left = time.monotonic()
        await wait_for_the_end(gw)
        assert time.monotonic() - left < PROBE_SECONDS + NOISE
        heard = said
        aborted = (await history(gw, "t"))[-1].body
        assert isinstance(aborted, Aborted)
        assert aborted.usage.output_tokens >= heard - 10  # what was on its way when it was cut is nobody's
    check_books(await events(gw))


async def test_a_stream_that_is_over_is_settled_exactly_though_its_caller_leaves_before_its_end(
    gw: Gateway, nats: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What upstream reported is being recorded: there is nothing left to cut, and no need to estimate."""
    recording, may_record = asyncio.Event(), asyncio.Event()
    record = Attempting._record

    async def slowly(attempting: Attempting, metering: Metering) -> Decided | None:
        recording.set()
        await may_record.wait()
        return await record(attempting, metering)

    monkeypatch.setattr(Attempting, "_record", slowly)
    async with serving(gw, Upstream(up.events(WORD, LAST, USAGE))):
        fields = {**THREAD, headers.REQUEST: "r"}
        async with calling(nats, chat_body("m", stream=True), fields):
            await recording.wait()
        await gw.chat.abort("r")
        may_record.set()
        await wait_for_the_end(gw)
    settled = (await history(gw, "t"))[-1].body
    assert isinstance(settled, UsageRecorded)
    assert (settled.finish, settled.estimated, settled.cost_nanos) == ("stop", False, 7 * 1_000 + 9 * 4_000)


async def test_a_plain_call_runs_to_its_end_and_is_billed_exactly_though_its_caller_left(
    gw: Gateway, nats: Client
) -> None:
    """A retry with the same id gets the answer that was paid for."""
    may_answer = asyncio.Event()

    async def later(_request: up.Request) -> Reply:
        await may_answer.wait()
        return up.answer(WHOLE)

    async with serving(gw, Upstream(handler=later)) as upstream:
        fields = {**THREAD, headers.REQUEST: "r"}
        async with calling(nats, chat_body("m"), fields):
            await upstream.asked.wait()
        await nats.flush()
        left = asyncio.get_running_loop().time()
        await eventually(lambda: asyncio.get_running_loop().time() - left > PROBE_SECONDS + 0.5)
        assert open_attempts(await history(gw, "t"))
        may_answer.set()
        await wait_for_the_end(gw)
        again = await ask(nats, chat_body("m"), fields)
        assert again.json["choices"] == WHOLE["choices"]
        assert again.fields[headers.REPLAYED] == "true"
        assert len(upstream.requests) == 1
    recorded = await history(gw, "t")
    assert kinds(recorded) == ["route-decided", "usage-recorded"]
    settled = recorded[-1].body
    assert isinstance(settled, UsageRecorded)
    assert (settled.usage.input_tokens, settled.usage.output_tokens, settled.estimated) == (7, 9, False)
    assert settled.cost_nanos == 7 * 1_000 + 9 * 4_000


async def test_one_of_two_callers_that_leaves_takes_nothing_from_the_other(gw: Gateway, nats: Client) -> None:
    fields = {**THREAD, headers.REQUEST: "r"}
    body = chat_body("m", stream=True)
    async with serving(gw, Upstream(then_silent(WORD))) as upstream:
        async with calling(nats, body, fields) as stays:
            await stays.next()
            async with calling(nats, body, fields) as leaves:
                await leaves.next()
            for number in ("2", "3"):  # a second passes, twice
                assert (await stays.next()).fields == {headers.SEQ: number, headers.SILENT: "true"}
            assert not upstream.left.is_set()
        async with asyncio.timeout(5):
            await upstream.left.wait()
        await wait_for_the_end(gw)


async def test_a_silent_stream_says_nothing_that_a_reader_would_mind(gw: Gateway, nats: Client) -> None:
    """Who reads deltas finds an empty one; who counts finds no number missing."""
    spoken = asyncio.Event()

    async def slowly(_request: up.Request) -> Reply:
        async def pieces() -> AsyncIterator[bytes]:
            word, *rest = up.events(WORD, LAST).body
            yield word
            await spoken.wait()
            for piece in rest:
                yield piece

        return Reply(headers=up.SSE, pieces=pieces())

    async with (
        serving(gw, Upstream(handler=slowly)),
        gw.chat.stream("m", "hello") as ours,
        calling(nats, chat_body("m", stream=True)) as bare,
    ):
        said = [await bare.next(), await bare.next()]
        spoken.set()
        said += await bare.rest()
        texts = [chunk.text async for chunk in ours]
    silences = [message for message in said[:-1] if message.json["choices"][0]["delta"] == {}][:-1]
    assert silences
    assert silences[0].json["object"] == "chat.completion.chunk"
    assert silences[0].json["choices"] == [{"index": 0, "delta": {}, "finish_reason": None}]
    assert [int(message.fields[headers.SEQ]) for message in said] == list(range(1, len(said) + 1))
    assert "".join(texts) == "word "
    assert ours.receipt is not None


async def test_a_fallback_after_a_silence_goes_on_counting(gw: Gateway, nats: Client) -> None:
    """What an earlier attempt sent was silent: no number is missing, and none is given twice."""
    heard = asyncio.Event()

    async def fails_late(_request: up.Request) -> Reply:
        await heard.wait()
        return up.answer({"error": {"message": "overloaded"}}, 503)

    fields = {**THREAD, headers.REQUEST: "r"}
    body = chat_body("m", stream=True, route={"fallbacks": ["tokens"]})
    async with serving(gw, Upstream(handler=fails_late)), calling(nats, body, fields) as call:
        silence = await call.next()
        heard.set()
        rest = await call.rest()
        async with calling(nats, body, fields) as again:
            replayed = await again.rest()
    assert silence.json["choices"][0]["delta"] == {}
    numbers = [int(message.fields[headers.SEQ]) for message in (silence, *rest)]
    assert numbers == list(range(1, len(numbers) + 1))
    assert len(numbers) > 20
    assert replayed[0].json["choices"] == silence.json["choices"]
    assert [message.data for message in replayed[1:]] == [message.data for message in rest]
    assert [int(message.fields[headers.SEQ]) for message in replayed] == numbers
