"""What may stand around the steps of workflows and their chats: logs, counts, a cache, and what must not leave.

    Engine(url, middleware=[LoggingMiddleware(), TokenTracker(), RedactionMiddleware(), CachingMiddleware(seconds=300)])

The first is the outermost. One that fails is logged and passed by, but for redaction, which nothing goes past.
"""

import time
from collections.abc import Collection
from typing import Any

import structlog
from msgspec import Struct, structs
from trunkline_actors.workflow_code import Ask, Middleware, Said, StepContext
from trunkline_events.usage import Usage

from trunkline.pii import ALL, Kind, redact_json

log = structlog.get_logger()


class LoggingMiddleware(Middleware):
    """A log line for each attempt at a step and each chat: names, times, tokens and cost, never a text."""

    async def on_step(self, step: StepContext, proceed: Any) -> Any:
        """Log how long an attempt took, and that it failed."""
        began = time.monotonic()
        try:
            output = await proceed()
        except Exception as error:
            self._tell("workflow.step_raised", step, began, error=type(error).__name__)
            raise
        self._tell("workflow.step_done", step, began)
        return output

    def _tell(self, what: str, step: StepContext, began: float, **more: Any) -> None:
        seconds = round(time.monotonic() - began, 4)
        log.info(what, run=step.run, step=step.step, kind=step.kind, attempt=step.attempt, seconds=seconds, **more)

    async def on_call(self, ask: Ask, proceed: Any) -> Said:
        """Log who answered, for how much."""
        said: Said = await proceed(ask)
        log.info(
            "workflow.chat_done",
            run=ask.run,
            step=ask.step,
            request=ask.request_id,
            model=said.model,
            provider=said.provider,
            sequence=said.event,
        )
        return said


class Counted(Struct):
    """What the chats of something came to."""

    chats: int = 0
    usage: Usage = Usage()
    cost_nanos: int = 0

    def add(self, said: Said) -> None:
        """One more."""
        self.chats += 1
        self.usage += said.usage
        self.cost_nanos += said.cost_nanos


class TokenTracker(Middleware):
    """Counts tokens and cost of the chats made here: in all, by step and by model. The log has them for good."""

    def __init__(self) -> None:
        self.total = Counted()
        self.by_step: dict[str, Counted] = {}
        self.by_model: dict[str, Counted] = {}

    async def on_call(self, ask: Ask, proceed: Any) -> Said:
        """Count one chat."""
        said: Said = await proceed(ask)
        for counted in (
            self.total,
            self.by_step.setdefault(ask.step, Counted()),
            self.by_model.setdefault(said.model, Counted()),
        ):
            counted.add(said)
        return said


class RedactionMiddleware(Middleware):
    """Takes personal data and keys out of what is asked, and, with `answers`, out of what is said. Fails closed."""

    fails_closed = True

    def __init__(self, kinds: Collection[Kind] = ALL, *, answers: bool = False) -> None:
        self._kinds = kinds
        self._answers = answers

    async def on_call(self, ask: Ask, proceed: Any) -> Said:
        """Ask without it."""
        messages = redact_json(ask.body["messages"], self._kinds)
        said: Said = await proceed(structs.replace(ask, body={**ask.body, "messages": messages}))
        return structs.replace(said, data=redact_json(said.data, self._kinds)) if self._answers else said


class CachingMiddleware(Middleware):
    """Has the very same chat answered from the gateway's cache for so many seconds: see docs/response-cache.md."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    async def on_call(self, ask: Ask, proceed: Any) -> Said:
        """Ask for an answer that may be there already."""
        route = {"cache_s": self._seconds, **ask.body.get("route", {})}
        said: Said = await proceed(structs.replace(ask, body={**ask.body, "route": route}))
        return said
