"""Group commit: appends that share a batch have the outcomes they would have had alone, whatever becomes of it."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager

import pytest
from logs import EagerPace, an_event, append, ids
from relay import Relay, relay_to
from trunkline.embedded import EmbeddedServer
from trunkline.embedded.config import MAX_PAYLOAD
from trunkline_events import jetstream
from trunkline_events.circuit import Reset
from trunkline_events.connection import Connection
from trunkline_events.envelope import NewEvent
from trunkline_events.jetstream import JetStreamLog
from trunkline_events.log import Appended, Conflict, LogUnavailable, TooLarge
from trunkline_events.pace import STEADY
from trunkline_events.writer import BATCH, BATCH_BYTES

pytest_plugins = ["gateway"]


@asynccontextmanager
async def opened(url: str, *, eager: bool = True) -> AsyncIterator[JetStreamLog]:
    connection = await Connection.open(url, name="test")
    log = await JetStreamLog.open(connection)
    if eager:
        log._writer.pace = EagerPace()
    yield log
    await log.close()
    await connection.close()


@pytest.fixture
async def log(server: EmbeddedServer) -> AsyncIterator[JetStreamLog]:
    async with opened(server.url) as one:
        yield one


@pytest.fixture
async def relay(server: EmbeddedServer) -> AsyncIterator[Relay]:
    async with relay_to(server.port) as one:
        yield one


async def outcomes(*appends: Awaitable[Appended]) -> list[Appended | BaseException]:
    return await asyncio.gather(*appends, return_exceptions=True)


async def settled(log: JetStreamLog, end: int) -> None:
    """Return when the log holds so many events: the server stores them, and nobody is told."""
    async with asyncio.timeout(5):
        while await log.end() < end:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_what_is_appended_in_one_turn_is_stored_as_one_batch_in_its_order(log: JetStreamLog) -> None:
    events = [an_event(f"e{n}", f"a{n % 5}") for n in range(50)]
    stored = await outcomes(*(log.append(event) for event in events))
    assert stored == [Appended(n) for n in range(1, 51)]
    assert log._writer.batches == 1
    assert await ids(log.read()) == [event.id for event in events]


async def test_of_a_refused_batch_each_has_its_own_outcome(log: JetStreamLog) -> None:
    await append(log, "old", "twice")
    found = await outcomes(
        log.append(an_event("n1", "b"), 0),
        log.append(an_event("stale", "a"), 1),
        log.append(an_event("n2", "c"), 0),
        log.append(an_event("twice", "d")),
        log.append(an_event("n3", "e")),
    )
    assert isinstance(found[1], Conflict)
    assert found[3] == Appended(2, duplicate=True)
    rest = [one for number, one in enumerate(found) if number not in {1, 3}]
    assert sorted(one.sequence for one in rest if isinstance(one, Appended)) == [3, 4, 5]
    assert await ids(log.read(2)) == ["n1", "n2", "n3"]


async def test_a_batch_that_was_refused_and_is_stored_all_the_same_is_told_as_stored(log: JetStreamLog) -> None:
    """As a leader may that loses its lead: here the refusal is made of what another member of the batch does."""
    await append(log, "old", "mine")
    found = await outcomes(log.append(an_event("mine"), 1), log.append(an_event("stale", "b"), 9))
    assert found[0] == Appended(2, duplicate=True)
    assert isinstance(found[1], Conflict)


async def test_a_subject_that_conflicted_stays_out_of_batches(log: JetStreamLog) -> None:
    await append(log, "old")
    await outcomes(log.append(an_event("stale"), 0), log.append(an_event("b1", "b"), 0))
    before = log._writer.batches
    found = await outcomes(log.append(an_event("stale again"), 0), log.append(an_event("b2", "b"), 2))
    assert isinstance(found[0], Conflict)
    assert isinstance(found[1], Appended)
    assert log._writer.batches == before + 1, "the batch was not refused: it held the other one alone"


async def test_of_two_that_expect_the_same_in_one_turn_one_is_stored(log: JetStreamLog) -> None:
    found = await outcomes(*(log.append(an_event(f"e{n}"), 0) for n in range(3)), log.append(an_event("b", "b"), 0))
    assert sum(isinstance(one, Conflict) for one in found) == 2
    assert len(await ids(log.read())) == 2


async def test_who_expects_nothing_and_who_expects_something_of_one_subject_both_get_an_answer(
    log: JetStreamLog,
) -> None:
    found = await outcomes(log.append(an_event("free")), log.append(an_event("bound"), 0))
    assert sum(isinstance(one, Appended) for one in found) == len(await ids(log.read())) >= 1


async def test_more_than_a_batch_holds_goes_out_in_several(log: JetStreamLog) -> None:
    count = 2 * BATCH + 100
    found = await outcomes(*(log.append(an_event(f"e{n}", f"a{n}"), 0) for n in range(count)))
    assert sorted(one.sequence for one in found if isinstance(one, Appended)) == list(range(1, count + 1))
    assert len(await ids(log.read())) == count


def a_large_event(name: str, size: int) -> NewEvent:
    body = Reset(provider=name, reason="x" * size)
    return NewEvent(id=name, category="circuit", aggregate=name, body=body, time=time.time(), actor="test")


async def test_large_events_fill_a_batch_sooner(log: JetStreamLog) -> None:
    found = await outcomes(*(log.append(a_large_event(f"e{n}", BATCH_BYTES // 3), 0) for n in range(6)))
    assert sorted(one.sequence for one in found if isinstance(one, Appended)) == [1, 2, 3, 4, 5, 6]


async def test_an_event_that_is_too_large_is_refused_and_takes_nobody_with_it(log: JetStreamLog) -> None:
    found = await outcomes(
        log.append(an_event("b1", "b")), log.append(a_large_event("big", MAX_PAYLOAD)), log.append(an_event("c1", "c"))
    )
    assert isinstance(found[1], TooLarge)
    assert found[1].size > found[1].limit
    assert await ids(log.read()) == ["b1", "c1"]


async def test_an_append_given_up_before_it_was_sent_is_not_stored(log: JetStreamLog) -> None:
    waiting = asyncio.ensure_future(log.append(an_event("never")))
    await asyncio.sleep(0)
    waiting.cancel()
    assert await append(log, "e1") == 1
    assert waiting.cancelled()
    assert await ids(log.read()) == ["e1"]


async def test_without_load_appends_go_out_one_by_one(server: EmbeddedServer) -> None:
    async with opened(server.url, eager=False) as log:
        await append(log, *(f"e{n}" for n in range(20)))
        assert log._writer.batches == 0


async def test_a_busy_log_that_is_slow_at_single_appends_gets_batches_by_itself(server: EmbeddedServer) -> None:
    async with opened(server.url, eager=False) as log:
        log._writer.pace.learn_plain(STEADY * 0.005, STEADY, asyncio.get_running_loop().time())
        found = await outcomes(*(log.append(an_event(f"e{n}")) for n in range(100)))
        assert found == [Appended(n) for n in range(1, 101)]
        assert log._writer.batches == 1


async def test_what_one_batch_can_not_hold_waits_for_the_next(log: JetStreamLog) -> None:
    await outcomes(*(log.append(an_event(f"e{n}", f"a{n}")) for n in range(3 * BATCH)))
    assert log._writer.batches >= 3, "on a slow machine the last may be late, and is then sent once more"
    assert len(await ids(log.read())) == 3 * BATCH


async def test_closing_the_log_ends_what_is_under_way(server: EmbeddedServer, relay: Relay) -> None:
    async with opened(relay.url) as log:
        relay.deaf = True
        waiting = [asyncio.ensure_future(log.append(an_event(f"e{n}"))) for n in range(3)]
        await asyncio.sleep(0.05)
    found = await asyncio.wait_for(asyncio.gather(*waiting, return_exceptions=True), 10)
    assert all(isinstance(one, LogUnavailable) for one in found)


async def test_what_the_server_complains_of_does_not_end_the_connection(log: JetStreamLog) -> None:
    await log._nats._send_command(b"PUB x 99999999\r\n")
    await log._nats._flush_pending()
    await asyncio.sleep(0.05)
    assert await append(log, "e1") == 1


async def test_a_stalled_server_is_not_fed_without_end(server: EmbeddedServer) -> None:
    async with opened(server.url, eager=False) as log:
        assert server.pid is not None
        os.kill(server.pid, signal.SIGSTOP)
        try:
            events = [a_large_event(f"e{n}", 100_000) for n in range(400)]
            waiting = asyncio.gather(*(log.append(event) for event in events), return_exceptions=True)
            await asyncio.sleep(2.5)
            assert log._nats._pending_data_size <= 17 * 1024 * 1024
        finally:
            os.kill(server.pid, signal.SIGCONT)
        found = await waiting
        stored = await ids(log.read())
        assert len(stored) == len(set(stored))
        acknowledged = [event.id for event, one in zip(events, found, strict=True) if isinstance(one, Appended)]
        assert set(acknowledged) <= set(stored)


async def test_a_refusal_of_a_resend_is_told_as_what_is_stored(server: EmbeddedServer, relay: Relay) -> None:
    async with opened(server.url) as other, opened(relay.url) as log:
        await append(log, "a1")
        relay.deaf = True
        waiting = asyncio.ensure_future(log.append(an_event("same"), 1))
        await settled(other, 2)
        relay.deaf = False
        relay.cut()
        assert await waiting == Appended(2, duplicate=True), "whoever stored it, the caller must look"


# -- lost acknowledgements


@pytest.mark.parametrize("eager", [True, False], ids=["in batches", "one by one"])
async def test_a_lost_acknowledgement_is_resolved_by_reading_back(
    server: EmbeddedServer, relay: Relay, eager: bool
) -> None:
    async with opened(server.url) as other, opened(relay.url, eager=eager) as log:
        await append(log, "a1")
        relay.deaf = True
        waiting = asyncio.gather(
            log.append(an_event("a2"), 1),
            log.append(an_event("b2", "b"), 0),
            log.append(an_event("stale", "a"), 0) if not eager else log.append(an_event("c1", "c")),
            return_exceptions=True,
        )
        await settled(other, 4 if eager else 3)
        relay.deaf = False
        relay.cut()
        found = await waiting
        stored = {event.id: event.sequence async for event in other.read()}
        assert isinstance(found[0], Appended)
        assert isinstance(found[1], Appended)
        assert found[0].sequence == stored["a2"]
        assert found[1].sequence == stored["b2"]
        if eager:
            assert isinstance(found[2], Appended)
            assert found[2].sequence == stored["c1"]
        else:
            assert isinstance(found[2], Conflict)
        assert len(stored) == await other.end(), "nothing is stored twice"


async def test_who_lost_the_race_behind_a_lost_acknowledgement_hears_of_the_conflict(
    server: EmbeddedServer, relay: Relay
) -> None:
    async with opened(server.url) as other, opened(relay.url) as log:
        await append(log, "a1")
        relay.cut()
        await append(other, "a2")
        waiting = asyncio.ensure_future(log.append(an_event("mine"), 1))
        with pytest.raises(Conflict):
            await waiting
        assert await ids(other.read()) == ["a1", "a2"]


async def test_an_append_that_is_never_answered_ends_within_its_deadline(
    server: EmbeddedServer, relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jetstream, "APPEND_TIMEOUT", 0.5)
    async with opened(server.url) as other, opened(relay.url) as log:
        relay.deaf = True
        found = await outcomes(*(log.append(an_event(f"e{n}", f"a{n}"), 0) for n in range(3)))
        assert all(isinstance(one, LogUnavailable) for one in found)
        relay.deaf = False
        relay.cut()
        assert len(set(await ids(other.read()))) == await other.end()
