"""`trunkline workflows run`: a workflow in this process, its progress on stderr, its output alone on stdout."""

import argparse
import asyncio
import contextlib
import sys
from pathlib import Path
from typing import Any

import msgspec
from msgspec import UNSET
from trunkline_actors.workflow_code import CodeBook
from trunkline_events.tasks import end_task

from trunkline import errors, settings
from trunkline.cli.failures import UsageError
from trunkline.cli.output import emit, plain, say, show, styled
from trunkline.cli.session import bus_url, with_gateway
from trunkline.cli.workflow_progress import Lines, seconds, shown_on
from trunkline.client import Gateway
from trunkline.workflow_engine import Engine, WorkflowFailed, finished
from trunkline.workflow_imports import Imported, add, pick
from trunkline.workflows import Workflow

TICK_S = 0.1
TAKEN_S = 1.0
"""Seconds within which somebody else leads a run that nobody leads, if anybody will."""


def run(args: argparse.Namespace) -> int:
    """Run it, and wait until it is over; or begin it only."""
    given = _input(args.input)
    found, workflow = pick(args.workflow)
    if given is UNSET:
        given = None if workflow.definition.inputs is None else {}
    work = _leave if args.detach else _lead
    return with_gateway(args, lambda gateway: work(args, gateway, found, workflow, given))


async def _lead(args: argparse.Namespace, gateway: Gateway, found: Imported, workflow: Workflow, given: Any) -> int:
    shown = shown_on(sys.stderr, workflow.definition)
    engine = Engine(
        bus_url(args),
        key=settings.client_key(),
        workflows=list(found.workflows.values()),
        middleware=found.middleware,
    )
    run_id = ""
    try:
        with contextlib.redirect_stdout(shown):  # what code of steps prints is no output of the run
            async with engine:
                run_id = await engine.start(workflow, given, id=args.id, thread=args.thread, deadline_s=args.deadline)
                shown.begun(run_id, workflow.name)
                told = await _watched(gateway, run_id, shown)
    except asyncio.CancelledError:
        if run_id:
            await _say_how_to_go_on(args, gateway, run_id)
        raise
    _say_receipt(told)
    if told["status"] != "completed":
        failed = WorkflowFailed(told)
        message = f"{failed.message}; `trunkline workflows show {run_id}` tells how it went"
        metadata = {"run": run_id, "step": failed.step}
        raise errors.TrunklineError(message, code=failed.code, status=failed.status, metadata=metadata)
    print_output(told, as_json=args.json)
    return 0


async def _watched(gateway: Gateway, run_id: str, shown: Lines) -> dict[str, Any]:
    """What a run came to; shown as it goes."""

    async def tick() -> None:
        while True:
            shown.tick()
            await asyncio.sleep(TICK_S)

    ticking = asyncio.create_task(tick())
    try:
        return await finished(gateway, run_id, shown.heard)
    finally:
        await end_task(ticking)
        shown.end()


async def _leave(args: argparse.Namespace, gateway: Gateway, found: Imported, workflow: Workflow, given: Any) -> int:
    book = CodeBook()
    add(found, book)
    begun = {
        "definition": msgspec.to_builtins(workflow.definition),
        "input": given,
        "id": args.id,
        "thread": args.thread,
        "deadline_s": args.deadline,
        "needs": book.needs(),
    }
    reply = await gateway.workflows.start(**{name: value for name, value in begun.items() if value is not None})
    if reply["waits_for"] and await _led(gateway, reply["id"]):
        reply["waits_for"] = []
    if args.json:
        emit(reply)
    else:
        show(reply["id"])
    if reply["waits_for"]:
        say(
            f"nobody on this bus knows {', '.join(reply['waits_for'])}, so the run waits\n"
            f"  next: `trunkline run workflow --import {found.source}` does it"
        )
    return 0


async def _led(gateway: Gateway, run_id: str) -> bool:
    """Whether somebody leads a run, or has led it to its end."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(TAKEN_S):
            while True:
                told = await gateway.workflows.get(id=run_id)
                if told["by"] is not None or told["status"] != "running":
                    return True
                await asyncio.sleep(TICK_S)
    return False


async def _say_how_to_go_on(args: argparse.Namespace, gateway: Gateway, run_id: str) -> None:
    """After Ctrl-C: the run is not over, and nothing of it is lost."""
    led = False
    with contextlib.suppress(errors.TrunklineError):
        led = await _led(gateway, run_id)
    waits = f"waits; the same command with --id {run_id} goes on with it, or `trunkline run workflow --import`"
    say(
        f"run {run_id} {'goes on in another process' if led else waits}\n"
        f"  next: `trunkline workflows show {run_id}` tells how it goes, `trunkline workflows cancel {run_id}` ends it"
    )


def print_output(told: dict[str, Any], *, as_json: bool) -> None:
    """The output alone: a text as it is, anything else as JSON; or all that is known of the run."""
    if as_json:
        emit(told)
    elif isinstance(told["output"], str):
        show(plain(told["output"], sys.stdout))
    else:
        emit(told["output"])


def _say_receipt(told: dict[str, Any]) -> None:
    metrics = told["metrics"]
    facts = [
        f"run {told['id']}",
        seconds(metrics["duration_ms"] / 1000),
        f"${metrics['cost_usd']}",
        _counted(metrics["chats"], "chat", "chats"),
        _counted(metrics["retries"], "retry", "retries"),
    ]
    say(styled(" · ".join(facts), "dim", sys.stderr))


def _counted(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"


def _input(text: str | None) -> Any:
    """The input that was given, or UNSET. Raises UsageError."""
    if text is None:
        return UNSET
    if text == "-":
        if sys.stdin.isatty():
            say("type the input as JSON, then Ctrl-D")
        return read_json(sys.stdin.buffer.read(), "stdin")
    if text.startswith("@"):
        try:
            return read_json(Path(text[1:]).read_bytes(), text[1:])
        except OSError as error:
            raise UsageError(f"--input: {text[1:]} can't be read: {error.strerror}") from error
    return read_json(text.encode(), "--input")


def read_json(data: bytes, called: str) -> Any:
    """A JSON value. Raises UsageError."""
    try:
        return msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        example = '\'{"topic": "foxes"}\', and a text in quotes like \'"foxes"\''
        raise UsageError(f"{called} is no JSON: {error}; write it like {example}") from error
