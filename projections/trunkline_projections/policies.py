"""The routing policy in force, what an operator forces instead, and all policies there were."""

from typing import Literal, assert_never, cast

from msgspec import Struct, structs
from trunkline_events.envelope import RecordedEvent, Unknown
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


class Version(Struct, frozen=True, kw_only=True):
    """One version of the policy: the event at `sequence`, when (Unix time), by whom, and how many rules it has.

    `to` is the version that was rolled back to.
    """

    version: int
    sequence: int
    time: float
    by: str
    kind: Literal["published", "rolled-back"]
    rules: int
    to: int | None = None
    reason: str | None = None


class History:
    """All versions up to the event at `sequence`, and what is in force after it.

    `done` are the ids of all events, with their sequences. `unreadable` is the sequence of an event that this version
    of the code can't read, where there is one: then nobody here knows what is in force.
    """

    def __init__(self) -> None:
        self.routing = EMPTY
        self.sequence = 0
        self.versions: dict[int, Version] = {}
        self.done: dict[str, int] = {}
        self.unreadable: int | None = None

    def happened(self, event: RecordedEvent) -> None:
        """The next event of the policy."""
        self.sequence = event.sequence
        self.done[event.id] = event.sequence
        body = event.body
        if isinstance(body, Unknown):
            self.unreadable = event.sequence
            return
        self.routing = evolve(self.routing, cast("PolicyFact", body), event.sequence)
        if isinstance(body, PolicyPublished | PolicyRolledBack):
            self.versions[body.version] = _version(body, event)


def _version(body: PolicyPublished | PolicyRolledBack, event: RecordedEvent) -> Version:
    return Version(
        version=body.version,
        sequence=event.sequence,
        time=event.time,
        by=event.actor,
        kind="published" if isinstance(body, PolicyPublished) else "rolled-back",
        rules=len(body.policy.rules),
        to=body.to if isinstance(body, PolicyRolledBack) else None,
        reason=body.reason,
    )
