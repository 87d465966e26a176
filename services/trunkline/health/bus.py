"""What a client can see of the health of a bus: server, log, actors, speed and clock. Changes nothing."""

import asyncio
import json
import statistics
import time
from collections import Counter
from collections.abc import Mapping
from typing import Any

import nats.errors
import nats.js.errors
from nats.js import api
from trunkline_events import subjects
from trunkline_events.connection import Connection, Unreachable, without_password
from trunkline_events.stream import stream_config
from trunkline_events.times import parse_time

from trunkline.health.check import Check
from trunkline.health.circuits import circuit_checks
from trunkline.health.durability import ACCOUNTS, durability_checks
from trunkline.health.modes import mode_checks
from trunkline.health.secrets import secret_checks

__all__ = ["Check", "bus_checks", "differences", "services"]

OLDEST_SERVER = (2, 12)
"""The first nats-server that knows what our stream asks for (atomic batches)."""

EVERY_ROLE = {
    "trunkline-registry": "registry",
    "trunkline-threads": "registry",
    "trunkline-policy": "registry",
    "trunkline-circuits": "registry",
    "trunkline-routing": "registry",
    "trunkline-secrets": "registry",
    "trunkline-router": "router",
    "trunkline-keeper": "keeper",
    "trunkline-provider": "provider",
}
"""The services a gateway consists of, and the role that brings each."""

PING_SECONDS = 0.3
ROUND_TRIPS = 21
SLOW_MS = 50.0
CLOCKS_APART = 1.0

_MUST_BE = (
    *("retention", "storage", "discard", "deny_delete", "deny_purge", "allow_direct", "republish"),
    *("max_msgs", "max_bytes", "max_age", "max_msgs_per_subject"),
)
_UNLIMITED = (None, 0, -1)
_NO_JETSTREAM = f"start the server with `-js`, or look as a user who may ask it, such as the operator of {ACCOUNTS}"
_LOOK_AGAIN = "a cluster may be electing a leader: look again in some seconds, then see the server's log"


async def bus_checks(url: str) -> list[Check]:
    """Look at everything behind this address."""
    try:
        connection = await Connection.open(url, name="trunkline doctor")
    except Unreachable as error:
        return [Check("bus", "problem", str(error), "start one with `trunkline up`, or name it with --nats")]
    try:
        checks = [
            Check("bus", "ok", f"connected to {without_password(connection.nats.connected_url.netloc)}"),
            _server(connection),
        ]
        seen, modes = await asyncio.gather(_log(connection), mode_checks(connection))
        checks += [*seen, *await _actors(connection)]
        checks += await circuit_checks(connection)
        checks += await secret_checks(connection)
        return [*checks, *modes, await _speed(connection)]
    finally:
        await connection.close()


def _server(connection: Connection) -> Check:
    version = connection.nats.connected_server_version
    found = f"nats-server {version.major}.{version.minor}.{version.patch}"
    if (version.major, version.minor) >= OLDEST_SERVER:
        return Check("server", "ok", found)
    oldest = ".".join(map(str, OLDEST_SERVER))
    return Check("server", "problem", f"{found} is too old", f"upgrade it to {oldest} or later, or use `trunkline up`")


# -- the log -----------------------------------------------------------------------------------------------------------


async def _log(connection: Connection) -> list[Check]:
    js = connection.nats.jetstream(timeout=2)
    try:
        await js.account_info()
    except (nats.errors.Error, nats.js.errors.Error, TimeoutError) as error:
        return [Check("jetstream", "problem", f"it does not answer ({type(error).__name__})", _NO_JETSTREAM)]
    checks = [Check("jetstream", "ok", "on")]
    try:
        info = await js.stream_info(subjects.STREAM)
    except nats.js.errors.NotFoundError:
        missing = f"there is no stream {subjects.STREAM}"
        return [*checks, Check("log", "problem", missing, "run an actor, which creates it: `trunkline run registry`")]
    except (nats.errors.Error, nats.js.errors.Error, TimeoutError) as error:
        return [
            *checks,
            Check("log", "problem", f"it does not answer ({type(error).__name__})", _LOOK_AGAIN),
        ]
    return [*checks, _configured(info), *await durability_checks(connection, info), await _clock(connection)]


def _configured(info: api.StreamInfo) -> Check:
    wrong = differences(info.config)
    found = f"{info.state.messages:,} events up to sequence {info.state.last_seq:,}, {info.state.bytes:,} bytes"
    if not wrong:
        return Check("log", "ok", f"{found}, append-only")
    told = ", ".join(f"{name} is {value}" for name, value in wrong.items())
    return Check("log", "problem", f"{found}; {told}", f"set it with `nats stream edit {subjects.STREAM}`")


def differences(config: api.StreamConfig) -> dict[str, Any]:
    """What of a stream's configuration is not as it must be."""
    wanted = stream_config()
    wrong: dict[str, Any] = {}
    for name in _MUST_BE:
        is_now, must_be = getattr(config, name), getattr(wanted, name)
        if is_now != must_be and not (is_now in _UNLIMITED and must_be in _UNLIMITED):
            wrong[name] = is_now
    if list(config.subjects or []) != list(wanted.subjects or []):
        wrong["subjects"] = config.subjects
    return wrong


async def _clock(connection: Connection) -> Check:
    """The server tells its time in the answers of its API."""
    before = time.time()
    reply = await connection.nats.request(f"$JS.API.STREAM.INFO.{subjects.STREAM}", timeout=2)
    after = time.time()
    told = json.loads(reply.data).get("ts")
    if told is None:
        return Check("clock", "unknown", "the server does not tell its time", "compare the clocks of both machines")
    apart = parse_time(told) - (before + after) / 2
    found = f"{abs(apart) * 1000:.0f} ms {'ahead of' if apart < 0 else 'behind'} the server's"
    if abs(apart) <= CLOCKS_APART:
        return Check("clock", "ok", found)
    return Check("clock", "problem", found, "synchronise the clocks of both machines (NTP)")


# -- the actors --------------------------------------------------------------------------------------------------------


async def _actors(connection: Connection) -> list[Check]:
    found = await services(connection)
    told = ", ".join(f"{count} {name.removeprefix('trunkline-')}" for name, count in sorted(found.items()))
    missing = list(dict.fromkeys(role for name, role in EVERY_ROLE.items() if not found[name]))
    if not missing:
        return [Check("actors", "ok", told)]
    gone = f"{told or 'none answers'}; missing: {', '.join(missing)}"
    if missing == ["provider"]:
        return [Check("actors", "problem", gone, "register a provider, or start `trunkline run provider`")]
    return [Check("actors", "problem", gone, f"start them with `trunkline run {' '.join(missing)}`")]


async def services(connection: Connection) -> Counter[str]:
    """How many instances of each of our services answer a ping."""
    names: Counter[str] = Counter()

    async def heard(message: Any) -> None:
        told: Mapping[str, Any] = json.loads(message.data)
        if str(told.get("name", "")).startswith("trunkline-"):
            names[told["name"]] += 1

    inbox = connection.nats.new_inbox()
    subscription = await connection.nats.subscribe(inbox, cb=heard)
    await connection.nats.publish("$SRV.PING", reply=inbox)
    await asyncio.sleep(PING_SECONDS)  # nobody knows how many will answer
    await subscription.unsubscribe()
    return names


async def _speed(connection: Connection) -> Check:
    times = []
    for _ in range(ROUND_TRIPS):
        began = time.perf_counter()
        await connection.nats.flush(timeout=2)
        times.append((time.perf_counter() - began) * 1000)
    found = f"{statistics.median(times):.2f} ms for a round trip (median of {ROUND_TRIPS})"
    if statistics.median(times) <= SLOW_MS:
        return Check("latency", "ok", found)
    return Check("latency", "problem", found, "run the gateway nearer to its bus")
