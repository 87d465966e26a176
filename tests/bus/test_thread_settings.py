"""What a thread is configured to: kept field by field, and what its requests are like from the answer on."""

import asyncio
from typing import Any

import pytest
import trunkline
from trunkline import errors
from trunkline.client import Gateway
from trunkline.host import Host

pytest_plugins = ["gateway"]

SETTINGS = ("limit_usd", "window", "warn_at", "model", "parameters", "preferences")


async def settings(gw: Gateway, thread: str = "t") -> list[Any]:
    shown = await gw.threads.get(thread_id=thread)
    return [shown[name] for name in SETTINGS]


# -- what is kept


async def test_each_change_leaves_the_rest_as_it_was(gw: Gateway) -> None:
    await gw.threads.configure(thread_id="t", budget={"limit_usd": "1", "window": "day", "warn_at": 0.5})
    await gw.threads.configure(thread_id="t", model="echo")
    await gw.threads.configure(thread_id="t", parameters={"temperature": 0.2, "stop": ["x"]})
    await gw.threads.configure(thread_id="t", preferences={"optimize": "cost"})
    whole = ["1", "day", 0.5, "echo", {"temperature": 0.2, "stop": ["x"]}, {"optimize": "cost"}]
    assert await settings(gw) == whole
    await gw.threads.configure(thread_id="t", budget={"limit_usd": "2"})
    assert await settings(gw) == ["2", "none", None, *whole[3:]]


async def test_null_takes_away_what_it_names(gw: Gateway) -> None:
    change: dict[str, Any] = {"model": "echo", "parameters": {"seed": 1}, "preferences": {"clamp": True}}
    await gw.threads.configure(thread_id="t", budget={"limit_usd": "1"}, **change)
    for name, after in (("model", None), ("parameters", {}), ("preferences", {})):
        reply = await gw.threads.configure(thread_id="t", **{name: None})
        assert (reply[name], reply["limit_usd"]) == (after, "1")
    assert (await gw.threads.configure(thread_id="t", budget=None))["limit_usd"] is None


async def test_changes_made_at_once_are_all_kept(gw: Gateway, bus_url: str) -> None:
    other = await Host.start(bus_url, ["registry"])
    changes: list[dict[str, Any]] = [
        {"model": "echo"},
        {"parameters": {"seed": 1}},
        {"preferences": {"clamp": True}},
        {"budget": {"limit_usd": "1"}},
    ]
    async with trunkline.connect(bus_url) as second:
        for round_ in range(5):
            thread = f"t{round_}"
            await asyncio.gather(
                *(each.threads.configure(thread_id=thread, **change) for each in (gw, second) for change in changes)
            )
            assert await settings(gw, thread) == ["1", "none", None, "echo", {"seed": 1}, {"clamp": True}]
    await other.stop()


async def test_settings_outlive_the_requests_of_their_thread(gw: Gateway) -> None:
    await gw.threads.configure(thread_id="t", model="echo", parameters={"seed": 1})
    await gw.chat.create("echo", "hello", thread="t")
    assert (await settings(gw))[3:5] == ["echo", {"seed": 1}]


@pytest.mark.parametrize(
    ("change", "kind", "param"),
    [
        ({"model": "gone"}, errors.NotFound, "model"),
        ({"preferences": {"prefer": ["gone"]}}, errors.NotFound, "preferences.prefer"),
        ({"preferences": {"deadline_ms": 5}}, errors.InvalidRequest, "preferences"),
        ({"preferences": {"speed": 5}}, errors.InvalidRequest, "preferences"),
        ({"parameters": {"messages": []}}, errors.InvalidRequest, "parameters"),
        ({"parameters": []}, errors.InvalidRequest, "parameters"),
        ({"colour": "red"}, errors.InvalidRequest, None),
    ],
)
async def test_a_change_that_makes_no_sense_is_refused_at_its_field_and_changes_nothing(
    gw: Gateway, change: dict[str, Any], kind: type[errors.TrunklineError], param: str | None
) -> None:
    await gw.threads.configure(thread_id="t", model="echo")
    with pytest.raises(kind) as refused:
        await gw.threads.configure(thread_id="t", **change)
    assert refused.value.param == param
    assert (await settings(gw))[3:] == ["echo", {}, {}]


async def test_a_model_that_was_just_registered_can_be_a_threads_on_any_process(gw: Gateway, bus_url: str) -> None:
    other = await Host.start(bus_url, ["registry"])
    for number in range(6):
        await gw.models.register(id=f"m{number}", provider="scripted", upstream="echo")
        await gw.threads.configure(thread_id="t", model=f"m{number}")
    await other.stop()


# -- what requests are like


async def test_auto_stands_for_the_threads_model(gw: Gateway) -> None:
    await gw.threads.configure(thread_id="t", model="tokens")
    assert (await gw.chat.create("auto", "hello", thread="t")).receipt.model == "tokens"
    assert (await gw.chat.create("echo", "hello", thread="t")).receipt.model == "echo"
    await gw.threads.configure(thread_id="t", model="echo")
    assert (await gw.chat.create("auto", "hello", thread="t")).receipt.model == "echo"


async def test_parameters_hold_where_a_request_sets_none_itself(gw: Gateway) -> None:
    await gw.threads.configure(thread_id="t", parameters={"max_tokens": 3})
    short = await gw.chat.create("tokens", "hello", thread="t")
    assert short.usage["completion_tokens"] == 3
    longer = await gw.chat.create("tokens", "hello", thread="t", max_tokens=5)
    assert longer.usage["completion_tokens"] == 5
    free = await gw.chat.create("tokens", "hello", thread="other")
    assert free.usage["completion_tokens"] == 20
    await gw.threads.configure(thread_id="t", parameters=None)
    assert (await gw.chat.create("tokens", "hello", thread="t")).usage["completion_tokens"] == 20


async def test_a_configuration_that_was_answered_holds_on_every_router(gw: Gateway, bus_url: str) -> None:
    other = await Host.start(bus_url, ["registry", "router"])
    for number in range(10):
        tokens = 1 + number % 5
        await gw.threads.configure(
            thread_id="t", parameters={"max_tokens": tokens}, model=("tokens", "echo")[number % 2]
        )
        answers = await asyncio.gather(*(gw.chat.create("auto", "hello", thread="t") for _ in range(4)))
        assert {answer.receipt.model for answer in answers} == {("tokens", "echo")[number % 2]}
        if number % 2 == 0:
            assert {answer.usage["completion_tokens"] for answer in answers} == {tokens}
    await other.stop()
