"""What the doctor sees of stored secrets: processes that are locked, and providers that have no key to call with."""

import asyncio
import json
from typing import Any

import nats.errors
from trunkline_events import headers, subjects
from trunkline_events.connection import Connection

from trunkline.health.check import Check

SECONDS = 2.0
HOLDERS_SECONDS = 0.5
MOST = 1_000
_NEXT = {
    "locked": "`trunkline secrets unlock`",
    "missing": "`trunkline secrets set {id}`",
    "unbound": "its provider is at another address, or gone: `trunkline secrets set {id}`",
    "undecryptable": "it was tampered with: `trunkline secrets set {id}`",
}


async def secret_checks(connection: Connection) -> list[Check]:
    """Each secret that a provider can't be called with, and processes that are locked; nothing where there is none."""
    try:
        body = json.dumps({"limit": MOST}).encode()
        reply = await connection.nats.request(f"{subjects.SECRETS}.list", body, timeout=SECONDS)
    except (nats.errors.Error, TimeoutError):
        return []  # that the actor is missing is a finding of its own
    if headers.ERROR_CODE in (reply.headers or {}):
        return [Check("secrets", "unknown", (reply.headers or {}).get(headers.ERROR, "not told"), "look again")]
    told = json.loads(reply.data)["secrets"]
    if not told:
        return []
    locked = [one["process"] for one in await _holders(connection) if one["state"] == "locked"]
    checks = [
        Check("secrets", "problem", f"{one['id']} is {one['state']}", _NEXT[one["state"]].format(id=one["id"]))
        for one in told
        if one["used_by"] and one["state"] not in ("usable", "locked")
    ]
    if locked:
        checks.append(Check("secrets", "problem", f"locked in {', '.join(sorted(locked))}", _NEXT["locked"]))
    return checks or [Check("secrets", "ok", f"{len(told)} stored, all processes unlocked")]


async def _holders(connection: Connection) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []

    async def heard(message: Any) -> None:
        if message.data and headers.ERROR_CODE not in (message.headers or {}):
            found.append(json.loads(message.data))

    inbox = connection.nats.new_inbox()
    subscription = await connection.nats.subscribe(inbox, cb=heard)
    await connection.nats.publish(f"{subjects.SECRETS}.holders", reply=inbox)
    await asyncio.sleep(HOLDERS_SECONDS)  # nobody knows how many will answer
    await subscription.unsubscribe()
    return found
