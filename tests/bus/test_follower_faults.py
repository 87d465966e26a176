"""A follower while consumers, connections and servers go away under it, and while its handler dawdles."""

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable

import nats.errors
import nats.js.errors
import pytest
from logs import Heard, an_event, append, within
from nats.js.api import ConsumerInfo
from relay import relay_to
from trunkline.embedded import EmbeddedServer
from trunkline_events import follower as followers
from trunkline_events.connection import Connection
from trunkline_events.envelope import RecordedEvent
from trunkline_events.follower import LITTLE, SILENCE, StreamFollower
from trunkline_events.jetstream import JetStreamLog
from trunkline_events.log import LogUnavailable
from trunkline_events.log_waiting import FollowerStopped
from trunkline_events.subjects import LOG, STREAM

pytest_plugins = ["gateway"]


async def test_a_follow_that_is_cancelled_leaves_nothing_that_goes_on(
    server: EmbeddedServer, log: JetStreamLog
) -> None:
    await append(log, "e1")
    async with relay_to(server.port) as relay:
        other = await Connection.open(relay.url, name="far")
        far = JetStreamLog(other)
        heard = Heard()
        await far.end()
        asking = asyncio.create_task(far.follow(heard))
        while not other._listeners:  # noqa: ASYNC110 - it has asked for the end of the log, and for its consumer now
            await asyncio.sleep(0)
        relay.deaf = True
        await asyncio.sleep(0.05)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        relay.deaf = False
        assert other._listeners == []
        await append(log, "e2")
        await other.nats.flush()
        assert heard.ids == []
        await far.close()
        await other.close()


class Dawdling(Heard):
    """A handler that waits for its gate with each event; `began` says that it does."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = asyncio.Event()
        self.began = asyncio.Event()

    async def __call__(self, event: RecordedEvent) -> None:
        self.began.set()
        await self.gate.wait()
        await super().__call__(event)


async def the_consumer(connection: Connection) -> ConsumerInfo:
    (consumer,) = await connection.nats.jetstream().consumers_info(STREAM)
    return consumer


async def resumed(connection: Connection, before: str) -> ConsumerInfo:
    """The consumer that came after `before`."""
    async with asyncio.timeout(10):
        while True:
            with contextlib.suppress(nats.errors.Error, nats.js.errors.Error):  # the server may be coming back
                for consumer in await connection.nats.jetstream(timeout=0.5).consumers_info(STREAM):
                    if consumer.name != before:
                        return consumer


async def write_many(connection: Connection, count: int, size: int) -> None:
    """So many events of so many bytes, which nobody of ours can read."""
    js = connection.nats.jetstream()
    for start in range(0, count, 100):
        await asyncio.gather(*(js.publish(f"{LOG}.circuit.a", b"x" * size) for _ in range(start, start + 100)))


async def break_connection(connection: Connection, _server: EmbeddedServer) -> None:
    await connection.nats.force_reconnect()


async def kill_server(_connection: Connection, server: EmbeddedServer) -> None:
    assert server.pid is not None
    os.kill(server.pid, signal.SIGKILL)


async def delete_consumer(connection: Connection, _server: EmbeddedServer) -> None:
    await connection.nats.jetstream().delete_consumer(STREAM, (await the_consumer(connection)).name)


@pytest.mark.parametrize("trouble", [break_connection, kill_server, delete_consumer], ids=lambda one: one.__name__)
async def test_an_event_whose_handler_waits_is_told_once_whatever_happens_meanwhile(
    connection: Connection,
    server: EmbeddedServer,
    log: JetStreamLog,
    trouble: Callable[[Connection, EmbeddedServer], object],
) -> None:
    heard = Dawdling()
    follower = await log.follow(heard)
    await append(log, "e1", "e2")
    await heard.began.wait()
    before = (await the_consumer(connection)).name
    await trouble(connection, server)  # type: ignore[misc]
    await asyncio.gather(resumed(connection, before), keep(log, "e3"))
    assert heard.ids == []
    assert follower.position == 0
    heard.gate.set()
    assert await heard.until(3) == ["e1", "e2", "e3"]
    await within(follower, 3)
    await follower.stop()


async def keep(log: JetStreamLog, name: str) -> None:
    while True:
        try:
            await append(log, name)
            return
        except LogUnavailable:
            continue


async def test_a_consumer_that_is_said_to_be_deleted_is_replaced_at_once(
    connection: Connection, log: JetStreamLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(followers, "SILENCE", 1000.0)
    heard = Heard()
    follower = await log.follow(heard)
    consumer = await the_consumer(connection)
    # What a server says where it says anything; it is no header a client could write, so it goes in as it arrives.
    follower._arrived(b"inbox", b"", b"", b"NATS/1.0 409 Consumer Deleted\r\n\r\n")
    await resumed(connection, consumer.name)
    await append(log, "e1")
    assert await heard.until(1) == ["e1"]
    await follower.stop()


def test_silence_is_noticed_within_three_seconds() -> None:
    assert followers.HEARTBEAT * 2 < SILENCE <= 3.0


async def test_a_message_that_went_missing_is_asked_for_again(connection: Connection, log: JetStreamLog) -> None:
    heard = Heard()
    follower = await log.follow(heard)
    lost: list[bytes] = []
    arrived = follower._arrived

    def lose_the_second(subject: bytes, reply: bytes, data: bytes, head: bytes | None) -> None:
        if b"e2" in data and not lost:
            lost.append(data)
        else:
            arrived(subject, reply, data, head)

    connection.nats._raw[follower._subscription._id] = lose_the_second
    await append(log, "e1", "e2", "e3")
    assert await heard.until(3) == ["e1", "e2", "e3"]
    assert lost
    await follower.stop()


async def test_a_slow_handler_holds_back_its_own_consumer_and_nothing_else(
    connection: Connection, log: JetStreamLog
) -> None:
    count, size = 800, 10_000
    slow, quick = Dawdling(), Heard()
    dawdling, keeping_up = await log.follow(slow), await log.follow(quick)
    await write_many(connection, count, size)
    await quick.until(count)
    await within(keeping_up, count)
    waiting = sum(len(delivery[1]) for delivery in dawdling._queue)
    assert waiting == dawdling._queued
    assert 0 < waiting <= 2.5e6, "the server holds back what is more than its window"
    assert len(slow.events) == 0
    slow.gate.set()
    await slow.until(count)
    assert [event.sequence for event in slow.events] == list(range(1, count + 1))
    for follower in (dawdling, keeping_up):
        await follower.stop()


async def test_the_server_may_send_more_when_little_is_left(log: JetStreamLog) -> None:
    follower = await log.follow(Heard())
    asked = ("$JS.FC.x", {"Status": "100", "Description": "FlowControl Request"})
    follower._queued = LITTLE + 1
    follower._control(*asked)
    assert follower._owed == "$JS.FC.x"
    follower._queued = LITTLE
    follower._let_send()
    assert follower._owed == ""
    await follower.stop()


@pytest.mark.parametrize("waits", [True, False])
async def test_others_get_their_turn_while_thousands_of_events_are_handed_over(
    connection: Connection, log: JetStreamLog, waits: bool
) -> None:
    await write_many(connection, 5_000, 1_000)
    turns = 0

    async def tick() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    async def told(_event: RecordedEvent) -> None: ...

    ticker = asyncio.create_task(tick())
    follower = await log.follow(told if waits else (lambda _event: None))
    before = turns
    await within(follower)
    assert turns - before > 20
    ticker.cancel()
    await follower.stop()


async def test_who_waits_for_what_will_not_come_is_told_so_when_the_connection_is_closed(
    connection: Connection, log: JetStreamLog
) -> None:
    follower = await log.follow(Heard())
    waiting = asyncio.create_task(follower.reached(7))
    await asyncio.sleep(0)
    await connection.close()
    with pytest.raises(FollowerStopped, match="7"):
        await asyncio.wait_for(waiting, 10)
    await follower.stop()


async def test_a_log_that_can_not_be_followed_is_unavailable_and_nothing_is_left_behind(
    connection: Connection, log: JetStreamLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_self: StreamFollower, _inbox: str) -> None:
        raise nats.errors.TimeoutError

    before = (set(connection.nats._raw), len(connection._listeners))
    monkeypatch.setattr(StreamFollower, "_config", broken)
    with pytest.raises(LogUnavailable, match="can't be followed"):
        await log.follow(Heard())
    assert (set(connection.nats._raw), len(connection._listeners)) == before


async def test_a_stopped_follower_interrupts_its_handler_and_tells_nothing_more(log: JetStreamLog) -> None:
    heard = Dawdling()
    follower = await log.follow(heard)
    await append(log, "e1", "e2")
    await heard.began.wait()
    await follower.stop()
    heard.gate.set()
    assert (heard.ids, follower.position) == ([], 0)


async def test_no_subscription_of_old_consumers_is_left(connection: Connection, log: JetStreamLog) -> None:
    raw = connection.nats._raw
    before = set(raw)
    follower: StreamFollower = await log.follow(Heard())
    for _ in range(3):
        consumer = await the_consumer(connection)
        follower._stale.set()
        await resumed(connection, consumer.name)
        await connection.nats.jetstream().delete_consumer(STREAM, consumer.name)
    assert len(set(raw) - before) == 1
    await follower.stop()
    assert set(raw) == before


async def test_an_event_of_another_author_is_read_like_ours(connection: Connection, log: JetStreamLog) -> None:
    heard = Heard()
    follower = await log.follow(heard)
    event = an_event("e1", "a.b")
    await log.append(event)
    await connection.nats.jetstream().publish(f"{LOG}.circuit", b"{}", headers={"Odd": "1"})
    await heard.until(2)
    assert heard.events[0].aggregate == "a.b"
    assert abs(heard.events[0].time - event.time) < 1e-5
    assert heard.events[0] == await log.get(1)
    assert heard.events[1].time > 1e9
    await follower.stop()
