"""What the doctor sees of circuit breakers: which provider instances are not called right now."""

import json

import nats.errors
from trunkline_events import headers, subjects
from trunkline_events.connection import Connection
from trunkline_events.times import format_time

from trunkline.health.check import Check

MOST = 1_000
"""Instances looked at."""
SECONDS = 2.0


async def circuit_checks(connection: Connection) -> list[Check]:
    """One check for each circuit that isn't closed, or one that says all are; none where nobody can tell."""
    try:
        body = json.dumps({"limit": MOST}).encode()
        reply = await connection.nats.request(f"{subjects.CIRCUITS}.list", body, timeout=SECONDS)
    except (nats.errors.Error, TimeoutError):
        return []  # that the actor is missing is a finding of its own
    if headers.ERROR_CODE in (reply.headers or {}):
        return [Check("circuits", "unknown", (reply.headers or {}).get(headers.ERROR, "not told"), "look again")]
    told = json.loads(reply.data)["circuits"]
    broken = [one for one in told if one["state"] != "closed"]
    if not broken:
        return [Check("circuits", "ok", f"all closed ({len(told)})")] if told else []
    return [
        Check(
            "circuits",
            "problem",
            f"that of {one['provider']} is {one['state']} after {one['failures']} failures in a row, "
            f"probed from {format_time(one['retry_at'])} on",
            f"see `trunkline circuits history {one['provider']}`; when its upstream is well, "
            f"`trunkline circuits reset {one['provider']}` or wait",
        )
        for one in broken
    ]
