"""What the persistence module promises beyond the library's own test cases."""

import itertools
import re
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from uuid import UUID, uuid4

import pytest
from contract.test_recorder import one_server, serving
from eventsourcing.persistence import (
    DataError,
    IntegrityError,
    OperationalError,
    ProgrammingError,
    StoredEvent,
    Tracking,
)
from eventsourcing.popo import POPOAggregateRecorder
from eventsourcing.utils import Environment
from trunkline_events import subjects
from trunkline_events.recorder import NatsFactory, NatsProcessRecorder, SettingsError

Settings = dict[str, str]
Make = Callable[..., NatsFactory]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    with serving(one_server(tmp_path_factory.mktemp("server"))) as settings:
        yield settings


_names = itertools.count(1)


@pytest.fixture
def make(server: Settings) -> Iterator[Make]:
    """Makes factories, of a fresh application unless it is named."""
    made: list[NatsFactory] = []
    name = f"fresh{next(_names)}"

    def make(application: str = name) -> NatsFactory:
        made.append(NatsFactory(Environment(application, server)))
        return made[-1]

    yield make
    for factory in made:
        factory.close()


def event(originator: UUID | str, version: int, state: bytes = b"{}", topic: str = "topic") -> StoredEvent:
    return StoredEvent(originator, version, topic, state)


def events(originator: UUID | str, versions: range) -> list[StoredEvent]:
    return [event(originator, version, str(version).encode()) for version in versions]


# --- aggregates


@pytest.mark.parametrize("originator", ["plain", "a.b *>", "naïve/ü 🐈", "=3D", UUID(int=7)], ids=repr)
def test_originator_ids_of_either_type_come_back_as_they_were(make: Make, originator: UUID | str) -> None:
    recorder = make().application_recorder()
    stored = event(originator, 1, b"\x00\xff", "módule:Tòpic %41\n")
    recorder.insert_events([stored])
    assert recorder.select_events(originator) == [stored]
    assert recorder.select_notifications(1, 1)[0].originator_id == originator


def test_a_uuid_and_its_text_are_one_originator(make: Make) -> None:
    recorder, originator = make().aggregate_recorder(), uuid4()
    recorder.insert_events([event(originator, 1)])
    with pytest.raises(IntegrityError):
        recorder.insert_events([event(str(originator), 1)])
    assert recorder.select_events(str(originator)) == [event(originator, 1)]


def test_selecting_from_an_aggregate_of_many_pages_is_exact(make: Make) -> None:
    recorder, reference, originator = make().aggregate_recorder(), POPOAggregateRecorder(), uuid4()
    for some in (range(1, 901), range(901, 1600), range(2600, 2603)):
        for one in (recorder, reference):
            one.insert_events(events(originator, some))
    for gt, lte in itertools.product((None, 1, 499, 1590, 2601, 9000), (None, 500, 1599, 9000)):
        for desc, limit in ((False, None), (True, 1), (True, 501)):
            found = recorder.select_events(originator, gt=gt, lte=lte, desc=desc, limit=limit)
            wanted = reference.select_events(originator, gt=gt, lte=lte, desc=desc, limit=limit)
            assert found == wanted, (gt, lte, desc, limit)


def test_an_aggregate_of_ten_thousand_events_takes_few_requests(make: Make) -> None:
    factory, originator = make(), uuid4()
    recorder = factory.application_recorder()
    for start in range(1, 10_001, 1000):
        recorder.insert_events(events(originator, range(start, start + 1000)))
    before = requests(factory)
    assert [e.originator_version for e in recorder.select_events(originator)] == list(range(1, 10_001))
    assert requests(factory) - before <= 25
    assert len(recorder.select_events(originator, gt=9_990)) == 10
    assert requests(factory) - before <= 30


def requests(factory: NatsFactory) -> int:
    async def sent(bus: object) -> int:
        return int(bus.connection.nats.stats["out_msgs"])  # type: ignore[attr-defined]

    return factory.datastore.call(sent)


def test_snapshots_may_be_stored_out_of_order(make: Make) -> None:
    recorder, originator = make().aggregate_recorder("snapshots"), uuid4()
    for version in (4, 2):
        recorder.insert_events([event(originator, version)])
    assert recorder.select_events(originator, desc=True, limit=1) == [event(originator, 4)]


def test_events_and_snapshots_of_one_version_do_not_meet(make: Make) -> None:
    factory, originator = make(), uuid4()
    factory.application_recorder().insert_events([event(originator, 1)])
    factory.aggregate_recorder("snapshots").insert_events([event(originator, 1, b"snapshot")])
    assert factory.application_recorder().max_notification_id() == 1


@pytest.mark.parametrize(
    "unfit",
    [
        [event(uuid4(), version) for version in range(1001)],
        [event("x" * 2000, 1)],
        [event("", 1)],
        [event("\ud800", 1)],
        [event("huge", 1, bytes(9_000_000))],
    ],
    ids=["too many", "long id", "empty id", "no text", "too large"],
)
def test_what_cannot_be_stored_is_refused_whole_and_the_recorder_goes_on(make: Make, unfit: list[StoredEvent]) -> None:
    recorder = make().application_recorder()
    with pytest.raises(DataError):
        recorder.insert_events(unfit)
    assert recorder.max_notification_id() is None
    assert recorder.insert_events([event("next", 1)]) == [1]


def test_of_many_writers_of_one_version_one_wins(make: Make) -> None:
    recorders = [make().application_recorder() for _ in range(2)]
    originator = uuid4()

    def save(number: int) -> int:
        batch = [event(originator, 1, str(number).encode()), event(uuid4(), 1)]
        try:
            recorders[number % 2].insert_events(batch[: 1 + number % 3])
        except IntegrityError:
            return 0
        return 1

    with ThreadPoolExecutor(16) as pool:
        assert sum(pool.map(save, range(64))) == 1


# --- notifications and trackings


def test_notification_ids_have_no_gap_where_trackings_lie_between(make: Make) -> None:
    recorder, aggregate = make().process_recorder(), uuid4()
    versions = itertools.count(1)
    ids: list[int] = []
    for number in range(1, 61):
        new = [event(aggregate, next(versions), topic=f"t{number % 2}") for _ in range(number % 4 if number % 5 else 0)]
        ids += recorder.insert_events(new, tracking=Tracking("up", number)) or []
        ids += recorder.insert_events([event(uuid4(), 1)]) or []
    assert ids == list(range(1, len(ids) + 1))
    assert recorder.max_notification_id() == len(ids)
    assert recorder.max_tracking_id("up") == 60
    for start in range(1, len(ids) + 2, 7):
        for limit in (1, 5, 1000):
            found = [n.id for n in recorder.select_notifications(start, limit, stop=90)]
            assert found == list(range(start, min(start + limit, 91, len(ids) + 1)))
        if start <= len(ids):
            with recorder.subscribe(gt=start - 1) as subscription:
                assert [next(subscription).id for _ in ids[start - 1 :]] == list(range(start, len(ids) + 1))
    assert {n.topic for n in recorder.select_notifications(1, 1000, topics=["t1"])} == {"t1"}


def test_of_two_processes_that_process_the_same_one_wins_each_time(make: Make) -> None:
    recorders = [make().process_recorder() for _ in range(2)]

    def process(recorder: NatsProcessRecorder) -> int:
        won = 0
        for number in range(1, 41):
            new = [event(uuid4(), 1) for _ in range(number % 3)]
            try:
                recorder.insert_events(new, tracking=Tracking("up", number))
            except IntegrityError:
                continue
            won += 1
        return won

    with ThreadPoolExecutor(2) as pool:
        won = list(pool.map(process, recorders))
    assert sum(won) == 40
    assert recorders[0].max_tracking_id("up") == 40
    ids = [n.id for n in recorders[0].select_notifications(1, 1000)]
    assert ids == list(range(1, len(ids) + 1))


def test_an_application_recorder_keeps_the_trackings_of_a_process(make: Make) -> None:
    process, reader = make().process_recorder(), make().application_recorder()
    process.insert_events([], tracking=Tracking("up", 3))
    assert reader.insert_events([event(uuid4(), 1)]) == [1]
    assert process.max_tracking_id("up") == 3
    assert [n.id for n in reader.select_notifications(1, 10)] == [1]


def test_a_store_without_trackings_is_not_made_to_track(make: Make) -> None:
    make().application_recorder()
    with pytest.raises(ProgrammingError, match="a name of its own"):
        make().process_recorder()


def test_concurrent_changes_of_a_view_are_all_in_it(make: Make) -> None:
    recorders = [make().tracking_recorder() for _ in range(2)]

    def count(upstream: int) -> None:
        for number in range(1, 11):
            recorders[upstream % 2].insert_tracking(Tracking(f"up{upstream}", number), lambda view: view + b".")

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(count, range(4)))
    assert recorders[0].view() == b"." * 40


# --- names, settings, threads


def test_each_application_has_its_own_stream_and_none_has_the_log() -> None:
    names = ["TRUNKLINE", "a.b", "a b", "a", "A", "a~snapshots", "ü", "a=2Eb"]
    streams = {subjects.store_stream(name, purpose) for name in names for purpose in ("events", "snapshots")}
    assert len(streams) == 2 * len(names)
    assert subjects.STREAM not in streams
    assert all(re.fullmatch(r"TRUNKLINE_ES_[A-Za-z0-9=_~-]+", stream) for stream in streams)
    assert subjects.store_subject("a.b", "events") == "trunkline.es.a=2Eb.events"


def test_an_application_of_the_name_of_the_log_stores_apart_from_it(make: Make) -> None:
    assert make("TRUNKLINE").application_recorder().insert_events([event(uuid4(), 1)]) == [1]
    assert make("other.").application_recorder().insert_events([event(uuid4(), 1)]) == [1]


@pytest.mark.parametrize(
    ("name", "settings", "said"),
    [
        ("app", {}, "set APP_TRUNKLINE_NATS or TRUNKLINE_NATS"),
        ("", {"TRUNKLINE_NATS": "nats://x"}, "name"),
        ("app", {"TRUNKLINE_NATS": "nats://x", "TRUNKLINE_REPLICAS": "two"}, "set it to 1, 3 or 5"),
        ("app", {"TRUNKLINE_NATS": "nats://x", "TRUNKLINE_REPLICAS": "2"}, "set it to 1, 3 or 5"),
        ("app", {"TRUNKLINE_NATS": "nats://x", "APP_TRUNKLINE_TIMEOUT": "0"}, "seconds above 0"),
    ],
)
def test_a_setting_that_is_missing_or_wrong_is_named(name: str, settings: Settings, said: str) -> None:
    with pytest.raises(SettingsError, match=said) as caught:
        NatsFactory(Environment(name, settings))
    assert isinstance(caught.value, OSError)


def test_a_recorder_class_of_another_kind_is_refused(server: Settings) -> None:
    topic = "eventsourcing.popo:POPOApplicationRecorder"
    factory = NatsFactory(Environment("app", server | {"APPLICATION_RECORDER_TOPIC": topic}))
    with pytest.raises(SettingsError, match="no subclass of NatsApplicationRecorder"):
        factory.application_recorder()
    factory.close()


def test_a_server_that_is_not_there_is_reported_with_the_setting_to_look_at() -> None:
    factory = NatsFactory(Environment("app", {"TRUNKLINE_NATS": "nats://127.0.0.1:9", "TRUNKLINE_TIMEOUT": "0.3"}))
    with pytest.raises(OperationalError, match="TRUNKLINE_NATS") as caught:
        factory.application_recorder()
    assert caught.value.__cause__ is not None
    factory.close()


def test_more_copies_than_servers_are_refused_at_once(server: Settings) -> None:
    factory = NatsFactory(Environment("app", server | {"TRUNKLINE_REPLICAS": "3"}))
    with pytest.raises(OperationalError, match="3 replicas"):
        factory.application_recorder()
    factory.close()


def test_stop_wakes_a_thread_that_waits_for_events(make: Make) -> None:
    subscription = make().application_recorder().subscribe()
    waiting = threading.Thread(target=lambda: list(subscription))
    waiting.start()
    subscription.stop()
    waiting.join(5)
    assert not waiting.is_alive()


def test_closing_the_factory_ends_its_thread_and_whoever_waits(make: Make) -> None:
    factory = make()
    recorder = factory.application_recorder()
    subscription = recorder.subscribe()
    with ThreadPoolExecutor(1) as pool:
        waits = pool.submit(next, subscription)
        factory.close()
        assert isinstance(waits.exception(5), OperationalError)
    factory.close()
    with pytest.raises(OperationalError, match="closed"):
        recorder.insert_events([event(uuid4(), 1)])


def test_a_factory_that_nobody_refers_to_ends_its_thread(server: Settings) -> None:
    before = set(threading.enumerate())
    factory = NatsFactory(Environment("forgotten", server))
    factory.application_recorder()
    (thread,) = set(threading.enumerate()) - before
    del factory
    thread.join(5)
    assert not thread.is_alive()


def test_the_example_in_the_guide_does_what_it_says(server: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    guide = (Path(__file__).parents[2] / "docs" / "recorder.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", guide, re.DOTALL)
    assert "nats://127.0.0.1:4222" in example
    module = ModuleType("guide")
    sys.modules["guide"] = module  # the library finds events by the module that they are in
    try:
        exec(example.replace("nats://127.0.0.1:4222", server["TRUNKLINE_NATS"]), module.__dict__)
    finally:
        del sys.modules["guide"]
    assert capsys.readouterr().out.splitlines() == ["['roll over']", "1 2"]
