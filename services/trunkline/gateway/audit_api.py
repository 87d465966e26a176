"""The audit over HTTP: why a request was served as it was, and what was so at any time. From the log alone."""

from typing import TYPE_CHECKING, Annotated, Any

from msgspec import Meta, Struct
from trunkline_events.log import LogError
from trunkline_events.times import format_time, parse_time
from trunkline_projections.as_of import shown

from trunkline import errors
from trunkline.explain import explain
from trunkline.gateway import answers_log
from trunkline.gateway.commands import composed, invalid
from trunkline.gateway.http import HttpRequest
from trunkline.gateway.routes import Route

if TYPE_CHECKING:
    from trunkline.gateway.edge import Edge

LARGEST = 2**63
"""Sequences and times are below it."""


class ExplainAsked(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where to look for a request."""

    thread: Annotated[str | None, Meta(description="in this thread only: quicker")] = None
    since: Annotated[str | None, Meta(description="not before this time, RFC 3339 or Unix time: quicker")] = None


class StateAsked(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The state when, and which threads."""

    at: Annotated[str | None, Meta(description="a sequence or a time, RFC 3339; by default now")] = None
    thread: Annotated[list[str], Meta(description="the books of these threads only")] = []
    limit: Annotated[int, Meta(description="how many threads at most", ge=0, le=1000)] = 100
    after: Annotated[str, Meta(description="the id before the first thread: `after` of the page before")] = ""


async def explained(edge: "Edge", request: HttpRequest, asked: ExplainAsked) -> Any:
    """Why a request was served as it was."""
    try:
        return await explain(
            await edge.gateway.log(),
            request.params["request"],
            thread=asked.thread,
            since=None if asked.since is None else time_of(asked.since, "since"),
        )
    except LogError as error:
        raise errors.unavailable(f"the log can't be read: {error}") from error


async def state(edge: "Edge", _request: HttpRequest, asked: StateAsked) -> Any:
    """The gateway as it was."""
    at = None if asked.at is None else position_of(asked.at)
    threads = asked.thread or None
    found = await edge.gateway.state_at(at, threads=threads, limit=asked.limit, after=asked.after)
    return {"seq": found.sequence, "time": format_time(found.time), **shown(found)}


def position_of(text: str) -> int | float:
    """A sequence, or a Unix time as a float. Raises InvalidRequest."""
    if text.isascii() and text.isdecimal():
        if len(text) > 18:
            raise invalid(f"{text} is no sequence: no log gets as far", "at")
        return int(text)
    return time_of(text, "at")


def time_of(text: str, param: str) -> float:
    """Unix time of RFC 3339 or of a number. Raises InvalidRequest."""
    try:
        moment = float(text) if text.replace(".", "", 1).isdecimal() else parse_time(text)
    except (ValueError, OverflowError):
        raise invalid(f"{text!r} is no time; write 2026-11-20T12:00:00Z, or a Unix time", param) from None
    if not 0 <= moment < LARGEST:
        raise invalid(f"{text!r} is a time before 1970, or after all others", param)
    return moment


TAG = "Audit"

ROUTES: list[Route] = [
    composed("GET", "/api/audit/explain/{request}", explained, summary="Why a request was served so", tag=TAG,
             asks=ExplainAsked, access="read", gives=answers_log.Explanation),
    composed("GET", "/api/audit/state", state, summary="The state at a sequence or a time", tag=TAG,
             asks=StateAsked, access="read", gives=answers_log.StateThen),
]  # fmt: skip
