"""The attempts that a provider runs, and those it ran lately: none runs twice here, however often it is delivered."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager

from msgspec import Struct, field
from trunkline_events.failure import Failure

from trunkline_actors.answers import Answering
from trunkline_actors.dispatch import Dispatch
from trunkline_actors.spans import Context

REMEMBERED = 10_000
"""Attempts that ended and are remembered, the oldest forgotten first: a second delivery comes soon or never."""


class Running(Struct, kw_only=True):
    """One attempt upstream. `work` is its task; `stopped` resolves when the upstream call is over."""

    dispatch: Dispatch
    answering: Answering
    work: asyncio.Task[None]
    stopped: asyncio.Future[None]
    started: float = field(default_factory=time.monotonic)
    first: float | None = None
    over: float | None = None
    """When its upstream call was over."""
    span: Context | None = None
    text_bytes: int = 0
    cut: str | None = None
    """Why it was cut short: `aborted` on request, `abandoned` where nobody listens any more."""
    late: Failure | None = None
    """What it was cut for where the upstream was too long in answering."""

    def stop(self) -> None:
        """The upstream call is over: tell who waits for that."""
        if not self.stopped.done():
            self.over = time.monotonic()
            self.stopped.set_result(None)

    def cut_short(self, why: str) -> None:
        """End the upstream call. Where it is over, what it used is being recorded, and stays as exact as it is."""
        if self.cut is None and not self.stopped.done():
            self.cut = why
            self.work.cancel()

    def gave_up(self, failure: Failure) -> None:
        """End the upstream call, which keeps us waiting: that is its failure."""
        if self.cut is None and self.late is None and not self.stopped.done():
            self.late = failure
            self.work.cancel()

    def milliseconds(self, until: float | None = None) -> float:
        """Since it started."""
        return round(((until or time.monotonic()) - self.started) * 1000, 3)


class Attempts:
    """The attempts of one provider actor. Its length is how many run."""

    def __init__(self) -> None:
        self._running: dict[str, Running] = {}
        self._ended: dict[str, None] = {}

    def __len__(self) -> int:
        return len(self._running)

    def __iter__(self) -> Iterator[Running]:
        """Those that run now."""
        return iter(list(self._running.values()))

    def knows(self, attempt_id: str) -> bool:
        """Whether it runs or ran here."""
        return attempt_id in self._running or attempt_id in self._ended

    @contextmanager
    def holding(self, running: Running) -> Iterator[None]:
        """Know of this attempt while it lasts, and that it was here for some time after."""
        attempt_id = running.dispatch.attempt_id
        self._running[attempt_id] = running
        try:
            yield
        finally:
            del self._running[attempt_id]
            self._ended[attempt_id] = None
            if len(self._ended) > REMEMBERED:
                del self._ended[next(iter(self._ended))]
