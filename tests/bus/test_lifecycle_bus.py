"""A model's life on a running gateway: its events for whoever joins at any point, draining, and discovery."""

import asyncio
from contextlib import aclosing

import pytest
import trunkline
from messages import calling, chat_body
from trunkline import errors
from trunkline.client import Gateway
from trunkline_events import headers
from trunkline_events.envelope import RecordedEvent

pytest_plugins = ["gateway"]

LIFE = ["registered", "deployed", "deployed", "disabled", "retired", "removed"]


async def live(gw: Gateway) -> None:
    """One model from its registration to its removal."""
    await gw.models.register(id="m", provider="scripted", upstream="echo")
    await gw.models.deploy(id="m", version="2", weight=0.1, upstream="tokens:3")
    await gw.models.promote(id="m")
    await gw.models.disable(id="m")
    await gw.models.retire(id="m")
    await gw.models.remove(id="m")


async def after(gw: Gateway, since: int, count: int) -> list[RecordedEvent]:
    """So many events of models after a sequence."""
    found: list[RecordedEvent] = []
    async with asyncio.timeout(20), aclosing(gw.events("model", since=since)) as events:
        while len(found) < count:
            found.append(await anext(events))
    return found


# -- whoever joins


async def test_whoever_joins_at_any_point_of_a_life_is_told_exactly_the_rest(gw: Gateway) -> None:
    start = await (await gw.log()).end()
    await live(gw)
    whole = await after(gw, start, len(LIFE))
    assert [event.type for event in whole] == [f"model.{name}.v1" for name in LIFE]
    end = await (await gw.log()).end()
    for since in range(start, end):
        rest = [event for event in whole if event.sequence > since]
        assert await after(gw, since, len(rest)) == rest


async def test_whoever_follows_a_life_misses_nothing_where_the_connection_breaks(gw: Gateway, bus_url: str) -> None:
    start = await (await gw.log()).end()
    async with trunkline.connect(bus_url) as other:
        told: list[RecordedEvent] = []

        async def follow() -> None:
            async with aclosing(other.events("model", since=start)) as events:
                async for event in events:
                    told.append(event)
                    await other._connection.nats.force_reconnect()
                    if len(told) == len(LIFE):
                        return

        following = asyncio.create_task(follow())
        await live(gw)
        async with asyncio.timeout(30):
            await following
        assert told == await after(gw, start, len(LIFE))


# -- versions


async def test_a_deployed_version_serves_from_the_answer_on(gw: Gateway) -> None:
    reply = await gw.models.deploy(id="echo", version="2", upstream="tokens:3", reason="better")
    assert (reply["model"]["version"], reply["model"]["upstream"]) == ("2", "tokens:3")
    assert (await gw.chat.create("echo", "hello")).text != "hello"
    assert (await gw.models.deploy(id="echo", version="2"))["changed"] is False


async def test_a_canary_is_shown_with_its_model_until_it_is_promoted(gw: Gateway) -> None:
    await gw.models.deploy(id="echo", version="2", weight=0.5, upstream="tokens:3")
    assert (await gw.models.get(id="echo"))["model"]["canary"]["weight"] == 0.5
    await gw.models.promote(id="echo")
    model = (await gw.models.get(id="echo"))["model"]
    assert (model["version"], model["upstream"], model["canary"]) == ("2", "tokens:3", None)
    with pytest.raises(errors.Conflict, match="no canary"):
        await gw.models.promote(id="echo")


# -- draining


async def test_a_model_that_is_drained_is_answered_for_when_what_ran_has_ended(gw: Gateway) -> None:
    async with calling(gw._connection.nats, chat_body("slow", stream=True), {headers.REQUEST: "r"}) as call:
        await call.next()
        end = await (await gw.log()).end()
        draining = asyncio.create_task(gw.models.retire(id="slow", drain_s=30))
        await after(gw, end, 1)
        assert (await gw.models.get(id="slow"))["model"]["status"] == "retired"
        with pytest.raises(errors.TrunklineError):
            await gw.chat.create("slow", "no new request")
        while (await call.next()).data:
            assert not draining.done()
        reply = await draining
        assert (reply["drained"], reply["running"]) == (True, 0)


async def test_a_drain_whose_time_is_over_says_how_many_calls_run(gw: Gateway) -> None:
    async with calling(gw._connection.nats, chat_body("slow", stream=True), {headers.REQUEST: "r"}) as call:
        await call.next()
        reply = await gw.models.retire(id="slow", drain_s=1.5)
        assert (reply["drained"], reply["running"]) == (False, 1)
        await gw.chat.abort("r")


@pytest.mark.parametrize("seconds", [-1, 301])
async def test_a_drain_lasts_five_minutes_at_most(gw: Gateway, seconds: float) -> None:
    with pytest.raises(errors.InvalidRequest, match="drain_s"):
        await gw.models.retire(id="slow", drain_s=seconds)
    assert (await gw.models.get(id="slow"))["model"]["status"] == "enabled"


# -- discovery


async def test_models_are_found_by_what_they_can_do(gw: Gateway) -> None:
    await gw.models.update(id="echo", capabilities={"reasoning": 0.9}, features=["tools"])
    await gw.models.update(id="tokens", capabilities={"reasoning": 0.7}, features=["tools"])
    await gw.models.update(id="slow", capabilities={"reasoning": 0.6})
    reply = await gw.models.discover(capabilities={"reasoning": 0.65}, features=["tools"])
    assert [(one["model"]["id"], one["match"], one["circuit"]) for one in reply["models"]] == [
        ("echo", 0.9, "closed"),
        ("tokens", 0.7, "closed"),
    ]
    await gw.models.disable(id="echo")
    assert [one["model"]["id"] for one in (await gw.models.discover(capability="reasoning"))["models"]] == [
        "tokens",
        "slow",
    ]
