"""Which attempts a keeper worries about: given what it heard, when time passes, then what is lost."""

import pytest
from trunkline_actors.watch import Watch

LEASE = 5.0


@pytest.fixture
def watch() -> Watch:
    return Watch()


def decided(watch: Watch, attempt_id: str, sequence: int = 1, deadline: float = 60.0) -> None:
    watch.decided(attempt_id, "t", sequence, deadline)


def lost(watch: Watch, seconds: float) -> list[str]:
    return [one.attempt_id for one in watch.pass_time(seconds, LEASE)]


def test_an_attempt_that_nobody_tells_of_for_a_lease_is_lost(watch: Watch) -> None:
    decided(watch, "r-1", sequence=9, deadline=60)
    assert lost(watch, 4.9) == []
    (one,) = watch.pass_time(0.1, LEASE)
    assert (one.attempt_id, one.aggregate, one.sequence, one.deadline, one.ended) == ("r-1", "t", 9, 60, None)


def test_what_is_lost_is_given_back_again_after_a_lease_until_it_is_done_with(watch: Watch) -> None:
    decided(watch, "r-1")
    assert lost(watch, LEASE) == ["r-1"]
    assert lost(watch, 4.9) == []
    assert lost(watch, 0.1) == ["r-1"]
    watch.ended("r-1", 8)
    watch.answered(["r-1"])
    assert lost(watch, 100) == []


def test_a_keeper_that_does_not_lead_forgets_nothing(watch: Watch) -> None:
    decided(watch, "r-1")
    watch.wait(100)
    assert lost(watch, 0.1) == ["r-1"]


def test_a_sign_of_life_buys_another_lease(watch: Watch) -> None:
    decided(watch, "r-1")
    assert lost(watch, 4) == []
    watch.seen(["r-1", "unheard-of-1"])
    assert lost(watch, 4) == []
    assert lost(watch, 1) == ["r-1"]


def test_a_router_that_waits_is_remembered_and_is_no_sign_of_life(watch: Watch) -> None:
    decided(watch, "r-1")
    assert lost(watch, 4) == []
    watch.waited_for({"r-1": "_INBOX.router", "unheard-of-1": "x"})
    (one,) = watch.pass_time(1, LEASE)
    assert one.router == "_INBOX.router"


def test_an_attempt_that_was_told_twice_counts_once_and_keeps_its_age(watch: Watch) -> None:
    decided(watch, "r-1", sequence=1)
    assert lost(watch, 4) == []
    decided(watch, "r-1", sequence=2)
    assert len(watch) == 1
    (one,) = watch.pass_time(1, LEASE)
    assert one.sequence == 1


def test_the_next_attempt_ends_the_worry_about_the_one_before_it(watch: Watch) -> None:
    decided(watch, "a-b-1")
    watch.ended("a-b-1", 2)
    decided(watch, "a-b-2")
    assert lost(watch, LEASE) == ["a-b-2"]


@pytest.mark.parametrize("other", ["r-2-1", "q-1", "r-11", "plain", ""])
def test_attempts_of_other_requests_are_worried_about_on(watch: Watch, other: str) -> None:
    decided(watch, "r-1")
    decided(watch, other)
    assert lost(watch, LEASE) == ["r-1", other]


def test_an_attempt_that_ended_unanswered_is_lost_a_lease_after_its_end(watch: Watch) -> None:
    decided(watch, "r-1")
    assert lost(watch, 4) == []
    watch.ended("r-1", 8)
    assert lost(watch, 4) == []
    (one,) = watch.pass_time(1, LEASE)
    assert one.ended == 8


def test_ending_twice_buys_no_time(watch: Watch) -> None:
    decided(watch, "r-1")
    watch.ended("r-1", 8)
    assert lost(watch, 4) == []
    watch.ended("r-1", 9)
    (one,) = watch.pass_time(1, LEASE)
    assert one.ended == 8


@pytest.mark.parametrize("order", [("ended", "answered"), ("answered", "ended")])
def test_an_attempt_that_ended_and_was_answered_is_done_with(watch: Watch, order: tuple[str, str]) -> None:
    decided(watch, "r-1")
    for step in order:
        assert len(watch) == 1
        if step == "ended":
            watch.ended("r-1", 8)
        else:
            watch.answered(["r-1"])
    assert len(watch) == 0


def test_an_attempt_that_was_answered_but_not_settled_is_watched_on(watch: Watch) -> None:
    decided(watch, "r-1")
    watch.answered(["r-1", "unheard-of-1"])
    (one,) = watch.pass_time(LEASE, LEASE)
    assert one.answered


def test_an_end_that_nobody_began_is_no_worry(watch: Watch) -> None:
    watch.ended("r-1", 8)
    assert len(watch) == 0


def test_what_ended_and_is_past_its_deadline_is_forgotten_and_the_rest_is_not(watch: Watch) -> None:
    decided(watch, "late-1", deadline=10)
    decided(watch, "due-1", deadline=20)
    decided(watch, "open-1", deadline=10)
    watch.ended("late-1", 8)
    watch.ended("due-1", 9)
    watch.forget_before(20)
    assert lost(watch, LEASE) == ["due-1", "open-1"]
