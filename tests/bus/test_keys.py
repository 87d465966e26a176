"""API keys on the bus: issued once, gone by in every process, and asked for by every endpoint."""

import asyncio
from collections.abc import AsyncIterator

import msgspec
import pytest
import trunkline
from keys_kit import every_kind
from messages import ask, chat_body
from trunkline import errors
from trunkline.client import Gateway
from trunkline.host import Host
from trunkline_actors.claims import key_id
from trunkline_actors.keys import own_key
from trunkline_actors.keys_door import pepper_of
from trunkline_events import headers
from trunkline_events.connection import Connection
from trunkline_events.jetstream import JetStreamLog
from trunkline_events.log import Scope
from trunkline_events.subjects import KEYS_BUCKET

pytest_plugins = ["gateway"]

READ = {
    *("models.get", "models.list", "models.discover", "models.metrics", "models.catalogue"),
    *("providers.get", "providers.list", "providers.check", "provider.scripted.models.list"),
    *("policy.get", "policy.history", "policy.diff", "policy.validate", "routing.recommend", "routing.log"),
    *("threads.get", "threads.list", "budgets.get", "budgets.list", "plugins.get", "plugins.list"),
    *("circuits.get", "circuits.list", "circuits.history", "keys.get", "keys.list"),
    *("secrets.list", "secrets.describe", "secrets.holders", "workflows.list"),
}
CHAT = {"chat", "embeddings", "chat.abort"}
OF_A_RUN = {"workflows.get", "workflows.cancel", "workflows.signal"}
"""For any key: its actor looks whether the run is that key's; `test_workflow_commands.py` does."""
INTERNAL = {"chat.join"} | {f"provider.scripted.{name}" for name in ("chat", "embeddings", "ready", "check")}
INTERNAL |= {"provider.scripted.models.join-pull"}
"""What processes of the gateway ask one another; who else may publish there is for the permissions of NATS."""


@pytest.fixture
async def second(host: Host, bus_url: str) -> AsyncIterator[Host]:
    """Another process of the same gateway."""
    serving = await Host.start(bus_url, ("registry", "router", "provider", "keeper"))
    yield serving
    await serving.stop()


async def endpoints(connection: Connection) -> dict[str, str]:
    """The scope that each endpoint of the gateway says it takes, by what follows `trunkline.`; empty: none."""
    found = {}
    inbox = connection.nats.new_inbox()
    answers = await connection.nats.subscribe(inbox)
    await connection.nats.publish("$SRV.INFO", reply=inbox)
    try:
        while True:
            info = msgspec.json.decode((await answers.next_msg(timeout=0.3)).data)
            for one in info["endpoints"]:
                found[one["subject"].removeprefix("trunkline.")] = one["metadata"].get("scope", "")
    except TimeoutError:
        return found


def needs(subject: str) -> str:
    """The scope that an endpoint takes."""
    if subject in CHAT or subject.startswith("workflows.start"):
        return "chat"
    return "read" if subject in READ else "admin"


async def test_every_endpoint_asks_for_the_scope_it_takes_and_none_was_forgotten(
    gw: Gateway, host: Host, connection: Connection
) -> None:
    held = await every_kind(gw, host)
    found = await endpoints(connection)
    assert len(found) > 50
    host.runtime.door.required = True
    wrong = []
    for subject, said in found.items():
        if subject in INTERNAL:
            assert said == "", subject
            continue
        if subject in OF_A_RUN:
            assert said == "open", subject
        need = needs(subject)
        for who, key in held.keys.items():
            fields = {headers.KEY: key} if key else None
            expected = 0 if subject in OF_A_RUN and who in held.scopes else held.expected(who, need)
            if expected == 0 and subject not in CHAT:
                continue  # what it does then is for its own tests; that it is let in is in the other direction below
            reply = await connection.nats.request(f"trunkline.{subject}", b"{", timeout=10, headers=fields)
            status = int((reply.headers or {}).get(headers.ERROR_CODE, "0"))
            if status != (expected or 400):
                wrong.append((subject, who, status, expected))
    assert wrong == []


async def test_whoever_has_the_scope_is_let_in(gw: Gateway, host: Host, connection: Connection) -> None:
    held = await every_kind(gw, host)
    host.runtime.door.required = True
    for subject in await endpoints(connection):
        if subject in INTERNAL | CHAT or subject.startswith("secrets."):
            continue
        need = needs(subject)
        for who in {"all", need} | ({"admin"} if need == "read" else set()):
            fields = {headers.KEY: held.keys[who]}
            reply = await connection.nats.request(f"trunkline.{subject}", b"{", timeout=10, headers=fields)
            assert (reply.headers or {})[headers.ERROR_CODE] == "400", (subject, who)


async def test_a_key_is_shown_once_and_nothing_of_it_is_kept(
    gw: Gateway, host: Host, log: JetStreamLog, capfd: pytest.CaptureFixture[str]
) -> None:
    issued = await gw.keys.issue(id="search", name="Search", scopes=["chat", "read"])
    key = issued["key"]
    assert key not in str(await gw.keys.get(id="search")) + str(await gw.keys.list())
    async with trunkline.connect(host.runtime.connection.nats.connected_url.geturl(), key) as theirs:
        await theirs.chat.create("echo", "hi")
    rotated = await gw.keys.rotate(id="search", overlap_s=60)
    await gw.keys.revoke(id="search", reason="over")
    pepper = await pepper_of(host.runtime.connection, None)
    stored = [event.body async for event in log.read()]
    text = repr(stored) + repr(capfd.readouterr()) + repr(host.runtime.gateway.state.keys)
    for secret in (key, rotated["key"], key[3:19], pepper.hex(), own_key(pepper)):
        assert secret not in text


async def test_what_a_key_spends_is_booked_under_its_id_and_a_rotation_changes_nothing_of_that(
    gw: Gateway, bus_url: str, log: JetStreamLog
) -> None:
    key = (await gw.keys.issue(id="search", budget={"limit_usd": "1"}, team="research"))["key"]
    async with trunkline.connect(bus_url, key) as theirs:
        await theirs.chat.create("echo", "hi")
    new = (await gw.keys.rotate(id="search"))["key"]
    async with trunkline.connect(bus_url, new) as theirs:
        await theirs.chat.create("echo", "hi")
    decided = [
        getattr(event.body, "key", None)
        async for event in log.read(scope=Scope(("thread",)))
        if type(event.body).__name__ == "RouteDecided"
    ]
    assert decided == ["search", "search"]
    budget = await gw.budgets.get(scope="key:search")
    assert (budget["limit_usd"], budget["team"]) == ("1", "research")


async def test_a_budget_that_makes_no_sense_leaves_no_key(gw: Gateway) -> None:
    with pytest.raises(errors.InvalidRequest):
        await gw.keys.issue(id="search", budget={"limit_usd": "a lot"})
    assert (await gw.keys.list())["keys"] == []


async def test_the_same_request_id_means_the_same_request_before_and_after_a_rotation(
    gw: Gateway, connection: Connection
) -> None:
    body, answers = chat_body("echo"), []
    for verb in ("issue", "rotate"):
        key = (await getattr(gw.keys, verb)(id="search"))["key"]
        answers.append(await ask(connection.nats, body, {headers.KEY: key, headers.REQUEST: "r-1"}))
    assert answers[1].fields[headers.REPLAYED] == "true"
    assert answers[0].data == answers[1].data


async def test_a_revoked_key_is_refused_by_every_process_as_soon_as_that_is_answered(
    gw: Gateway, host: Host, second: Host
) -> None:
    for number in range(5):
        key = (await gw.keys.issue(id=f"k{number}"))["key"]
        for process in (host, second):
            assert getattr(process.runtime.door.admit(key, "chat"), "id", None) == f"k{number}"
        await gw.keys.revoke(id=f"k{number}")
        for process in (host, second):
            assert getattr(process.runtime.door.admit(key, "chat"), "code", None) == "unauthenticated"
        again = await gw.keys.revoke(id=f"k{number}")
        assert again["changed"] is False


async def test_a_stream_that_runs_when_its_key_is_revoked_is_finished_and_the_next_is_refused(
    gw: Gateway, bus_url: str
) -> None:
    key = (await gw.keys.issue(id="search"))["key"]
    async with trunkline.connect(bus_url, key) as theirs, theirs.chat.stream("slow", "hi") as stream:
        await anext(stream)
        await gw.keys.revoke(id="search")
        assert [chunk async for chunk in stream]
        assert stream.receipt is not None
        with pytest.raises(errors.Unauthenticated, match="was revoked"):
            await theirs.chat.create("echo", "hi")


async def test_two_processes_together_let_no_more_through_than_the_limit(
    gw: Gateway, host: Host, second: Host, connection: Connection
) -> None:
    key = (await gw.keys.issue(id="search", requests_per_minute=20))["key"]
    fields = {headers.KEY: key}
    answers = await asyncio.gather(*(ask(connection.nats, chat_body("echo"), fields) for _ in range(60)))
    refused = [answer for answer in answers if headers.ERROR_CODE in answer.fields]
    assert 19 <= len(answers) - len(refused) <= 21  # one is there again every 3 seconds
    for one in refused:
        assert one.error["code"] == "rate_limited"
        assert 0 < one.error["metadata"]["retry_after"] <= 61
        assert one.error["metadata"]["limits"]["requests"]["limit"] == 20
    passed = [answer for answer in answers if headers.ERROR_CODE not in answer.fields]
    assert all(answer.fields[headers.LIMITS].startswith("requests=20/") for answer in passed)


async def test_tokens_a_minute_count_the_input_and_the_output_that_is_asked_for(
    gw: Gateway, connection: Connection
) -> None:
    key = (await gw.keys.issue(id="search", tokens_per_minute=1000))["key"]
    first = await ask(connection.nats, chat_body("echo", max_tokens=700), {headers.KEY: key})
    assert headers.ERROR_CODE not in first.fields
    second_ = await ask(connection.nats, chat_body("echo", max_tokens=700), {headers.KEY: key})
    assert (second_.error["code"], second_.error["retryable"]) == ("rate_limited", True)
    larger = await ask(connection.nats, chat_body("echo", max_tokens=2000), {headers.KEY: key})
    assert (larger.error["code"], larger.error["retryable"]) == ("rate_limited", False)


async def test_a_model_the_key_may_not_use_is_refused_and_left_out_of_auto(gw: Gateway, connection: Connection) -> None:
    key = {headers.KEY: (await gw.keys.issue(id="search", models=["tok*"]))["key"]}
    refused = await ask(connection.nats, chat_body("echo"), key)
    assert (refused.error["code"], refused.error["param"]) == ("permission_denied", "model")
    for route in ({}, {"prefer": ["echo"]}):
        answer = await ask(connection.nats, chat_body("auto", route=route), key)
        assert answer.fields[headers.MODEL] == "tokens"


async def test_where_no_key_is_required_one_of_elsewhere_goes_by_its_fingerprint(
    gw: Gateway, connection: Connection, log: JetStreamLog
) -> None:
    await gw.keys.issue(id="search")
    answer = await ask(connection.nats, chat_body("echo"), {headers.KEY: "sk-of-elsewhere"})
    event = await log.get(int(answer.fields[headers.EVENT]))
    assert event is not None
    assert getattr(event.body, "key", None) == key_id("sk-of-elsewhere")


async def test_a_lost_pepper_is_an_outage_and_never_a_401(gw: Gateway, host: Host, bus_url: str) -> None:
    key = (await gw.keys.issue(id="search"))["key"]
    js = host.runtime.connection.nats.jetstream()
    await js.delete_key_value(KEYS_BUCKET)
    another = await Host.start(bus_url, ("router",))
    try:
        refused = another.runtime.door.admit(key, "chat")
        assert (getattr(refused, "code", None), getattr(refused, "retryable", None)) == ("unavailable", False)
        assert getattr(another.runtime.door.admit("sk-junk", "chat"), "code", None) == "unauthenticated"
        await gw.keys.revoke(id="search")
        assert getattr(another.runtime.door.admit(key, "chat"), "code", None) == "unauthenticated"
    finally:
        await another.stop()


async def test_who_may_read_the_pepper_acts_for_the_gateway_and_so_can_issue_the_first_key(
    gw: Gateway, host: Host
) -> None:
    host.runtime.door.required = True
    with pytest.raises(errors.Unauthenticated, match="no API key"):
        await gw.keys.issue(id="first")
    assert await gw.act_as_itself()
    issued = await gw.keys.issue(id="first", scopes=["admin"])
    assert host.runtime.gateway.state.keys.by_id["first"].scopes == ["admin"]
    assert issued["key"].startswith("tl-")
