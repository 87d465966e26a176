"""What a router holds of the budgets above threads: it leases slices, spends from them, reports, and gives back.

A decision takes from slices in memory, so that a hot budget costs no append for each request. Money that lies unused in
somebody's slice is refused to nobody: who runs short asks all holders to give back what they don't need (`recall`).
"""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import structlog
from nats.aio.client import Msg
from trunkline_events.budget import BudgetRefused, BudgetReserved, BudgetSettled, ScopeBooks
from trunkline_events.envelope import Event
from trunkline_events.log import LogError
from trunkline_events.refusal import Refused
from trunkline_events.subjects import RECALL
from trunkline_events.tasks import end_task
from trunkline_events.thread import RouteDecided

from trunkline_actors import slices
from trunkline_actors.endings import cost_of
from trunkline_actors.ledger import ending_of
from trunkline_actors.mailbox import Spawn
from trunkline_actors.money import Fund, Short, Underfunded, exceeded
from trunkline_actors.purse import Purse, Purses, hold_of
from trunkline_actors.recalls import read_recall, recall, returned
from trunkline_actors.runtime import Runtime
from trunkline_actors.shell import Command, Decided

log = structlog.get_logger()

REPORT_SECONDS = 1.0
"""How often what was spent is reported, so that views show it."""
IDLE_SECONDS = 3.0
"""A slice that nothing was taken from for so long is given back."""
RECALL_SECONDS = 3.0
"""For so long after a recall everything that is freed is given back at once."""


class Escrow:
    """The slices of one process. Deciding takes and gives back without waiting; leasing and reporting append."""

    def __init__(self, runtime: Runtime, spawn: Spawn, *, ahead: int = slices.AHEAD) -> None:
        self._runtime = runtime
        self._spawn = spawn
        self._ahead = ahead
        self._purses = Purses(runtime.new_id)
        self._doubtful: dict[str, tuple[str, str, int]] = {}
        self._leasing: dict[str, asyncio.Lock] = {}
        self._numbers = 0
        self._task: asyncio.Task[None] | None = None
        self._subscription: Any = None
        self._urgent = asyncio.Event()
        self.on_freed: Callable[[str], None] = lambda _scope: None
        """Told of each budget of which something became free here."""

    async def start(self) -> None:
        """Listen to recalls, and report from now on."""
        self._subscription = await self._runtime.bus.nats.subscribe(RECALL, cb=self._recalled)
        self._task = asyncio.create_task(self._reporting())

    async def stop(self) -> None:
        """Give everything back. What is still under way is the keeper's to close."""
        await end_task(self._task)
        if self._subscription is not None:
            await self._subscription.unsubscribe()
        try:
            async with asyncio.timeout(2 * REPORT_SECONDS):
                for purse in self._purses.all():
                    self._purses.drain(purse)
                    await self._look_after(purse)
        except (LogError, TimeoutError) as error:
            log.warning("escrow.not_returned", error=type(error).__name__)

    # -- deciding: nothing here waits ------------------------------------------------------------------------------

    def funds(self, key: str, now: float, answers: dict[str, Refused]) -> tuple[Fund, ...]:
        """What a request of this key may be served from; `answers` are those that leasing more for it has given."""
        return tuple(self._fund(scope, now, answers.get(scope)) for scope in self._runtime.scopes.of(key))

    def _fund(self, scope: str, now: float, answer: Refused | None) -> Fund:
        known = self._runtime.scopes.known(scope)
        assert known is not None
        books = slices.turn(known.books, now)
        purse = self._purses.current(scope, books, asyncio.get_running_loop().time())
        return Fund(
            scope=scope,
            slice=purse.slice,
            free_nanos=purse.free_nanos,
            possible_nanos=max(0, (books.limit_nanos or 0) - books.settled_nanos),
            answer=answer,
        )

    def take(self, hold: str, request_id: str, taken: Mapping[str, str], nanos: int) -> None:
        """Set the worst case of an attempt aside in every slice it takes from, by scope. `hold` names this decision."""
        self._purses.take(hold, request_id, taken, nanos, asyncio.get_running_loop().time())

    def give_back(self, hold: str, cost_nanos: int = 0) -> None:
        """An attempt ended, or never came to be. Told twice, it counts once."""
        for purse in self._purses.give_back(hold, cost_nanos):
            if asyncio.get_running_loop().time() < purse.recalled_until:
                self._urgent.set()
            self.on_freed(purse.scope)

    def find_out(self, thread: str, decision: RouteDecided, sequence: int) -> None:
        """Nobody said what this attempt cost: look in the log, until it has ended there."""
        if decision.slices:
            self._doubtful[hold_of(decision.attempt_id, decision.draw)] = (decision.attempt_id, thread, sequence)

    async def may_spend(self, decision: RouteDecided) -> bool:
        """Whether a decision that is in the log may be carried out.

        It is void where it came after a keeper froze a slice of it, having taken this process for dead: that can only
        be where the process stood still, or was cut off, about when it decided.
        """
        takes = decision.slices and decision.reserve_nanos
        if not takes or not self._runtime.may_be_taken_for_dead(decision.now):
            return True
        for scope, name in decision.slices.items():
            books, _, _ = await self._runtime.scopes.load(scope, fresh=True)
            held = books.slices.get(name)
            if held is None or held.frozen:
                log.warning("escrow.frozen", budget=scope, attempt=decision.attempt_id)
                for purse in self._purses.all():
                    if purse.slice == name:
                        self._purses.drain(purse)
                return False
        return True

    # -- leasing ---------------------------------------------------------------------------------------------------

    async def lease(self, short: Underfunded, request_id: str, thread: str) -> Refused | None:
        """Get what a request is short of. None: it may be there now. Else why not: Waiting, or refused for good."""
        scope = short.scope
        async with self._leasing.setdefault(scope, asyncio.Lock()):
            purse = self._purses.get(scope)
            if purse is None or purse.free_nanos >= short.wanted_nanos:
                return None
            answer = await self._ask(purse, short, request_id, thread, last_word=False)
            if answer is None:
                return None
            requests = await recall(self._runtime.bus, self._runtime.scopes, scope, self._runtime.name)
            answer = await self._ask(purse, short, request_id, thread, last_word=True)
            return answer and self._named(scope, answer, requests)

    async def _ask(
        self, purse: Purse, short: Underfunded, request_id: str, thread: str, *, last_word: bool
    ) -> Refused | None:
        number = self._numbers = self._numbers + 1

        def decide(books: ScopeBooks, now: float) -> Event | Refused | None:
            if not self._purses.is_current(purse):  # it was closed while we waited for our turn
                return None
            ask = slices.Lease(
                slice=purse.slice,
                holder=self._runtime.name,
                request_id=request_id,
                thread=thread,
                spent_nanos=purse.spent_nanos,
                granted_nanos=purse.granted_nanos,
                free_nanos=max(0, purse.free_nanos),
                needed_nanos=short.needed_nanos,
                wanted_nanos=short.wanted_nanos,
                floor_nanos=short.floor_nanos,
                last_word=last_word,
                ahead=self._ahead,
            )
            return slices.lease(purse.scope, books, ask, now)

        decided = await self._execute(purse.scope, f"{purse.slice}/{number}", decide, request_id)
        if decided is None:  # frozen, or of a period that is over: the next one is ours again
            self._purses.drain(purse)
            return None
        if isinstance(decided, Refused):
            return decided
        # No other coroutine ran since the answer came, so none lowered what is granted in the meantime.
        self._learn(purse, decided.event)
        if not self._purses.is_current(purse):  # closed while we asked: what we got is given back
            self._purses.drain(purse)
        await self._warn(purse.scope, decided.event)
        if isinstance(decided.event, BudgetRefused):
            return exceeded(slices.account(purse.scope, decided.event), short.needed_nanos, [], self._runtime.clock())
        return None

    def _named(self, scope: str, answer: Refused, requests: list[str]) -> Refused:
        """The answer with the names of those who hold the money, ours and others'."""
        known = self._runtime.scopes.known(scope)
        if known is None or not isinstance(answer, Short):
            return answer
        now = self._runtime.clock()
        holders = sorted({*requests, *self._purses.holders(scope)})
        return exceeded(slices.account(scope, slices.turn(known.books, now)), answer.needed_nanos, holders, now)

    def _learn(self, purse: Purse, event: Event) -> None:
        assert isinstance(event, BudgetReserved | BudgetSettled | BudgetRefused)
        held = event.slices.get(purse.slice)
        if held is not None:
            purse.reported_nanos = held.spent_nanos
            if isinstance(event, BudgetReserved):
                purse.granted_nanos = held.granted_nanos

    async def _execute(
        self, scope: str, command_id: str, decide: Callable[[ScopeBooks, float], Any], cause: str
    ) -> Decided | Refused | None:
        command: Command[ScopeBooks] = Command(
            category="budget",
            aggregate=scope,
            id=command_id,
            decide=decide,
            actor=self._runtime.name,
            cause=cause,
        )
        return await self._runtime.shell.execute(self._runtime.scopes, command)

    # -- recalls ---------------------------------------------------------------------------------------------------

    async def _recalled(self, message: Msg) -> None:
        wanted = read_recall(message.data)
        if wanted is None or wanted.process == self._runtime.name or not self._runtime.bus.may_reply(message.reply):
            return
        purse = self._purses.get(wanted.scope)
        if purse is not None:
            purse.recalled_until = asyncio.get_running_loop().time() + RECALL_SECONDS
            self._spawn(self._answer(purse, message.reply))

    async def _answer(self, purse: Purse, reply: str) -> None:
        try:
            await self._report(purse, keep=purse.reserved_nanos)
        except LogError as error:
            log.warning("escrow.not_returned", error=type(error).__name__)
            return
        await returned(self._runtime.bus, reply, self._runtime.name, self._purses.holders(purse.scope))

    # -- reporting -------------------------------------------------------------------------------------------------

    async def _reporting(self) -> None:
        while True:
            try:
                async with asyncio.timeout(REPORT_SECONDS):
                    await self._urgent.wait()
            except TimeoutError:
                pass
            self._urgent.clear()
            for hold, decided in list(self._doubtful.items()):
                await self._look_for_the_end(hold, *decided)
            for purse in self._purses.all():
                try:
                    await self._look_after(purse)
                except LogError as error:
                    log.warning("escrow.not_reported", budget=purse.scope, error=type(error).__name__)

    async def _look_for_the_end(self, hold: str, attempt_id: str, thread: str, sequence: int) -> None:
        try:
            ending = await ending_of(self._runtime.log, thread, attempt_id, sequence)
        except LogError as error:
            log.warning("escrow.not_found_out", attempt=attempt_id, error=type(error).__name__)
            return
        if ending is not None:
            del self._doubtful[hold]
            self.give_back(hold, cost_of(ending))

    async def _look_after(self, purse: Purse) -> None:
        now = asyncio.get_running_loop().time()
        leasing = self._leasing.get(purse.scope)
        if not purse.open and now - purse.used_at > IDLE_SECONDS and not (leasing and leasing.locked()):
            self._purses.drain(purse)
        draining = self._purses.is_draining(purse)
        keep = purse.reserved_nanos if draining else purse.keeps(now, IDLE_SECONDS)
        closed = draining and not purse.open
        returns = purse.granted_nanos > purse.spent_nanos + keep
        if closed or returns or purse.spent_nanos != purse.reported_nanos:
            await self._report(purse, keep=keep, closed=closed)

    async def _report(self, purse: Purse, *, keep: int, closed: bool = False) -> None:
        """Append what was spent, and give back all but `keep`. Money on its way back is not ours, stored or not."""
        purse.lowered_to(keep)
        self._numbers += 1

        def decide(books: ScopeBooks, now: float) -> Event | None:
            kept = max(0, purse.granted_nanos - purse.spent_nanos)
            command = slices.Settle(slice=purse.slice, spent_nanos=purse.spent_nanos, keep_nanos=kept, closed=closed)
            return slices.settle(books, command, now)

        decided = await self._execute(purse.scope, f"{purse.slice}/{self._numbers}", decide, purse.slice)
        if closed:
            self._purses.closed(purse)
        if isinstance(decided, Decided):
            self._learn(purse, decided.event)
            await self._warn(purse.scope, decided.event)
        elif not self._is_ours(purse):  # a keeper closes it, having taken us for dead
            purse.reported_nanos = purse.spent_nanos
            if not closed:
                self._purses.drain(purse)

    def _is_ours(self, purse: Purse) -> bool:
        known = self._runtime.scopes.known(purse.scope)
        held = known.books.slices.get(purse.slice) if known else None
        return held is not None and not held.frozen

    async def _warn(self, scope: str, event: Event) -> None:
        assert isinstance(event, ScopeBooks)
        if slices.warn(event) is not None:
            name = f"{self._runtime.name}/{self._numbers}/warned"
            await self._execute(scope, name, lambda books, _now: slices.warn(books), self._runtime.name)
