"""What actors that answer commands have in common: arguments as JSON in, `{"ok": true, …}` or a refusal out."""

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import msgspec
from trunkline_events.budget import ScopeBooks
from trunkline_events.money import usd_from_nanos
from trunkline_events.refusal import Refused
from trunkline_events.thread import Books
from trunkline_events.times import format_time

from trunkline_actors import staleness
from trunkline_actors.bus import Bus, Delivery
from trunkline_actors.keys import needed
from trunkline_actors.micro import Endpoint, Handler
from trunkline_actors.shapes import mistyped
from trunkline_actors.windows import resets_at

A = TypeVar("A")

Reply = dict[str, Any] | Refused


def arguments(delivery: Delivery, kind: type[A]) -> A | Refused:
    """The arguments of a command, or what is wrong with them. No body means no arguments."""
    try:
        return msgspec.json.decode(delivery.data or b"{}", type=kind)
    except msgspec.ValidationError as error:
        message, path = mistyped(error)
        return Refused(code="invalid_request", message=message, param=path.lstrip(".") or None)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return Refused(code="invalid_request", message=f"the body is not valid JSON: {error}")


def endpoint(
    bus: Bus, name: str, subject: str, kind: type[A], run: Callable[[A, Delivery], Awaitable[Reply]]
) -> Endpoint:
    """An endpoint that reads its arguments, runs, and answers; `"stale": true` where the log was away meanwhile."""

    async def handle(delivery: Delivery) -> Refused | None:
        given = arguments(delivery, kind)
        if isinstance(given, Refused):
            return given
        stale = staleness.begin()
        reply = await run(given, delivery)
        if isinstance(reply, Refused):
            return reply
        told = {"ok": True, **reply}
        if stale:
            told = {"seq": stale[0], **told, "stale": True}
        await bus.publish(delivery.reply, msgspec.json.encode(told))
        return None

    handler: Handler = handle
    return Endpoint(name=name, subject=subject, handler=handler, need=needed(subject))


class ById(msgspec.Struct, frozen=True, kw_only=True):
    """The arguments of what concerns one model or provider."""

    id: str
    reason: str | None = None


class Page(msgspec.Struct, frozen=True, kw_only=True):
    """The arguments of a list: at most `limit` entries (1 to 1,000) with ids after `after`, and filters."""

    limit: int = 100
    after: str = ""
    provider: str | None = None
    status: str | None = None
    capability: str | None = None
    tag: str | None = None

    def problem(self) -> Refused | None:
        """Why this page can't be given."""
        if 1 <= self.limit <= 1000:
            return None
        return Refused(code="invalid_request", message="limit must be from 1 to 1,000", param="limit")


def shown_budget(books: Books | ScopeBooks, now: float) -> dict[str, Any]:
    """What commands show of any budget, its window turned to now already."""
    reset = resets_at(books.window, now, books.zone)
    return {
        "limit_usd": None if books.limit_nanos is None else usd_from_nanos(books.limit_nanos),
        "window": books.window,
        "time_zone": books.zone,
        "warn_at": books.warn_at,
        "settled_usd": usd_from_nanos(books.settled_nanos),
        "reserved_usd": usd_from_nanos(books.reserved_nanos),
        "resets_at": None if reset is None else format_time(reset),
    }
