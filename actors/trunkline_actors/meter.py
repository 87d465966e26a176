"""What the calls of this process's providers took and cost, told to all routers."""

from collections.abc import Iterator
from contextlib import contextmanager

from trunkline_events.failure import FailureClass
from trunkline_events.thread import Ending


class MeteredCall:
    """One call under way."""

    def ended(self, failure: FailureClass | None, ending: Ending | None) -> None:
        """How it ended: well where `failure` is None; `ending` is what was recorded, where we recorded it."""


class Meter:
    """Measures the calls of one process."""

    @contextmanager
    def call(self, provider: str, model: str, version: str) -> Iterator[MeteredCall]:
        """Measure one call: it is in flight while this lasts."""
        yield MeteredCall()
