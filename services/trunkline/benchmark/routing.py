"""What a decision costs, and what it saves."""

import statistics
import time
from collections.abc import Callable
from typing import Any

import msgspec
from trunkline_actors.moment import Moment, Request
from trunkline_actors.pricing import OWN
from trunkline_actors.requests import Parsed, parse_chat
from trunkline_actors.routing import decide
from trunkline_events.measured import Measured
from trunkline_events.rate import Rate
from trunkline_events.registry import Model, Provider
from trunkline_events.thread import Books, RouteDecided
from trunkline_projections.folds import Gateway
from trunkline_projections.models import Registry

from trunkline.benchmark.month import simulate, totals
from trunkline.benchmark.table import Bench, Row

NOW = 1_795_262_400.0
WAYS = ("named", "cost", "latency", "quality", "balanced", "round_robin", "least_busy")


async def run(bench: Bench) -> None:
    """Decisions among few and many models beside writing one down, and the simulated month."""
    yardstick = _yardstick()
    bench.add(
        Row(name="decision written as JSON (the yardstick)", rate=1 / yardstick, cpu_us=yardstick * 1e6, ratio=1.0)
    )
    for count in (20, 1_000):
        for way in WAYS:
            took = _median(_moment(count), _request(way), max(50, int(1_000 * bench.scale)))
            name = f"decide among {count:,} models, {way}"
            bench.add(Row(name=name, rate=1 / took, cpu_us=took * 1e6, ratio=took / yardstick, p50_ms=took * 1e3))
    lines = simulate()
    for line in lines:
        primary, saving = line.primary_nanos / 1e9, line.saving_nanos / 1e9
        chosen = ", ".join(f"{name} {count:,}" for name, count in sorted(line.chosen.items()))
        note = f"${primary:,.2f} → ${saving:,.2f}  {chosen}, bar {line.kind.bar}"
        bench.add(Row(name=f"month: {line.kind.name}", rate=line.requests / 30 / 86_400, note=note))
    told = totals(lines)
    note = f"${told['primary_usd']:,.2f} → ${told['saving_usd']:,.2f}: {told['saved']:.0%} saved"
    bench.add(Row(name="month: all, the primary → the cheapest that passes the bar", rate=0, note=note))


def _yardstick() -> float:
    decision = decide(Books(), _request("cost"), _moment(20))
    assert isinstance(decision, RouteDecided)
    return statistics.median(_timed(lambda: msgspec.json.encode(decision)) for _ in range(500))


def _median(moment: Moment, request: Request, times: int) -> float:
    books = Books()
    decide(books, request, moment)  # what is remembered between decisions is there
    return statistics.median(_timed(lambda: decide(books, request, moment)) for _ in range(times))


def _timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def _moment(count: int) -> Moment:
    models = [
        Model(
            id=f"m{number}",
            provider=f"p{number % 5}",
            upstream=f"m{number}",
            capabilities={"reasoning": 0.4 + number / (2 * count)},
            context_window=128_000,
            max_output=4_096,
        )
        for number in range(count)
    ]
    registry = Registry(
        models={model.id: model for model in models},
        providers={f"p{number}": Provider(id=f"p{number}", kind="openai") for number in range(5)},
        model_seq={model.id: place for place, model in enumerate(models, 1)},
    )
    rates = {
        model.id: Rate(
            input_nanos=10**9 * (place % 17 + 1),
            cached_input_nanos=10**8,
            output_nanos=10**9 * (place % 13 + 1),
            version=f"{OWN}{place}",
        )
        for place, model in enumerate(models)
    }
    measured = {
        model.id: Measured(calls=50, success=0.99, p50_ms=400.0 + place, p95_ms=900.0 + place, tokens_per_s=60.0)
        for place, model in enumerate(models)
    }
    return Moment(gateway=Gateway(registry=registry), rates=rates, log_seq=count, now=NOW, draw=0.5, measured=measured)


def _request(way: str) -> Request:
    body: dict[str, Any] = {
        "model": "m1" if way == "named" else "auto",
        "messages": [{"role": "user", "content": "x" * 400}],
    }
    if way != "named":
        body["route"] = {"optimize": way, "capabilities": ["reasoning"]}
    parsed = parse_chat(msgspec.json.encode(body))
    assert isinstance(parsed, Parsed)
    return Request(request_id="r", attempt_id="r-1", attempt=1, parsed=parsed, tried=(), reply="", deadline=NOW + 60)
