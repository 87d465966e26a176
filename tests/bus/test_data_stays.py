"""Requests whose data must stay: whatever fails, is forced or being tried out, no provider elsewhere gets them."""

import pytest
from audit import events
from trunkline import errors
from trunkline.client import Gateway
from trunkline_events.thread import RouteDecided

pytest_plugins = ["gateway"]

LOCAL = {"local_only": True}


@pytest.fixture
async def far(gw: Gateway) -> Gateway:
    """Beside the local provider one elsewhere, with `far`; `tried` and `breaks` are local, their canaries are not."""
    await gw.providers.register(id="elsewhere", kind="scripted", local=False)
    await gw.models.register(id="far", provider="elsewhere", upstream="echo")
    await gw.models.register(id="tried", provider="scripted", upstream="echo", version="1")
    await gw.models.deploy(id="tried", version="2", provider="elsewhere", upstream="echo", weight=0.999999)
    await gw.models.register(id="breaks", provider="scripted", upstream="fail:unavailable", version="1")
    await gw.models.deploy(id="breaks", version="2", provider="elsewhere", upstream="echo", weight=0.999999)
    return gw


async def providers(gateway: Gateway) -> set[str]:
    """Who was called, or was to be."""
    return {one.body.provider for one in await events(gateway, "thread") if isinstance(one.body, RouteDecided)}


async def test_a_canary_elsewhere_serves_those_alone_whose_data_may_leave(far: Gateway) -> None:
    for _ in range(5):
        done = await far.chat.create("tried", "secret", route=LOCAL)
        assert done.receipt.provider == "scripted"
    assert await providers(far) == {"scripted"}
    assert (await far.chat.create("tried", "public")).receipt.provider == "elsewhere"


async def test_no_fallback_leads_elsewhere(far: Gateway) -> None:
    route = {**LOCAL, "fallbacks": ["far", "breaks"], "deadline_ms": 1500}
    with pytest.raises(errors.TrunklineError):
        await far.chat.create("fails", "secret", route=route)
    with pytest.raises(errors.TrunklineError):
        await far.chat.create("breaks", "secret", route=route)
    assert await providers(far) == {"scripted"}


async def test_no_override_leads_elsewhere(far: Gateway) -> None:
    await far.policy.override(model="far")
    with pytest.raises(errors.NoRoute):
        await far.chat.create("echo", "secret", route=LOCAL)
    assert await providers(far) == set()


async def test_a_thread_or_a_policy_keeps_its_data_just_so(far: Gateway) -> None:
    await far.threads.configure(thread_id="t", preferences=LOCAL)
    assert (await far.chat.create("tried", "secret", thread="t")).receipt.provider == "scripted"
    await far.policy.publish(policy={"defaults": {"require": LOCAL}})
    assert (await far.chat.create("tried", "secret")).receipt.provider == "scripted"
    with pytest.raises(errors.NoRoute):
        await far.chat.create("far", "secret")
    assert await providers(far) == {"scripted"}
