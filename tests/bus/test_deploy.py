"""The server configuration in deploy/nats does what it promises: a gateway runs on it, and nobody empties its log."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import trunkline
from deploy_kit import USERS, Deployed, deployed, intruding
from trunkline import errors
from trunkline.health.bus import bus_checks
from trunkline.host import ROLES, Host
from trunkline_events.connection import Connection
from trunkline_events.log import LogUnavailable
from trunkline_events.subjects import REQUESTS_BUCKET, STREAM


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Deployed]:
    """A server with the deployed configuration, on a free port and with its own store."""
    async with deployed(tmp_path) as running:
        yield running


async def test_a_gateway_runs_as_actor_and_is_used_as_client(server: Deployed) -> None:
    host = await Host.start(server.url("actor"), ROLES)
    try:
        async with trunkline.connect(server.url("client")) as gw:
            await gw.providers.register(id="scripted", kind="scripted", local=True)
            await gw.models.register(id="echo", provider="scripted", upstream="echo")
            answer = await gw.chat.create("echo", "hello")
            assert answer.text == "hello"
        async with trunkline.connect(server.url("operator")) as gw:
            events = [event.type async for event in (await gw.log()).read()]
            assert events[-1] == "thread.usage-recorded.v1"
    finally:
        await host.stop()


async def test_money_is_leased_and_waited_for_with_these_permissions(server: Deployed) -> None:
    host = await Host.start(server.url("actor"), ROLES)
    try:
        async with trunkline.connect(server.url("client")) as gw:
            await gw.providers.register(id="scripted", kind="scripted")
            await gw.models.register(id="echo", provider="scripted", price={"input": "1.00", "output": "4.00"})
            await gw.threads.configure(thread_id="t", budget={"limit_usd": "0.1"})
            await gw.budgets.set(scope="gateway", budget={"limit_usd": "1"})
            chats = (gw.chat.create("echo", "hello", thread="t", max_tokens=20_000) for _ in range(8))
            assert [answer.text for answer in await asyncio.gather(*chats)] == ["hello"] * 8
    finally:
        await host.stop()


async def test_who_depends_on_a_model_is_found_with_these_permissions(server: Deployed) -> None:
    host = await Host.start(server.url("actor"), ROLES)
    try:
        async with trunkline.connect(server.url("client")) as gw:
            await gw.providers.register(id="scripted", kind="scripted")
            await gw.models.register(id="echo", provider="scripted")
            await gw.threads.configure(thread_id="t", model="echo")
            with pytest.raises(errors.Conflict, match="thread 't'"):
                await gw.models.disable(id="echo")
            await gw.threads.configure(thread_id="t", model=None)
            await gw.models.disable(id="echo")
    finally:
        await host.stop()


BUCKET = f"KV_{REQUESTS_BUCKET}"
DESTRUCTIVE: dict[str, dict[str, Any]] = {
    **{f"STREAM.{call}.{name}": {} for name in (STREAM, BUCKET) for call in ("DELETE", "PURGE", "SNAPSHOT", "RESTORE")},
    f"STREAM.UPDATE.{STREAM}": {"name": STREAM, "subjects": ["trunkline.log.>"], "max_msgs": 1},
    f"STREAM.UPDATE.{BUCKET}": {"name": BUCKET, "subjects": [f"$KV.{REQUESTS_BUCKET}.>"], "max_msgs": 1},
    f"STREAM.MSG.DELETE.{STREAM}": {"seq": 1},
    f"STREAM.PEER.REMOVE.{STREAM}": {"peer": "trunkline"},
    f"STREAM.LEADER.STEPDOWN.{STREAM}": {},
    f"CONSUMER.DELETE.{STREAM}.another": {},
    f"CONSUMER.PAUSE.{STREAM}.another": {"pause_until": "2999-01-01T00:00:00Z"},
    f"CONSUMER.LEADER.STEPDOWN.{STREAM}.another": {},
    f"CONSUMER.UNPIN.{STREAM}.another": {"group": "g"},
    "META.LEADER.STEPDOWN": {},
    "ACCOUNT.PURGE.TRUNKLINE": {},
    "ACCOUNT.STREAM.MOVE.TRUNKLINE.TRUNKLINE": {},
    "SERVER.REMOVE": {"peer": "trunkline"},
}
"""What follows `$JS.API.` and what it is sent."""


@pytest.fixture
async def logged(server: Deployed) -> AsyncIterator[Host]:
    """A gateway whose log and bucket hold something, with a consumer of somebody's."""
    host = await Host.start(server.url("actor"), ROLES)
    js = host.runtime.connection.nats.jetstream()
    await js.publish(f"$KV.{REQUESTS_BUCKET}.a", b"answer")
    await js.add_consumer(STREAM, durable_name="another", ack_policy="explicit")
    yield host
    await host.stop()


async def test_nobody_may_change_empty_delete_or_move_anything(server: Deployed, logged: Host) -> None:
    js = logged.runtime.connection.nats.jetstream()
    before = [(info.config, info.state.messages) for info in [await js.stream_info(name) for name in (STREAM, BUCKET)]]
    let_through = []
    for user in USERS:
        async with intruding(server, user) as intruder:
            let_through += [
                f"{user}: {api}.{call}"
                for api in ("$JS.API", "$JS.any.API")
                for call, body in DESTRUCTIVE.items()
                if await intruder.may_publish(f"{api}.{call}", json.dumps(body).encode())
            ]
    assert let_through == []
    after = [(info.config, info.state.messages) for info in [await js.stream_info(name) for name in (STREAM, BUCKET)]]
    assert after == before
    assert (await js.consumer_info(STREAM, "another")).name == "another"


async def test_nobody_can_tell_the_server_to_do_anything(server: Deployed) -> None:
    for user in USERS:
        async with intruding(server, user) as intruder:
            for call in ("RELOAD", "KICK", "LDM", "CONNZ", "JSZ"):
                assert not await intruder.may_publish(f"$SYS.REQ.SERVER.PING.{call}"), user


@pytest.mark.parametrize("user", ["actor", "operator"])
async def test_the_doctor_sees_every_promise_kept(server: Deployed, logged: Host, user: str) -> None:
    found = {check.name: check for check in await bus_checks(server.url(user))}
    for name in ("durability", "disk", "copies", "permissions", "log"):
        assert found[name].state == "ok", found[name]
    assert "can neither change, empty nor delete the log" in found["permissions"].found
    assert found["store"].state == "problem", "the tests' folder is a temporary one"


async def test_the_doctor_as_client_says_what_it_can_not_see(server: Deployed, logged: Host) -> None:
    found = {check.name: check for check in await bus_checks(server.url("client"))}
    assert "1 router" in found["actors"].found
    assert found["jetstream"].state == "problem"
    assert "as a user who may ask it, such as the operator of deploy/nats/accounts.conf" in found["jetstream"].next
    assert "disk" not in found


async def test_three_copies_on_one_server_are_refused_with_the_reason(server: Deployed) -> None:
    with pytest.raises(LogUnavailable, match=r"take a cluster of 3 servers.*TRUNKLINE_REPLICAS=1"):
        await Host.start(server.url("actor"), ROLES, replicas=3)


async def test_an_aggregate_store_of_its_own_can_be_made_and_used_by_an_actor(server: Deployed) -> None:
    """As the recorders for the eventsourcing library do."""
    connection = await Connection.open(server.url("actor"), name="recorder")
    try:
        js = connection.nats.jetstream()
        await js.add_stream(name="TRUNKLINE_ES", subjects=["trunkline.es.>"])
        await js.publish("trunkline.es.a.1", b"event")
        assert (await js.get_last_msg("TRUNKLINE_ES", "trunkline.es.a.1")).data == b"event"
    finally:
        await connection.close()
