"""What the configuration of a thread says about routing, read when its books name another one than is remembered."""

from collections import OrderedDict
from typing import Any

from msgspec import Struct, field
from trunkline_events.log import Log
from trunkline_events.policy import Configuration
from trunkline_events.subjects import NO_THREAD
from trunkline_events.thread import ThreadConfigured

from trunkline_actors.ledger import Ledger

REMEMBERED = 10_000
"""Configurations kept in memory, the least recently used forgotten first."""


class Configured(Struct, frozen=True, kw_only=True):
    """A thread's configuration: `routing` for decisions, `parameters` for the body of its requests."""

    routing: Configuration = Configuration()
    parameters: dict[str, Any] = field(default_factory=dict)


NOT_CONFIGURED = Configured()


class Configurations:
    """The configurations of threads, by the sequence of the event that has them."""

    def __init__(self, log: Log, ledger: Ledger) -> None:
        self._log = log
        self._ledger = ledger
        self._known: OrderedDict[int, Configured] = OrderedDict()

    async def of(self, thread: str) -> Configured:
        """That of a thread, as far as this process knows its books. Raises LogUnavailable."""
        if thread == NO_THREAD:
            return NOT_CONFIGURED
        books, _, _ = await self._ledger.load(thread, fresh=False)
        return await self.at(books.config_seq)

    async def at(self, sequence: int) -> Configured:
        """That of the event at this sequence; 0: of a thread that has none. Raises LogUnavailable."""
        if not sequence:
            return NOT_CONFIGURED
        known = self._known.get(sequence)
        if known is None:
            recorded = await self._log.get(sequence)
            event = recorded.body if recorded else None
            if not isinstance(event, ThreadConfigured):
                return NOT_CONFIGURED
            routing = Configuration(sequence=sequence, model=event.model, preferences=event.preferences)
            known = self._known[sequence] = Configured(routing=routing, parameters=event.parameters)
            if len(self._known) > REMEMBERED:
                self._known.popitem(last=False)
        self._known.move_to_end(sequence)
        return known
