"""Endings that nobody can read, such as a newer version's: a keeper neither stumbles over one nor ends twice."""

import time
from typing import Any

import pytest
from embedded_kit import eventually
from given import a_decision, new
from msgspec import structs
from structlog.testing import capture_logs
from trunkline.host import Host
from trunkline_actors import keeper
from trunkline_actors.keeper import KeeperActor
from trunkline_events.envelope import Unknown
from trunkline_events.jetstream import JetStreamLog
from trunkline_events.log import load
from trunkline_events.subjects import NO_THREAD
from trunkline_events.thread import UsageRecorded
from trunkline_events.usage import Usage

pytest_plugins = ["gateway"]


async def end_unreadably(log: JetStreamLog, attempt_id: str, aggregate: str) -> None:
    nonsense: Any = "7.5"
    decision = structs.replace(a_decision(attempt_id), deadline=time.time() + 60)
    await log.append(new(decision, aggregate, id=f"{attempt_id}/decided"))
    ended = UsageRecorded(
        request_id=decision.request_id,
        attempt_id=attempt_id,
        attempt=1,
        model="m",
        provider="p",
        usage=Usage(input_tokens=nonsense),
        cost_nanos=1,
        price_version="v",
        latency_ms=1.0,
        ttft_ms=1.0,
        finish="stop",
    )
    await log.append(new(ended, aggregate, id=f"{attempt_id}/ended"))


@pytest.mark.parametrize("aggregate", ["t", NO_THREAD])
@pytest.mark.parametrize("seen", [True, False], ids=["while it watches", "before it starts"])
async def test_a_keeper_lets_an_ending_be_that_it_cannot_read(
    bus_url: str, log: JetStreamLog, aggregate: str, *, seen: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper, "LEASE_SECONDS", 0.5)
    monkeypatch.setattr(keeper, "RECENT", -60.0)  # it looks back on nothing
    if not seen:
        await end_unreadably(log, "r-1", aggregate)
    with capture_logs() as said:
        host = await Host.start(bus_url, ("registry", "keeper"))
        try:
            acting = next(one.actor for one in host._others if isinstance(one.actor, KeeperActor))
            assert isinstance(acting, KeeperActor)
            if seen:
                await end_unreadably(log, "r-1", aggregate)
                await acting._view.catch_up()
            assert len(acting._watch) == 1
            await eventually(lambda: not len(acting._watch), within=10)
        finally:
            await host.stop()
    assert [one for one in said if one["event"] == "actor.task_failed"] == []
    decided, ended = await load(log, "thread", aggregate)
    assert decided.id == "r-1/decided"
    assert isinstance(ended.body, Unknown)
