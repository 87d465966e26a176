"""Who waits for which budget: in order, one line for each, and nobody sleeps through their turn."""

from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from trunkline_actors.waiting import Ticket, WaitingRoom

SCOPES = ["gateway", "key:1", "team:x"]


class Called:
    """Tickets of a room, and who was called, in order."""

    def __init__(self) -> None:
        self.room = WaitingRoom()
        self.calls: list[int] = []

    def ticket(self, number: int, at: str = "gateway", *others: str) -> Ticket:
        return Ticket(number, frozenset({at, *others}), at, lambda: self.calls.append(number))

    def entered(self, number: int, at: str = "gateway", *others: str) -> Ticket:
        ticket = self.ticket(number, at, *others)
        self.room.enter(ticket)
        return ticket

    def heard(self) -> list[int]:
        calls, self.calls = self.calls, []
        return calls


@pytest.fixture
def here() -> Called:
    return Called()


def test_in_an_empty_room_nobody_waits_and_nobody_is_called(here: Called) -> None:
    here.room.call("gateway")
    assert (len(here.room), here.room.scopes, here.heard()) == (0, [], [])
    assert here.room.crowded(SCOPES) is None
    assert here.room.before(here.ticket(1)) is None


def test_whoever_waits_alone_is_called_on_entering(here: Called) -> None:
    here.entered(7)
    assert here.heard() == [7]
    assert (len(here.room), here.room.scopes) == (1, ["gateway"])


def test_a_line_is_in_the_order_of_numbers_whenever_they_come(here: Called) -> None:
    tickets = {number: here.entered(number) for number in (5, 9, 2, 7)}
    here.heard()
    for number in (2, 5, 7, 9):
        here.room.call("gateway")
        assert here.heard() == [number]
        here.room.leave(tickets[number])
        here.heard()
    assert len(here.room) == 0


def test_only_the_head_of_its_own_line_is_called(here: Called) -> None:
    here.entered(1)
    here.entered(2)
    here.entered(3, "key:1")
    here.heard()
    here.room.call("gateway")
    here.room.call("team:x")
    assert here.heard() == [1]
    here.room.call("key:1")
    assert here.heard() == [3]


def test_who_leaves_calls_the_next_and_leaving_twice_is_leaving_once(here: Called) -> None:
    first, _ = here.entered(1), here.entered(2)
    here.heard()
    here.room.leave(first)
    assert here.heard() == [2]
    here.room.leave(first)
    assert (here.heard(), len(here.room)) == ([], 1)


def test_entering_twice_is_entering_once(here: Called) -> None:
    ticket = here.entered(1)
    here.room.enter(ticket)
    assert len(here.room) == 1
    here.room.leave(ticket)
    assert len(here.room) == 0


def test_who_moves_waits_in_one_line_only_and_calls_the_next_in_the_other(here: Called) -> None:
    first, _, _ = here.entered(1), here.entered(2), here.entered(3, "key:1")
    here.heard()
    here.room.move(first, "key:1")
    assert here.heard() == [2, 1]
    assert (len(here.room), here.room.scopes, first.at) == (3, ["gateway", "key:1"], "key:1")
    here.room.move(first, "key:1")
    assert (here.heard(), len(here.room)) == ([], 3)


def test_who_has_left_does_not_come_back_by_moving(here: Called) -> None:
    ticket = here.entered(1)
    here.room.leave(ticket)
    here.room.move(ticket, "key:1")
    assert len(here.room) == 0


def test_who_comes_earlier_waits_before_those_who_came_later_wherever_it_moves(here: Called) -> None:
    here.entered(5, "key:1")
    early = here.entered(1)
    here.room.move(early, "key:1")
    here.heard()
    here.room.call("key:1")
    assert here.heard() == [1]


@pytest.mark.parametrize(
    ("number", "needs", "before"),
    [
        (1, ("gateway",), None),
        (3, ("gateway",), "gateway"),
        (3, ("gateway", "key:1"), "gateway"),
        (3, ("key:1",), None),
        (5, ("key:1",), "key:1"),
        (3, ("team:x",), None),
        (2, ("gateway",), None),
    ],
)
def test_nobody_asks_before_those_who_came_earlier_and_need_the_same(
    here: Called, number: int, needs: tuple[str, ...], before: str | None
) -> None:
    here.entered(2)
    here.entered(4, "key:1")
    assert here.room.before(here.ticket(number, *needs)) == before


def test_newcomers_learn_where_somebody_waits(here: Called) -> None:
    here.entered(1, "key:1")
    assert here.room.crowded(["gateway", "key:1"]) == "key:1"
    assert here.room.crowded(["gateway", "team:x"]) is None
    assert here.room.crowded([]) is None


class Room(RuleBasedStateMachine):
    """Anybody comes, moves and goes at any time. The model is a number and a line for each who waits."""

    @initialize()
    def opens(self) -> None:
        self.room = WaitingRoom()
        self.tickets: list[Ticket] = []
        self.waits: dict[int, str] = {}
        self.heads: dict[str, int] = {}
        self.told: set[int] = set()

    def _call(self, number: int) -> None:
        assert number in self.waits, "who has left is not called"
        self.told.add(number)

    @rule(number=st.integers(0, 30), needs=st.sets(st.sampled_from(SCOPES), min_size=1), data=st.data())
    def comes(self, number: int, needs: set[str], data: Any) -> None:
        if any(ticket.number == number for ticket in self.tickets):
            return
        at = data.draw(st.sampled_from(sorted(needs)))
        ticket = Ticket(number, frozenset(needs), at, lambda: self._call(number))
        self.tickets.append(ticket)
        self.waits[number] = at
        self.room.enter(ticket)

    @precondition(lambda self: self.tickets)
    @rule(which=st.integers(0, 30), data=st.data())
    def moves(self, which: int, data: Any) -> None:
        ticket = self.tickets[which % len(self.tickets)]
        scope = data.draw(st.sampled_from(sorted(ticket.scopes)))
        if ticket.number in self.waits:
            if scope != self.waits[ticket.number]:
                self.told.discard(ticket.number)
            self.waits[ticket.number] = scope
        self.room.move(ticket, scope)

    @precondition(lambda self: self.tickets)
    @rule(which=st.integers(0, 30))
    def leaves(self, which: int) -> None:
        ticket = self.tickets[which % len(self.tickets)]
        self.waits.pop(ticket.number, None)
        self.room.leave(ticket)

    @precondition(lambda self: self.waits)
    @rule(which=st.integers(0, 30))
    def enters_again(self, which: int) -> None:
        present = [ticket for ticket in self.tickets if ticket.number in self.waits]
        self.room.enter(present[which % len(present)])

    @rule(scope=st.sampled_from(SCOPES))
    def money_comes_back(self, scope: str) -> None:
        self.told.clear()
        self.heads.pop(scope, None)
        self.room.call(scope)
        line = self._line(scope)
        assert self.told == set(line[:1]), "the head is told, and nobody else"
        self.told = set(self.heads.values()) | set(line[:1])

    def _line(self, scope: str) -> list[int]:
        return sorted(number for number, at in self.waits.items() if at == scope)

    @invariant()
    def all_that_wait_are_counted_where_they_wait(self) -> None:
        assert len(self.room) == len(self.waits)
        assert self.room.scopes == sorted(set(self.waits.values()))
        for scope in SCOPES:
            assert self.room.crowded([scope]) == (scope if self._line(scope) else None)

    @invariant()
    def nobody_becomes_the_head_of_a_line_without_being_called(self) -> None:
        for scope in SCOPES:
            line = self._line(scope)
            if line and self.heads.get(scope) != line[0]:
                assert line[0] in self.told
                self.heads[scope] = line[0]
            elif not line:
                self.heads.pop(scope, None)
        self.told = set(self.heads.values())

    @invariant()
    def nobody_overtakes_where_somebody_earlier_waits(self) -> None:
        for ticket in self.tickets:
            earlier = [scope for scope in ticket.scopes if any(n < ticket.number for n in self._line(scope))]
            assert self.room.before(ticket) == (min(earlier) if earlier else None)

    @invariant()
    def somebody_may_always_ask(self) -> None:
        if self.waits:
            first = min(self.waits)
            ticket = next(ticket for ticket in self.tickets if ticket.number == first)
            assert self.room.before(ticket) is None


TestRoom = Room.TestCase
TestRoom.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
