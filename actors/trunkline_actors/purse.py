"""What one process holds of budgets: its slices, what runs on them, and what of them is spent. Pure.

Times are of the monotonic clock, in seconds.
"""

from collections.abc import Callable, Mapping

from msgspec import Struct, field
from trunkline_events.budget import ScopeBooks


class Purse(Struct, kw_only=True):
    """A slice in its holder's hands.

    `granted_nanos` is never more than the log says, and `spent_nanos` is what every ended attempt cost, reported or
    not; `open` holds the worst case of each attempt that runs. So `free_nanos` can be given to another attempt.
    """

    scope: str
    slice: str
    period: str
    granted_nanos: int = 0
    spent_nanos: int = 0
    reported_nanos: int = 0
    open: dict[str, int] = field(default_factory=dict)
    used_at: float = 0.0
    recalled_until: float = 0.0
    """Until this monotonic time others are short of this budget: what comes back is theirs."""

    @property
    def reserved_nanos(self) -> int:
        """What the attempts under way may cost."""
        return sum(self.open.values())

    @property
    def free_nanos(self) -> int:
        """What is neither spent nor set aside. What cost too much is not paid again by what is granted next."""
        return max(0, self.granted_nanos - self.spent_nanos) - self.reserved_nanos

    def take(self, attempt_id: str, nanos: int, now: float) -> None:
        """Set the worst case of an attempt aside."""
        self.open[attempt_id] = nanos
        self.used_at = now

    def give_back(self, attempt_id: str, cost_nanos: int) -> bool:
        """The attempt ended at this cost; False where it isn't open here. Told twice, it counts once."""
        if self.open.pop(attempt_id, None) is None:
            return False
        self.spent_nanos += cost_nanos
        return True

    def keeps(self, now: float, idle: float) -> int:
        """What to keep beside what is spent: what runs, and what is free unless others want it or nobody used it."""
        wanted = now < self.recalled_until or now - self.used_at > idle
        return self.reserved_nanos + (0 if wanted else max(0, self.free_nanos))

    def lowered_to(self, keep_nanos: int) -> None:
        """So much is kept, and the rest is on its way back: it must not be given out any more."""
        self.granted_nanos = min(self.granted_nanos, self.spent_nanos + keep_nanos)


def hold_of(attempt_id: str, draw: float) -> str:
    """One name for what one decision holds.

    Not the attempt's id alone: where a request is on its way twice, both decide, and one of the two is not stored.
    """
    return f"{attempt_id} {draw}"


class Purses:
    """All purses of a process: for each budget the current one, and those that nothing more is taken from."""

    def __init__(self, new_slice: Callable[[], str]) -> None:
        self._new_slice = new_slice
        self._current: dict[str, Purse] = {}
        self._draining: list[Purse] = []
        self._holds: dict[str, tuple[str, list[Purse]]] = {}

    def all(self) -> list[Purse]:
        """Every one that has not been closed."""
        return [*self._current.values(), *self._draining]

    def get(self, scope: str) -> Purse | None:
        """The current one of a budget, if there is one."""
        return self._current.get(scope)

    def current(self, scope: str, books: ScopeBooks, now: float) -> Purse:
        """The one for the running period, of a new slice where there is none, which is yet to be leased."""
        purse = self._current.get(scope)
        if purse is not None:
            held = books.slices.get(purse.slice)
            if held is not None:  # what is leased moves with a budget whose window is changed
                purse.period = held.period
            if purse.period == books.period:
                return purse
            self.drain(purse)
        purse = self._current[scope] = Purse(scope=scope, slice=self._new_slice(), period=books.period, used_at=now)
        return purse

    def is_current(self, purse: Purse) -> bool:
        """Whether attempts are still decided on it."""
        return self._current.get(purse.scope) is purse

    def is_draining(self, purse: Purse) -> bool:
        """Whether it is to be closed when nothing runs on it any more."""
        return any(one is purse for one in self._draining)

    def drain(self, purse: Purse) -> None:
        """Take nothing from it any more."""
        if self.is_current(purse):
            del self._current[purse.scope]
        if not self.is_draining(purse):
            self._draining.append(purse)

    def closed(self, purse: Purse) -> None:
        """Its slice is no more."""
        self._draining = [one for one in self._draining if one is not purse]

    def take(self, hold: str, request_id: str, taken: Mapping[str, str], nanos: int, now: float) -> None:
        """Set the worst case of an attempt aside in every slice it takes from, by scope. `hold` names the decision."""
        if not taken:
            return
        named = [self._current.get(scope) for scope in taken]
        chosen = [one for one in (*named, *self._draining) if one and taken.get(one.scope) == one.slice]
        self._holds[hold] = (request_id, chosen)
        for purse in chosen:
            purse.take(hold, nanos, now)

    def give_back(self, hold: str, cost_nanos: int) -> list[Purse]:
        """An attempt ended, or never came to be; where something became free. Told twice, it counts once."""
        _, purses = self._holds.pop(hold, ("", []))
        return [purse for purse in purses if purse.give_back(hold, cost_nanos)]

    def holders(self, scope: str) -> list[str]:
        """The requests that hold money of a budget."""
        purse = self._current.get(scope)
        return sorted({self._holds[hold][0] for hold in purse.open if hold in self._holds}) if purse else []
