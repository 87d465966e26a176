"""The server configuration in deploy/ does what it promises: actors write the log, clients can't, nobody empties it."""

import asyncio
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import nats.errors
import nats.js.errors
import pytest
import trunkline
from nats.js import JetStreamContext
from trunkline.embedded_config import find_binary, pick_port
from trunkline.host import ROLES, Host
from trunkline_events.connection import Connection, Unreachable
from trunkline_events.subjects import STREAM

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


@pytest.mark.parametrize("user", ["actor:a", "client:c"])
async def test_nobody_can_delete_purge_or_change_the_stream(address: str, user: str) -> None:
    host = await Host.start(f"nats://actor:a@{address}", ROLES)
    connection = await Connection.open(f"nats://{user}@{address}", name="vandal")
    js: JetStreamContext = connection.nats.jetstream(timeout=0.3)
    try:
        info = await host.runtime.log._js.stream_info(STREAM)
        for attempt in (js.delete_stream(STREAM), js.purge_stream(STREAM), js.update_stream(info.config)):
            with pytest.raises((nats.errors.Error, nats.js.errors.Error)):
                await attempt
        assert (await host.runtime.log._js.stream_info(STREAM)).config == info.config
    finally:
        await connection.close()
        await host.stop()
