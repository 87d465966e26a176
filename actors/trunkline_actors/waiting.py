"""Who waits for which budget, in the order they came. Pure.

A request waits at one budget at a time: the one that lacked money when it last asked. Only the first in a line asks
again, and nobody takes money of a budget at which somebody who came earlier waits.
"""

from bisect import insort
from collections.abc import Callable, Iterable

from msgspec import Struct


class Ticket(Struct, eq=False):
    """A place in line. `number` says who came first; `scopes` are all budgets it needs; it waits at `at`."""

    number: int
    scopes: frozenset[str]
    at: str
    call: Callable[[], None] = lambda: None
    """Tells it that it is its turn to ask."""


class WaitingRoom:
    """All lines. Each ticket is in one; an empty line is none."""

    def __init__(self) -> None:
        self._lines: dict[str, list[Ticket]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._lines.values()))

    @property
    def scopes(self) -> list[str]:
        """The budgets at which somebody waits."""
        return sorted(self._lines)

    def enter(self, ticket: Ticket) -> None:
        """Take a place, by number. Entering twice is entering once."""
        line = self._lines.setdefault(ticket.at, [])
        if ticket not in line:
            insort(line, ticket, key=lambda one: one.number)
        self.call(ticket.at)

    def leave(self, ticket: Ticket) -> None:
        """Be served, or give up: the next in line is called. Leaving twice is leaving once."""
        line = self._lines.get(ticket.at, [])
        if ticket not in line:
            return
        line.remove(ticket)
        if not line:
            del self._lines[ticket.at]
        self.call(ticket.at)

    def move(self, ticket: Ticket, scope: str) -> None:
        """Wait at another budget, among those who wait there by number. Who has left stays away."""
        if ticket.at != scope and ticket in self._lines.get(ticket.at, []):
            self.leave(ticket)
            ticket.at = scope
            self.enter(ticket)

    def before(self, ticket: Ticket) -> str | None:
        """A budget it needs, at which somebody waits who came earlier; None where it may ask."""
        for scope in sorted(ticket.scopes):
            line = self._lines.get(scope)
            if line and line[0].number < ticket.number:
                return scope
        return None

    def crowded(self, scopes: Iterable[str]) -> str | None:
        """One of these budgets at which somebody waits."""
        return next((scope for scope in scopes if scope in self._lines), None)

    def call(self, scope: str) -> None:
        """Money may have come back: the first in line is told."""
        line = self._lines.get(scope)
        if line:
            line[0].call()
