"""A thread's configuration: its budget, what its requests say by default, and how they like to be routed. Pure."""

from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType, structs
from trunkline_events.money import BadAmount, nanos_from_usd
from trunkline_events.refusal import Refused
from trunkline_events.thread import Books, ThreadConfigured
from trunkline_projections.models import Registry

from trunkline_actors.money import Budget, fields, limit_of, turn
from trunkline_actors.requests import AUTO, Route
from trunkline_actors.shapes import mistyped
from trunkline_actors.windows import period_of, zone_problem

MOST_BYTES = 16_384
"""Parameters and preferences of a thread, as JSON: every process remembers those of thousands of threads."""

NOT_PARAMETERS = frozenset(
    {
        *("model", "messages", "stream", "stream_options", "route", "metadata", "n"),
        *("input", "prompt", "instructions", "system", "prediction", "tools", "functions", "user", "store"),
    }
)
"""What a request says itself: what it asks and of whom, how it is answered, how often; and what may quote a prompt."""

NOT_PREFERENCES = frozenset({"attempts", "deadline_ms"})
"""How long and how often to try is for each request to say."""

_SAME = ({"max_tokens", "max_completion_tokens"},)
"""Names for the same thing: a request that sets one of them has set both."""

_Penalty = Annotated[float, Meta(ge=-2, le=2)]
_Tokens = Annotated[int, Meta(ge=1, le=2**31)]


class _Known(Struct, frozen=True, kw_only=True):
    """Parameters whose meaning every provider shares; any other goes upstream as it is."""

    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    max_tokens: _Tokens | None = None
    max_completion_tokens: _Tokens | None = None
    stop: str | Annotated[list[str], Meta(max_length=4)] | None = None
    seed: int | None = None
    frequency_penalty: _Penalty | None = None
    presence_penalty: _Penalty | None = None


class Settings(Struct, frozen=True, kw_only=True):
    """What a thread's configuration says beside its budget."""

    model: str | None = None
    parameters: dict[str, Any] = {}
    preferences: dict[str, Any] = {}


class Change(Struct, frozen=True, kw_only=True):
    """What is to be changed: what isn't set stays as it is, null takes it away."""

    budget: Budget | UnsetType | None = UNSET
    model: str | UnsetType | None = UNSET
    parameters: dict[str, Any] | UnsetType | None = UNSET
    preferences: dict[str, Any] | UnsetType | None = UNSET


def configure(
    books: Books, settings: Settings, change: Change, request_id: str, reason: str | None, now: float
) -> ThreadConfigured | Refused:
    """The whole configuration after a change. The budget, the parameters and the preferences are each set as a whole.

    Another window or zone begins a new period; what is reserved stays reserved.
    """
    after = _with_budget(books, change.budget, now)
    if isinstance(after, Refused):
        return after
    settings = changed(settings, change)
    if len(msgspec.json.encode(settings)) > MOST_BYTES:
        text = f"parameters and preferences are more than {MOST_BYTES:,} bytes of JSON; keep less in them"
        return _invalid(text, "parameters")
    return ThreadConfigured(
        request_id=request_id,
        reason=reason,
        model=settings.model,
        parameters=settings.parameters,
        preferences=settings.preferences,
        **fields(after),
    )


def changed(settings: Settings, change: Change) -> Settings:
    """The settings after a change."""
    return Settings(
        model=settings.model if change.model is UNSET else change.model,
        parameters=settings.parameters if change.parameters is UNSET else change.parameters or {},
        preferences=settings.preferences if change.preferences is UNSET else change.preferences or {},
    )


def problem_of(change: Change, registry: Registry) -> Refused | None:
    """What makes no sense in a change. Models that it names must be registered; what it leaves as it is may be old."""
    if change.model is not UNSET and change.model is not None and (problem := _model_problem(change.model, registry)):
        return structs.replace(problem, param="model")
    if change.parameters is not UNSET and (problem := _parameters_problem(change.parameters or {})):
        return problem
    if change.preferences is UNSET or not change.preferences:
        return None
    preferences = change.preferences
    if problem := _preferences_problem(preferences):
        return problem
    for name in ("prefer", "fallbacks"):
        for model in preferences.get(name, ()):
            if problem := _model_problem(model, registry):
                return structs.replace(problem, param=f"preferences.{name}")
    return None


def apply(body: bytes, parameters: dict[str, Any]) -> bytes:
    """A chat request with these parameters where it doesn't set them, `null` included; every other byte is as it was.

    What is no JSON object comes back as it is: whoever reads it next says what is wrong with it.
    """
    if not parameters:
        return body
    try:
        given = set(msgspec.json.decode(body, type=dict[str, msgspec.Raw]))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return body
    for names in _SAME:
        if given & names:
            given |= names
    missing = {name: value for name, value in parameters.items() if name not in given}
    if not missing or not given:
        return body
    start = body.index(b"{") + 1
    return body[:start] + msgspec.json.encode(missing)[1:-1] + b"," + body[start:]


def _with_budget(books: Books, budget: Budget | UnsetType | None, now: float) -> Books | Refused:
    if budget is UNSET:
        return turn(books, now)
    budget = budget or Budget()
    if zone_problem(budget.time_zone) is None:
        books = turn(books, now)
        if (budget.window, budget.time_zone) != (books.window, books.zone):
            period = period_of(budget.window, now, budget.time_zone)
            books = structs.replace(books, window=budget.window, zone=budget.time_zone, period=period, settled_nanos=0)
    limit = limit_of(budget, books.settled_nanos + books.reserved_nanos)
    if isinstance(limit, Refused):
        return limit
    return structs.replace(books, limit_nanos=limit, warn_at=budget.warn_at, warned=False)


def _parameters_problem(parameters: dict[str, Any]) -> Refused | None:
    for name in parameters:
        if name in NOT_PARAMETERS:
            return _invalid(f"{name!r} is for each request to say and can't be a thread's parameter", "parameters")
    if _SAME[0] <= set(parameters):
        return _invalid("max_tokens and max_completion_tokens are the same; give one", "parameters")
    return _mistyped(parameters, _Known, "parameters")


def _preferences_problem(preferences: dict[str, Any]) -> Refused | None:
    for name in sorted(NOT_PREFERENCES & set(preferences)):
        return _invalid(f"{name!r} is for each request to say and can't be a thread's preference", "preferences")
    if problem := _mistyped(preferences, Route, "preferences"):
        return problem
    route = msgspec.convert(preferences, Route)
    least = route.capabilities.values() if isinstance(route.capabilities, dict) else ()
    if not all(0 <= score <= 1 for score in least):
        return _invalid("the scores of preferences.capabilities run from 0 to 1", "preferences.capabilities")
    if route.min_match is not None and not 0 <= route.min_match <= 1:
        return _invalid("preferences.min_match must be from 0 to 1", "preferences.min_match")
    if AUTO in (*route.prefer, *route.fallbacks):
        return _invalid(f"{AUTO!r} is no model; leave it out, and the gateway chooses", "preferences")
    try:
        _ = route.max_cost_usd is None or nanos_from_usd(route.max_cost_usd)
    except BadAmount as error:
        return _invalid(str(error), "preferences.max_cost_usd")
    return None


def _mistyped(given: dict[str, Any], kind: type[Struct], param: str) -> Refused | None:
    try:
        msgspec.convert(given, kind)
    except msgspec.ValidationError as error:
        message, path = mistyped(error)
        return _invalid(message, param + path)
    return None


def _model_problem(name: str, registry: Registry) -> Refused | None:
    model = registry.models.get(name)
    if model is not None and model.status != "retired":
        return None
    found = "no model is registered as" if model is None else "retired for good is the model"
    text = f"{found} {name!r}; name one that `trunkline models list` shows"
    return Refused(code="model_not_found", message=text)


def _invalid(message: str, param: str | None) -> Refused:
    return Refused(code="invalid_request", message=message, param=param)
