"""The minutes of a process in their bucket: written once they are over, tried again, and read back as a whole."""

from collections.abc import AsyncIterator

import pytest
from trunkline_actors import minutes as minutes_module
from trunkline_actors.bus import Bus
from trunkline_actors.minutes import Minutes
from trunkline_actors.series import Kept
from trunkline_actors.tallies import Line, Tally
from trunkline_events.connection import Connection
from trunkline_events.log import LogUnavailable
from trunkline_events.subjects import METRICS_BUCKET

pytest_plugins = ["gateway"]

MINUTE = 29_921_040
"""Some minute, counted from 1970."""
LINE = Line("p", "meta/llama 3.1", "1")


class Clock:
    """Unix time, as the test has it."""

    def __init__(self, connection: Connection) -> None:
        self.minute: float = MINUTE
        self.bus = Bus(connection)

    def of(self, process: str) -> Minutes:
        return Minutes(self.bus, process, lambda: self.minute * 60)


@pytest.fixture
async def clock(connection: Connection, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Clock]:
    # The server says by its own clock when an entry was written: look at all of them.
    monkeypatch.setattr(minutes_module, "CLOCKS_APART", 1e12)
    made = Clock(connection)
    await made.bus.replies.open()
    yield made
    await made.bus.replies.close()


def calls(number: int = 1) -> Tally:
    return Tally(calls=number, good=number, latency={10: number})


async def started(clock: Clock, process: str = "host.example-1") -> Minutes:
    minutes = clock.of(process)
    await minutes.start()
    return minutes


async def read(minutes: Minutes, since: int = 0, until: int = 2 * MINUTE) -> list[tuple[int, int]]:
    """(minutes after the first, calls) of each entry."""
    found = [pair async for pair in minutes.read(LINE.model, since, until)]
    return sorted((minute - MINUTE, kept.tally.calls) for minute, kept in found)


async def test_a_minute_is_written_when_it_is_over(clock: Clock) -> None:
    minutes = await started(clock)
    minutes.add(LINE, calls())
    minutes.add(LINE, calls(2))
    await minutes.write()
    assert await read(minutes) == []
    clock.minute += 1
    minutes.add(LINE, calls(5))
    await minutes.write()
    assert await read(minutes) == [(0, 3)]
    await minutes.stop()
    assert await read(minutes) == [(0, 3), (1, 5)]


async def test_what_was_kept_is_read_as_it_was_by_provider_and_version(clock: Clock) -> None:
    minutes = await started(clock)
    minutes.add(LINE, calls())
    minutes.add(LINE._replace(provider="q", version="2"), calls(2))
    minutes.add(LINE._replace(model="meta"), calls(9))
    await minutes.stop()
    assert [kept async for _, kept in minutes.read(LINE.model, 0, 2 * MINUTE)] == [
        Kept(provider="p", version="1", tally=calls()),
        Kept(provider="q", version="2", tally=calls(2)),
    ]


async def test_processes_do_not_overwrite_each_other(clock: Clock) -> None:
    first, second = await started(clock, "first"), await started(clock, "second")
    first.add(LINE, calls(1))
    second.add(LINE, calls(2))
    await first.stop()
    await second.stop()
    assert await read(first) == [(0, 1), (0, 2)]


async def test_more_than_one_answer_can_hold_is_read_in_several(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(minutes_module, "BATCH", 3)
    minutes = await started(clock)
    for number in range(10):
        clock.minute = MINUTE + number
        minutes.add(LINE, calls(number + 1))
    await minutes.stop()
    assert await read(minutes) == [(number, number + 1) for number in range(10)]
    assert await read(minutes, MINUTE + 4, MINUTE + 6) == [(4, 5), (5, 6)]


async def test_a_clock_that_is_set_back_overwrites_no_minute(clock: Clock) -> None:
    minutes = await started(clock)
    minutes.add(LINE, calls(3))
    clock.minute += 1
    await minutes.write()
    clock.minute -= 1
    minutes.add(LINE, calls(4))
    await minutes.stop()
    assert await read(minutes) == [(0, 3), (1, 4)]


async def test_what_could_not_be_written_is_written_with_the_next_minute(clock: Clock, connection: Connection) -> None:
    minutes = await started(clock)
    js = connection.nats.jetstream()
    await js.delete_key_value(METRICS_BUCKET)
    minutes.add(LINE, calls(3))
    clock.minute += 1
    await minutes.write()
    with pytest.raises(LogUnavailable):
        await read(minutes)
    minutes.add(LINE, calls(4))
    await started(clock)  # another process makes the bucket
    await minutes.stop()
    assert await read(minutes) == [(0, 3), (1, 4)]


async def test_while_nothing_can_be_written_the_oldest_minutes_go_first(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(minutes_module, "MOST_WAITING", 2)
    minutes = await started(clock)
    for number in range(4):
        clock.minute = MINUTE + number
        minutes.add(LINE, calls(number + 1))
    await minutes.write(everything=True)
    assert await read(minutes) == [(2, 3), (3, 4)]


async def test_an_entry_that_makes_no_sense_is_left_out(clock: Clock, connection: Connection) -> None:
    minutes = await started(clock)
    bucket = await connection.nats.jetstream().key_value(METRICS_BUCKET)
    key = "meta=2Fllama=203=2E1"
    await bucket.put(f"{key}.{MINUTE}.other", b"{")
    await bucket.put(f"{key}.soon.other", b"[]")
    minutes.add(LINE, calls())
    await minutes.stop()
    await bucket.put(f"{key}.{MINUTE}.gone", b"[]")
    await bucket.delete(f"{key}.{MINUTE}.gone")
    assert await read(minutes) == [(0, 1)]


async def test_a_week_is_kept(clock: Clock, connection: Connection) -> None:
    await started(clock)
    status = await (await connection.nats.jetstream().key_value(METRICS_BUCKET)).status()
    assert (status.ttl, status.history) == (7 * 24 * 3600, 1)
