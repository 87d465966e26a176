"""`trunkline models pull`, `delete`, and `list --local`: what is on a provider's own machine."""

import argparse
import asyncio
import sys
import time
from collections.abc import Callable
from typing import Any, TextIO

from trunkline.cli.failures import UsageError
from trunkline.cli.output import emit, plain, say, show, styled, table
from trunkline.cli.progress import BAR, NARROW, REDRAW_EVERY, columns_of, duration
from trunkline.cli.session import with_gateway
from trunkline.client import Gateway
from trunkline.local_models import Progress

_COLUMNS = ("model", "size", "family", "parameters", "quantization", "digest", "loaded", "registered")
_UNITS = ("B", "KB", "MB", "GB", "TB")


def pull(args: argparse.Namespace) -> int:
    """Pull a model and show how far it is; or end the pull that goes on."""
    return with_gateway(args, lambda gateway: _abort(args, gateway) if args.abort else _pull(args, gateway))


async def _abort(args: argparse.Namespace, gateway: Gateway) -> int:
    reply = await gateway.local_models(args.provider).abort_pull(args.model, reason=args.reason)
    if args.json:
        emit(reply)
    else:
        show(f"the pull of {args.model} is ended (event {reply['seq']}); what came is kept")
    return 0


async def _pull(args: argparse.Namespace, gateway: Gateway) -> int:
    on_terminal = sys.stderr.isatty() and not args.json
    shown = _Bar(sys.stderr) if on_terminal else _Lines()
    running = gateway.local_models(args.provider).pull(args.model, name=args.name, reason=args.reason)
    try:
        async with running as progress:
            async for step in progress:
                if args.json:
                    emit(step)
                else:
                    shown.reached(step)
    except asyncio.CancelledError:
        shown.close()
        command = f"trunkline models pull {args.model} --provider {args.provider}"
        say(f"the pull goes on without you\n  next: `{command}` shows it again, and with --abort ends it")
        raise
    finally:
        shown.close()
    told = running.model or {}
    if args.json:
        emit({"pulled": told, "event": running.event})
        return 0
    name = told.get("id", args.name or args.model)
    if told.get("problem"):
        say(f"trunkline: it is there, and not registered: {told['problem']}\n  next: `trunkline models register`")
    else:
        size = f", {bytes_text(told['size_bytes'])}" if told.get("size_bytes") else ""
        show(f"{name} pulled{size}, registered (event {running.event})")
    return 0


def delete(args: argparse.Namespace) -> int:
    """Delete a model's files, and what is registered with them."""

    async def ask(gateway: Gateway) -> int:
        models = gateway.local_models(args.provider)
        reply = await models.delete(args.model, force=args.force, reason=args.reason)
        if args.json:
            emit(reply)
        else:
            removed = f", and removed {', '.join(reply['removed'])}" if reply["removed"] else ""
            show(f"{args.model} deleted from {args.provider}{removed} (event {reply['seq']})")
        return 0

    return with_gateway(args, ask)


def show_local(args: argparse.Namespace) -> int:
    """List what is there."""
    if not args.provider:
        raise UsageError("--local needs --provider: whose machine is meant")

    async def ask(gateway: Gateway) -> int:
        reply = await gateway.local_models(args.provider).list()
        if args.json:
            emit(reply)
            return 0
        table(_COLUMNS, [_row(one) for one in reply["models"]])
        for one in reply["pulls"]:
            say(f"{one['model']} is being pulled as {one['id']}")
        return 0

    return with_gateway(args, ask)


def _row(one: dict[str, Any]) -> list[Any]:
    size = one["size_bytes"]
    values = {**one, "size": None if size is None else bytes_text(size), "digest": one["digest"][:12]}
    return [values[name] for name in _COLUMNS]


def bytes_text(size: float) -> str:
    """A size for a reader, in powers of a thousand: `4.9 GB`."""
    for unit in _UNITS:
        if size < 1000 or unit == _UNITS[-1]:
            break
        size /= 1000
    return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"


class _Lines:
    """Each new status on a line of stderr, for what is no terminal."""

    def __init__(self) -> None:
        self._last = ""

    def reached(self, step: Progress) -> None:
        if step.status != self._last:
            self._last = step.status
            say(step.status)

    def close(self) -> None:
        """Nothing is left open."""


class _Bar(_Lines):
    """How far, how fast, how much longer: drawn over itself on a terminal."""

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._stream, self._clock = stream, clock
        self._first: tuple[float, int] | None = None
        self._drawn = float("-inf")
        self._open = False

    def reached(self, step: Progress) -> None:
        now = self._clock()
        if self._first is None and step.completed_bytes:
            self._first = now, step.completed_bytes  # what an earlier pull had fetched took no time now
        if now - self._drawn < REDRAW_EVERY and step.status == self._last:
            return
        self._drawn, self._open, self._last = now, True, step.status
        bar, figures = self.line(step, now, columns_of(self._stream))
        self._stream.write(f"\r{styled(bar, 'cyan', self._stream)}{figures}\x1b[K")
        self._stream.flush()

    def line(self, step: Progress, now: float, columns: int) -> tuple[str, str]:
        """The bar, and the figures behind it, together in so many columns."""
        done, whole = step.completed_bytes, step.total_bytes
        status = plain(step.status, self._stream)
        if not whole:
            return "", status[: columns - 1]
        began, before = self._first or (now, done)
        rate = (done - before) / (now - began) if now > began else 0
        left = f", {duration((whole - done) / rate)} left" if rate and done < whole else ""
        speed = f", {bytes_text(rate)}/s" if rate else ""
        figures = f"{done / whole:4.0%}  {bytes_text(done)} of {bytes_text(whole)}{speed}{left}  {status}"
        if columns < NARROW:
            return "", figures[: columns - 1]
        filled = int(done / whole * BAR)
        return f"{'█' * filled}{'░' * (BAR - filled)} ", figures[: columns - BAR - 2]

    def close(self) -> None:
        if self._open:
            self._open = False
            print(file=self._stream, flush=True)
