"""`trunkline demo`: a gateway of its own, one chat, and what the log says of it. Leaves nothing behind."""

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

import msgspec
from trunkline_events.envelope import RecordedEvent
from trunkline_events.log import Scope
from trunkline_events.money import usd_from_nanos
from trunkline_events.thread import RouteDecided, UsageRecorded

from trunkline import client, lifecycle, telemetry
from trunkline.chat import Receipt
from trunkline.cli.chat import stream
from trunkline.cli.events import digest
from trunkline.cli.failures import FAILED
from trunkline.cli.output import emit, show, styled
from trunkline.client import Gateway
from trunkline.embedded import EmbeddedServer
from trunkline.event_json import as_json as event_json
from trunkline.host import ROLES, Host

THREAD = "demo"
_QUESTION = "What do you keep of what you do?"
_ANSWER = "Every decision, before it takes effect: who was considered, what was reserved, and what it cost in the end."
_OPTIONS: dict[str, Any] = {"max_tokens": 100}
_MODELS = (
    ("small", f"say:{_ANSWER}", {"input": "1.00", "output": "4.00"}),
    ("large", f"say:{_ANSWER}", {"input": "10.00", "output": "40.00"}),
)


def run(args: argparse.Namespace) -> int:
    """Play the demo; 0 when its books balance."""
    telemetry.configure("warning")
    return lifecycle.run(lambda: _demo(as_json=args.json))


async def _demo(*, as_json: bool) -> int:
    with tempfile.TemporaryDirectory(prefix="trunkline-demo-") as folder:
        async with EmbeddedServer(store=Path(folder), port=0, durability="process") as server:
            host = await Host.start(server.url, ROLES)
            try:
                async with client.connect(server.url) as gateway:
                    return await (_told if as_json else _played)(gateway)
            finally:
                await host.stop()


async def _register(gateway: Gateway) -> None:
    await gateway.providers.register(id="scripted", kind="scripted", local=True, reason="demo")
    for name, upstream, price in _MODELS:
        await gateway.models.register(id=name, provider="scripted", upstream=upstream, price=price, reason="demo")
    await gateway.threads.configure(thread_id=THREAD, budget={"limit_usd": "0.05"}, reason="demo")


async def _played(gateway: Gateway) -> int:
    """For a reader."""
    await _register(gateway)
    _head("A chat over NATS, to the model `auto`, in a thread that may cost $0.05")
    show(f"> {_QUESTION}")
    receipt = await stream(gateway, "auto", _QUESTION, {"thread": THREAD, **_OPTIONS})
    events = await _events_of(gateway, receipt)
    _head("Its events in the log")
    for event in events:
        show(f"{event.sequence:>4}  {event.type:<28} {digest(event)}")
    decided, settled = _facts(events)
    if decided is None or settled is None or receipt is None:
        return FAILED
    _head("Why this model")
    for candidate in decided.candidates:
        score = "left out" if candidate.score is None else f"score {candidate.score:,.0f}"
        show(f"  {candidate.model:<8} {score:<16} {candidate.reason}")
    _head("Its money")
    show(f"  reserved  ${usd_from_nanos(decided.reserve_nanos)}, its worst case, before anything was sent")
    show(
        f"  settled   ${usd_from_nanos(settled.cost_nanos)}, for {settled.usage.input_tokens} tokens in and "
        f"{settled.usage.output_tokens} out; the rest is free again"
    )
    show("\nnext: `trunkline up` runs a gateway that stays")
    return 0 if usd_from_nanos(settled.cost_nanos) == receipt.cost else FAILED


async def _told(gateway: Gateway) -> int:
    """The same for a program: one object."""
    await _register(gateway)
    answer = await gateway.chat.create("auto", _QUESTION, thread=THREAD, **_OPTIONS)
    events = await _events_of(gateway, answer.receipt)
    decided, settled = _facts(events)
    if decided is None or settled is None:
        return FAILED
    emit(
        {
            "answer": answer.text,
            "receipt": answer.receipt,
            "events": [event_json(event) for event in events],
            "explanation": _explanation(decided, settled),
        }
    )
    return 0


def _explanation(decided: RouteDecided, settled: UsageRecorded) -> dict[str, Any]:
    return {
        "model": decided.model,
        "provider": decided.provider,
        "candidates": msgspec.to_builtins(decided.candidates),
        "reserved_usd": usd_from_nanos(decided.reserve_nanos),
        "settled_usd": usd_from_nanos(settled.cost_nanos),
        "usage": msgspec.to_builtins(settled.usage),
    }


async def _events_of(gateway: Gateway, receipt: Receipt | None) -> list[RecordedEvent]:
    log = await gateway.log()
    wanted = receipt.request_id if receipt else ""
    events = [event async for event in log.read(scope=Scope(("thread",), THREAD))]
    return [event for event in events if getattr(event.body, "request_id", None) == wanted]


def _facts(events: list[RecordedEvent]) -> tuple[RouteDecided | None, UsageRecorded | None]:
    bodies = [event.body for event in events]
    decided = next((body for body in bodies if isinstance(body, RouteDecided)), None)
    return decided, next((body for body in bodies if isinstance(body, UsageRecorded)), None)


def _head(text: str) -> None:
    show("\n" + styled(text, "bold", sys.stdout))
