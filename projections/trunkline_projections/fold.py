"""What a fold is: a name, the categories it reads, and a pure step."""

import hashlib
from collections.abc import Callable
from typing import Generic, TypeVar

import msgspec
from trunkline_events.envelope import RecordedEvent

S = TypeVar("S")


class Fold(msgspec.Struct, Generic[S], frozen=True, kw_only=True):
    """A pure fold over some categories. `name` identifies its snapshots; `state` is the type of its state.

    `step(state, event)` is total and never objects; it gets only events this version knows.
    """

    name: str
    categories: tuple[str, ...]
    state: type[S]
    initial: Callable[[], S]
    step: Callable[[S, RecordedEvent], S]

    def schema(self) -> str:
        """A hash of the shape of the state: a snapshot of another shape is no snapshot of this fold."""
        shape = msgspec.json.encode(msgspec.json.schema(self.state), order="sorted")
        return hashlib.sha256(shape).hexdigest()[:16]
