"""Decisions as given, when, then: given these events, when this is decided, then it is this event, or refused."""

from collections.abc import Callable, Iterable
from typing import Any, Generic, TypeVar

from trunkline_events.refusal import Refused

S = TypeVar("S")


def given(events: Iterable[Any], fold: Callable[[S, Any], S], nothing: S) -> "Given[S]":
    """The state after these events, folded onto `nothing`: `given([Opened(…)], evolve, CLOSED)`."""
    state = nothing
    for event in events:
        state = fold(state, event)
    return Given(state, fold)


class Given(Generic[S]):
    """A state that something is decided in."""

    def __init__(self, state: S, fold: Callable[[S, Any], S]) -> None:
        self.state = state
        self._fold = fold

    def when(self, decide: Callable[[S], Any]) -> "Outcome[S]":
        """Decide: `when(lambda run: cancel(run, "ada", None, now))`."""
        return Outcome(self, decide(self.state))

    def and_then(self, event: Any) -> "Given[S]":
        """The state after one more event."""
        return Given(self._fold(self.state, event), self._fold)


class Outcome(Generic[S]):
    """What was decided: an event, a `Refused`, or None."""

    def __init__(self, before: Given[S], decided: Any) -> None:
        self._before = before
        self.decided = decided

    def then(self, *expected: Any) -> Given[S]:
        """It is this event, or one of this type, or these, or nothing at all; the state after it is given on."""
        decided = list(self.decided) if isinstance(self.decided, list | tuple) else [self.decided]
        decided = [one for one in decided if one is not None]
        assert len(decided) == len(expected), f"decided was {decided or 'nothing'}, not {expected or 'nothing'}"
        after = self._before
        for one, wanted in zip(decided, expected, strict=True):
            fits = isinstance(one, wanted) if isinstance(wanted, type) else one == wanted
            assert fits, f"decided was {one}, not {wanted}"
            after = after if isinstance(one, Refused) else after.and_then(one)
        return after

    def then_refused(self, code: str, param: str | None = None, says: str = "") -> Given[S]:
        """It is refused with this code, at this field, in words that have these in them; nothing has changed."""
        refused = self.decided
        assert isinstance(refused, Refused), f"decided was {refused}, not a refusal"
        assert (refused.code, refused.param) == (code, param), f"it is refused otherwise: {refused}"
        assert says in refused.message, f"{says!r} is not in {refused.message!r}"
        return self._before
