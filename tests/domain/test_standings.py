"""Gateways side by side: what is found, how wide the table is, what is asked of ours."""

import os
import subprocess
import sys

import pytest
from trunkline import benchmark, proc, settings
from trunkline.benchmark import contestants, others, standings
from trunkline.benchmark.standings import Standing
from trunkline.cli.main import build_parser

WIDE = Standing(
    name=contestants.BARE,
    rate_32=123_456,
    rate_128=123_456,
    added_p50_ms=1234.56,
    added_p99_ms=1234.56,
    cpu_us_32=123_456,
    cpu_us_128=123_456,
    ratio_32=123.45,
    ratio_128=123.45,
    chunk_us=12_345.6,
    streams=1_234.5,
    first_ms=1_234.5,
    resident_mb=12_345,
)


def _goals(*measured: Standing) -> dict[str, bool | None]:
    return {goal.goal.strip(): goal.met for goal in standings.goals({one.name: one for one in measured})}


def test_the_table_is_read_on_a_terminal_of_120_columns() -> None:
    lines = [*standings.heading().splitlines(), standings.line(WIDE)]
    assert {len(line) for line in lines} == {max(map(len, lines))}, "columns stand below their names"
    told = [standings.goal_line(goal) for goal in standings.goals({contestants.OURS: WIDE})]
    assert max(map(len, lines + told)) <= 120


def test_what_was_not_measured_leaves_its_cell_empty_and_its_goal_open() -> None:
    ours = Standing(name=contestants.OURS, ratio_128=3.5)
    assert standings.line(ours).split() == [contestants.OURS, "3.50"]
    met = _goals(ours)
    assert met.pop("CPU a request, times the bare aiohttp proxy's, 128 at once") is True
    assert met.pop("the same, stretched, 128 at once") is False
    assert set(met.values()) == {None}


@pytest.mark.parametrize(("theirs", "met"), [(1_399, False), (1_400, True)])
def test_a_peer_is_beaten_by_its_cpu_over_ours(theirs: float, met: bool) -> None:
    ours = Standing(name=contestants.OURS, cpu_us_32=1_000, cpu_us_128=1_400)
    peer = Standing(name=others.PORTKEY, cpu_us_32=theirs, cpu_us_128=1_400)
    goals = _goals(ours, peer)
    assert goals["requests a CPU second, times Portkey's, 32 at once"] is met
    assert goals["requests a CPU second, times Portkey's, 128 at once"] is False


def test_a_gateway_that_is_not_here_is_skipped_and_how_to_get_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("TRUNKLINE_BENCH_LITELLM", raising=False)
    monkeypatch.setenv("TRUNKLINE_BENCH_PORTKEY", f"{sys.executable} --an-argument")
    here, absent = contestants.found()
    assert [n for n in here if n != others.TENSORZERO] == [contestants.BARE, contestants.OURS, others.PORTKEY]
    assert "pip install 'litellm[proxy]'" in absent[others.LITELLM]
    assert "TRUNKLINE_BENCH_LITELLM" in absent[others.LITELLM]


def test_a_command_may_hold_arguments() -> None:
    assert settings.peer_command("LiteLLM", {"TRUNKLINE_BENCH_LITELLM": "a/litellm --b 'c d'"}) == [
        *("a/litellm", "--b", "c d")
    ]
    assert settings.peer_command("LiteLLM", {}) == []


def test_every_part_can_be_named_and_those_apart_are_parts() -> None:
    for part in benchmark.PARTS:
        assert build_parser().parse_args(["bench", "--only", part]).only == [part]
    assert set(benchmark.PARTS) > benchmark.APART


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_a_family_is_a_process_and_all_that_it_started() -> None:
    script = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'print(1, flush=True); input()'])"
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdin is not None
        child.stdout.readline()
        family = proc.family(child.pid)
        assert family[0] == child.pid
        assert len(family) == 2
        assert (proc.family_resident_bytes(child.pid) or 0) > 2**20
        assert set(family) < set(proc.family(os.getpid()))
        child.stdin.close()
    assert proc.family_cpu_seconds(child.pid) is None
    assert proc.family_resident_bytes(child.pid) is None
