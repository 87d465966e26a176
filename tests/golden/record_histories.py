"""Histories of runs as an earlier version of the code left them, each beside what it came to when it was gone on with.

A new one: add it to `WANTED`, then `python -m golden.record_histories` in `tests/` writes the files that are missing. A
file that is there is never written again: it stands for a run under way in somebody's log when they upgrade.
"""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
from trunkline.testing import Ran, ScriptedCaller, fails, resume_history, run_workflow
from workflow_examples import INPUT, SIGNALS, a_caller, a_workflow

FOLDER = Path(__file__).parent / "histories"


async def _until(kind: str, step: str, *, signals: bool = True) -> Ran:
    """A run whose process died when this was in the log."""
    told = SIGNALS if signals else None
    whole = await run_workflow(a_workflow(), INPUT, a_caller(), signals=told)
    places = enumerate(zip(whole.kinds, whole.events, strict=True), 1)
    place = next(at for at, (one, event) in places if one == kind and getattr(event.body, "step", "") == step)
    return await run_workflow(a_workflow(), INPUT, a_caller(), signals=told, until=place)


async def _handed_on() -> Ran:
    ran = await _until("step-completed", "draft")
    return await ran.resume(until=len(ran.events) + 9)


async def _cancelled() -> Ran:
    return await (await _until("step-completed", "loud")).cancel("a mistake")


WANTED: dict[str, Callable[[], Awaitable[Ran]]] = {
    "begun": lambda: _until("started", "", signals=False),
    "waiting-for-a-retry": lambda: _until("step-failed", "draft"),
    "half-way-through-a-parallel": lambda: _until("step-completed", "checks/size"),
    "half-way-through-a-list": lambda: _until("step-completed", "each/1/say"),
    "waiting-for-a-signal": lambda: run_workflow(a_workflow(), INPUT, a_caller()),
    "handed-on": _handed_on,
    "completed": lambda: run_workflow(a_workflow(), INPUT, a_caller(), signals=SIGNALS),
    "failed": lambda: run_workflow(
        a_workflow(), INPUT, ScriptedCaller({"draft": fails("refused", retryable=False)}), signals=SIGNALS
    ),
    "cancelled": _cancelled,
}


async def gone_on_with(history: str) -> dict[str, Any]:
    """What a history comes to: everything but how long it took on this machine."""
    signals = None if _ended(history) else SIGNALS
    ran = await resume_history(history, a_workflow(), a_caller(busy=0), signals=signals)
    return {
        "status": ran.status,
        "output": ran.output,
        "code": ran.code,
        "failed_step": ran.failed_step,
        "message": ran.message,
        "metrics": {name: ran.metrics[name] for name in ("cost_usd", "usage", "chats", "retries")},
        "steps": [{name: step[name] for name in ("step", "kind", "status", "code")} for step in ran.steps],
    }


def _ended(history: str) -> bool:
    last = msgspec.json.decode(history.splitlines()[-1])["type"]
    return last in {f"workflow.{end}.v1" for end in ("completed", "failed", "cancelled")}


async def _write() -> None:
    FOLDER.mkdir(exist_ok=True)
    for name, run in WANTED.items():
        kept, expected = FOLDER / f"{name}.jsonl", FOLDER / f"{name}.expected.json"
        if kept.exists():
            continue
        history = (await run()).history()
        outcome = msgspec.json.format(msgspec.json.encode(await gone_on_with(history)))
        kept.write_text(history, encoding="utf-8")
        expected.write_bytes(outcome + b"\n")
        print(f"written: {kept.name}, {expected.name}")


if __name__ == "__main__":
    asyncio.run(_write())
