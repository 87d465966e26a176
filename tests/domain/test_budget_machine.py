"""Budgets of keys, a team, the gateway and threads at random: concurrency, deaths, lost words and passing time."""

from collections import defaultdict
from typing import Any

from budget_kit import LOST, RATES, TEAM, Holder, Op, World
from budget_runs import Run
from given import DAY, a_request, chat
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from msgspec import structs
from trunkline_actors import endings, money, slices
from trunkline_actors.thread_settings import Change, Settings, configure
from trunkline_events.budget import GATEWAY, key_scope
from trunkline_events.money import usd_from_nanos
from trunkline_events.refusal import Refused
from trunkline_events.usage import Usage

THREADS = ["t1", "t2"]
KEYS = ["k1", "k2"]
SCOPES = [GATEWAY, TEAM, *map(key_scope, KEYS)]
PICK = st.integers(0, 20)
FATES = st.sampled_from(["stored", "stored", "stored", "lost", "unheard"])
LIMITS = st.sampled_from([None, 150, 400, 900, 2_000, 2_000, 5_000, 5_000]) | st.integers(0, 6_000)
WINDOWS = st.sampled_from(["none", "none", "day", "month"])
ZONES = st.sampled_from(["UTC", "UTC", "Pacific/Auckland", "America/New_York"])


class Budgets(RuleBasedStateMachine):
    """Processes, keepers and providers that see each other's work late, or never."""

    @initialize(data=st.data())
    def starts(self, data: Any) -> None:
        self.world = World()
        self.holders = [Holder(self.world), Holder(self.world), Holder(self.world)]
        self.ghosts: list[tuple[Op, str]] = []
        self.looks: list[tuple[str, slices.Settle]] = []
        for scope in SCOPES:
            self.set_budget(scope, data.draw(LIMITS), data.draw(WINDOWS), data.draw(ZONES), ask_first=False)

    # -- time and configuration

    @rule(hours=st.sampled_from([0, 1, 8, 24, 24 * 40]))
    def time_passes(self, hours: int) -> None:
        self.world.now += hours * DAY / 24

    @rule(scope=st.sampled_from(SCOPES), limit=LIMITS, window=WINDOWS, zone=ZONES, ask_first=st.booleans())
    def set_budget(self, scope: str, limit: int | None, window: Any, zone: str, *, ask_first: bool) -> None:
        if ask_first:
            for holder in self.holders:
                if scope in holder.purses:
                    holder.look_after(holder.purses[scope], recalled=True)
            self._all_land()
        budget = money.Budget(limit_usd=None if limit is None else usd_from_nanos(limit), window=window, time_zone=zone)
        team = "x" if scope == key_scope("k1") else None
        found = self.world.decide("budget", scope, lambda b, now: slices.configure(b, "c", budget, team, None, now))
        books = slices.turn(self.world.books("budget", scope)[0], self.world.now)
        if isinstance(found, Refused):
            assert found.code == "conflict"
            assert limit is not None
            assert limit < books.settled_nanos + books.reserved_nanos

    @rule(thread=st.sampled_from(THREADS), limit=st.none() | LIMITS, window=WINDOWS)
    def set_threads_budget(self, thread: str, limit: int | None, window: Any) -> None:
        budget = money.Budget(limit_usd=None if limit is None else usd_from_nanos(limit), window=window)
        change = Change(budget=budget)
        self.world.decide("thread", thread, lambda books, now: configure(books, Settings(), change, "c", None, now))

    # -- requests

    @rule(
        who=PICK,
        thread=st.sampled_from(THREADS),
        key=st.sampled_from(KEYS),
        max_tokens=st.none() | st.integers(1, 40) | st.integers(1, 300),
        clamp=st.sampled_from([None, None, True, False]),
        choices=st.integers(1, 2),
        fallback=st.booleans(),
        at_once=st.booleans(),
    )
    def request(self, who: int, thread: str, key: str, *, at_once: bool, **wishes: Any) -> None:
        run = self._run(who, thread, key, **wishes)
        if not at_once:
            run.decide()
            return
        self._all_land()
        for scope in SCOPES:
            run.holder.known["budget", scope] = self.world.books("budget", scope)
        run.patient = True
        run.decide()
        self._all_land()
        assert run.outcome != "contended", "nobody else was there"
        if run.outcome == "refused":
            assert not run.affords(1, waiting=False), "refused for good what is there"
        if run.outcome == "waiting":
            assert not run.affords(0, waiting=True), "waits for what is there"

    def _run(
        self, who: int, thread: str, key: str, max_tokens: int | None, clamp: bool | None, choices: int, fallback: bool
    ) -> Run:
        route = {"clamp": clamp, "fallbacks": ["n"] if fallback else []}
        parsed = chat(max_tokens=max_tokens, n=choices, route=route)
        name = f"r{self.world.number()}"
        holder = self.holders[who % len(self.holders)]
        request = structs.replace(a_request(parsed), request_id=name, attempt_id=f"{name}-1")
        return Run(holder, [one for one in self.holders if one is not holder], thread, key, request)

    def _on_their_way(self) -> list[tuple[Holder, Op]]:
        return [(holder, op) for holder in self.holders for op in holder.ops if holder.first(op)]

    def _all_land(self) -> None:
        for _ in range(1000):
            on_their_way = self._on_their_way()
            if not on_their_way:
                return
            holder, op = on_their_way[0]
            holder.land(op)
        raise AssertionError("this does not end")

    @precondition(lambda self: self._on_their_way())
    @rule(which=PICK, fate=FATES)
    def lands(self, which: int, fate: str) -> None:
        on_their_way = self._on_their_way()
        holder, op = on_their_way[which % len(on_their_way)]
        holder.land(op, fate)

    @rule(who=PICK)
    def hears(self, who: int) -> None:
        holder = self.holders[who % len(self.holders)]
        for scope in SCOPES:
            holder.known["budget", scope] = self.world.books("budget", scope)

    @precondition(lambda self: self.world.open)
    @rule(which=PICK, how=st.sampled_from(["settled", "aborted", "failed", "orphaned"]), share=st.floats(0, 1))
    def ends(self, which: int, how: str, share: float, *, told: bool = True) -> None:
        attempt_id, taken = list(self.world.open.items())[which % len(self.world.open)]
        decision, attempt = taken.decision, endings.of_decision(taken.thread, taken.decision)
        unsent = taken.void or any(attempt_id == one.attempt_id for h in self.holders for _, one in h.uncertain)
        if unsent or how == "failed":
            ending = endings.failed(attempt, LOST, 1.0)
        elif how == "orphaned":
            ending = endings.orphaned(attempt, self.world.now)
        else:
            metering = endings.Metering(
                rate=RATES["n"],
                usage=Usage(input_tokens=int(decision.reserve_nanos * share)),
                bound=Usage(),
                latency_ms=1.0,
                ttft_ms=None,
                finish="stop",
                aborted=how == "aborted",
            )
            ending = endings.metered(attempt, metering)
        event = self.world.decide("thread", taken.thread, ending)
        for holder in self.holders:
            holder.untold[attempt_id] = endings.cost_of(event)
            if told:
                self._told(holder)

    @precondition(lambda self: self.world.open)
    @rule(which=PICK, how=st.sampled_from(["settled", "failed", "orphaned"]), share=st.floats(0, 1))
    def ends_unnoticed(self, which: int, how: str, share: float) -> None:
        self.ends(which, how, share, told=False)

    @rule(who=PICK)
    def finds_out(self, who: int) -> None:
        """What became of attempts and decisions that nobody told it of."""
        holder = self.holders[who % len(self.holders)]
        self._told(holder)
        uncertain, holder.uncertain = holder.uncertain, []
        for thread, decision in uncertain:
            holder.withdraw(thread, decision)

    def _told(self, holder: Holder) -> None:
        for attempt_id, cost in holder.untold.items():
            holder.give_back(attempt_id, cost)
        holder.untold = {}

    @rule(who=PICK, scope=st.sampled_from(SCOPES), idle=st.booleans(), recalled=st.booleans())
    def reports(self, who: int, scope: str, *, idle: bool, recalled: bool) -> None:
        holder = self.holders[who % len(self.holders)]
        for purse in holder.all():
            if purse.scope == scope:
                holder.look_after(purse, idle=idle, recalled=recalled)

    # -- death, and the keeper

    @rule(who=PICK)
    def dies(self, who: int) -> None:
        """Its memory is gone; what it had sent may still arrive."""
        holder = self.holders.pop(who % len(self.holders))
        self.ghosts += [(op, holder.name) for op in holder.ops if op.event is not None]
        self.holders.append(Holder(self.world))

    @precondition(lambda self: self.ghosts)
    @rule(which=PICK)
    def arrives_late(self, which: int) -> None:
        op, _ = self.ghosts.pop(which % len(self.ghosts))
        self.world.append(op.category, op.aggregate, op.event, op.expected)

    def _dead(self) -> list[str]:
        alive = {holder.name for holder in self.holders}
        return sorted(name for name, use in self.world.under_way.slices.items() if use.holder not in alive)

    @precondition(lambda self: self.world.under_way.slices)
    @rule(which=PICK, wrongly=st.booleans())
    def is_taken_for_dead(self, which: int, *, wrongly: bool) -> None:
        names = sorted(self.world.under_way.slices) if wrongly else self._dead()
        if names:
            self._freeze(names[which % len(names)])

    def _freeze(self, name: str) -> None:
        scope = self.world.under_way.slices[name].scope
        self.world.decide("budget", scope, lambda books, now: slices.freeze(books, name, now))

    @precondition(lambda self: any(use.frozen for use in self.world.under_way.slices.values()))
    @rule(which=PICK)
    def keeper_looks(self, which: int) -> None:
        names = sorted(name for name, use in self.world.under_way.slices.items() if use.frozen)
        name = names[which % len(names)]
        use = self.world.under_way.slices[name]
        keep = sum(use.open.values())
        settle = slices.Settle(slice=name, spent_nanos=use.spent_nanos, keep_nanos=keep, closed=not use.open)
        self.looks.append((use.scope, settle))

    @precondition(lambda self: self.looks)
    @rule(which=PICK)
    def keeper_settles(self, which: int) -> None:
        scope, settle = self.looks.pop(which % len(self.looks))
        self.world.decide("budget", scope, lambda books, now: slices.settle(books, settle, now, keeper=True))

    # -- what holds

    @invariant()
    def nobody_believes_to_have_more_than_was_granted(self) -> None:
        for holder in self.holders:
            for purse in holder.all():
                held = self.world.books("budget", purse.scope)[0].slices.get(purse.slice)
                if held is not None:
                    assert purse.granted_nanos <= held.granted_nanos or held.frozen
                elif purse.slice not in self.world.frozen and purse not in holder.draining:
                    assert purse.free_nanos <= 0

    def teardown(self) -> None:
        if not hasattr(self, "world"):
            return
        world = self.world
        self._all_land()
        for op, _ in self.ghosts:
            world.append(op.category, op.aggregate, op.event, op.expected)
        while world.open:
            self.ends(0, "settled", 0.5)
        for who, holder in enumerate(self.holders):
            self.finds_out(who)
            for purse in holder.all():
                holder.look_after(purse, idle=True)
        self._all_land()
        for name in self._dead():
            self._freeze(name)
        while any(use.frozen for use in world.under_way.slices.values()):
            self.keeper_looks(0)
            self.keeper_settles(-1)
        assert world.under_way.slices == {}
        assert world.under_way.attempts == {}
        self.all_is_accounted_for()
        self.what_is_left_can_be_spent()

    def all_is_accounted_for(self) -> None:
        cost: dict[str, int] = defaultdict(int)
        for name, nanos in self.world.cost.items():
            cost[self.world.of[name]] += nanos
        for scope in SCOPES:
            books = self.world.books("budget", scope)[0]
            assert books.slices == {}
            assert books.reserved_nanos == 0
            assert self.world.sums[scope].spent == cost[scope]
        for thread in THREADS:
            books = self.world.books("thread", thread)[0]
            assert (books.open, books.reserved_nanos) == ({}, 0)

    def what_is_left_can_be_spent(self) -> None:
        self.hears(0)
        for key in KEYS:
            run = self._run(0, "t1", key, 1, None, 1, fallback=False)
            affordable = run.affords(1, waiting=False)
            run.decide()
            self._all_land()
            assert run.outcome == ("served" if affordable else "refused")
            while self.world.open:
                self.ends(0, "failed", 0.0)


TestBudgets = Budgets.TestCase
TestBudgets.settings = settings(max_examples=150, stateful_step_count=60, deadline=None, report_multiple_bugs=False)
