"""Snapshots in a real bucket: whole or not at all, of any size, and gone when nobody needs them."""

import asyncio
import os
import time
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from given import a_model
from nats.js import api
from trunkline_actors import snapshots as snapshots_module
from trunkline_actors.snapshots import KEPT_FOR, KvSnapshots
from trunkline_events.connection import Connection
from trunkline_events.envelope import NewEvent, RecordedEvent
from trunkline_events.jetstream import JetStreamLog
from trunkline_events.registry import ModelRegistered
from trunkline_events.subjects import SNAPSHOTS_BUCKET
from trunkline_projections.fold import Fold
from trunkline_projections.folds import GATEWAY, Gateway
from trunkline_projections.models import Registry
from trunkline_projections.runner import Snapshot, View

pytest_plugins = ["gateway"]

STREAM = f"KV_{SNAPSHOTS_BUCKET}"
SMALL, LARGE = b"small" * 100, os.urandom(3_000_000)


@pytest.fixture
async def snapshots(connection: Connection) -> KvSnapshots:
    opened = KvSnapshots(connection)
    await opened.open()
    return opened


async def keys(connection: Connection) -> dict[str, int]:
    """Every key with something in it, and how many bytes."""
    js = connection.nats.jetstream()
    bucket = await js.key_value(SNAPSHOTS_BUCKET)
    info = await js.stream_info(STREAM, subjects_filter=">")
    found = {}
    for subject in info.state.subjects or {}:
        key = subject.removeprefix(f"$KV.{SNAPSHOTS_BUCKET}.")
        try:
            found[key] = len((await bucket.get(key)).value or b"")
        except Exception:  # noqa: BLE001 - a marker where something was
            continue
    return found


@pytest.mark.parametrize("data", [b"", SMALL, LARGE], ids=["empty", "small", "large"])
async def test_a_snapshot_is_read_as_it_was_written(snapshots: KvSnapshots, data: bytes) -> None:
    assert await snapshots.load("f.1") is None
    await snapshots.save("f.1", data)
    assert await snapshots.load("f.1") == data
    assert await snapshots.load("f.2") is None


@pytest.mark.parametrize("first", [SMALL, LARGE], ids=["small", "large"])
@pytest.mark.parametrize("second", [SMALL, LARGE], ids=["small", "large"])
async def test_a_newer_snapshot_leaves_nothing_of_the_older(
    connection: Connection, snapshots: KvSnapshots, first: bytes, second: bytes
) -> None:
    await snapshots.save("f.1", first + b"1")
    await snapshots.save("f.1", second + b"2")
    assert await snapshots.load("f.1") == second + b"2"
    held = await keys(connection)
    assert len(held) == (1 if second is SMALL else 7)
    assert sum(held.values()) < len(second) + 1_000


async def test_no_message_is_larger_than_any_server_takes(connection: Connection, snapshots: KvSnapshots) -> None:
    await snapshots.save("f.1", LARGE)
    assert max((await keys(connection)).values()) <= snapshots_module.PART < 1_000_000


async def test_of_snapshots_written_at_once_one_stays_whole(connection: Connection, snapshots: KvSnapshots) -> None:
    versions = [LARGE + bytes([number]) for number in range(4)]
    await asyncio.gather(*(snapshots.save("f.1", one) for one in versions))
    assert await snapshots.load("f.1") in versions
    assert len(await keys(connection)) == 7


async def test_two_versions_of_a_fold_keep_their_snapshots_side_by_side(
    connection: Connection, snapshots: KvSnapshots
) -> None:
    log = await JetStreamLog.open(connection)
    one, other = _counting(1), _counting(2)
    await log.append(_an_event(1))
    for _ in range(2):
        for fold, state in ((one, 1), (other, 2)):
            view = View(log, fold, snapshots)
            await view.start()
            assert view.state == {"count": state}
            await view.stop()
    assert sorted(await keys(connection)) == sorted(f"count.{fold.schema()}" for fold in (one, other))
    await log.close()


def _counting(by: int) -> Fold[dict[str, int]]:
    def step(state: dict[str, int], _event: RecordedEvent) -> dict[str, int]:
        return {"count": state.get("count", 0) + by}

    return Fold(name="count", categories=("model",), state=dict[str, int], initial=dict, step=step)


def _an_event(number: int) -> NewEvent:
    body = ModelRegistered(model=a_model(f"m{number}"))
    return NewEvent(id=f"e{number}", category="model", aggregate=f"m{number}", body=body, time=1.0, actor="test")


async def test_what_nobody_writes_again_goes_by_itself(connection: Connection, snapshots: KvSnapshots) -> None:
    info = await connection.nats.jetstream().stream_info(STREAM)
    assert info.config.max_age == KEPT_FOR


async def test_a_bucket_of_another_make_is_used_as_it_is(connection: Connection) -> None:
    js = connection.nats.jetstream()
    await js.create_key_value(api.KeyValueConfig(bucket=SNAPSHOTS_BUCKET, history=1))
    opened = KvSnapshots(connection)
    await opened.open()
    await opened.save("f.1", SMALL)
    assert await opened.load("f.1") == SMALL


# -- what is damaged


def cut(data: bytes) -> bytes:
    return data[: len(data) // 2]


def turned(data: bytes) -> bytes:
    return data[:-40] + bytes([data[-40] ^ 1]) + data[-39:]


def other(_data: bytes) -> bytes:
    return b"garbage"


@pytest.mark.parametrize("damage", [cut, turned, other])
@pytest.mark.parametrize("data", [SMALL, LARGE], ids=["small", "large"])
async def test_a_damaged_snapshot_is_no_snapshot_and_is_replaced(
    connection: Connection, snapshots: KvSnapshots, data: bytes, damage: Callable[[bytes], bytes]
) -> None:
    await snapshots.save("f.1", data + os.urandom(200))
    bucket = await connection.nats.jetstream().key_value(SNAPSHOTS_BUCKET)
    key = max(await keys(connection))
    await bucket.put(key, damage((await bucket.get(key)).value or b""))
    assert await snapshots.load("f.1") is None
    await snapshots.save("f.1", data)
    assert await snapshots.load("f.1") == data


async def test_a_snapshot_that_lacks_a_part_is_no_snapshot(connection: Connection, snapshots: KvSnapshots) -> None:
    await snapshots.save("f.1", LARGE)
    bucket = await connection.nats.jetstream().key_value(SNAPSHOTS_BUCKET)
    await bucket.purge(sorted(await keys(connection))[3])
    assert await snapshots.load("f.1") is None


async def test_a_snapshot_that_was_deleted_by_hand_can_be_written_again(
    connection: Connection, snapshots: KvSnapshots
) -> None:
    await snapshots.save("f.1", SMALL)
    await (await connection.nats.jetstream().key_value(SNAPSHOTS_BUCKET)).delete("f.1")
    assert await snapshots.load("f.1") is None
    await snapshots.save("f.1", SMALL)
    assert await snapshots.load("f.1") == SMALL


async def test_a_snapshot_that_is_too_large_is_not_kept_and_the_last_one_stays(
    snapshots: KvSnapshots, monkeypatch: pytest.MonkeyPatch
) -> None:
    await snapshots.save("f.1", SMALL)
    monkeypatch.setattr(snapshots_module, "LARGEST", 2_000_000)
    await snapshots.save("f.1", LARGE)
    assert await snapshots.load("f.1") == SMALL


async def test_what_would_fill_the_memory_when_unpacked_is_no_snapshot(
    snapshots: KvSnapshots, monkeypatch: pytest.MonkeyPatch
) -> None:
    await snapshots.save("f.1", bytes(3_000_000))
    monkeypatch.setattr(snapshots_module, "LARGEST_UNPACKED", 2_000_000)
    assert await snapshots.load("f.1") is None


# -- a large registry


async def test_a_registry_of_twenty_thousand_models_is_there_at_once(
    connection: Connection, snapshots: KvSnapshots
) -> None:
    log = await JetStreamLog.open(connection)
    last = await log.append(_an_event(1))
    models = {name: a_model(name, tags=[os.urandom(20).hex()]) for name in (f"model-{n}" for n in range(20_000))}
    state = Gateway(registry=Registry(models=models, model_seq=dict.fromkeys(models, 1)))
    raw: Any = msgspec.Raw(msgspec.msgpack.encode(state))
    kept = Snapshot(GATEWAY.schema(), last.sequence, raw, "e1 1.000000")
    await snapshots.save(f"gateway.{GATEWAY.schema()}", msgspec.msgpack.encode(kept))
    view = View(log, GATEWAY, snapshots)
    began = time.perf_counter()
    await view.start()
    seconds = time.perf_counter() - began
    assert view.state == state
    assert seconds < 5, "in seconds; here it takes a tenth of one"
    assert len(await keys(connection)) > 2
    await view.stop()
    await log.close()
