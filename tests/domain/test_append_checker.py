"""The checker of appends finds a good history good, and each way in which a log can break its promises."""

from collections.abc import Callable

import pytest
from append_history import Fate, Fault, Findings, History, Stored, Told, check
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs


class Case:
    """A history as a log, two followers and a bystander saw it; each test spoils one of them."""

    def __init__(self) -> None:
        self.history = History()
        self.stored: list[Stored] = []
        for number, aggregate in enumerate("aabab", 1):
            self.history.acknowledge(self.history.begin(f"e{number}", aggregate), number)
            self.stored.append(Stored(number, f"e{number}", aggregate))
        chained = [(6, "c1", 0), (7, "c2", 6), (8, "c3", 7)]
        for sequence, name, expected in chained:
            self.history.acknowledge(self.history.begin(name, "c", expected), sequence)
            self.stored.append(Stored(sequence, name, "c"))
        self.followers = {"one": list(self.stored), "two": list(self.stored)}
        self.bystanders = {"plain": self.stored[::2]}

    def check(self) -> Findings:
        return check(self.history, self.stored, self.followers, self.bystanders)

    def store(self, name: str, aggregate: str) -> None:
        """The log holds one more event, and everybody who must have seen it has."""
        event = Stored(len(self.stored) + 1, name, aggregate)
        self.stored.append(event)
        for seen in self.followers.values():
            seen.append(event)

    def drop(self, index: int) -> None:
        """One event less, as if it had never been stored."""
        del self.stored[index]
        self.stored = [structs.replace(event, sequence=number) for number, event in enumerate(self.stored, 1)]
        self.followers = {name: list(self.stored) for name in self.followers}
        self.bystanders = {}


def test_a_log_that_kept_every_promise_is_found_good() -> None:
    findings = Case().check()
    assert findings.violations == []
    assert (findings.count(Fate.STORED), findings.count(Fate.LOST), findings.count(Fate.UNKNOWN)) == (8, 0, 0)


@pytest.mark.parametrize("is_stored", [True, False])
def test_an_append_that_was_never_acknowledged_may_be_stored_or_not(is_stored: bool) -> None:
    case = Case()
    case.history.deny(case.history.begin("u", "a"), Told.UNANSWERED)
    if is_stored:
        case.store("u", "a")
    findings = case.check()
    assert findings.fates["u"] is Fate.UNKNOWN
    assert findings.violations == []


def test_an_append_that_is_still_under_way_may_be_stored() -> None:
    case = Case()
    case.history.begin("u", "a")
    case.store("u", "a")
    assert case.check().violations == []


def test_an_unanswered_append_that_turns_out_a_duplicate_is_stored_where_the_first_try_put_it() -> None:
    case = Case()
    case.history.deny(case.history.begin("c4", "c", 8), Told.UNANSWERED)
    case.store("c4", "c")
    case.history.acknowledge(case.history.begin("e9", "a"), 10)
    case.store("e9", "a")
    case.history.deny(case.history.begin("c4", "c", 8), Told.CONFLICT)
    case.history.acknowledge(case.history.begin("c4", "c", 9), 9, duplicate=True)
    findings = case.check()
    assert findings.fates["c4"] is Fate.STORED
    assert findings.violations == []


def test_a_conflict_of_a_call_that_sent_twice_says_nothing_of_what_it_sent_first() -> None:
    case = Case()
    case.history.deny(case.history.begin("c4", "c", 8), Told.CONFLICT, resent=True)
    case.store("c4", "c")
    findings = case.check()
    assert findings.fates["c4"] is Fate.UNKNOWN
    assert findings.violations == []


def test_a_loser_of_a_race_that_appends_again_behind_the_winner_is_found_good() -> None:
    case = Case()
    loser = case.history.begin("c4", "c", 8)
    case.history.acknowledge(case.history.begin("winner", "c", 8), 9)
    case.store("winner", "c")
    case.history.deny(loser, Told.CONFLICT)
    case.history.acknowledge(case.history.begin("c4", "c", 9), 10)
    case.store("c4", "c")
    assert case.check().violations == []


# -- each promise, broken


def lose_the_last(case: Case) -> None:
    case.drop(-1)


def move(case: Case) -> None:
    case.history.appends["e3"].tries[0].sequence = 4


def store_twice(case: Case) -> None:
    case.store("e3", "b")


def alter(case: Case) -> None:
    case.history.appends["e3"].aggregate = "a"


def invent(case: Case) -> None:
    case.store("nobody's", "a")


def store_a_conflict(case: Case) -> None:
    case.history.deny(case.history.begin("x", "a", 4), Told.CONFLICT)
    case.store("x", "a")


def store_what_was_refused(case: Case) -> None:
    case.history.deny(case.history.begin("x", "a"), Told.REFUSED)
    case.store("x", "a")


def store_behind_another(case: Case) -> None:
    case.history.acknowledge(case.history.begin("c4", "c", 7), 9)
    case.store("c4", "c")


def store_an_unanswered_behind_another(case: Case) -> None:
    case.history.deny(case.history.begin("c4", "c", 7), Told.UNANSWERED)
    case.store("c4", "c")


def believe_a_duplicate_of_what_was_denied(case: Case) -> None:
    """The only try that can have stored it expected 9, and that is not what it follows."""
    case.history.deny(case.history.begin("c4", "c", 8), Told.CONFLICT)
    case.store("c4", "c")
    case.history.acknowledge(case.history.begin("c4", "c", 9), 9, duplicate=True)


def overtake(case: Case) -> None:
    late, early = case.history.appends["e5"], case.history.appends["e4"]
    late.tries[0].sequence, early.tries[0].sequence = 4, 5
    case.stored[3:5] = [Stored(4, "e5", "b"), Stored(5, "e4", "a")]
    case.followers, case.bystanders = {}, {}


def leave_a_hole(case: Case) -> None:
    case.history.acknowledge(case.history.begin("x", "a"), 10)
    event = Stored(10, "x", "a")
    case.stored.append(event)
    for seen in case.followers.values():
        seen.append(event)


def miss(case: Case) -> None:
    del case.followers["two"][3]


def miss_the_last(case: Case) -> None:
    case.followers["two"].pop()


def tell_again(case: Case) -> None:
    case.followers["two"].insert(3, case.followers["two"][2])


def tell_out_of_order(case: Case) -> None:
    seen = case.followers["two"]
    seen[2], seen[3] = seen[3], seen[2]


def tell_a_follower_what_is_not_so(case: Case) -> None:
    case.followers["one"].append(Stored(9, "ghost", "a"))


def tell_a_bystander_what_is_not_so(case: Case) -> None:
    case.bystanders["plain"].append(Stored(2, "e3", "b"))


BROKEN = [
    (lose_the_last, {Fault.LOST}),
    (move, {Fault.MOVED}),
    (store_twice, {Fault.TWICE}),
    (alter, {Fault.ALTERED}),
    (invent, {Fault.INVENTED}),
    (store_a_conflict, {Fault.DENIED}),
    (store_what_was_refused, {Fault.DENIED}),
    (store_behind_another, {Fault.UNEXPECTED}),
    (store_an_unanswered_behind_another, {Fault.UNEXPECTED}),
    (believe_a_duplicate_of_what_was_denied, {Fault.UNEXPECTED}),
    (overtake, {Fault.LATE}),
    (leave_a_hole, {Fault.HOLE}),
    (miss, {Fault.MISSED}),
    (miss_the_last, {Fault.MISSED}),
    (tell_again, {Fault.REPEATED}),
    (tell_out_of_order, {Fault.REPEATED}),
    (tell_a_follower_what_is_not_so, {Fault.PHANTOM}),
    (tell_a_bystander_what_is_not_so, {Fault.PHANTOM}),
]


@pytest.mark.parametrize(("spoil", "faults"), BROKEN, ids=lambda value: getattr(value, "__name__", ""))
def test_a_broken_promise_is_found_and_named(spoil: Callable[[Case], None], faults: set[Fault]) -> None:
    case = Case()
    spoil(case)
    findings = case.check()
    assert findings.faults == faults
    for fault in faults:
        assert fault.value in findings.report()


def test_every_fault_there_is_can_be_found() -> None:
    assert set().union(*(faults for _, faults in BROKEN)) == set(Fault)


@given(st.integers(min_value=0, max_value=7))
def test_whatever_acknowledged_event_is_lost_it_is_missed(index: int) -> None:
    case = Case()
    name = case.stored[index].id
    case.drop(index)
    findings = case.check()
    assert findings.fates[name] is Fate.LOST
    assert Fault.LOST in findings.faults
    assert findings.count(Fate.LOST) == 1
