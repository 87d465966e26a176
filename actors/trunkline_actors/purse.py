"""What one process holds of one budget: its slice, what runs on it, and what of it is spent. Pure."""

from msgspec import Struct, field


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
