"""The routing policy in force, and what an operator forces instead."""

from typing import assert_never

from msgspec import Struct, structs
from trunkline_events.policy import OverrideCleared, OverrideSet, Policy, PolicyFact, PolicyPublished, PolicyRolledBack

CATEGORIES = ("policy",)


class Override(Struct, frozen=True, kw_only=True):
    """One model for every request, up to `until` (Unix time; None: until it is cleared)."""

    model: str
    until: float | None = None
    reason: str | None = None


class Routing(Struct, frozen=True, kw_only=True):
    """The policy `version` (0: none was ever published), the override, and the sequence of the last event of both."""

    version: int = 0
    policy: Policy = Policy()
    override: Override | None = None
    sequence: int = 0

    def forced(self, now: float) -> str | None:
        """The model that an operator forces at this Unix time."""
        override = self.override
        if override is None or (override.until is not None and override.until <= now):
            return None
        return override.model


EMPTY = Routing()


def evolve(state: Routing, fact: PolicyFact, sequence: int) -> Routing:
    """The policy after this event."""
    state = structs.replace(state, sequence=sequence)
    match fact:
        case PolicyPublished(version=version, policy=policy) | PolicyRolledBack(version=version, policy=policy):
            return structs.replace(state, version=version, policy=policy)
        case OverrideSet(model=model, until=until, reason=reason):
            return structs.replace(state, override=Override(model=model, until=until, reason=reason))
        case OverrideCleared():
            return structs.replace(state, override=None)
        case _:  # pragma: no cover
            assert_never(fact)
