"""Who is short of a budget asks all who hold slices of it to give back what they don't need.

Heard by every router, on a subject of ours; each that holds some gives back first, and then says who has the rest.
"""

import asyncio

import msgspec
import nats.errors
import structlog
from msgspec import Struct
from nats.aio.client import Msg
from trunkline_events.subjects import RECALL

from trunkline_actors.bus import Bus
from trunkline_actors.scopes import Scopes

log = structlog.get_logger()

RECALL_WAIT = 0.3
"""Seconds for the holders to answer."""
MOST_TOLD = 50
"""Requests named in an answer."""


class Recall(Struct, frozen=True):
    """Who is short of which budget."""

    scope: str
    process: str


class Returned(Struct, frozen=True):
    """Who gave back what was free, and which requests hold the rest."""

    process: str
    requests: list[str]


_recall = msgspec.json.Decoder(Recall)
_returned = msgspec.json.Decoder(Returned)


def read_recall(data: bytes) -> Recall | None:
    """Who is short of which budget; None where it is unreadable."""
    try:
        return _recall.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


async def recall(bus: Bus, scopes: Scopes, scope: str, process: str) -> list[str]:
    """Have everyone but this process give back what is free of a budget; the requests that hold the rest.

    Returns when all have answered that hold some, or after a moment: who does not answer is dead or cut off, and its
    slice is the keeper's business.
    """
    known = scopes.known(scope)
    others = {one.holder for one in known.books.slices.values() if not one.frozen} if known else set()
    others.discard(process)
    if not others:
        return []
    requests: list[str] = []
    everyone = asyncio.Event()

    async def hear(message: Msg) -> None:
        try:
            answer = _returned.decode(message.data)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return
        requests.extend(answer.requests)
        others.discard(answer.process)
        if not others:
            everyone.set()

    inbox = bus.nats.new_inbox()
    try:
        subscription = await bus.nats.subscribe(inbox, cb=hear)
        await bus.publish(RECALL, msgspec.json.encode(Recall(scope, process)), reply=inbox)
        try:
            async with asyncio.timeout(RECALL_WAIT):
                await everyone.wait()
        except TimeoutError:
            log.info("budget.recall_unanswered", budget=scope, holder=" ".join(sorted(others)))
        await subscription.unsubscribe()
    except nats.errors.Error as error:
        log.warning("budget.recall_failed", budget=scope, error=type(error).__name__)
    return requests


async def returned(bus: Bus, reply: str, process: str, requests: list[str]) -> None:
    """Answer a recall."""
    await bus.publish(reply, msgspec.json.encode(Returned(process, requests[:MOST_TOLD])))
