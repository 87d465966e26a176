"""The owner of the books of budgets above threads in this process: what is known of them, and who may decide."""

import asyncio
from typing import cast

from trunkline_events.budget import GATEWAY, BudgetFact, ScopeBooks, key_scope, team_scope
from trunkline_events.envelope import Event, Unknown
from trunkline_events.log import Log
from trunkline_projections.budgets import Budget, Budgets, books_of
from trunkline_projections.folds import Gateway
from trunkline_projections.runner import View

NONE = ScopeBooks()


class Scopes:
    """A `Source` of the books of budgets: those that the view of the gateway has, or newer ones we wrote ourselves."""

    def __init__(self, log: Log, gateway: View[Gateway]) -> None:
        self._log = log
        self._gateway = gateway
        self._own: Budgets = {}
        self._locks: dict[str, asyncio.Lock] = {}

    def lock(self, aggregate: str) -> asyncio.Lock | None:
        return self._locks.setdefault(aggregate, asyncio.Lock())

    def known(self, scope: str) -> Budget | None:
        """The newest books we know of, None where there is no such budget. What others did a moment ago may lack."""
        seen, own = self._gateway.state.budgets.get(scope), self._own.get(scope)
        return seen if own is None or (seen is not None and seen.sequence >= own.sequence) else own

    def of(self, key: str) -> list[str]:
        """The budgets that a request of this key must fit: those of the key, its team and the gateway that are set."""
        if not self._gateway.state.budgets:
            return []
        found = []
        if key:
            scope = key_scope(key)
            own = self.known(scope)
            found = [scope] if own is None or own.books.team is None else [scope, team_scope(own.books.team)]
        return [scope for scope in (*found, GATEWAY) if self._limited(scope)]

    def _limited(self, scope: str) -> bool:
        known = self.known(scope)
        return known is not None and known.books.limit_nanos is not None

    async def load(self, aggregate: str, *, fresh: bool) -> tuple[ScopeBooks, int | None, bool]:
        known = self.known(aggregate)
        if known is not None and not fresh:
            return known.books, known.sequence, True
        last = await self._log.last("budget", aggregate)
        if last is None or isinstance(last.body, Unknown):
            return NONE, last.sequence if last else 0, False
        books = books_of(cast("BudgetFact", last.body))
        self._own[aggregate] = Budget(books=books, sequence=last.sequence)
        return books, last.sequence, False

    def learn(self, aggregate: str, event: Event, sequence: int) -> None:
        self._own[aggregate] = Budget(books=books_of(cast("BudgetFact", event)), sequence=sequence)
