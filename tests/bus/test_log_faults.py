"""The log on JetStream while connections break, readers dawdle and strangers write: nothing lost, nothing twice."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import nats.errors
import nats.js.errors
import pytest
from logs import Heard, an_event, open_log
from msgspec import structs
from nats.aio.client import Msg
from trunkline.embedded import EmbeddedServer
from trunkline_events import headers, jetstream
from trunkline_events.connection import Connection
from trunkline_events.envelope import NewEvent, RecordedEvent, Unknown
from trunkline_events.jetstream import JetStreamLog
from trunkline_events.log import Appended, Conflict, LogUnavailable, Scope
from trunkline_events.stream import stream_config
from trunkline_events.subjects import STREAM

CIRCUITS = Scope(("circuit",))

pytest_plugins = ["gateway"]


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[EmbeddedServer]:
    async with EmbeddedServer(store=tmp_path / "nats", port=0, durability="always") as running:
        yield running


BOTH_WAYS = pytest.mark.parametrize("log", [True, False], ids=["grouped", "single"], indirect=True)
"""With and without group commit, where the way of appending may matter."""


@pytest.fixture
async def log(connection: Connection, request: pytest.FixtureRequest) -> AsyncIterator[JetStreamLog]:
    opened = await open_log(connection, group_commit=getattr(request, "param", True))
    yield opened
    with contextlib.suppress(nats.errors.Error):
        await opened.close()


async def keep(log: JetStreamLog, event: NewEvent) -> Appended:
    """Append until it is acknowledged, as endings do."""
    while True:
        try:
            return await log.append(event)
        except LogUnavailable:
            continue


async def check(log: JetStreamLog, heard: Heard, appended: dict[str, Appended]) -> None:
    """What was acknowledged is in the log, once, where it was said to be, and the follower was told all of it."""
    stored = [event async for event in log.read(scope=CIRCUITS)]
    assert {event.id: event.sequence for event in stored} == {name: one.sequence for name, one in appended.items()}
    assert len(stored) == len(appended)
    await heard.until(len(stored))
    assert heard.events == stored


@BOTH_WAYS
async def test_nothing_is_lost_or_told_twice_when_the_connection_breaks(
    connection: Connection, log: JetStreamLog
) -> None:
    heard, appended = Heard(), {}
    follower = await log.follow(heard, scope=CIRCUITS)
    for number in range(90):
        name = f"e{number}"
        if number % 30 == 15:
            await connection.nats.force_reconnect()
        appended[name] = await keep(log, an_event(name, f"a{number % 3}"))
    await check(log, heard, appended)
    await follower.stop()


async def test_an_append_without_a_server_says_that_the_log_is_unavailable(
    server: EmbeddedServer, log: JetStreamLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jetstream, "APPEND_TIMEOUT", 0.1)
    await server.stop()
    with pytest.raises(LogUnavailable, match="e1"):
        await log.append(an_event("e1"))


async def test_a_log_whose_connection_is_closed_is_unavailable_at_once(
    connection: Connection, log: JetStreamLog
) -> None:
    await connection.close()
    with pytest.raises(LogUnavailable):
        await log.append(an_event("e1"))
    with pytest.raises(LogUnavailable):
        await log.last("circuit", "a")
    with pytest.raises(LogUnavailable):
        await JetStreamLog.open(connection)


@BOTH_WAYS
async def test_a_follower_that_is_slow_loses_nothing(log: JetStreamLog) -> None:
    heard, gate = Heard(), asyncio.Event()

    async def dawdle(event: RecordedEvent) -> None:
        await gate.wait()
        await heard(event)

    follower = await log.follow(dawdle, scope=CIRCUITS)
    events = [an_event(f"e{n}", f"a{n % 5}") for n in range(2000)]
    outcomes = await asyncio.gather(*(keep(log, event) for event in events))
    gate.set()
    await check(log, heard, {event.id: one for event, one in zip(events, outcomes, strict=True)})
    await follower.stop()


async def test_a_follower_whose_consumer_was_deleted_resumes(connection: Connection, log: JetStreamLog) -> None:
    heard, appended = Heard(), {}
    follower = await log.follow(heard, scope=CIRCUITS)
    appended["e1"] = await log.append(an_event("e1"))
    await heard.until(1)
    js = connection.nats.jetstream()
    (consumer,) = await js.consumers_info(STREAM)
    await js.delete_consumer(STREAM, consumer.name)
    appended["e2"] = await log.append(an_event("e2"))
    await check(log, heard, appended)
    await follower.stop()


async def test_a_follower_leaves_no_consumer_for_each_time_it_resumed(
    connection: Connection, log: JetStreamLog
) -> None:
    heard = Heard()
    follower = await log.follow(heard, scope=CIRCUITS)
    for number in range(3):
        await connection.nats.force_reconnect()
        await keep(log, an_event(f"e{number}"))
    await heard.until(3)
    assert len(await connection.nats.jetstream().consumers_info(STREAM)) <= 4
    await follower.stop()


async def test_what_is_stored_is_republished_with_its_sequence_and_what_is_refused_is_not(
    connection: Connection, log: JetStreamLog
) -> None:
    arrived: asyncio.Queue[Msg] = asyncio.Queue()
    await connection.nats.subscribe("trunkline.events.>", cb=arrived.put)
    await log.append(an_event("e1", "a.b"), 0)
    with pytest.raises(Conflict):
        await log.append(an_event("refused", "a.b"), 0)
    await log.append(an_event("e1", "a.b"))
    await log.append(an_event("e2", "other"))
    async with asyncio.timeout(5):
        messages = [await arrived.get() for _ in range(2)]
    await connection.nats.flush()
    assert arrived.empty()
    assert [(message.subject, message.headers[headers.MSG_ID]) for message in messages] == [
        ("trunkline.events.circuit.a=2Eb", "e1"),
        ("trunkline.events.circuit.other", "e2"),
    ]
    assert [message.headers["Nats-Sequence"] for message in messages] == ["1", "2"]


STRANGE = [
    "trunkline.log.x",
    "trunkline.log.circuit",
    "trunkline.log.circuit.a",
    "trunkline.log.circuit.a.b.c",
    "trunkline.log.circuit.=FF",
    "trunkline.log.nobody.a",
]


@pytest.mark.parametrize("data", [b"", b"garbage", b"\xff\xfe", b'{"type":"circuit.reset.v1"}', b"[" * 20_000])
async def test_what_strangers_write_into_the_log_is_unknown_and_stops_nobody(
    connection: Connection, log: JetStreamLog, data: bytes
) -> None:
    heard = Heard()
    follower = await log.follow(heard)
    js = connection.nats.jetstream()
    for subject in STRANGE:
        await js.publish(subject, data)
        await js.publish(subject, data, headers={headers.TYPE: "circuit.reset.v1", headers.TIME: "yesterday"})
    last = await log.append(an_event("mine"))
    ids = await heard.until(2 * len(STRANGE) + 1)
    assert ids[-1] == "mine"
    assert all(isinstance(event.body, Unknown) and event.time > 0 for event in heard.events[:-1])
    assert log.skipped == 2 * len(STRANGE)
    for event in heard.events:
        found = await log.get(event.sequence)
        assert found is not None
        assert structs.replace(found, time=0.0) == structs.replace(event, time=0.0)
        assert abs(found.time - event.time) < 0.001
    assert await log.append(an_event("next"), last.sequence) == Appended(last.sequence + 1)
    assert "a" in await log.aggregates("circuit")
    await follower.stop()


async def test_events_can_be_neither_deleted_nor_purged(connection: Connection, log: JetStreamLog) -> None:
    await log.append(an_event("e1"))
    js = connection.nats.jetstream()
    with pytest.raises(nats.js.errors.APIError, match="not permitted"):
        await js.delete_msg(STREAM, 1)
    with pytest.raises(nats.js.errors.APIError, match="not permitted"):
        await js.purge_stream(STREAM)
    assert await log.end() == 1


async def test_the_stream_is_made_once_and_found_again_with_what_is_in_it(
    connection: Connection, log: JetStreamLog
) -> None:
    await log.append(an_event("e1"))
    again = await JetStreamLog.open(connection)
    assert await again.end() == 1
    assert (await again.append(an_event("e1"))).duplicate
    await again.close()


async def test_a_stream_that_its_operator_has_changed_is_used_as_it_is(
    connection: Connection, log: JetStreamLog
) -> None:
    js = connection.nats.jetstream()
    await js.update_stream(stream_config(), description="ours")
    again = await JetStreamLog.open(connection)
    assert await again.append(an_event("e1")) == Appended(1)
    assert (await js.stream_info(STREAM)).config.description == "ours"
    await again.close()
