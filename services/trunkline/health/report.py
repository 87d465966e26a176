"""What a nats-server says of itself, and of the user who asks. Asked only, nothing is tried out."""

import asyncio
import contextlib
import ipaddress
import json
from collections.abc import Mapping
from typing import Any

import nats.errors
from msgspec import Struct
from trunkline_events.connection import Connection, Unreachable

from trunkline.embedded.config import REPORT, REPORTER, SERVER_PREFIX

USER = "$SYS.REQ.USER.INFO"
REPORT_SECONDS = 1.0
"""How long to wait for what tells nobody how many will answer."""


class Report(Struct, frozen=True, kw_only=True):
    """One server's own words about its JetStream, from its `varz`. Bytes, seconds."""

    server: str
    store: str
    sync_always: bool
    sync_seconds: float
    stored: int = 0
    most: int = 0
    """What it may store."""
    peers: int = 1
    """How many servers its cluster has; 1: it is in none."""


class User(Struct, frozen=True):
    """Who we are to the server. `permissions` None: it sets no limits to us."""

    name: str
    permissions: Mapping[str, Any] | None


def read_report(told: Mapping[str, Any]) -> Report | None:
    """The report in an answer to `$SYS.REQ.SERVER.PING.VARZ`; None where JetStream is off."""
    jetstream = told.get("data", {}).get("jetstream") or {}
    config = jetstream.get("config")
    if not config:
        return None
    return Report(
        server=str(told.get("server", {}).get("name", "")),
        store=str(config.get("store_dir", "")),
        sync_always=bool(config.get("sync_always")),
        sync_seconds=config.get("sync_interval", 0) / 1e9,
        stored=jetstream.get("stats", {}).get("storage", 0),
        most=config.get("max_storage", 0),
        peers=(jetstream.get("meta") or {}).get("cluster_size", 1),
    )


def is_embedded(connection: Connection) -> bool:
    """Whether this is the server that `trunkline up` brings along."""
    name = connection.nats._server_info.get("server_name", "")  # noqa: SLF001 - nats-py shows it nowhere else
    return str(name).startswith(SERVER_PREFIX)


def is_here(connection: Connection) -> bool:
    """Whether the server is on this machine."""
    host = connection.nats.connected_url.hostname or ""
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"


async def reports(connection: Connection) -> list[Report]:
    """What each server that we can reach says of itself, by name; nothing where we may not ask.

    A user asks where its account imports the report from the system account, as in deploy/nats/accounts.conf. The
    embedded server has no accounts but a user for this.
    """
    found = await _ask(connection)
    if found or not is_embedded(connection):
        return found
    url = f"nats://{REPORTER}:{REPORTER}@{connection.nats.connected_url.netloc.rpartition('@')[2]}"
    try:
        reporter = await Connection.open(url, name="trunkline doctor")
    except Unreachable:
        return []
    try:
        return await _ask(reporter)
    finally:
        await reporter.close()


async def _ask(connection: Connection) -> list[Report]:
    found: dict[str, Report] = {}
    all_told = asyncio.Event()

    async def heard(message: Any) -> None:
        report = read_report(json.loads(message.data)) if message.data else None  # empty: nobody answers
        if report is not None:
            found[report.server] = report
        if report is None or len(found) >= report.peers:
            all_told.set()

    inbox = connection.nats.new_inbox()
    subscription = await connection.nats.subscribe(inbox, cb=heard)
    await connection.nats.publish(REPORT, reply=inbox)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(REPORT_SECONDS):
            await all_told.wait()
    await subscription.unsubscribe()
    return [found[name] for name in sorted(found)]


async def user(connection: Connection) -> User | None:
    """Who we are; None where we may not ask even that."""
    try:
        reply = await connection.nats.request(USER, timeout=REPORT_SECONDS)
        told = json.loads(reply.data)["data"]
        return User(str(told.get("user", "")), told.get("permissions"))
    except (nats.errors.Error, TimeoutError, ValueError, KeyError):
        return None
