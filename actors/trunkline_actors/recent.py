"""Answers of the last minute, for callers who did not hear theirs and ask again: in memory, as much as may be. Pure."""

from collections import OrderedDict

from msgspec import Struct

KEPT_S = 60.0
MOST_BYTES = 16 * 1024 * 1024
"""What all of them may take, the oldest forgotten first."""


class Said(Struct, frozen=True):
    """An answer: the headers of its end, and its bodies, None where it was an error or too large."""

    fields: dict[str, str]
    messages: list[bytes] | None
    until: float
    size: int


class Recent:
    """Answers by the name of their request."""

    def __init__(self) -> None:
        self._said: OrderedDict[str, Said] = OrderedDict()
        self._bytes = 0

    def add(self, scope: str, fields: dict[str, str], messages: list[bytes] | None, now: float) -> None:
        """Remember this one, and forget what is old or too much."""
        self._forget(scope)
        size = sum(map(len, messages or ()))
        self._said[scope] = Said(fields, messages, now + KEPT_S, size)
        self._bytes += size
        while self._said:
            oldest = next(iter(self._said.items()))
            if oldest[1].until > now and self._bytes <= MOST_BYTES:
                break
            self._forget(oldest[0])

    def get(self, scope: str, now: float) -> Said | None:
        """The answer to this request; None where it is not remembered."""
        said = self._said.get(scope)
        return said if said is not None and said.until > now else None

    def _forget(self, scope: str) -> None:
        said = self._said.pop(scope, None)
        if said is not None:
            self._bytes -= said.size
