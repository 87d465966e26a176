"""`python -m trunkline.healthcheck READY_FILE`: whether the process that wrote this file serves, for container engines.

Exit code 0: it does. 1: it doesn't, and stderr says why. An HTTP edge is asked whether it is ready; other actors are
heard on the bus, where each tells once a second what it has under way; a projector ends when it can't go on.
"""

import asyncio
import http.client
import json
import os
import socket
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

PULSE_WITHIN = 3.0
ANSWER_WITHIN = 3.0
SILENT = ("projector",)
"""Roles that have no actor, and so no pulse."""


def main(arguments: list[str]) -> int:
    """Look once; the exit code."""
    problem = problem_of(Path(arguments[0])) if len(arguments) == 1 else "name the file that --ready-file had written"
    if problem:
        print(f"trunkline: {problem}", file=sys.stderr)  # noqa: T201 - the engine keeps it
    return 1 if problem else 0


def problem_of(ready: Path) -> str | None:
    """Why that process does not serve; None where it does."""
    try:
        told: dict[str, Any] = json.loads(ready.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return f"it does not serve yet, or no more: there is no {ready}; start it with --ready-file {ready}"
    if not _runs(told["pid"]):
        return f"process {told['pid']} is gone; start it again"
    if told["http"]:
        return _http(told["http"])
    if set(told.get("roles", ["up"])) <= set(SILENT):
        return None
    return asyncio.run(_silent(told["nats"], f"{socket.gethostname()}-{told['pid']}-"))


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _http(url: str) -> str | None:
    there = urlsplit(url)
    host = "127.0.0.1" if there.hostname in (None, "0.0.0.0", "::") else there.hostname  # noqa: S104 - what it binds
    asking = http.client.HTTPConnection(host, there.port, timeout=ANSWER_WITHIN)
    try:
        asking.request("GET", "/readyz")
        answer = asking.getresponse()
        if answer.status == http.client.OK:
            return None
        return f"/readyz answers {answer.status}: {answer.read(2000).decode(errors='replace')}"
    except OSError as error:
        return f"{url} does not answer ({error}); see the log of this process"
    finally:
        asking.close()


async def _silent(nats: str, name: str) -> str | None:
    """Why the process whose name begins like this can't be heard; None where it is."""
    # Here, since the others need none of this, and a check is run again and again.
    from trunkline_actors.dispatch import read_pulse
    from trunkline_events.connection import Connection, Unreachable
    from trunkline_events.quick import Reply
    from trunkline_events.subjects import PULSE

    heard = asyncio.Event()

    def arrived(_subject: str, reply: Reply) -> None:
        pulse = read_pulse(reply.data)
        if pulse is not None and pulse.process.startswith(name):
            heard.set()

    try:
        connection = await Connection.open(nats, name="trunkline healthcheck")
    except Unreachable as error:
        return str(error)
    try:
        await connection.nats.subscribe_directly(PULSE, arrived)
        async with asyncio.timeout(PULSE_WITHIN):
            await heard.wait()
    except TimeoutError:
        return f"{name}… has told nothing on {PULSE} for {PULSE_WITHIN:g} s; see the log of this process"
    finally:
        await connection.close()
    return None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
