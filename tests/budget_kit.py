"""A world for the ledger of budgets: a log, processes that hold slices in memory, and a model that keeps simple sums.

The processes do with the pure decisions what `Escrow`, `Decider` and the keeper do with them; every append may come
between the deciding and the appending of another. `World.append` checks each event against the sums.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any

from given import NOON, a_model, a_moment, a_rate
from msgspec import Struct, field, structs
from trunkline_actors import endings, slices
from trunkline_actors.moment import Moment
from trunkline_actors.money import Fund
from trunkline_actors.purse import Purse
from trunkline_actors.windows import period_of
from trunkline_events.budget import (
    GATEWAY,
    BudgetRefused,
    BudgetReserved,
    BudgetSet,
    BudgetSettled,
    ScopeBooks,
    key_scope,
    team_scope,
)
from trunkline_events.failure import Failure, FailureClass
from trunkline_events.refusal import Refused
from trunkline_events.thread import Books, Ending, RouteDecided, ThreadEvent
from trunkline_projections import attempts, threads
from trunkline_projections.attempts import UnderWay
from trunkline_projections.budgets import books_of as scope_books
from trunkline_projections.threads import ThreadHistory, books_of

MODELS = [a_model("m", max_output=400), a_model("n", max_output=20)]
RATES = {"m": a_rate(1, 3), "n": a_rate(1, 1)}
TEAM = team_scope("x")
LOST = Failure(kind=FailureClass.UNAVAILABLE, message="never sent")


class Taken(Struct, kw_only=True):
    """An attempt in the log that has not ended. `slices` are those it counts in; void ones are never sent."""

    decision: RouteDecided
    thread: str
    slices: list[str]
    void: bool


class Sums(Struct):
    """What a child would write down of a budget: pots of money handed out, and what was spent of them."""

    limit: int | None = None
    settled: int = 0
    period: str = ""
    window: tuple[str, str] = ("none", "UTC")
    pots: dict[str, list[Any]] = field(default_factory=dict)
    """By slice: granted, spent, and the period it counts in."""
    spent: int = 0

    def note(self, fact: Any, now: float) -> None:
        """One more event, by what it says happened."""
        if isinstance(fact, BudgetSet):
            self.limit = fact.limit_nanos
        if (fact.window, fact.zone) != self.window:  # what is out goes over, what was over before stays so
            over = period_of(self.window[0], now, self.window[1]) > self.period  # type: ignore[arg-type]
            for pot in self.pots.values():
                pot[2] = fact.period if pot[2] == self.period and not over else slices.OVER
        if (fact.window, fact.zone) != self.window or fact.period != self.period:
            self.window, self.period, self.settled = (fact.window, fact.zone), fact.period, 0
        if isinstance(fact, BudgetReserved | BudgetSettled):
            pot = self.pots.setdefault(fact.slice, [0, 0, fact.period])
            self._spend(pot, fact.spent_nanos)
            pot[0] += fact.amount_nanos if isinstance(fact, BudgetReserved) else -fact.returned_nanos
            if isinstance(fact, BudgetSettled) and fact.closed:
                assert pot[0] == pot[1], "all that is not spent is given back"
                del self.pots[fact.slice]
        if isinstance(fact, BudgetRefused):  # reports what its asker has spent, without a number
            for name, one in fact.slices.items():
                self._spend(self.pots[name], one.spent_nanos - self.pots[name][1])

    def _spend(self, pot: list[Any], nanos: int) -> None:
        pot[1] += nanos
        self.spent += nanos
        self.settled += nanos if pot[2] == self.period else 0

    def check(self, books: ScopeBooks) -> None:
        """That the books carried on the event say the same."""
        reserved = sum(granted - spent for granted, spent, period in self.pots.values() if period == self.period)
        assert (books.settled_nanos, books.reserved_nanos) == (self.settled, reserved)
        assert {name: [s.granted_nanos, s.spent_nanos, s.period] for name, s in books.slices.items()} == self.pots
        assert books.limit_nanos == self.limit
        if self.limit is not None:
            assert self.settled + reserved <= self.limit


class Op(Struct, eq=False, kw_only=True):
    """One command of a process: decided on what it knows, and on its way to the log as `event`."""

    category: str
    aggregate: str
    decide: Callable[[Any, float], Any]
    done: Callable[[Any], None]
    lost: Callable[[], None] = lambda: None
    event: Any = None
    expected: int = 0


class World:
    """The log, the clock, and the sums. Everybody's ops land in it, or are lost."""

    def __init__(self) -> None:
        self.now = NOON
        self.sequence = 0
        self.numbers = 0
        self.last: dict[tuple[str, str], tuple[Any, int]] = {}
        self.under_way = UnderWay()
        self.histories: dict[str, ThreadHistory] = defaultdict(ThreadHistory)
        self.sums: dict[str, Sums] = defaultdict(Sums)
        self.open: dict[str, Taken] = {}
        self.cost: dict[str, int] = defaultdict(int)
        """What attempts that took from it have cost, by slice."""
        self.of: dict[str, str] = {}
        self.frozen: set[str] = set()

    def number(self) -> int:
        self.numbers += 1
        return self.numbers

    def books(self, category: str, aggregate: str) -> tuple[Any, int]:
        empty = Books() if category == "thread" else ScopeBooks()
        return self.last.get((category, aggregate), (empty, 0))

    def append(self, category: str, aggregate: str, event: Any, expected: int) -> int | None:
        """The sequence of an event that is stored now; None where somebody else was quicker."""
        if self.books(category, aggregate)[1] != expected:
            return None
        self.sequence += 1
        if category == "thread":
            self._thread(aggregate, event)
        else:
            self._scope(aggregate, event)
        self.under_way = attempts.evolve(self.under_way, event, self.sequence, aggregate)
        self.check_slices()
        return self.sequence

    def decide(self, category: str, aggregate: str, decide: Callable[[Any, float], Any]) -> Any:
        """Decide on the newest books and append that at once."""
        books, sequence = self.books(category, aggregate)
        found = decide(books, self.now)
        if found is not None and not isinstance(found, Refused):
            assert self.append(category, aggregate, found, sequence)
        return found

    def _thread(self, thread: str, event: ThreadEvent) -> None:
        books = books_of(event, self.sequence)
        self.last["thread", thread] = (books, self.sequence)
        self.histories[thread] = threads.evolve(self.histories[thread], event, self.sequence)  # type: ignore[arg-type]
        assert self.histories[thread].books == books
        if books.limit_nanos is not None:
            assert books.settled_nanos + books.reserved_nanos <= books.limit_nanos
        if isinstance(event, RouteDecided):
            counted = [name for scope, name in event.slices.items() if self._usable(scope, name)]
            void = len(counted) < len(event.slices)
            self.open[event.attempt_id] = Taken(decision=event, thread=thread, slices=counted, void=void)
        elif isinstance(event, Ending):
            for name in self.open.pop(event.attempt_id).slices:
                self.cost[name] += endings.cost_of(event)

    def _usable(self, scope: str, name: str) -> bool:
        one = self.books("budget", scope)[0].slices.get(name)
        return one is not None and not one.frozen

    def _scope(self, scope: str, event: Any) -> None:
        books = scope_books(event)
        self.last["budget", scope] = (books, self.sequence)
        self.of |= dict.fromkeys(books.slices, scope)
        self.frozen |= {name for name, one in books.slices.items() if one.frozen}
        self.sums[scope].note(event, self.now)
        self.sums[scope].check(books)
        if isinstance(event, BudgetRefused):
            assert event.settled_nanos + event.needed_nanos > (event.limit_nanos or 0), "refused though it is there"

    def check_slices(self) -> None:
        """Of no slice more is taken than was granted, and of none that is closed anything but what was reported."""
        taken: dict[str, int] = defaultdict(int, self.cost)
        for one in self.open.values():
            for name in one.slices:
                taken[name] += one.decision.reserve_nanos
        for name, nanos in taken.items():
            pot = self.sums[self.of[name]].pots.get(name)
            if pot is not None:
                assert nanos <= pot[0], (name, nanos, pot)
                assert self.cost[name] >= pot[1]
            else:
                assert nanos == self.cost[name], f"{name} is closed, but something runs on it"


class Holder:
    """A process: purses, what it knows of the log, and what it has on its way there."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.name = f"p{world.number()}"
        self.purses: dict[str, Purse] = {}
        self.draining: list[Purse] = []
        self.known: dict[tuple[str, str], tuple[Any, int]] = {}
        self.ops: list[Op] = []
        self.leasing: set[str] = set()
        self.uncertain: list[tuple[str, RouteDecided]] = []
        self.untold: dict[str, int] = {}

    # -- the shell: load, decide, append, again on a conflict

    def begin(self, op: Op) -> None:
        """Decide, unless something of ours is on its way to the same books."""
        self.ops.append(op)
        if self.first(op):
            self.think(op)

    def first(self, op: Op) -> bool:
        """Whether nothing of ours goes before it; the others wait for the lock."""
        return next(o for o in self.ops if (o.category, o.aggregate) == (op.category, op.aggregate)) is op

    def think(self, op: Op, *, fresh: bool = False) -> None:
        where = (op.category, op.aggregate)
        if fresh or where not in self.known:
            self.known[where], fresh = self.world.books(*where), True
        books, op.expected = self.known[where]
        op.event = op.decide(books, self.world.now)
        if op.event is None or isinstance(op.event, Refused):
            if fresh:
                self._over(op, lambda: op.done(op.event))
            else:
                self.think(op, fresh=True)

    def land(self, op: Op, fate: str = "stored") -> None:
        """What is on its way arrives, is `lost`, or is stored but `unheard` of."""
        if fate == "lost":
            self._over(op, op.lost)
            return
        sequence = self.world.append(op.category, op.aggregate, op.event, op.expected)
        if sequence is None:
            self.think(op, fresh=True)
        elif fate == "unheard":
            self._over(op, op.lost)
        else:
            self.known[op.category, op.aggregate] = self.world.books(op.category, op.aggregate)
            self._over(op, lambda: op.done(op.event))

    def _over(self, op: Op, then: Callable[[], None]) -> None:
        self.ops.remove(op)
        then()
        for waiting in list(self.ops):
            if waiting.event is None and waiting in self.ops and self.first(waiting):
                self.think(waiting)

    # -- the escrow

    def scopes(self, key: str) -> list[str]:
        own = self._known(key_scope(key))
        team = [] if own is None or own.team is None else [team_scope(own.team)]
        known = [(scope, self._known(scope)) for scope in (key_scope(key), *team, GATEWAY)]
        return [scope for scope, books in known if books is not None and books.limit_nanos is not None]

    def _known(self, scope: str) -> ScopeBooks | None:
        books: ScopeBooks | None = self.known.get(("budget", scope), (None, 0))[0]
        return books

    def funds(self, key: str, now: float, answers: dict[str, Refused]) -> Iterator[Fund]:
        for scope in self.scopes(key):
            known = self._known(scope)
            assert known is not None
            books = slices.turn(known, now)
            purse = self._purse(scope, books)
            yield Fund(
                scope=scope,
                slice=purse.slice,
                free_nanos=purse.free_nanos,
                possible_nanos=max(0, (books.limit_nanos or 0) - books.settled_nanos),
                answer=answers.get(scope),
            )

    def _purse(self, scope: str, books: ScopeBooks) -> Purse:
        purse = self.purses.get(scope)
        if purse is not None:
            held = books.slices.get(purse.slice)
            if (held.period if held else purse.period) == books.period:
                return purse
            self.drain(purse)
        new = Purse(scope=scope, slice=f"{self.name}/{self.world.number()}", period=books.period)
        self.purses[scope] = new
        return new

    def all(self) -> list[Purse]:
        return [*self.purses.values(), *self.draining]

    def drain(self, purse: Purse) -> None:
        if self.purses.get(purse.scope) is purse:
            del self.purses[purse.scope]
        if purse not in self.draining:
            self.draining.append(purse)

    def take(self, decision: RouteDecided) -> None:
        for purse in self.all():
            if decision.slices.get(purse.scope) == purse.slice:
                purse.take(decision.attempt_id, decision.reserve_nanos, 0.0)

    def give_back(self, attempt_id: str, cost: int = 0) -> None:
        for purse in self.all():
            purse.give_back(attempt_id, cost)

    def look_after(self, purse: Purse, *, idle: bool = False, recalled: bool = False) -> None:
        """Report what was spent, give back what is wanted elsewhere, close what is not used any more."""
        if idle and not purse.open:
            self.drain(purse)
        draining = purse in self.draining
        purse.recalled_until = 100.0 if recalled else 0.0
        keep = purse.reserved_nanos if draining else purse.keeps(9.0 if idle else 1.0, 3.0)
        closed = draining and not purse.open
        if closed or recalled or purse.granted_nanos > purse.spent_nanos + keep or purse.spent_nanos:
            self.report(purse, keep, closed=closed)

    def report(self, purse: Purse, keep: int, *, closed: bool = False) -> None:
        purse.lowered_to(keep)

        def decide(books: ScopeBooks, now: float) -> Any:
            kept = max(0, purse.granted_nanos - purse.spent_nanos)
            command = slices.Settle(slice=purse.slice, spent_nanos=purse.spent_nanos, keep_nanos=kept, closed=closed)
            return slices.settle(books, command, now)

        def done(_event: Any) -> None:
            if closed and purse in self.draining:
                self.draining.remove(purse)

        self.begin(Op(category="budget", aggregate=purse.scope, decide=decide, done=done))

    def withdraw(self, thread: str, decision: RouteDecided) -> None:
        """End an attempt that was never sent, where it is in the log."""
        if decision.attempt_id in self.world.open:
            attempt = endings.of_decision(thread, decision)
            self.world.decide("thread", thread, endings.failed(attempt, LOST, 1.0))
        self.give_back(decision.attempt_id)


def moment(now: float) -> Moment:
    return structs.replace(a_moment(*MODELS, rates=RATES), now=now)
