"""Attempts under way: whose each of them is and what it may cost, remembered until it ends.

An ending doesn't say what its decision reserved, so here alone a fold needs what came before. It is a table as well,
written in the transaction of the others: a projector that starts finds it there. It holds what runs, and nothing else.
"""

from collections.abc import Iterable

from msgspec import Struct
from trunkline_events.envelope import RecordedEvent
from trunkline_events.thread import Ending, RequestEvent, RouteDecided

from trunkline_projections.sql_tables import Change, Gone, Table, Value, texts, wholes
from trunkline_projections.sql_values import NOTHING, amount, clean, number

OPEN_ATTEMPTS = Table(
    name="open_attempts",
    key=texts("attempt_id"),
    lasts=(
        *wholes("sequence"),
        *texts("since", "thread", "request_id"),
        *wholes("attempt"),
        *texts("key", "model", "provider"),
        *wholes("reserve_nanos"),
    ),
)


class Part(Struct, frozen=True):
    """What an event of an attempt adds, or takes away, and where: the names are those the attempt was decided with."""

    key: str
    model: str
    provider: str
    reserved_nanos: int
    open_attempts: int


UnderWay = dict[str, Part]
"""By attempt id: what its decision added."""


def remembered(rows: Iterable[tuple[Value, ...]]) -> UnderWay:
    """What is under way, from the rows of OPEN_ATTEMPTS. Raises ValueError for one that nobody of ours wrote."""
    found = UnderWay()
    for attempt_id, *_, key, model, provider, reserve in rows:
        if not isinstance(reserve, int):
            raise ValueError(f"what attempt {attempt_id} reserved is no number: {reserve!r}")  # noqa: TRY004
        found[str(attempt_id)] = Part(str(key), str(model), str(provider), reserve, 1)
    return found


def begin(state: UnderWay, event: RecordedEvent, fact: RouteDecided, at: str) -> tuple[Part, list[Change | Gone]]:
    """Remember an attempt. A second decision under the same id adds nothing: the attempt is one. Mutates `state`."""
    attempt_id = clean(fact.attempt_id)
    if attempt_id in state:
        return _nothing_of(fact), []
    part = Part(key_of(fact), clean(fact.model), clean(fact.provider), amount(fact.reserve_nanos), 1)
    state[attempt_id] = part
    whose = (event.sequence, at, clean(event.aggregate), clean(fact.request_id), number(fact.attempt))
    row = (*whose, part.key, part.model, part.provider, part.reserved_nanos)
    return part, [Change(OPEN_ATTEMPTS, (attempt_id,), (), row)]


def end(state: UnderWay, fact: Ending) -> tuple[Part, list[Change | Gone]]:
    """Forget an attempt, and take away what it added; nothing where it wasn't under way. Mutates `state`."""
    attempt_id = clean(fact.attempt_id)
    began = state.pop(attempt_id, None)
    if began is None:
        return _nothing_of(fact), []
    part = Part(began.key, began.model, began.provider, -began.reserved_nanos, -1)
    return part, [Gone(OPEN_ATTEMPTS, (attempt_id,))]


def key_of(fact: RequestEvent) -> str:
    """The id of the API key, as tables have it."""
    return clean(fact.key) or NOTHING


def _nothing_of(fact: RouteDecided | Ending) -> Part:
    return Part(key_of(fact), clean(fact.model), clean(fact.provider), 0, 0)
