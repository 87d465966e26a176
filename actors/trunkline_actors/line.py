"""Who is let in next where only so many may be in at once: in turn by key, and in order within a key. Pure."""

from collections import OrderedDict
from typing import Generic, Literal, TypeVar

T = TypeVar("T")

Entered = Literal["in", "waits", "full"]


class Line(Generic[T]):
    """Those who are in, counted, and those who wait. At most `capacity` are let in, and at most `most` wait.

    Where several keys wait each has its turn, one entry at a time: a key with a thousand waiting delays another by one.
    What waits must be hashable, and unlike all else that waits.
    """

    def __init__(self, capacity: int, most: int) -> None:
        self.capacity = capacity
        self.inside = 0
        self._most = most
        self._keys: OrderedDict[str, OrderedDict[T, None]] = OrderedDict()
        self._waiting = 0

    @property
    def waiting(self) -> int:
        """How many wait."""
        return self._waiting

    def enter(self, key: str, who: T) -> Entered:
        """Let somebody in, or have them wait behind those of the same key; `full` where no more may wait."""
        if not self._waiting and self.inside < self.capacity:
            self.inside += 1
            return "in"
        if self._waiting >= self._most:
            return "full"
        self._keys.setdefault(key, OrderedDict())[who] = None
        self._waiting += 1
        return "waits"

    def give_up(self, key: str, who: T) -> bool:
        """Somebody waits no longer; false where they did not wait: they were let in, say."""
        waiting = self._keys.get(key)
        if waiting is None or who not in waiting:
            return False
        del waiting[who]
        self._waiting -= 1
        if not waiting:
            del self._keys[key]
        return True

    def leave(self) -> None:
        """Somebody who was in has left."""
        self.inside -= 1

    def admit(self) -> list[T]:
        """Let in as many as there is room for, and say whom."""
        admitted: list[T] = []
        while self._waiting and self.inside < self.capacity:
            key, waiting = self._keys.popitem(last=False)
            who, _ = waiting.popitem(last=False)
            if waiting:
                self._keys[key] = waiting  # behind all other keys
            self._waiting -= 1
            self.inside += 1
            admitted.append(who)
        return admitted
