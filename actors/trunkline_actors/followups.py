"""What follows a failed attempt: another candidate, the same ones again after a wait, or the end of it. Pure.

First every candidate that is left is tried, at once. Where none is left, and some failed in a way that may pass, they
are waited for: a little longer each time, and never less than an upstream told us to. What bounds all of it, retries
and fallbacks together, is the request's number of upstream calls and its deadline.

An attempt that never called upstream (its circuit was open, its provider at its limit or without a process) is in the
log like any other, but is no upstream call: the next candidate is still tried. It does count where the same candidates
would be waited for, so that nobody waits longer for a provider that isn't there than for one that fails.
"""

from msgspec import Struct, structs
from trunkline_events.failure import FailureClass, answer_for, retries_here, tries_another
from trunkline_events.policy import Policy
from trunkline_events.refusal import Refused
from trunkline_events.thread import RouteDecided

from trunkline_actors.dispatch import Outcome
from trunkline_actors.moment import Request

FIRST_WAIT = 0.25
"""Seconds of the first wait at most; each further one may take twice as long."""
LONGEST_WAIT = 8.0
MOST_SPARED = 16
"""Attempts without an upstream call that a request may have beside its calls: each is two events in the log."""


class Course(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How a request has fared so far, beside what its next decision is made from.

    `calls` are its upstream calls, `waits` how often it waited. `ready` says when (Unix time) an upstream wants to be
    asked again for a model. `told` is what the caller hears if nothing else can be done.
    """

    calls: int = 0
    waits: int = 0
    ready: dict[str, float] = {}
    told: Refused | None = None


class Another(Struct, frozen=True):
    """Decide again at once: a candidate that has not been tried may be left."""


class Again(Struct, frozen=True):
    """Wait so many seconds, then go on with this request, for which some that failed may be tried again."""

    wait_s: float
    request: Request
    course: Course


class Tell(Struct, frozen=True):
    """It ends here: what the caller is told."""

    refused: Refused


def failed(course: Course, request: Request, model: str, outcome: Outcome, now: float) -> Course:
    """The course of this request after its attempt with this model failed."""
    ready = {name: when for name, when in course.ready.items() if name != model}
    if outcome.retry_after is not None:
        ready[model] = now + outcome.retry_after
    return structs.replace(
        course, calls=course.calls + outcome.called, ready=ready, told=_told(outcome, request, model)
    )


def after(
    failure: FailureClass, request: Request, course: Course, now: float, *, content_filter_goes_on: bool = False
) -> Another | Tell:
    """What follows this failure of the request's attempt, which its `course` has already."""
    assert course.told is not None, "something failed"
    attempts = request.parsed.route.attempts
    spent = course.calls >= attempts or request.attempt >= attempts + MOST_SPARED
    if spent or now >= request.deadline or not tries_another(failure, content_filter_goes_on):
        return Tell(course.told)
    return Another()


def content_filter_goes_on(decided: RouteDecided, policy: Policy) -> bool:
    """Whether a filtered attempt may go to another provider: as its rule says, where it still is one, or the policy."""
    rule = next((one for one in policy.rules if one.name == decided.rule), None)
    return ((rule and rule.on_content_filter) or policy.defaults.on_content_filter) == "fallback"


def after_no_route(request: Request, course: Course, now: float, draw: float) -> Again | Tell:
    """What follows where no candidate is left for this request, whose next attempt was to be decided.

    Those that failed in a way that may pass are waited for, each failure once. `draw`, 0 to 1, spreads what failed
    together. Where the first of them is not to be asked before the deadline, the caller is told when instead.
    """
    assert course.told is not None, "something was tried, and failed"
    fresh = list(zip(request.tried, request.failures, strict=True))[request.rested :]
    waited_for = [model for model, failure in fresh if retries_here(failure)]
    if not waited_for or request.attempt > request.parsed.route.attempts:
        return Tell(course.told)
    soonest = min(course.ready.get(model, now) for model in waited_for)
    step = min(LONGEST_WAIT, FIRST_WAIT * 2.0 ** min(course.waits, 16))
    # Those who were told the same time must not all come at that very moment.
    until = max(now + step * (1 + draw) / 2, soonest + step * draw / 4 if soonest > now else now)
    if until >= request.deadline:
        return Tell(_retry_after(course.told, soonest - now) if soonest > now else course.told)
    rested = {model for model in waited_for if course.ready.get(model, now) <= until}
    return Again(until - now, _rested(request, rested), structs.replace(course, waits=course.waits + 1))


def _rested(request: Request, models: set[str]) -> Request:
    """The request with these failures waited out: they come first in what was tried, the rest follows as it was."""
    places = range(len(request.tried))
    out = [
        place
        for place in places
        if place < request.rested or (request.tried[place] in models and retries_here(request.failures[place]))
    ]
    order = [*out, *(place for place in places if place not in out)]
    return structs.replace(
        request,
        tried=tuple(request.tried[place] for place in order),
        versions=tuple(request.versions[place] for place in order) if request.versions else (),
        failures=tuple(request.failures[place] for place in order),
        rested=len(out),
    )


def _told(outcome: Outcome, request: Request, model: str) -> Refused:
    """What the caller hears if nothing else can be done."""
    failure = outcome.failure or FailureClass.INTERNAL
    answer = answer_for(failure)
    refused = Refused(
        code=answer.code,
        message=f"{model}: {outcome.message}",
        retryable=answer.retryable,
        metadata={"failure": failure.value, "tried": [*request.tried, model]},
    )
    return refused if outcome.retry_after is None else _retry_after(refused, outcome.retry_after)


def _retry_after(refused: Refused, seconds: float) -> Refused:
    return structs.replace(refused, metadata={**refused.metadata, "retry_after": round(seconds, 3)})
