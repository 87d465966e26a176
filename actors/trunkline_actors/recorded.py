"""How what a router held of budgets is written down with a decision, and read again. Pure."""

from msgspec import structs
from trunkline_events.refusal import Refused
from trunkline_events.thread import Funded

from trunkline_actors.money import Exceeded, Fund, Waiting


def funded(fund: Fund) -> Funded:
    """What a router held of a budget, for the record."""
    answer = fund.answer
    recorded = Funded(
        scope=fund.scope, slice=fund.slice, free_nanos=fund.free_nanos, possible_nanos=fund.possible_nanos
    )
    match answer:
        case None:
            return recorded
        case Waiting():
            return structs.replace(recorded, answer="waiting", answer_nanos=answer.needed_nanos)
        case Exceeded():
            return structs.replace(recorded, answer="exceeded", answer_nanos=answer.needed_nanos)
        case _:
            return structs.replace(recorded, answer="refused")


def fund_of(recorded: Funded) -> Fund:
    """The same, read again: it decides alike, though the words of the answer are gone."""
    return Fund(
        scope=recorded.scope,
        slice=recorded.slice,
        free_nanos=recorded.free_nanos,
        possible_nanos=recorded.possible_nanos,
        answer=_answer(recorded),
    )


def _answer(recorded: Funded) -> Refused | None:
    code, message = "budget_exceeded", f"the budget {recorded.scope!r} had too little"
    match recorded.answer:
        case None:
            return None
        case "waiting":
            return Waiting(scope=recorded.scope, needed_nanos=recorded.answer_nanos, code=code, message=message)
        case "exceeded":
            return Exceeded(scope=recorded.scope, needed_nanos=recorded.answer_nanos, code=code, message=message)
        case "refused":
            return Refused(code=code, message=message)
