"""The server configuration in deploy/ does what it promises: actors write the log, clients can't, nobody empties it."""

import asyncio
import json
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import trunkline
from embedded_kit import eventually
from nats.aio.client import Client
from trunkline import errors
from trunkline.embedded.config import find_binary, pick_port
from trunkline.health.bus import bus_checks
from trunkline.host import ROLES, Host
from trunkline_events.connection import Connection, Unreachable
from trunkline_events.log import LogUnavailable
from trunkline_events.subjects import REQUESTS_BUCKET, STREAM

DEPLOY = Path(__file__).parents[2] / "deploy"


@pytest.fixture
async def address(tmp_path: Path) -> AsyncIterator[str]:
    """A server with the deployed configuration, on a free port and with its own store; host and port."""
    port = pick_port("127.0.0.1")
    text = (DEPLOY / "nats.conf").read_text(encoding="utf-8")
    for deployed, here in (("0.0.0.0:4222", f"127.0.0.1:{port}"), ("./nats-data", str(tmp_path / "data"))):
        assert deployed in text
        text = text.replace(deployed, here)
    shutil.copy(DEPLOY / "accounts.conf", tmp_path)
    config = tmp_path / "nats.conf"
    config.write_text(text, encoding="utf-8")
    passwords = {"TRUNKLINE_ACTOR_PASSWORD": "a", "TRUNKLINE_CLIENT_PASSWORD": "c"}
    log = (tmp_path / "log").open("wb")
    server = subprocess.Popen([find_binary(), "-c", str(config)], env=passwords, stderr=log)
    try:
        async with asyncio.timeout(10):
            while True:
                with suppress(Unreachable):
                    await (await Connection.open(f"nats://actor:a@127.0.0.1:{port}", name="probe", timeout=0.5)).close()
                    break
        yield f"127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait()
        log.close()


async def test_a_gateway_runs_as_actor_and_is_used_as_client(address: str) -> None:
    host = await Host.start(f"nats://actor:a@{address}", ROLES)
    try:
        async with trunkline.connect(f"nats://client:c@{address}") as gw:
            await gw.providers.register(id="scripted", kind="scripted", local=True)
            await gw.models.register(id="echo", provider="scripted", upstream="echo")
            answer = await gw.chat.create("echo", "hello")
            assert answer.text == "hello"
            log = await gw.log()
            events = [event.type async for event in log.read()]
            assert events[-1] == "thread.usage-recorded.v1"
    finally:
        await host.stop()


async def test_money_is_leased_and_waited_for_with_these_permissions(address: str) -> None:
    host = await Host.start(f"nats://actor:a@{address}", ROLES)
    try:
        async with trunkline.connect(f"nats://client:c@{address}") as gw:
            await gw.providers.register(id="scripted", kind="scripted")
            await gw.models.register(id="echo", provider="scripted", price={"input": "1.00", "output": "4.00"})
            await gw.threads.configure(thread_id="t", budget={"limit_usd": "0.1"})
            await gw.budgets.set(scope="gateway", budget={"limit_usd": "1"})
            chats = (gw.chat.create("echo", "hello", thread="t", max_tokens=20_000) for _ in range(8))
            assert [answer.text for answer in await asyncio.gather(*chats)] == ["hello"] * 8
    finally:
        await host.stop()


async def test_who_depends_on_a_model_is_found_with_these_permissions(address: str) -> None:
    host = await Host.start(f"nats://actor:a@{address}", ROLES)
    try:
        async with trunkline.connect(f"nats://client:c@{address}") as gw:
            await gw.providers.register(id="scripted", kind="scripted")
            await gw.models.register(id="echo", provider="scripted")
            await gw.threads.configure(thread_id="t", model="echo")
            with pytest.raises(errors.Conflict, match="thread 't'"):
                await gw.models.disable(id="echo")
            await gw.threads.configure(thread_id="t", model=None)
            await gw.models.disable(id="echo")
    finally:
        await host.stop()


async def test_a_client_can_not_write_the_log(address: str) -> None:
    host = await Host.start(f"nats://actor:a@{address}", ROLES)
    connection = await Connection.open(f"nats://client:c@{address}", name="client")
    try:
        before = await host.runtime.log.end()
        await connection.nats.publish("trunkline.log.model.forged", b"{}")
        await connection.nats.flush()
        assert await host.runtime.log.end() == before
    finally:
        await connection.close()
        await host.stop()


USERS = ("actor:a", "client:c")
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


class Vandal:
    """A user who tries what it should not, and hears of what the server refuses."""

    def __init__(self) -> None:
        self.denied: list[str] = []
        self.client = Client()

    async def enter(self, address: str, user: str) -> None:
        await self.client.connect(f"nats://{user}@{address}", error_cb=self._error, allow_reconnect=False)

    async def _error(self, error: Exception) -> None:
        if "permissions violation" in str(error).lower():
            self.denied.append(str(error).lower())

    async def is_refused(self, subject: str, body: dict[str, Any]) -> bool:
        """Whether the server says that we may not even ask."""
        await self.client.publish(subject, json.dumps(body).encode())
        with suppress(TimeoutError):
            await eventually(lambda: any(f'"{subject.lower()}"' in one for one in self.denied), within=2)
            return True
        return False


@pytest.fixture
async def logged(address: str) -> AsyncIterator[Host]:
    """A gateway whose log and bucket hold something, with a consumer of somebody's."""
    host = await Host.start(f"nats://actor:a@{address}", ROLES)
    js = host.runtime.connection.nats.jetstream()
    await js.publish(f"$KV.{REQUESTS_BUCKET}.a", b"answer")
    await js.add_consumer(STREAM, durable_name="another", ack_policy="explicit")
    yield host
    await host.stop()


@pytest.mark.parametrize("user", USERS)
async def test_nobody_may_change_empty_delete_or_move_anything(address: str, logged: Host, user: str) -> None:
    js = logged.runtime.connection.nats.jetstream()
    before = [(info.config, info.state.messages) for info in [await js.stream_info(name) for name in (STREAM, BUCKET)]]
    vandal = Vandal()
    await vandal.enter(address, user)
    try:
        let_through = [
            f"{api}.{call}"
            for api in ("$JS.API", "$JS.any.API")
            for call, body in DESTRUCTIVE.items()
            if not await vandal.is_refused(f"{api}.{call}", body)
        ]
        assert let_through == []
    finally:
        await vandal.client.close()
    after = [(info.config, info.state.messages) for info in [await js.stream_info(name) for name in (STREAM, BUCKET)]]
    assert after == before
    assert (await js.consumer_info(STREAM, "another")).name == "another"


@pytest.mark.parametrize("user", USERS)
async def test_nobody_can_tell_the_server_to_do_anything(address: str, user: str) -> None:
    vandal = Vandal()
    await vandal.enter(address, user)
    try:
        for call in ("RELOAD", "KICK", "LDM", "CONNZ", "JSZ"):
            assert await vandal.is_refused(f"$SYS.REQ.SERVER.PING.{call}", {})
    finally:
        await vandal.client.close()


async def test_the_doctor_sees_every_promise_kept_as_actor(address: str, logged: Host) -> None:
    found = {check.name: check for check in await bus_checks(f"nats://actor:a@{address}")}
    for name in ("durability", "disk", "copies", "permissions", "log"):
        assert found[name].state == "ok", found[name]
    assert found["permissions"].found.startswith("actor can neither")
    assert found["store"].state == "problem", "the tests' folder is a temporary one"


async def test_the_doctor_as_client_says_what_it_can_not_see(address: str, logged: Host) -> None:
    found = {check.name: check for check in await bus_checks(f"nats://client:c@{address}")}
    assert found["permissions"].state == "ok"
    assert found["durability"].state == "unknown"
    assert "deploy/accounts.conf" in found["durability"].next
    assert "disk" not in found


async def test_three_copies_on_one_server_are_refused_with_the_reason(address: str) -> None:
    with pytest.raises(LogUnavailable, match=r"take a cluster of 3 servers.*TRUNKLINE_REPLICAS=1"):
        await Host.start(f"nats://actor:a@{address}", ROLES, replicas=3)


async def test_an_aggregate_store_of_its_own_can_be_made_and_used_by_an_actor(address: str) -> None:
    """As the recorders for the eventsourcing library do."""
    connection = await Connection.open(f"nats://actor:a@{address}", name="recorder")
    try:
        js = connection.nats.jetstream()
        await js.add_stream(name="TRUNKLINE_ES", subjects=["trunkline.es.>"])
        await js.publish("trunkline.es.a.1", b"event")
        assert (await js.get_last_msg("TRUNKLINE_ES", "trunkline.es.a.1")).data == b"event"
    finally:
        await connection.close()
