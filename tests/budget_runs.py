"""One request in one process of a `budget_kit.World`, step by step, as the decider and the escrow carry it out."""

from typing import Any

from budget_kit import MODELS, RATES, Holder, Op, moment
from msgspec import structs
from trunkline_actors import money, routing, slices
from trunkline_actors.moment import Request, itself
from trunkline_actors.money import Exceeded, Underfunded, Waiting
from trunkline_actors.pricing import worst_case
from trunkline_actors.purse import Purse
from trunkline_events.budget import BudgetRefused, BudgetReserved, ScopeBooks
from trunkline_events.policy import Configuration
from trunkline_events.refusal import Refused
from trunkline_events.thread import Books, RequestRefused, RouteDecided

MOST_LEASES = 16


class Run:
    """One request in one process, as `Decider` and `Escrow` carry it out: decide, lease, ask others, decide again."""

    def __init__(self, holder: Holder, others: list[Holder], thread: str, key: str, request: Request) -> None:
        self.holder, self.others, self.thread = holder, others, thread
        self.request = structs.replace(request, key=key)
        self.answers: dict[str, Refused] = {}
        self.patient = False
        """Whether it waits for the others to give back, before it asks for the last word."""
        self.leases = 0
        self.decision: RouteDecided | None = None
        self.outcome: str | None = None

    def decide(self) -> None:
        self.holder.begin(
            Op(category="thread", aggregate=self.thread, decide=self._decide, done=self._decided, lost=self._unheard)
        )

    def _decide(self, books: Books, now: float) -> Any:
        holder, request = self.holder, self.request
        holder.give_back(request.attempt_id)
        self.decision = None
        request = structs.replace(request, configuration=Configuration(sequence=books.config_seq))
        found = routing.decide(books, request, moment(now), tuple(holder.funds(request.key, now, self.answers)))
        if isinstance(found, RouteDecided):
            self.decision = found
            holder.take(found)
        return found

    def _unheard(self) -> None:
        self.outcome = "unavailable"
        if self.decision is not None:
            self.holder.uncertain.append((self.thread, self.decision))

    def _decided(self, found: Any) -> None:
        world, holder = self.holder.world, self.holder
        if isinstance(found, RouteDecided):
            self.outcome = "served"
            if world.open[found.attempt_id].void:  # as `may_spend` finds out
                self.outcome = "void"
                holder.withdraw(self.thread, found)
                for purse in holder.all():
                    if purse.slice in world.frozen:
                        holder.drain(purse)
        elif isinstance(found, Underfunded):
            self.leases += 1
            if self.leases > MOST_LEASES:
                self.outcome = "contended"
            else:
                self._lease(found, last_word=False)
        else:
            self.outcome = "refused" if isinstance(found, RequestRefused) else "waiting"
            assert isinstance(found, RequestRefused | Waiting), found

    def _lease(self, short: Underfunded, *, last_word: bool) -> None:
        holder, scope = self.holder, short.scope
        purse = holder.purses.get(scope)
        if purse is None or purse.free_nanos >= short.wanted_nanos:
            self.decide()
            return
        if scope in holder.leasing and not last_word:
            self.outcome = "gave up"
            return
        holder.leasing.add(scope)

        def ask(books: ScopeBooks, now: float) -> Any:
            if holder.purses.get(scope) is not purse:
                return None  # given back while others were asked
            command = slices.Lease(
                slice=purse.slice,
                holder=holder.name,
                request_id=self.request.request_id,
                thread=self.thread,
                spent_nanos=purse.spent_nanos,
                granted_nanos=purse.granted_nanos,
                free_nanos=max(0, purse.free_nanos),
                needed_nanos=short.needed_nanos,
                wanted_nanos=short.wanted_nanos,
                floor_nanos=short.floor_nanos,
                last_word=last_word,
                ahead=2,
            )
            return slices.lease(scope, books, command, now)

        def done(found: Any) -> None:
            self._leased(purse, short, found, last_word=last_word)

        def lost() -> None:
            holder.leasing.discard(scope)
            self.outcome = "unavailable"

        holder.begin(Op(category="budget", aggregate=scope, decide=ask, done=done, lost=lost))

    def _leased(self, purse: Purse, short: Underfunded, found: Any, *, last_word: bool) -> None:
        scope = short.scope
        if isinstance(found, Refused) and not last_word:
            for other in self.others:
                if scope in other.purses:
                    other.look_after(other.purses[scope], recalled=True)
                    while self.patient and (op := next((op for op in other.ops if op.aggregate == scope), None)):
                        other.land(op)
            self._lease(short, last_word=True)
            return
        self.holder.leasing.discard(scope)
        if found is None:
            self.holder.drain(purse)
        elif isinstance(found, Refused):
            self.answers[scope] = found
        elif isinstance(found, BudgetReserved):
            purse.granted_nanos = found.slices[purse.slice].granted_nanos
        else:
            assert isinstance(found, BudgetRefused)
            self.answers[scope] = money.exceeded(
                slices.account(scope, found), short.needed_nanos, [], self.holder.world.now
            )
            assert isinstance(self.answers[scope], Exceeded)
        self.decide()

    # -- what a request may expect

    def needs(self) -> list[tuple[int, int]]:
        """For each model: what a useful answer takes at least, and what the shortest one does."""
        asked, route, found = self.request.parsed.asked, self.request.parsed.route, []
        clamp = asked.max_tokens is None if route.clamp is None else route.clamp
        for model in MODELS if route.fallbacks else MODELS[:1]:
            bound = routing.input_bound(itself(model), asked, moment(self.holder.world.now))
            wanted = asked.max_tokens or model.max_output or 0
            useful, least = (min(money.USEFUL_OUTPUT, wanted), 1) if clamp else (wanted, wanted)
            choices = self.request.parsed.choices
            rate = RATES[model.id]
            found.append((worst_case(rate, bound, useful * choices), worst_case(rate, bound, least * choices)))
        return found

    def affords(self, index: int, *, waiting: bool) -> bool:
        """Whether what is there now, or was there if all came back, is enough for one of the models in every budget."""
        world, holder = self.holder.world, self.holder
        thread = money.turn(world.books("thread", self.thread)[0], world.now)
        there = [] if thread.limit_nanos is None else [thread.limit_nanos - thread.settled_nanos]
        if waiting and there:
            there[0] -= thread.reserved_nanos
        for scope in holder.scopes(self.request.key):
            books = slices.turn(world.books("budget", scope)[0], world.now)
            if books.limit_nanos is None:
                continue
            purse = holder.purses.get(scope)
            free = books.limit_nanos - books.settled_nanos
            there.append(free - books.reserved_nanos + (purse.free_nanos if purse else 0) if waiting else free)
        return any(need[index] <= min(there, default=need[index]) for need in self.needs())
