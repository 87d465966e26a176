"""What we need to know of a request, read from its JSON: sizes, names and wishes. Pure.

Only what routing and money need is decoded; the body travels on as it came.
"""

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Struct
from trunkline_events.money import BadAmount, nanos_from_usd
from trunkline_events.policy import Optimize
from trunkline_events.refusal import Refused
from trunkline_events.subjects import id_problem
from trunkline_events.thread import Asked

from trunkline_actors.bounds import count_images
from trunkline_actors.shapes import mistyped

AUTO = "auto"
MAX_ATTEMPTS = 16
LONGEST_CACHED = 7 * 86_400.0
"""Seconds that an answer may be kept for, to be given again."""
MESSAGE_TOKENS = 16
"""A bound on what a chat template puts around one message. Why bytes and this are a strict bound: `bounds`."""
BYTES_A_TOKEN = 4
"""Typical of English prose: good for comparing costs, and for nothing that must be certain."""
MOST_BYTES_A_TOKEN = 24
"""More than any tokenizer gets out of a token on the whole of a text, even where JSON writes six bytes a character."""


class Route(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The extension `route` of a request: how the caller wants it routed.

    `capabilities` are names, or names with the least score; `min_match` is the least match score for them. `tags` are
    those a model must have, `data` what its provider must promise about data. `cache_s`: an answer to the very same
    request will do that is no older than so many seconds; 0: none will.
    """

    capabilities: list[str] | dict[str, float] = []
    prefer: list[str] = []
    fallbacks: list[str] = []
    avoid: list[str] = []
    optimize: Optimize | None = None
    max_cost_usd: str | None = None
    local_only: bool = False
    min_match: float | None = None
    tags: list[str] = []
    data: list[str] = []
    clamp: bool | None = None
    cache_s: float | None = None
    attempts: int = 3
    deadline_ms: int = 60_000


def models_named(model: str | None, route: Mapping[str, Any]) -> list[str]:
    """The models that a request or a thread counts on: its own, those it prefers, and those it falls back to."""
    named = [model] if model not in (None, AUTO) else []
    for name in ("prefer", "fallbacks"):
        named += [one for one in route.get(name) or () if isinstance(one, str)]
    return list(dict.fromkeys(named))


class _Message(Struct):
    role: str


class _Metadata(Struct):
    thread_id: str | None = None


class _Format(Struct):
    type: str = "text"


class _StreamOptions(Struct):
    include_usage: bool = False


class _Chat(Struct):
    model: str
    messages: list[_Message]
    stream: bool | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    n: int | None = None
    tools: list[msgspec.Raw] | None = None
    response_format: _Format | None = None
    stream_options: _StreamOptions | None = None
    metadata: _Metadata | None = None
    route: Route | None = None


class _Embeddings(Struct):
    model: str
    input: str | list[str | int | list[int]]
    metadata: _Metadata | None = None
    route: Route | None = None


_chat = msgspec.json.Decoder(_Chat)
_embeddings = msgspec.json.Decoder(_Embeddings)
NO_WISHES = Route()
"""What a request without `route` wishes."""


class Parsed(Struct, frozen=True, kw_only=True):
    """A request that makes sense. `thread` is the body's own, if it names one; `choices` is OpenAI's `n`."""

    asked: Asked
    route: Route
    max_cost_nanos: int | None = None
    thread: str | None = None
    include_usage: bool = False
    choices: int = 1


def parse_chat(body: bytes) -> Parsed | Refused:
    """Read a Chat Completions request, or say what is wrong with it and where."""
    chat = _decoded(_chat, body)
    if isinstance(chat, Refused):
        return chat
    route = chat.route or NO_WISHES
    max_tokens = chat.max_completion_tokens if chat.max_completion_tokens is not None else chat.max_tokens
    problem = _chat_problem(chat, max_tokens) or _common_problem(chat.model, route)
    if problem:
        return problem
    images = count_images(body)
    features = []
    if chat.tools:
        features.append("tools")
    if images:
        features.append("vision")
    if chat.response_format is not None and chat.response_format.type == "json_schema":
        features.append("json_schema")
    asked = Asked(
        operation="chat",
        model=chat.model,
        stream=bool(chat.stream),
        input_bound=len(body) + MESSAGE_TOKENS * len(chat.messages),
        images=images,
        max_tokens=max_tokens,
        features=features,
        route=_given(chat.route),
        choices=chat.n or 1,
    )
    return _parsed(
        asked,
        route,
        chat.metadata,
        include_usage=bool(chat.stream_options and chat.stream_options.include_usage),
        choices=chat.n or 1,
    )


def parse_embeddings(body: bytes) -> Parsed | Refused:
    """Read an embeddings request, or say what is wrong with it and where."""
    request = _decoded(_embeddings, body)
    if isinstance(request, Refused):
        return request
    route = request.route or NO_WISHES
    problem = _common_problem(request.model, route)
    if problem:
        return problem
    if not request.input:
        return _invalid("input must not be empty", "input")
    asked = Asked(
        operation="embeddings",
        model=request.model,
        stream=False,
        input_bound=len(body),
        features=["embeddings"],
        route=_given(request.route),
    )
    return _parsed(asked, route, request.metadata)


def _parsed(
    asked: Asked, route: Route, metadata: _Metadata | None, *, include_usage: bool = False, choices: int = 1
) -> Parsed | Refused:
    try:
        most = None if route.max_cost_usd is None else nanos_from_usd(route.max_cost_usd)
    except BadAmount as error:
        return _invalid(str(error), "route.max_cost_usd")
    return Parsed(
        asked=asked,
        route=route,
        max_cost_nanos=most,
        thread=metadata.thread_id if metadata else None,
        include_usage=include_usage,
        choices=choices,
    )


def _decoded(decoder: msgspec.json.Decoder[Any], body: bytes) -> Any:
    if not body:
        return _invalid("the body is empty; send an OpenAI request as JSON", None)
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        message, path = mistyped(error)
        place = path.lstrip(".")
        return _invalid(f"{message} (at {place})" if place else message, place or None)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return _invalid(f"the body is not valid JSON: {error}", None)


def _chat_problem(chat: _Chat, max_tokens: int | None) -> Refused | None:
    if not chat.messages:
        return _invalid("messages must hold at least one message", "messages")
    if max_tokens is not None and not 1 <= max_tokens <= 2**31:
        return _invalid(f"max_tokens must be from 1 to {2**31}", "max_tokens")
    if chat.n is not None and not 1 <= chat.n <= 128:
        return _invalid("n must be from 1 to 128", "n")
    return None


def _common_problem(model: str, route: Route) -> Refused | None:
    if problem := id_problem(model):
        return _invalid(f"model: {problem}", "model")
    return route_problem(route)


def route_problem(route: Route) -> Refused | None:
    """What makes no sense in the extension `route`."""
    if not 1 <= route.attempts <= MAX_ATTEMPTS:
        return _invalid(f"route.attempts must be from 1 to {MAX_ATTEMPTS}", "route.attempts")
    if not 1 <= route.deadline_ms <= 3_600_000:
        return _invalid("route.deadline_ms must be from 1 to 3,600,000", "route.deadline_ms")
    least = route.capabilities.values() if isinstance(route.capabilities, dict) else ()
    if not all(0 <= score <= 1 for score in least):
        return _invalid("the scores of route.capabilities run from 0 to 1", "route.capabilities")
    if route.min_match is not None and not 0 <= route.min_match <= 1:
        return _invalid("route.min_match must be from 0 to 1", "route.min_match")
    if route.cache_s is not None and (told := cache_problem(route.cache_s)):
        return _invalid(f"route.cache_s {told}", "route.cache_s")
    return None


def cache_problem(seconds: float) -> str | None:
    """What makes no sense about keeping answers for so many seconds."""
    return None if 0 <= seconds <= LONGEST_CACHED else f"must be from 0 to {LONGEST_CACHED:,.0f} seconds (a week)"


def _given(route: Route | None) -> dict[str, Any]:
    """The wishes that differ from the defaults, for the record."""
    if route is None:
        return {}
    return {
        name: value for name in route.__struct_fields__ if (value := getattr(route, name)) != getattr(NO_WISHES, name)
    }


def _invalid(message: str, param: str | None) -> Refused:
    return Refused(code="invalid_request", message=message, param=param)
