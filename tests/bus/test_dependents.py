"""Models that somebody depends on: refused by name, forced on the record, and right whatever died in between."""

import asyncio
from typing import Any

import pytest
from nats.aio.msg import Msg
from nats.js import api
from nats.js.errors import KeyNotFoundError
from nats.js.kv import KeyValue
from trunkline import errors
from trunkline.client import Gateway
from trunkline.host import Host
from trunkline.workflows import Engine, LLMStep, WaitStep, Workflow
from trunkline_actors import dependents
from trunkline_actors.dependents import MOST_NAMED, SETTLED, Dependent, Dependents, refusal
from trunkline_events.connection import Connection
from trunkline_events.registry import ModelDisabled
from trunkline_events.subjects import DEPENDENTS_BUCKET, log_subject

pytest_plugins = ["gateway", "workflow_kit"]


async def used_by(gw: Gateway, model: str, verb: str = "disable", **more: Any) -> list[tuple[str, str]]:
    """Who stands in the way."""
    with pytest.raises(errors.Conflict) as refused:
        await getattr(gw.models, verb)(id=model, **more)
    return [(one["kind"], one["id"]) for one in refused.value.metadata["dependents"]]


async def bucket_of(gw: Gateway) -> KeyValue:
    return await gw._connection.nats.jetstream().key_value(DEPENDENTS_BUCKET)


# -- threads


@pytest.mark.parametrize("verb", ["disable", "retire", "remove"])
async def test_a_model_that_a_thread_counts_on_is_taken_out_of_use_by_force_only(gw: Gateway, verb: str) -> None:
    await gw.threads.configure(thread_id="t", model="echo")
    assert await used_by(gw, "echo", verb) == [("thread", "t")]
    assert (await gw.models.get(id="echo"))["model"]["status"] == "enabled"
    reply = await getattr(gw.models, verb)(id="echo", force=True, reason="broken")
    event = await (await gw.log()).get(reply["seq"])
    assert event is not None
    assert getattr(event.body, "reason", None) == "forced: broken"


async def test_a_model_that_is_preferred_or_fallen_back_to_is_counted_on_too(gw: Gateway) -> None:
    await gw.threads.configure(thread_id="team/a", preferences={"prefer": ["echo"], "fallbacks": ["tokens"]})
    for model in ("echo", "tokens"):
        assert await used_by(gw, model) == [("thread", "team/a")]
    await gw.models.disable(id="slow")


async def test_a_thread_that_was_configured_anew_depends_on_what_it_names_now(gw: Gateway) -> None:
    await gw.threads.configure(thread_id="t", model="echo")
    await gw.threads.configure(thread_id="t", model="tokens")
    await gw.models.disable(id="echo")
    assert await used_by(gw, "tokens") == [("thread", "t")]
    await gw.threads.configure(thread_id="t", budget={"limit_usd": "1"})
    assert await used_by(gw, "tokens") == [("thread", "t")]
    await gw.threads.configure(thread_id="t", model=None)
    await gw.models.disable(id="tokens")


async def test_what_is_so_already_has_nobody_in_its_way(gw: Gateway) -> None:
    await gw.threads.configure(thread_id="t", model="echo")
    await gw.models.disable(id="echo", force=True)
    assert (await gw.models.disable(id="echo"))["changed"] is False
    await gw.models.enable(id="echo")


async def test_an_error_names_a_few_of_many_threads_and_says_that_there_are_more(gw: Gateway) -> None:
    for number in range(MOST_NAMED + 2):
        await gw.threads.configure(thread_id=f"t{number:02}", model="echo")
    with pytest.raises(errors.Conflict, match="and more threads") as refused:
        await gw.models.disable(id="echo")
    assert len(refused.value.metadata["dependents"]) == MOST_NAMED
    assert refused.value.metadata["more_threads"] is True


# -- what died in between


async def test_a_thread_that_was_noted_and_never_configured_is_in_nobodys_way(gw: Gateway, host: Host) -> None:
    await Dependents(host.runtime).note("t", ["echo"])
    await Dependents(host.runtime).note("configured", ["echo"])
    await gw.threads.configure(thread_id="configured", model="tokens")
    await gw.models.disable(id="echo")


async def test_an_entry_that_is_wrong_is_kept_while_it_may_come_true_and_dropped_later(
    gw: Gateway, host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    await Dependents(host.runtime).note("t", ["echo"])
    bucket = await bucket_of(gw)
    await gw.models.disable(id="echo")
    assert (await bucket.get("echo.t")).value == b"1"
    await gw.models.enable(id="echo")
    clock = host.runtime.clock
    monkeypatch.setattr(host.runtime, "clock", lambda: clock() + SETTLED)
    await gw.models.disable(id="echo")
    with pytest.raises(KeyNotFoundError):
        await bucket.get("echo.t")
    await gw.models.enable(id="echo")
    await gw.models.disable(id="echo")


async def test_a_thread_that_is_configured_anew_while_it_is_looked_for_is_named_once(
    gw: Gateway, host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dependents, "AT_ONCE", 2)
    index, names = Dependents(host.runtime), Dependents._names

    async def looked_at(self: Dependents, thread: str) -> list[str]:
        await index.note(thread, ["echo"])
        return await names(self, thread)

    monkeypatch.setattr(Dependents, "_names", looked_at)
    for number in range(5):
        await gw.threads.configure(thread_id=f"t{number}", model="echo")
    assert await used_by(gw, "echo") == [("thread", f"t{number}") for number in range(5)]


async def test_whatever_a_configuration_names_is_noted_before_it_is_in_the_log(
    gw: Gateway, connection: Connection
) -> None:
    seen: asyncio.Queue[str] = asyncio.Queue()

    async def heard(message: Msg) -> None:
        seen.put_nowait(message.subject)

    for subject in (f"$KV.{DEPENDENTS_BUCKET}.>", log_subject("thread", "t")):
        await connection.nats.subscribe(subject, cb=heard)
    await connection.nats.flush()
    await gw.threads.configure(thread_id="t", model="echo")
    async with asyncio.timeout(5):
        assert [await seen.get(), await seen.get()] == [f"$KV.{DEPENDENTS_BUCKET}.echo.t", log_subject("thread", "t")]


async def test_a_thread_is_not_configured_where_that_can_not_be_noted(gw: Gateway) -> None:
    full = api.KeyValueConfig(bucket=DEPENDENTS_BUCKET, history=1, max_bytes=1)
    await gw._connection.nats.jetstream().create_key_value(full)
    with pytest.raises(errors.Unavailable):
        await gw.threads.configure(thread_id="t", model="echo")
    with pytest.raises(errors.NotFound):
        await gw.threads.get(thread_id="t")
    await gw.threads.configure(thread_id="t", budget={"limit_usd": "1"})  # which names no model


async def test_an_entry_that_is_right_is_never_dropped(
    gw: Gateway, host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    await gw.threads.configure(thread_id="t", model="echo")
    clock = host.runtime.clock
    monkeypatch.setattr(host.runtime, "clock", lambda: clock() + 2 * SETTLED)
    for _ in range(2):
        assert await used_by(gw, "echo") == [("thread", "t")]


async def test_a_configuration_that_is_refused_makes_nobody_depend(gw: Gateway) -> None:
    with pytest.raises(errors.InvalidRequest):
        await gw.threads.configure(thread_id="t", model="echo", budget={"limit_usd": "much"})
    await gw.models.disable(id="echo")


async def test_no_more_threads_are_asked_than_can_be_in_time(
    gw: Gateway, host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dependents, "MOST_CHECKED", dependents.AT_ONCE)
    index = Dependents(host.runtime)
    await asyncio.gather(*(index.note(f"t{number}", ["echo"]) for number in range(dependents.AT_ONCE)))
    with pytest.raises(errors.Unavailable, match="too many to ask each"):
        await gw.models.disable(id="echo")
    assert await index.problem("tokens", "disable") is None


# -- runs of workflows


async def test_a_model_that_chats_of_a_run_name_is_in_use_until_the_run_is_over(gw: Gateway, engine: Engine) -> None:
    preferred = LLMStep("b", "after {wait}", model="echo", route={"fallbacks": ["tokens"]})
    workflow = Workflow("w", [WaitStep("wait", "go"), preferred])
    run = await engine.start(workflow, {}, id="r")
    for model in ("echo", "tokens"):
        assert await used_by(gw, model) == [("workflow", "r")]
    await gw.models.disable(id="slow")
    await gw.workflows.signal(id="r", name="go", value="x")
    await engine.result(run)
    await gw.models.disable(id="echo")


def test_an_error_names_a_few_of_many_runs_and_threads_and_says_of_which_there_are_more() -> None:
    runs = [Dependent("workflow", f"r{number}") for number in range(MOST_NAMED + 1)]
    refused = refusal("m", "disable", [Dependent("policy", "rules[0]"), *runs, Dependent("thread", "t")])
    assert "the routing policy (rules[0]), workflow run 'r0', " in refused.message
    assert "thread 't' and more workflows; " in refused.message
    assert len(refused.metadata["dependents"]) == MOST_NAMED + 2
    assert (refused.metadata["more_threads"], refused.metadata["more_workflows"]) == (False, True)


# -- the policy


async def test_a_model_that_the_policy_names_is_in_use_at_that_place(gw: Gateway) -> None:
    await gw.command("trunkline.policy.publish", {"policy": {"rules": [{"name": "all", "use": ["echo", "tokens"]}]}})
    assert await used_by(gw, "tokens") == [("policy", "rules[0].use[1]")]
    await gw.models.disable(id="slow")


async def test_a_model_that_an_operator_forces_is_in_use(gw: Gateway) -> None:
    await gw.command("trunkline.policy.override", {"model": "echo"})
    assert await used_by(gw, "echo") == [("override", "")]


async def test_an_unforced_end_is_recorded_as_it_was_explained(gw: Gateway) -> None:
    reply = await gw.models.disable(id="echo", reason="quiet")
    event = await (await gw.log()).get(reply["seq"])
    assert event is not None
    assert event.body == ModelDisabled(id="echo", reason="quiet")
