"""The routing policy over the bus: versions are published, shown, compared and rolled back; and what overrides them."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
from nats.aio.client import Client
from trunkline import errors
from trunkline.client import Gateway
from trunkline.host import Host
from trunkline_actors.claims import key_id
from trunkline_actors.dispatch import Pulse, encode
from trunkline_events import headers
from trunkline_events.jetstream import JetStreamLog
from trunkline_events.log import load
from trunkline_events.subjects import PULSE

pytest_plugins = ["gateway"]

FIRST = {"rules": [{"name": "all", "use": ["echo"]}]}
SECOND = {"rules": [{"name": "all", "use": ["tokens"]}, {"name": "more"}], "defaults": {"optimize": "latency"}}


@pytest.fixture
def nats(gw: Gateway) -> Client:
    return gw._connection.nats


@pytest.fixture
async def other(bus_url: str, gw: Gateway) -> AsyncIterator[Host]:
    """A second process that decides by the policy."""
    serving = await Host.start(bus_url, ["router"])
    yield serving
    await serving.stop()


async def ask(nats: Client, verb: str, request: str, key: str = "", **arguments: Any) -> dict[str, Any]:
    fields = {headers.REQUEST: request, **({headers.KEY: key} if key else {})}
    body = json.dumps(arguments).encode()
    message = await nats.request(f"trunkline.policy.{verb}", body, timeout=10, headers=fields)
    reply: dict[str, Any] = json.loads(message.data)
    return reply


async def published(log: JetStreamLog) -> list[str]:
    return [event.type for event in await load(log, "policy", "routing")]


async def test_a_policy_is_published_under_the_next_number_and_shown_as_it_was_given(gw: Gateway) -> None:
    before = await gw.policy.get()
    assert (before["version"], before["policy"], before["published_at"]) == (0, {}, None)
    first = await gw.policy.publish(policy=FIRST)
    assert (first["version"], first["changed"], first["rules"], first["warnings"]) == (1, True, 1, [])
    second = await gw.policy.publish(policy=SECOND, reason="faster")
    shown = await gw.policy.get()
    assert (shown["version"], shown["policy"], shown["reason"]) == (2, SECOND, "faster")
    assert (shown["seq"], shown["override"]) == (second["seq"], None)
    old = await gw.policy.get(version=1)
    assert (old["version"], old["current"], old["policy"], old["reason"]) == (1, 2, FIRST, None)


async def test_a_version_that_was_never_published_is_not_found(gw: Gateway) -> None:
    from_none = gw.policy.diff(**{"from": 5, "to": 0})
    for ask_for in (gw.policy.get(version=1), gw.policy.rollback(to=7), gw.policy.diff(to=3), from_none):
        with pytest.raises(errors.NotFound, match="policy history"):
            await ask_for


async def test_the_very_same_document_again_changes_nothing(gw: Gateway, log: JetStreamLog) -> None:
    await gw.policy.publish(policy=FIRST)
    again = await gw.policy.publish(policy={**FIRST, "defaults": {"percentile": 50}, "hints": {}})
    assert (again["changed"], again["version"]) == (False, 1)
    assert await published(log) == ["policy.published.v1"]


async def test_an_empty_policy_can_be_the_first(gw: Gateway) -> None:
    assert (await gw.policy.publish(policy={}))["version"] == 1


async def test_a_bad_policy_is_refused_with_every_place_and_reason(gw: Gateway, log: JetStreamLog) -> None:
    bad = {"rules": [{"name": "a", "use": ["ecco"]}, {"name": "a", "min_match": 2, "wen": {}}]}
    with pytest.raises(errors.InvalidRequest) as caught:
        await gw.policy.publish(policy=bad)
    problems = [problem["path"] for problem in caught.value.metadata["problems"]]
    assert problems == ["rules[1].wen", "rules[0].use[0]", "rules[1].min_match", "rules[1].name"]
    assert caught.value.param == "rules[1].wen"
    told = {problem["path"]: problem["message"] for problem in caught.value.metadata["problems"]}
    assert told["rules[0].use[0]"] == 'no model has the id or the tag "ecco"; did you mean "echo"?'
    assert await published(log) == []


async def test_a_policy_can_be_checked_without_being_published(gw: Gateway, log: JetStreamLog) -> None:
    good = await gw.policy.validate(policy=FIRST)
    assert (good["ok"], good["valid"], good["problems"], good["warnings"]) == (True, True, [], [])
    bad = await gw.policy.validate(policy={"rules": 3})
    assert (bad["ok"], bad["valid"], bad["count"]) == (True, False, 1)
    assert bad["problems"] == [{"path": "rules", "message": "must be a list, not 3"}]
    await gw.models.disable(id="echo")
    doubtful = await gw.policy.validate(policy=FIRST)
    assert (doubtful["valid"], [one["path"] for one in doubtful["warnings"]]) == (True, ["rules[0].use[0]"])
    assert await published(log) == []


async def test_a_policy_made_from_what_is_no_longer_in_force_is_a_conflict(gw: Gateway) -> None:
    await gw.policy.publish(policy=FIRST, base=0)
    with pytest.raises(errors.Conflict, match="version 1 of the policy is in force, not 0") as caught:
        await gw.policy.publish(policy=SECOND, base=0)
    assert caught.value.metadata["version"] == 1
    assert (await gw.policy.publish(policy=SECOND, base=1))["version"] == 2


async def test_of_many_who_publish_from_one_base_one_wins(gw: Gateway) -> None:
    documents = [{"rules": [{"name": f"r{number}"}]} for number in range(8)]
    outcomes = await asyncio.gather(
        *(gw.policy.publish(policy=document, base=0) for document in documents), return_exceptions=True
    )
    assert sum(isinstance(one, dict) for one in outcomes) == 1
    assert sum(isinstance(one, errors.Conflict) for one in outcomes) == 7


async def test_a_change_is_done_once_for_one_request_id(nats: Client, log: JetStreamLog) -> None:
    first = await ask(nats, "publish", "once", policy=FIRST, base=0)
    await ask(nats, "publish", "twice", policy=SECOND)
    assert await ask(nats, "publish", "once", policy=FIRST, base=0) == first
    forced = await ask(nats, "override", "once", model="echo", for_s=60)
    assert await ask(nats, "override", "once", model="echo", for_s=60) == forced
    back = await ask(nats, "rollback", "once", to=1)
    await ask(nats, "override", "cleared", model=None)
    assert await ask(nats, "rollback", "once", to=1) == back
    cleared = {"ok": True, "seq": await log.end(), "changed": True, "override": None}
    assert await ask(nats, "override", "cleared", model=None) == cleared
    assert await published(log) == [
        *("policy.published.v1", "policy.published.v1", "policy.override-set.v1"),
        *("policy.rolled-back.v1", "policy.override-cleared.v1"),
    ]


async def test_the_history_is_told_newest_first_by_page(nats: Client, gw: Gateway) -> None:
    await ask(nats, "publish", "r1", key="tl-a-key", policy=FIRST)
    await gw.policy.publish(policy=SECOND, reason="faster")
    await gw.policy.rollback(to=1, reason="too fast")
    page = await gw.policy.history(limit=2)
    shown = [(one["version"], one["kind"], one["to"], one["rules"], one["reason"]) for one in page["versions"]]
    assert shown == [(3, "rolled-back", 1, 1, "too fast"), (2, "published", None, 2, "faster")]
    rest = await gw.policy.history(after=page["after"])
    assert (len(rest["versions"]), rest["after"], rest["current"]) == (1, None, 3)
    assert rest["versions"][0]["by"] == f"key:{key_id('tl-a-key')}"
    with pytest.raises(errors.InvalidRequest, match="limit"):
        await gw.policy.history(limit=0)


async def test_versions_are_compared(gw: Gateway) -> None:
    await gw.policy.publish(policy=FIRST)
    await gw.policy.publish(policy=SECOND)
    told = await gw.policy.diff()
    assert (told["from"], told["to"], told["same"]) == (1, 2, False)
    assert told["diff"]["added"] == [{"name": "more"}]
    assert told["diff"]["changed"] == [{"name": "all", "fields": {"use": {"from": ["echo"], "to": ["tokens"]}}}]
    assert told["diff"]["fields"] == {"defaults.optimize": {"from": None, "to": "latency"}}
    assert (await gw.policy.diff(**{"from": 2, "to": 2}))["same"]
    assert [one["name"] for one in (await gw.policy.diff(**{"from": 0, "to": 1}))["diff"]["added"]] == ["all"]


async def test_a_document_is_compared_with_what_is_in_force(gw: Gateway) -> None:
    await gw.policy.publish(policy=FIRST)
    told = await gw.policy.diff(policy=SECOND)
    assert (told["from"], told["to"], told["same"]) == (1, None, False)
    assert (await gw.policy.diff(policy=FIRST))["same"]
    with pytest.raises(errors.InvalidRequest, match="rules"):
        await gw.policy.diff(policy={"rules": 1})
    with pytest.raises(errors.InvalidRequest, match="not both"):
        await gw.policy.diff(policy=FIRST, to=1)


async def test_rolling_back_is_a_new_version_of_an_old_document(gw: Gateway) -> None:
    await gw.policy.publish(policy=FIRST)
    await gw.policy.publish(policy=SECOND)
    back = await gw.policy.rollback(to=1)
    assert (back["version"], back["to"], back["changed"]) == (3, 1, True)
    assert (await gw.policy.get())["policy"] == FIRST
    assert (await gw.policy.rollback(to=1))["changed"] is False
    assert (await gw.policy.rollback(to=0))["version"] == 4
    assert (await gw.policy.get())["policy"] == {}


async def test_rolling_back_to_a_model_that_has_gone_is_refused_unless_forced(gw: Gateway) -> None:
    await gw.models.register(id="passing", provider="scripted", upstream="echo")
    await gw.policy.publish(policy={"rules": [{"name": "all", "use": ["passing", "echo"]}]})
    await gw.policy.publish(policy=SECOND)
    await gw.models.remove(id="passing")
    with pytest.raises(errors.InvalidRequest, match="version 1 can't be used as it is: rules"):
        await gw.policy.rollback(to=1)
    assert (await gw.policy.rollback(to=1, force=True))["version"] == 3


async def test_an_override_forces_a_model_until_it_is_cleared_or_over(gw: Gateway) -> None:
    done = await gw.policy.override(model="echo", reason="an incident")
    assert done["override"] == {"model": "echo", "until": None, "reason": "an incident"}
    assert (await gw.policy.get())["override"] == done["override"]
    assert (await gw.policy.override(model="echo", reason="an incident"))["changed"] is False
    assert (await gw.policy.override(model=None))["changed"] is True
    assert (await gw.policy.override(model=None))["changed"] is False
    assert (await gw.policy.get())["override"] is None


async def test_an_override_that_is_over_is_none(gw: Gateway, host: Host) -> None:
    done = await gw.policy.override(model="echo", for_s=60)
    until = await gw.policy.override(model="echo", until=done["override"]["until"])
    assert until["changed"] is False, "a time and so many seconds from now are the same"
    routing = host.runtime.gateway.state.routing
    assert routing.override is not None
    assert routing.override.until is not None
    assert routing.forced(routing.override.until - 1) == "echo"
    await gw.policy.override(model="echo", for_s=0.05)
    async with asyncio.timeout(10):
        while (await gw.policy.get())["override"] is not None:
            pass
    assert (await gw.policy.override(model=None))["changed"] is False


@pytest.mark.parametrize(
    ("arguments", "kind", "told"),
    [
        ({"model": "ecco"}, errors.ModelNotFound, 'did you mean "echo"'),
        ({"model": "slow"}, errors.Conflict, "is disabled and can't serve"),
        ({"model": "echo", "until": 5}, errors.InvalidRequest, "must end in the future"),
        ({"model": "echo", "until": "soon"}, errors.InvalidRequest, "is no time"),
        ({"model": "echo", "for_s": 0}, errors.InvalidRequest, "for_s must be more than 0"),
        ({"model": "echo", "for_s": 5, "until": 5}, errors.InvalidRequest, "not both"),
        ({}, errors.InvalidRequest, "missing required field `model`"),
    ],
)
async def test_an_override_that_can_not_be_is_refused(
    gw: Gateway, arguments: dict[str, Any], kind: type[errors.TrunklineError], told: str
) -> None:
    await gw.models.disable(id="slow")
    with pytest.raises(kind, match=told):
        await gw.policy.override(**arguments)


async def test_a_process_that_is_too_old_for_the_policy_in_force_changes_nothing(
    gw: Gateway, nats: Client, log: JetStreamLog
) -> None:
    await gw.policy.publish(policy=FIRST)
    newer = {headers.MSG_ID: "n", headers.TYPE: "policy.published.v1", headers.TIME: "2026-11-28T12:00:00.000000Z"}
    body = b'{"type": "policy.published.v1", "version": 2, "policy": {"rules": [{"name": "a", "mood": "good"}]}}'
    await nats.jetstream().publish(
        "trunkline.log.policy.routing", body, headers={**newer, headers.ACTOR: "a newer one"}
    )
    for asked in (gw.policy.publish(policy=SECOND), gw.policy.override(model=None), gw.policy.get()):
        with pytest.raises(errors.Unavailable, match="of a newer version than this process"):
            await asked
    assert (await gw.policy.get(version=1))["policy"] == FIRST
    assert len(await published(log)) == 2


async def test_every_process_has_read_a_change_before_it_is_answered(gw: Gateway, host: Host, other: Host) -> None:
    for number in range(1, 6):
        await gw.policy.publish(policy={"rules": [{"name": f"r{number}"}]})
        assert [one.runtime.gateway.state.routing.version for one in (host, other)] == [number, number]
    await gw.policy.override(model="echo")
    assert [one.runtime.gateway.state.routing.forced(0) for one in (host, other)] == ["echo", "echo"]


async def test_a_change_is_not_answered_while_a_process_is_behind(gw: Gateway, nats: Client, log: JetStreamLog) -> None:
    behind = Pulse(process="behind", roles=["router"], attempts=[], answered=[], position=await log.end())
    await nats.publish(PULSE, encode(behind))
    await nats.flush()
    publishing = asyncio.create_task(gw.policy.publish(policy=FIRST))
    while await log.last("policy", "routing") is None:
        pass
    for _ in range(10):  # longer than the answer would take
        await gw.policy.get()
    assert not publishing.done()
    await nats.publish(PULSE, encode(msgspec.structs.replace(behind, position=await log.end())))
    assert (await publishing)["version"] == 1


async def test_two_actors_number_versions_without_gaps(gw: Gateway, bus_url: str) -> None:
    second = await Host.start(bus_url, ["registry"])
    try:
        documents = [{"rules": [{"name": f"r{number}"}]} for number in range(20)]
        done = await asyncio.gather(*(gw.policy.publish(policy=document) for document in documents))
        assert sorted(one["version"] for one in done) == list(range(1, 21))
        assert len((await gw.policy.history())["versions"]) == 20
    finally:
        await second.stop()
