"""A thread's whole life at random, against a model that a child could check."""

from typing import Any

from given import DAY, NOON, a_model, a_moment, a_rate, a_request, chat
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, rule
from msgspec import structs
from trunkline_actors.endings import Attempt, Metering, failed, metered, orphaned
from trunkline_actors.money import MAX_OPEN, Budget, Waiting
from trunkline_actors.pricing import cost_of
from trunkline_actors.routing import decide
from trunkline_actors.thread_settings import Change, Settings, configure
from trunkline_actors.windows import period_of
from trunkline_events.failure import Failure, FailureClass
from trunkline_events.money import usd_from_nanos
from trunkline_events.policy import Configuration
from trunkline_events.refusal import Refused
from trunkline_events.thread import Books, RequestRefused, RouteDecided, ThreadFact
from trunkline_events.usage import Usage
from trunkline_projections.threads import EMPTY, ThreadHistory, books_of, evolve

RATE = a_rate(1, 3)


class Thread(RuleBasedStateMachine):
    """Requests, endings and configurations in any order, as time passes. The naive model keeps three numbers."""

    attempts = Bundle("attempts")

    def __init__(self) -> None:
        super().__init__()
        self.now = NOON
        self.sequence = 0
        self.books = Books()
        self.history = ThreadHistory()
        # the naive model
        self.limit: int | None = None
        self.spent: dict[str, int] = {"": 0}
        self.held: dict[str, int] = {}
        self.used = Usage()

    def append(self, fact: ThreadFact) -> None:
        self.sequence += 1
        self.books = books_of(fact, self.sequence)
        self.history = evolve(self.history, fact, self.sequence)
        self.spent.setdefault(fact.period, 0)

    @rule(hours=st.sampled_from([0, 1, 24, 24 * 40]))
    def time_passes(self, hours: int) -> None:
        self.now += hours * DAY / 24

    @rule(
        target=attempts,
        max_tokens=st.none() | st.integers(1, 200),
        clamp=st.sampled_from([None, True, False]),
        prompt=st.integers(0, 50),
        choices=st.integers(1, 2),
        attempt=st.integers(1, 2),
    )
    def request(self, max_tokens: int | None, clamp: bool | None, prompt: int, choices: int, attempt: int) -> Any:
        message = {"role": "user", "content": "x" * prompt}
        parsed = chat(messages=[message], max_tokens=max_tokens, n=choices, route={"clamp": clamp})
        request = structs.replace(
            a_request(parsed), request_id=f"r{self.sequence}", attempt_id=f"r{self.sequence}-{attempt}", attempt=attempt
        )
        moment = structs.replace(a_moment(a_model(max_output=100), rates={"m": RATE}), now=self.now)
        configured = Configuration(sequence=self.books.config_seq)
        found = decide(self.books, structs.replace(request, configuration=configured), moment)
        period = period_of(self.books.window, self.now)
        spent, held = self.spent.get(period, 0), sum(self.held.values())
        if isinstance(found, Waiting):
            full = len(self.held) == MAX_OPEN
            assert full or (
                self.limit is not None and spent + found.needed_nanos <= self.limit < spent + held + found.needed_nanos
            )
            return multiple()
        assert not isinstance(found, Refused)
        self.append(found)
        if isinstance(found, RequestRefused):
            assert self.limit is not None
            assert spent + found.needed_nanos > self.limit
            return multiple()
        self.held[found.attempt_id] = found.reserve_nanos
        return found

    @rule(
        decided=consumes(attempts),
        how=st.sampled_from(["settled", "aborted", "estimated", "failed", "orphaned"]),
        share=st.floats(0, 1),
    )
    def end(self, decided: RouteDecided, how: str, share: float) -> None:
        attempt = Attempt(
            aggregate="t",
            request_id=decided.request_id,
            attempt_id=decided.attempt_id,
            attempt=decided.attempt,
            model="m",
            provider="p",
            reserve_nanos=decided.reserve_nanos,
            books=self.books,
        )
        usage = Usage(input_tokens=int(decided.reserve_nanos * share))
        cost = cost_of(RATE, usage)
        if how == "failed":
            ending, cost, usage = failed(attempt, Failure(kind=FailureClass.TIMEOUT, message="m"), 1.0), 0, Usage()
        elif how == "orphaned":
            ending, cost, usage = orphaned(attempt, self.now), decided.reserve_nanos, Usage()
        else:
            ending = metered(
                attempt,
                Metering(
                    rate=RATE,
                    usage=None if how == "estimated" else usage,
                    bound=usage,
                    latency_ms=1.0,
                    ttft_ms=None,
                    finish="stop",
                    aborted=how == "aborted",
                ),
            )
        event: Any = ending(self.books, self.now)
        self.append(event)
        del self.held[decided.attempt_id]
        self.spent[event.period] += cost
        self.used += usage
        assert ending(self.books, self.now) is None, "an attempt ends once"

    @rule(limit=st.none() | st.integers(0, 2_000), window=st.sampled_from(["none", "day", "month"]))
    def configure(self, limit: int | None, window: Any) -> None:
        text = None if limit is None else usd_from_nanos(limit)
        found = configure(
            self.books, Settings(), Change(budget=Budget(limit_usd=text, window=window)), "c", None, self.now
        )
        if isinstance(found, Refused):
            assert limit is not None
            assert found.code == "conflict"
            assert limit < sum(self.held.values()) + max(self.spent.values())
            return
        if window != self.books.window:
            self.spent = {}
        self.limit = limit
        self.append(found)

    @invariant()
    def the_budget_is_not_exceeded(self) -> None:
        books = self.books
        if books.limit_nanos is not None:
            assert books.settled_nanos + books.reserved_nanos <= books.limit_nanos

    @invariant()
    def the_books_are_the_sums_of_what_happened(self) -> None:
        books = self.books
        assert {name: one.reserve_nanos for name, one in books.open.items()} == self.held
        assert books.reserved_nanos == sum(self.held.values())
        assert books.settled_nanos == self.spent[books.period]
        assert books.limit_nanos == self.limit
        assert books.tokens == self.used

    @invariant()
    def the_books_follow_from_the_history(self) -> None:
        assert self.history.books == self.books

    def teardown(self) -> None:
        for attempt_id, reserve_nanos in list(self.held.items()):
            attempt = Attempt(
                aggregate="t",
                request_id="r",
                attempt_id=attempt_id,
                attempt=1,
                model="m",
                provider="p",
                reserve_nanos=reserve_nanos,
                books=self.books,
            )
            event: Any = orphaned(attempt, self.now)(self.books, self.now)
            self.append(event)
        assert self.books.open == {}
        assert self.books.reserved_nanos == 0
        self.the_budget_is_not_exceeded()
        self.history_books_agree()

    def history_books_agree(self) -> None:
        assert self.history.books == self.books
        cost = sum(use.cost_nanos for use in self.history.models.values())
        assert cost >= self.books.settled_nanos
        assert self.books != EMPTY or self.sequence == 0 or cost == 0


TestThread = Thread.TestCase
TestThread.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
