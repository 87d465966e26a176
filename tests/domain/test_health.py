"""What the doctor makes of promise, report, copies and permissions. Pure: given what servers say, then the check."""

from pathlib import Path
from typing import Any

import pytest
from nats.js import api
from trunkline.health.check import Check
from trunkline.health.durability import copies, disk, durability, permissions, store, temporary_folders
from trunkline.health.promises import PROMISES, promise
from trunkline.health.report import Report, User, read_report
from trunkline_events.stream import DURABILITY, EPHEMERAL, stream_config

NAMES = ("n1", "n2", "n3")


def report(server: str = "n1", **changes: Any) -> Report:
    told: dict[str, Any] = {"store": "/srv/log", "sync_always": True, "sync_seconds": 120.0, "stored": 10, "most": 100}
    return Report(server=server, **(told | changes))


def three(**changes: Any) -> list[Report]:
    return [report(name, peers=3, **changes) for name in NAMES]


def stream(replicas: int, cluster: api.ClusterInfo | None = None) -> api.StreamInfo:
    return api.StreamInfo(
        config=stream_config(replicas), state=api.StreamState(1, 1, 1, 1, 0), cluster=cluster, mirror=None, sources=None
    )


def led(*others: api.PeerInfo, leader: str | None = "n1") -> api.ClusterInfo:
    return api.ClusterInfo(name="c", leader=leader, replicas=list(others))


def peer(name: str, *, current: bool = True, offline: bool = False, lag: int = 0) -> api.PeerInfo:
    return api.PeerInfo(name=name, current=current, offline=offline, active=1, lag=lag)


def is_a(check: Check, state: str, *words: str) -> None:
    assert check.state == state, check
    assert all(word in f"{check.found} {check.next}" for word in words), check
    assert check.state == "ok" or check.next, "what is not fine says what to do"


# -- the promise -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("promised", "reports", "state", "words"),
    [
        ("always", [report()], "ok", ("what is acknowledged is on disk",)),
        (None, [report()], "ok", ("always",)),
        ("no such thing", [report(sync_always=False)], "problem", ("always",)),
        ("always", [report(sync_always=False)], "problem", ("n1", "120 s", "sync_interval: always", "--metadata")),
        ("always", [*three()[:2], report("n3", peers=3, sync_always=False)], "problem", ("n3 writes",)),
        ("always", three()[:2], "ok", ("1 of 3 servers did not say",)),
        ("process", [report(sync_always=False)], "ok", ("NOT a power cut",)),
        ("process", [report()], "ok", ("keeps more",)),
        ("always", [], "unknown", ("can't be seen", "sync_interval")),
    ],
)
def test_a_promise_is_compared_with_what_the_servers_do(
    promised: str | None, reports: list[Report], state: str, words: tuple[str, ...]
) -> None:
    is_a(durability(stream_config(), {DURABILITY: promised} if promised else {}, reports), state, *words)


def test_a_stream_that_is_written_asynchronously_keeps_no_promise() -> None:
    config = stream_config()
    config.persist_mode = api.PersistMode.ASYNC
    is_a(durability(config, {}, [report()]), "problem", "asynchronously")


@pytest.mark.parametrize("name", PROMISES)
def test_a_promise_is_said_with_its_name(name: str) -> None:
    assert promise(name) == f"{name}: {PROMISES[name]}"
    assert stream_config(durability=name).metadata == {DURABILITY: name}
    page = Path(__file__).parents[2] / "docs" / "durability.md"
    assert PROMISES[name] in page.read_text(encoding="utf-8")


# -- where the log is --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("folder", ["/tmp/x", "/tmp", "/mnt/memory/log"])
def test_a_temporary_folder_is_a_problem_unless_it_was_asked_for(folder: str) -> None:
    temporary = ("/tmp", "/mnt/memory")
    is_a(store({}, [report(store=folder)], temporary), "problem", folder, "--data")
    is_a(store({EPHEMERAL: "true"}, [report(store=folder)], temporary), "ok", "--ephemeral")


def test_a_folder_that_only_sounds_temporary_is_fine() -> None:
    is_a(store({}, [report(store="/tmpfiles/log")], ("/tmp",)), "ok", "/tmpfiles/log")


def test_what_is_mounted_in_memory_is_temporary(tmp_path: Path) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_text("tmpfs /mnt/in\\040memory tmpfs rw 0 0\n/dev/sda /mnt/disk ext4 rw 0 0\n")
    assert "/mnt/in memory" in temporary_folders(mounts)
    assert "/mnt/disk" not in temporary_folders(mounts)
    assert "/tmp" in temporary_folders(tmp_path / "none")


@pytest.mark.parametrize(
    ("embedded", "words"), [(True, ("by itself",)), (False, ("start the server again", "max_file_store"))]
)
def test_a_server_at_its_limit_says_how_it_goes_on(embedded: bool, words: tuple[str, ...]) -> None:
    is_a(disk([report(stored=100)], embedded=embedded), "problem", "full", *words)
    is_a(disk([report(stored=99)], ["n1"], embedded=embedded), "problem", "full", *words)
    is_a(disk([report(stored=99)], embedded=embedded), "ok")


# -- copies ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("info", "reports", "state", "words"),
    [
        (stream(1), [report()], "ok", ("one copy: the disk is the only one",)),
        (stream(1, led()), three(), "problem", ("1 of 3 copies in a cluster of 3", "TRUNKLINE_REPLICAS=3")),
        (stream(1, led()), [], "problem", ("--replicas 3",)),
        (stream(2, led(peer("n2"))), three(), "problem", ("2 of 3",)),
        (stream(3, led(peer("n2"), peer("n3"))), three(), "ok", ("3 copies", "n1 leads")),
        (stream(3, led(peer("n2"), peer("n3"))), [], "ok", ("3 copies",)),
        (stream(3, led(peer("n2", offline=True), peer("n3"))), [], "problem", ("2 of 3 copies", "n2")),
        (stream(3, led(peer("n2"), peer("n3"))), three()[:2], "problem", ("n3 does not answer",)),
        (stream(3, led(peer("n2", current=False, lag=7), peer("n3"))), three(), "problem", ("n2 by 7 events",)),
        (stream(3, led(leader=None)), three(), "problem", ("without a leader",)),
    ],
)
def test_copies_are_counted_and_the_missing_named(
    info: api.StreamInfo, reports: list[Report], state: str, words: tuple[str, ...]
) -> None:
    is_a(copies(info, reports), state, *words)


# -- permissions -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("user", "alone", "state", "words"),
    [
        (User("actor", {"publish": {"deny": ["$JS.API.STREAM.>"]}}), False, "ok", ("actor can neither",)),
        (User("boss", {"publish": {"allow": ["$JS.API.STREAM.DELETE.*"]}}), True, "problem", ("boss may DELETE",)),
        (User("", None), False, "problem", ("anybody may UPDATE, DELETE", "deploy/nats/accounts.conf")),
        (User("nats-x", None), True, "unknown", ("anybody on this machine", "deploy/nats/accounts.conf")),
        (None, False, "unknown", ("$SYS.REQ.USER.INFO",)),
    ],
)
def test_a_right_to_destroy_the_log_is_a_problem(
    user: User | None, alone: bool, state: str, words: tuple[str, ...]
) -> None:
    is_a(permissions(user, alone=alone), state, *words)


# -- the report --------------------------------------------------------------------------------------------------------


def test_a_report_is_read_from_the_servers_answer() -> None:
    told = {
        "server": {"name": "n1"},
        "data": {
            "jetstream": {
                "config": {"store_dir": "/d", "sync_always": True, "sync_interval": 120_000_000_000, "max_storage": 5},
                "stats": {"storage": 3},
                "meta": {"cluster_size": 3},
            }
        },
    }
    expected = Report(server="n1", store="/d", sync_always=True, sync_seconds=120, stored=3, most=5, peers=3)
    assert read_report(told) == expected
    assert read_report({"server": {"name": "n1"}, "data": {}}) is None
