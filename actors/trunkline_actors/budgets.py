"""The actor for budgets above threads: of API keys, teams and the gateway. Sets them, and says how they stand."""

import re
from typing import Any

import msgspec
from trunkline_events import headers, subjects
from trunkline_events.budget import GATEWAY, ScopeBooks, team_scope
from trunkline_events.key import key_id_problem
from trunkline_events.refusal import Refused

from trunkline_actors import money, slices, staleness
from trunkline_actors.bus import Delivery
from trunkline_actors.commands import Page, Reply, endpoint, shown_budget
from trunkline_actors.micro import Endpoint
from trunkline_actors.readers import ChangeActor
from trunkline_actors.recalls import recall
from trunkline_actors.runtime import Runtime
from trunkline_actors.shell import Command

_KEY_ID = re.compile("[0-9a-f]{16}")


class SetBudget(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The arguments of `budgets.set`: the whole budget of a scope. `team` is whose a key's budget is a part of."""

    scope: str
    budget: money.Budget = money.Budget()
    team: str | None = None
    reason: str | None = None


class Scope(msgspec.Struct, frozen=True, kw_only=True):
    """The arguments of what concerns one budget."""

    scope: str


class BudgetsActor(ChangeActor):
    """Sets budgets of keys, teams and the gateway, and shows their books."""

    def __init__(self, runtime: Runtime) -> None:
        super().__init__(runtime, "trunkline-budgets")

    def endpoints(self) -> list[Endpoint]:
        return [
            endpoint(self.bus, "set", f"{subjects.BUDGETS}.set", SetBudget, self._set),
            endpoint(self.bus, "get", f"{subjects.BUDGETS}.get", Scope, self._get),
            endpoint(self.bus, "list", f"{subjects.BUDGETS}.list", Page, self._list),
        ]

    async def _set(self, given: SetBudget, delivery: Delivery) -> Reply:
        if problem := scope_problem(given.scope) or _team_problem(given):
            return problem
        runtime = self._runtime
        request_id = delivery.header(headers.REQUEST) or runtime.new_id()
        await runtime.gateway.catch_up()
        # What lies unused in slices must not stand in the way of a lower limit.
        await recall(self.bus, runtime.scopes, given.scope, process="")
        command: Command[ScopeBooks] = Command(
            category="budget",
            aggregate=given.scope,
            id=f"{delivery.subject}/{subjects.encode_id(given.scope)}/{headers.encode_value(request_id)}",
            decide=lambda books, now: slices.configure(books, request_id, given.budget, given.team, given.reason, now),
            actor=runtime.name,
            cause=request_id,
            traceparent=delivery.traceparent,
        )
        decided = await runtime.shell.execute(runtime.scopes, command)
        if isinstance(decided, Refused):
            return decided
        assert decided is not None
        assert isinstance(decided.event, ScopeBooks)
        await self.read_by_all(decided.sequence)
        return shown(given.scope, decided.event, decided.sequence, runtime.clock())

    async def _get(self, given: Scope, delivery: Delivery) -> Reply:
        await staleness.current(self._runtime)
        known = self._runtime.scopes.known(given.scope)
        if known is None:
            return Refused(
                code="not_found",
                message=f"no budget is set for {given.scope!r}; `trunkline budgets list` shows what there is",
                param="scope",
            )
        return shown(given.scope, known.books, known.sequence, self._runtime.clock())

    async def _list(self, given: Page, delivery: Delivery) -> Reply:
        if problem := given.problem():
            return problem
        await staleness.current(self._runtime)
        now = self._runtime.clock()
        behind = sorted(scope for scope in self._runtime.gateway.state.budgets if scope > given.after)
        chosen = behind[: given.limit]
        known = [(scope, self._runtime.scopes.known(scope)) for scope in chosen]
        return {
            "budgets": [shown(scope, one.books, one.sequence, now) for scope, one in known if one],
            "after": chosen[-1] if len(behind) > len(chosen) else None,
        }


def scope_problem(scope: str) -> Refused | None:
    """Why there can be no budget of this name."""
    kind, _, identifier = scope.partition(":")
    if scope == GATEWAY:
        return None
    if kind in {"team", "key"}:
        problem = subjects.id_problem(identifier) or subjects.id_problem(scope)
        # A key itself must not get into the log.
        if kind == "key" and not _KEY_ID.fullmatch(identifier) and key_id_problem(identifier):
            problem = (
                "a key goes by its id, as `trunkline keys list` has it; "
                "one of elsewhere by 16 hex digits: `trunkline budgets key-id`"
            )
        return Refused(code="invalid_request", message=problem, param="scope") if problem else None
    return Refused(
        code="invalid_request",
        message=f"{scope!r} is no scope of a budget: write `gateway`, `team:<name>` or `key:<id of a key>`",
        param="scope",
    )


def _team_problem(given: SetBudget) -> Refused | None:
    if given.team is None:
        return None
    if not given.scope.startswith("key:"):
        return Refused(code="invalid_request", message="only a key belongs to a team", param="team")
    problem = subjects.id_problem(given.team) or subjects.id_problem(team_scope(given.team))
    return Refused(code="invalid_request", message=problem, param="team") if problem else None


def shown(scope: str, books: ScopeBooks, sequence: int, now: float) -> dict[str, Any]:
    """A budget as commands show it. What was spent a moment ago may not have been reported yet."""
    books = slices.turn(books, now)
    return {
        "scope": scope,
        **shown_budget(books, now),
        "team": books.team,
        "holders": sorted({one.holder for one in books.slices.values()}),
        "seq": sequence,
    }
