"""A fold that follows the log, with snapshots in a real bucket."""

import asyncio
from typing import Any

import msgspec
import pytest
from msgspec import Struct
from trunkline_actors.snapshots import KvSnapshots
from trunkline_events.circuit import Reset
from trunkline_events.connection import Connection
from trunkline_events.envelope import NewEvent, RecordedEvent
from trunkline_events.jetstream import JetStreamLog
from trunkline_events.subjects import SNAPSHOTS_BUCKET, STREAM
from trunkline_projections import runner
from trunkline_projections.fold import Fold
from trunkline_projections.runner import Snapshot, View

pytest_plugins = ["gateway"]


class Names(Struct, frozen=True, kw_only=True):
    """The ids of all events, in order."""

    ids: list[str] = []


class Wider(Struct, frozen=True, kw_only=True):
    """The same fold, one version on."""

    ids: list[str] = []
    count: int = 0


def _step(state: Any, event: RecordedEvent) -> Any:
    return msgspec.structs.replace(state, ids=[*state.ids, event.id])


NAMES = Fold(name="names", categories=("circuit",), state=Names, initial=Names, step=_step)
WIDER = Fold(name="names", categories=("circuit",), state=Wider, initial=Wider, step=_step)


@pytest.fixture
async def snapshots(connection: Connection) -> KvSnapshots:
    opened = KvSnapshots(connection)
    await opened.open()
    return opened


async def append(log: JetStreamLog, *names: str, category: str = "circuit") -> int:
    sequence = 0
    for name in names:
        body = Reset(provider="p")
        event = NewEvent(id=name, category=category, aggregate="p", body=body, time=1.0, actor="test")
        sequence = (await log.append(event)).sequence
    return sequence


async def started(view: View[Any]) -> View[Any]:
    await view.start()
    return view


KEY = f"names.{NAMES.schema()}"


async def snapshot_of(snapshots: KvSnapshots) -> Snapshot:
    data = await snapshots.load(KEY)
    assert data is not None
    return msgspec.msgpack.decode(data, type=Snapshot)


async def changes(connection: Connection) -> asyncio.Queue[Any]:
    """What is written into the bucket from here on."""
    written: asyncio.Queue[Any] = asyncio.Queue()
    await connection.nats.subscribe(f"$KV.{SNAPSHOTS_BUCKET}.>", cb=written.put)
    return written


async def put(
    snapshots: KvSnapshots, state: Any, *, position: int, schema: str = NAMES.schema(), mark: str | None = None
) -> None:
    """A snapshot such as `append` would have led to, whatever its state."""
    if mark is None:
        mark = f"{'abc'[position - 1]} 1.000000"
    snapshot = Snapshot(schema, position, msgspec.Raw(msgspec.msgpack.encode(state)), mark)
    await snapshots.save(KEY, msgspec.msgpack.encode(snapshot))


async def test_a_view_holds_all_that_was_in_the_log_when_it_has_started(log: JetStreamLog) -> None:
    await append(log, "a", "b")
    await append(log, "elsewhere", category="provider")
    view = await started(View(log, NAMES))
    assert (view.state.ids, view.position) == (["a", "b"], 2)
    await view.stop()


async def test_a_view_reads_what_was_written_before_it_was_asked(log: JetStreamLog) -> None:
    view = await started(View(log, NAMES))
    for number in range(20):
        await append(log, f"e{number}")
        await view.catch_up()
        assert view.state.ids[-1] == f"e{number}"
    sequence = await append(log, "last")
    await view.reached(sequence)
    await view.reached(sequence - 1)
    assert view.state.ids[-1] == "last"
    await view.stop()


async def test_what_is_written_elsewhere_is_nothing_to_wait_for(log: JetStreamLog) -> None:
    view = await started(View(log, NAMES))
    await append(log, "elsewhere", category="provider")
    await view.catch_up()
    assert view.position == 0
    await view.stop()


async def test_listeners_are_told_after_the_state_has_changed(log: JetStreamLog) -> None:
    view = View(log, NAMES)
    seen: list[tuple[str, int]] = []
    view.on_change.append(lambda event: seen.append((event.id, len(view.state.ids))))
    await view.start()
    await view.reached(await append(log, "a", "b"))
    assert seen == [("a", 1), ("b", 2)]
    await view.stop()


async def test_a_view_resumes_from_the_snapshot_it_left(log: JetStreamLog, snapshots: KvSnapshots) -> None:
    await append(log, "a", "b")
    await (await started(View(log, NAMES, snapshots))).stop()
    assert (await snapshot_of(snapshots)).position == 2
    await put(snapshots, Names(ids=["from the snapshot"]), position=2)
    await append(log, "c")
    view = await started(View(log, NAMES, snapshots))
    assert (view.state.ids, view.position) == (["from the snapshot", "c"], 3)
    await view.stop()


async def test_a_snapshot_at_the_end_of_the_log_needs_no_event_more(log: JetStreamLog, snapshots: KvSnapshots) -> None:
    await append(log, "a")
    await put(snapshots, Names(ids=["kept"]), position=1)
    view = await started(View(log, NAMES, snapshots))
    assert (view.state.ids, view.position) == (["kept"], 1)
    await view.stop()


async def test_a_snapshot_of_another_shape_is_no_snapshot(log: JetStreamLog, snapshots: KvSnapshots) -> None:
    await append(log, "a")
    await (await started(View(log, NAMES, snapshots))).stop()
    view = await started(View(log, WIDER, snapshots))
    assert view.state == Wider(ids=["a"])
    await view.stop()


async def test_a_snapshot_ahead_of_the_log_is_of_another_log(log: JetStreamLog, snapshots: KvSnapshots) -> None:
    await append(log, "a")
    await put(snapshots, Names(ids=["a", "gone"]), position=2)
    view = await started(View(log, NAMES, snapshots))
    assert view.state.ids == ["a"]
    await view.stop()


@pytest.mark.parametrize("mark", ["b 1.000000", "a 2.000000", ""])
async def test_a_snapshot_that_ends_with_another_event_is_of_another_log(
    log: JetStreamLog, snapshots: KvSnapshots, mark: str
) -> None:
    await append(log, "a")
    await put(snapshots, Names(ids=["elsewhere"]), position=1, mark=mark)
    view = await started(View(log, NAMES, snapshots))
    assert view.state.ids == ["a"]
    await view.stop()


async def test_a_log_that_was_made_anew_is_read_from_its_beginning(
    connection: Connection, log: JetStreamLog, snapshots: KvSnapshots
) -> None:
    await append(log, "a", "b")
    await (await started(View(log, NAMES, snapshots))).stop()
    await connection.nats.jetstream().delete_stream(STREAM)
    anew = await JetStreamLog.open(connection)
    await append(anew, "c", "d", "e")
    view = await started(View(anew, NAMES, snapshots))
    assert view.state.ids == ["c", "d", "e"]
    await view.stop()
    await anew.close()


@pytest.mark.parametrize("data", [b"", b"garbage", msgspec.msgpack.encode([1, 2]), msgspec.msgpack.encode({"ids": 1})])
async def test_a_snapshot_that_can_not_be_read_is_no_snapshot(
    log: JetStreamLog, snapshots: KvSnapshots, data: bytes
) -> None:
    await append(log, "a")
    await snapshots.save(KEY, data)
    view = await started(View(log, NAMES, snapshots))
    assert view.state.ids == ["a"]
    await view.stop()


async def test_a_snapshot_whose_state_can_not_be_read_is_no_snapshot(log: JetStreamLog, snapshots: KvSnapshots) -> None:
    await append(log, "a")
    await put(snapshots, {"ids": [1]}, position=1)
    view = await started(View(log, NAMES, snapshots))
    assert (view.state.ids, view.position) == (["a"], 1)
    await view.stop()


async def test_a_snapshot_is_kept_every_so_many_events(
    connection: Connection, log: JetStreamLog, snapshots: KvSnapshots, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "SNAPSHOT_EVERY", 3)
    view = await started(View(log, NAMES, snapshots))
    changed = await changes(connection)
    await view.reached(await append(log, "a", "b", "c", "d"))
    await asyncio.wait_for(changed.get(), 5)
    assert (await snapshot_of(snapshots)).position == 3
    await view.stop()
    assert (await snapshot_of(snapshots)).position == 4


class Waiting:
    """Snapshots that take as long to keep as they are made to."""

    def __init__(self) -> None:
        self.kept: list[Snapshot] = []
        self.began = asyncio.Event()
        self.gate = asyncio.Event()

    async def load(self, name: str) -> bytes | None:
        return None

    async def save(self, name: str, data: bytes) -> None:
        self.kept.append(msgspec.msgpack.decode(data, type=Snapshot))
        self.began.set()
        await self.gate.wait()


async def test_a_snapshot_that_takes_long_holds_nobody_up_and_has_no_second_beside_it(
    log: JetStreamLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "SNAPSHOT_EVERY", 1)
    monkeypatch.setattr(runner, "SNAPSHOT_PAUSE", 0.0)
    snapshots = Waiting()
    view = await started(View(log, NAMES, snapshots))
    await view.reached(await append(log, "a", "b", "c"))
    assert view.state.ids == ["a", "b", "c"]
    await snapshots.began.wait()
    assert [snapshot.position for snapshot in snapshots.kept] == [1]
    snapshots.gate.set()
    await view.stop()
    assert [snapshot.position for snapshot in snapshots.kept] == [1, 3]
    assert [len(msgspec.msgpack.decode(one.state, type=Names).ids) for one in snapshots.kept] == [1, 3]


async def test_many_events_at_once_make_one_snapshot(log: JetStreamLog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "SNAPSHOT_EVERY", 1)
    snapshots = Waiting()
    snapshots.gate.set()
    view = await started(View(log, NAMES, snapshots))
    await view.reached(await append(log, "a", "b", "c"))
    assert [snapshot.position for snapshot in snapshots.kept] == [1]
    await view.stop()


class Failing(Waiting):
    """Snapshots that break their promise."""

    async def save(self, name: str, data: bytes) -> None:
        raise OSError("no")


async def test_a_snapshot_that_fails_stops_nobody(log: JetStreamLog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "SNAPSHOT_EVERY", 1)
    view = await started(View(log, NAMES, Failing()))
    await view.reached(await append(log, "a", "b"))
    assert view.state.ids == ["a", "b"]
    await view.stop()


async def test_what_the_fold_changes_in_place_is_kept_as_it_was(log: JetStreamLog) -> None:
    def step(state: dict[str, int], event: RecordedEvent) -> dict[str, int]:
        state[event.id] = event.sequence
        return state

    snapshots = Waiting()
    fold: Fold[dict[str, int]] = Fold(name="f", categories=("circuit",), state=dict[str, int], initial=dict, step=step)
    view = await started(View(log, fold, snapshots))
    await view.reached(await append(log, "a"))
    saving = asyncio.create_task(view.save())
    await snapshots.began.wait()
    await view.reached(await append(log, "b"))
    snapshots.gate.set()
    await saving
    assert msgspec.msgpack.decode(snapshots.kept[0].state) == {"a": 1}
    await view.stop()


async def test_a_view_that_saw_nothing_leaves_no_snapshot(log: JetStreamLog, snapshots: KvSnapshots) -> None:
    await (await started(View(log, NAMES, snapshots))).stop()
    assert await snapshots.load(KEY) is None


async def test_what_is_not_known_is_counted_and_passed_over(
    connection: Connection, log: JetStreamLog, snapshots: KvSnapshots
) -> None:
    view = await started(View(log, NAMES, snapshots))
    await connection.nats.jetstream().publish("trunkline.log.circuit.p", b"garbage")
    await view.reached(await append(log, "a"))
    assert (view.state.ids, view.skipped, view.position) == (["a"], 1, 2)
    await view.stop()


async def test_without_its_bucket_a_view_reads_the_log_from_its_beginning(
    connection: Connection, log: JetStreamLog
) -> None:
    await append(log, "a")
    view = await started(View(log, NAMES, KvSnapshots(connection)))
    assert view.state.ids == ["a"]
    await view.stop()


async def test_a_bus_that_is_gone_loses_snapshots_and_nothing_else(
    connection: Connection, snapshots: KvSnapshots
) -> None:
    await connection.close()
    await snapshots.save("names", b"x")
    assert await snapshots.load("names") is None
    late = KvSnapshots(connection)
    await late.open()
    assert await late.load("names") is None
