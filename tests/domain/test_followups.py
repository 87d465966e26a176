"""What follows a failed attempt: another candidate, the same again after a wait, or the end. Tables, then at random."""

from collections.abc import Iterable

import pytest
from given import NOON, a_decision, a_request, chat
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Struct, structs
from trunkline_actors.dispatch import Outcome
from trunkline_actors.followups import (
    FIRST_WAIT,
    LONGEST_WAIT,
    MOST_SPARED,
    Again,
    Another,
    Course,
    Tell,
    after,
    after_no_route,
    content_filter_goes_on,
    failed,
)
from trunkline_actors.moment import Request, with_attempt
from trunkline_events.failure import FailureClass, retries_here, tries_another
from trunkline_events.policy import Defaults, Policy, Rule

F = FailureClass


def a_failure(kind: F = F.UNAVAILABLE, retry_after: float | None = None, *, called: bool = True) -> Outcome:
    return Outcome(status="failed", failure=kind, message="no", retry_after=retry_after, called=called)


def begun(attempts: int = 3, seconds: float = 60.0) -> Request:
    return structs.replace(a_request(chat("a", route={"attempts": attempts})), deadline=NOON + seconds)


def one_on(request: Request, model: str, kind: F) -> Request:
    return with_attempt(request, f"r-{request.attempt + 1}", model, kind, "1")


def after_failures(
    *failures: tuple[str, Outcome], attempts: int = 3, seconds: float = 60.0, now: float = NOON
) -> tuple[Request, Course]:
    """A request whose attempts failed so, and whose next one is to be decided."""
    request, course = begun(attempts, seconds), Course()
    for model, outcome in failures:
        course = failed(course, request, model, outcome, now)
        request = one_on(request, model, outcome.failure or F.INTERNAL)
    return request, course


def waits(request: Request, course: Course, now: float = NOON, draw: float = 0.0) -> Again:
    found = after_no_route(request, course, now, draw)
    assert isinstance(found, Again), found
    return found


def tells(request: Request, course: Course, now: float = NOON) -> Tell:
    found = after_no_route(request, course, now, 0.0)
    assert isinstance(found, Tell), found
    return found


# -- at once


@pytest.mark.parametrize("kind", list(F))
@pytest.mark.parametrize("goes_on", [False, True])
def test_the_class_decides_whether_another_candidate_is_tried_at_once(kind: F, goes_on: bool) -> None:
    request = begun()
    course = failed(Course(), request, "a", a_failure(kind), NOON)
    found = after(kind, request, course, NOON, content_filter_goes_on=goes_on)
    another = tries_another(kind) or (goes_on and kind is F.CONTENT_FILTER)
    assert isinstance(found, Another if another else Tell)


def test_upstream_calls_are_bounded_by_the_attempts() -> None:
    request, course = after_failures(("a", a_failure()), attempts=2)
    course = failed(course, request, "b", a_failure(), NOON)
    assert isinstance(after(F.UNAVAILABLE, request, course, NOON), Tell)


def test_an_attempt_that_never_called_upstream_leaves_the_next_candidate_its_call() -> None:
    request = begun(attempts=1)
    course = failed(Course(), request, "a", a_failure(called=False), NOON)
    assert course.calls == 0
    assert isinstance(after(F.UNAVAILABLE, request, course, NOON), Another)


def test_attempts_that_never_called_upstream_are_bounded_too() -> None:
    spared = [(f"m{number}", a_failure(called=False)) for number in range(MOST_SPARED)]
    request, course = after_failures(*spared, attempts=1)
    assert isinstance(after(F.UNAVAILABLE, request, course, NOON), Tell)


def test_nothing_is_tried_after_the_deadline() -> None:
    request = begun(seconds=1)
    course = failed(Course(), request, "a", a_failure(), NOON)
    assert isinstance(after(F.UNAVAILABLE, request, course, NOON + 1), Tell)


def test_what_is_told_is_the_last_failure_and_all_that_was_tried() -> None:
    _, course = after_failures(("a", a_failure(F.AUTH)), ("b", a_failure(F.RATE_LIMITED, 7.0)))
    assert course.told is not None
    assert (course.told.code, course.told.message, course.told.retryable) == ("rate_limited", "b: no", True)
    assert course.told.metadata == {"failure": "rate_limited", "tried": ["a", "b"], "retry_after": 7.0}


@pytest.mark.parametrize(
    ("rule", "goes_on"), [(None, False), ("says nothing", False), ("falls back", True), ("is gone", False)]
)
def test_what_becomes_of_a_filtered_request_is_up_to_the_rule_that_counted(rule: str | None, goes_on: bool) -> None:
    policy = Policy(rules=[Rule(name="says nothing"), Rule(name="falls back", on_content_filter="fallback")])
    assert content_filter_goes_on(structs.replace(a_decision(), rule=rule), policy) is goes_on


def test_a_rule_may_stop_what_the_policy_sends_on() -> None:
    defaults = Defaults(on_content_filter="fallback")
    policy = Policy(rules=[Rule(name="stops", on_content_filter="stop"), Rule(name="other")], defaults=defaults)
    found = [content_filter_goes_on(structs.replace(a_decision(), rule=name), policy) for name in ("stops", "other")]
    assert found == [False, True]
    assert content_filter_goes_on(a_decision(), policy)


# -- after a wait


@pytest.mark.parametrize("kind", list(F))
def test_only_what_may_pass_is_waited_for(kind: F) -> None:
    request, course = after_failures(("a", a_failure(kind)))
    found = after_no_route(request, course, NOON, 0.5)
    assert isinstance(found, Again if retries_here(kind) else Tell)


def test_each_wait_takes_up_to_twice_as_long_as_the_one_before() -> None:
    request, course = after_failures(("a", a_failure()))
    longest = [waits(request, Course(waits=n, told=course.told), draw=1.0).wait_s for n in range(8)]
    assert longest == [0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 8.0, 8.0]
    shortest = [waits(request, Course(waits=n, told=course.told), draw=0.0).wait_s for n in range(8)]
    assert shortest == [seconds / 2 for seconds in longest]
    assert (longest[0], longest[-1]) == (FIRST_WAIT, LONGEST_WAIT)


def test_after_a_wait_what_failed_may_be_tried_again() -> None:
    request, course = after_failures(("a", a_failure()), ("b", a_failure(F.TIMEOUT)), attempts=4)
    again = waits(request, course)
    assert (again.request.rested, again.request.tried, again.course.waits) == (2, ("a", "b"), 1)


def test_an_upstream_that_says_when_is_not_asked_earlier() -> None:
    request, course = after_failures(("a", a_failure(F.RATE_LIMITED, 3.0)))
    assert waits(request, course, draw=0.0).wait_s == 3.0
    assert 3.0 < waits(request, course, draw=1.0).wait_s <= 3.0 + FIRST_WAIT, "spread, for all were told the same"


def test_who_is_ready_sooner_is_not_kept_waiting_for_the_others() -> None:
    request, course = after_failures(("a", a_failure(F.RATE_LIMITED, 30.0)), ("b", a_failure()))
    again = waits(request, course)
    assert again.wait_s < FIRST_WAIT
    assert (again.request.tried, again.request.rested) == (("b", "a"), 1), "only b may be tried again"
    assert again.request.failures == (F.UNAVAILABLE, F.RATE_LIMITED)


def test_what_never_passes_is_not_tried_again_beside_what_does() -> None:
    request, course = after_failures(("a", a_failure(F.AUTH)), ("b", a_failure()))
    again = waits(request, course)
    assert (again.request.tried, again.request.rested) == (("b", "a"), 1)


def test_a_retry_after_beyond_the_deadline_is_told_at_once() -> None:
    request, course = after_failures(("a", a_failure(F.RATE_LIMITED, 90.0)), ("b", a_failure(F.INTERNAL)))
    told = tells(request, course, NOON + 1)
    assert told.refused.metadata["retry_after"] == 89.0


def test_no_wait_is_begun_that_would_outlast_the_deadline() -> None:
    request, course = after_failures(("a", a_failure()), seconds=0.1)
    assert "retry_after" not in tells(request, course).refused.metadata


def test_a_failure_is_waited_for_once() -> None:
    """Where there is still no route after the wait (its circuit has opened, say), more waiting is no use."""
    request, course = after_failures(("a", a_failure()))
    again = waits(request, course)
    tells(again.request, again.course)


def test_who_waits_for_a_provider_that_is_not_there_gives_up_after_as_many_attempts() -> None:
    request, course = after_failures(("a", a_failure(called=False)), attempts=1)
    tells(request, course)
    request, course = after_failures(("a", a_failure(called=False)), attempts=2)
    waits(request, course)


# -- everything together, at random


class Step(Struct, frozen=True):
    """How the next attempt fails."""

    kind: F
    retry_after: float | None
    called: bool
    seconds: float


STEPS = st.builds(
    Step,
    st.sampled_from(F),
    st.none() | st.floats(0, 20),
    st.booleans(),
    st.floats(0, 3),
)


def unused(request: Request, models: Iterable[str]) -> str | None:
    """As routing does: a model that has not failed, but for failures that were waited out."""
    barred = set(request.tried[request.rested :])
    return next((model for model in models if model not in barred), None)


@given(
    st.integers(1, 6),
    st.floats(0.001, 60),
    st.integers(1, 4),
    st.lists(STEPS, min_size=60, max_size=60),
    st.lists(st.floats(0, 1), min_size=60, max_size=60),
)
def test_whatever_fails_calls_are_bounded_waits_end_before_the_deadline_and_nobody_is_asked_too_early(
    attempts: int, seconds: float, models: int, steps: list[Step], draws: list[float]
) -> None:
    names, request, course = "abcd"[:models], begun(attempts, seconds), Course()
    now, calls, ready, permanent = NOON, 0, dict[str, float](), set[str]()
    for step, draw in zip(steps, draws, strict=True):
        model = unused(request, names)
        if model is None:
            found = after_no_route(request, course, now, draw)
            if isinstance(found, Tell):
                return
            assert 0 < found.wait_s <= max(LONGEST_WAIT, 20 + LONGEST_WAIT / 4)
            now += found.wait_s
            assert now < request.deadline
            assert sorted(found.request.tried) == sorted(request.tried)
            request, course = found.request, found.course
            continue
        assert model not in permanent
        assert now >= ready.get(model, 0.0)
        calls += step.called
        now += step.seconds
        if step.retry_after is not None:
            ready[model] = now + step.retry_after
        if not retries_here(step.kind):
            permanent.add(model)
        outcome = a_failure(step.kind, step.retry_after, called=step.called)
        course = failed(course, request, model, outcome, now)
        assert course.calls == calls <= attempts
        if isinstance(after(step.kind, request, course, now), Tell):
            return
        request = one_on(request, model, step.kind)
    raise AssertionError("it has gone on for ever")
