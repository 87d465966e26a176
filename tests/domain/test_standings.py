"""What processes tell of their calls, put together: over all that serve a model, and no longer than they live."""

import pytest
from given import a_model, a_registry
from metered import calls, settled
from trunkline_actors import standings
from trunkline_actors.standings import AT_ONCE, FORGOTTEN, RENEWED, Standings, Statistics, Told
from trunkline_actors.tallies import Line, Tally
from trunkline_events.registry import Canary

LINE = Line("p", "m", "1")
REGISTRY = a_registry(a_model("m", canary=Canary(version="2", provider="q", upstream="m", weight=0.1)))


def told(*lines: tuple[Line, int, Tally], process: str = "a") -> Statistics:
    return Statistics(
        process=process,
        lines=[
            Told(provider=line.provider, model=line.model, version=line.version, in_flight=running, tally=tally)
            for line, running, tally in lines
        ],
    )


# --- messages


def test_what_a_process_tells_survives_the_wire() -> None:
    lines = [
        Told(provider="p", model=f"m{n}", version="1", in_flight=n, tally=calls(settled(n + 1.0))) for n in range(9)
    ]
    read = list(map(standings.read, standings.parts("a", lines, most=10**6)))
    assert read == [Statistics(process="a", lines=lines)]


def test_many_lines_go_in_parts_that_stay_small() -> None:
    tally = calls(*[settled(1.2**n) for n in range(100)])
    lines = [Told(provider="p", model=f"m{n}", version="1", in_flight=0, tally=tally) for n in range(200)]
    parts = list(standings.parts("a", lines, most=20_000))
    assert max(map(len, parts)) < 21_000
    read = [part for part in map(standings.read, parts) if part]
    assert [told for part in read for told in part.lines] == lines


def test_nothing_to_tell_is_no_message() -> None:
    assert list(standings.parts("a", [], most=1)) == []


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"\xff\x00", id="no text"),
        pytest.param(b"[" * 5_000, id="deep"),
        pytest.param(b'{"process": "a"}', id="no lines"),
        pytest.param(b'{"process":"a","lines":[["p","m","1",-1,{}]]}', id="fewer than none in flight"),
        pytest.param(b'{"process":"a","lines":[["p","m","1",0,{"latency":{"3":-1}}]]}', id="fewer than no calls"),
        pytest.param(b'{"process":"a","lines":[["p","m","1",0,{"latency":{"x":1}}]]}', id="no bucket"),
    ],
)
def test_a_message_that_makes_no_sense_is_unreadable(data: bytes) -> None:
    assert standings.read(data) is None


# --- the standings


def test_a_model_is_measured_over_all_processes_that_serve_it() -> None:
    board = Standings()
    board.told(told((LINE, 1, calls(*[settled(100.0)] * 2)), process="a"), 0.0)
    board.told(told((LINE, 2, calls(*[settled(300.0)] * 3)), process="b"), 0.0)
    measured = board.measured(REGISTRY, 0.0)["m"]
    assert measured == calls(*[settled(100.0)] * 2, *[settled(300.0)] * 3).measured(in_flight=3)


def test_a_process_that_tells_again_is_not_counted_twice() -> None:
    board = Standings()
    board.told(told((LINE, 1, calls(settled()))), 0.0)
    board.told(told((LINE, 0, calls(settled(), settled()))), 0.2)
    measured = board.measured(REGISTRY, 0.2)["m"]
    assert (measured.calls, measured.in_flight) == (2, 0)


def test_a_canary_goes_by_its_version_and_other_versions_are_not_shown() -> None:
    board = Standings()
    board.told(
        told(
            (LINE, 0, calls(settled())),
            (Line("q", "m", "2"), 0, calls(*[settled()] * 2)),
            (Line("p", "m", "0"), 0, calls(*[settled()] * 4)),  # of a time before
            (Line("old", "m", "1"), 0, calls(*[settled()] * 8)),  # at a provider that served it before
            (Line("p", "gone", "1"), 0, calls(settled())),
        ),
        0.0,
    )
    measured = board.measured(REGISTRY, 0.0)
    assert {name: one.calls for name, one in measured.items()} == {"m": 1, "m@2": 2}
    assert {version: one.calls for version, one in board.versions("m", 0.0).items()} == {"0": 4, "1": 9, "2": 2}


def test_a_promoted_canary_takes_its_numbers_along() -> None:
    board = Standings()
    board.told(told((LINE, 0, calls(settled())), (Line("q", "m", "2"), 0, calls(settled(), settled()))), 0.0)
    assert {name: one.calls for name, one in board.measured(REGISTRY, 0.0).items()} == {"m": 1, "m@2": 2}
    promoted = a_registry(a_model("m", provider="q", version="2"))
    assert {name: one.calls for name, one in board.measured(promoted, 0.0).items()} == {"m": 2}
    assert board.measured(a_registry(), 0.0) == {}
    assert {name: one.calls for name, one in board.measured(REGISTRY, 0.0).items()} == {"m": 1, "m@2": 2}


def test_the_mapping_is_the_same_object_while_nothing_changed() -> None:
    board = Standings()
    board.told(told((LINE, 0, calls(settled()))), 0.0)
    first = board.measured(REGISTRY, 0.0)
    assert board.measured(REGISTRY, 0.01) is first
    board.told(told((LINE, 0, calls(settled()))), 4.5)  # a refresh
    assert board.measured(REGISTRY, 5.0) is first
    board.told(told((Line("p", "other", "1"), 0, calls(settled()))), 5.0)  # not registered
    assert board.measured(REGISTRY, 6.0) is first
    assert board.measured(a_registry(*REGISTRY.models.values()), 6.0) is first, "nothing of it is different"
    board.told(told((LINE, 1, calls(settled()))), 6.5)
    assert board.measured(REGISTRY, 7.0)["m"].in_flight == 1


def test_what_is_told_in_a_burst_is_put_together_ten_times_a_second_at_most() -> None:
    board = Standings()
    moments = [n / 100 for n in range(100)]
    seen = []
    for n, now in enumerate(moments):
        board.told(told((LINE, n + 1, Tally())), now)
        seen.append(board.measured(REGISTRY, now))
    assert len({id(one) for one in seen}) <= 1 / RENEWED + 1
    assert board.measured(REGISTRY, 2.0)["m"].in_flight == 100


def test_many_models_that_changed_at_once_are_put_together_little_by_little() -> None:
    names = [f"m{n}" for n in range(2 * AT_ONCE + 1)]
    registry = a_registry(*map(a_model, names))
    board = Standings()
    board.measured(registry, 0.0)
    board.told(told(*[(Line("p", name, "1"), 1, Tally()) for name in names]), 1.0)
    seen = [len(board.measured(registry, moment)) for moment in (1.0, 1.05, 1.2, 1.4, 1.6)]
    assert seen == [AT_ONCE, AT_ONCE, 2 * AT_ONCE, len(names), len(names)]


def test_the_numbers_of_a_process_that_fell_silent_go_and_those_of_others_stay() -> None:
    board = Standings()
    board.told(told((LINE, 3, calls(settled())), process="dead"), 0.0)
    board.told(told((LINE, 1, calls(settled())), process="alive"), 0.0)
    assert board.measured(REGISTRY, 1.0)["m"].in_flight == 4
    board.told(told((LINE, 1, calls(settled())), process="alive"), FORGOTTEN - 1)
    assert board.measured(REGISTRY, FORGOTTEN)["m"].in_flight == 4
    measured = board.measured(REGISTRY, FORGOTTEN + 1.1)["m"]
    assert (measured.in_flight, measured.calls) == (1, 1)
    assert board.measured(REGISTRY, 3 * FORGOTTEN) == {}


def test_a_line_that_is_empty_goes_at_once() -> None:
    board = Standings()
    board.told(told((LINE, 1, Tally())), 0.0)
    assert "m" in board.measured(REGISTRY, 0.0)
    board.told(told((LINE, 0, Tally())), 1.0)
    board.told(told((LINE, 0, Tally()), process="another"), 1.0)
    assert board.measured(REGISTRY, 1.0) == {}
    assert board.versions("m", 1.0) == {}


def test_before_anybody_told_anything_there_are_no_statistics() -> None:
    assert Standings().measured(REGISTRY, 0.0) == {}
