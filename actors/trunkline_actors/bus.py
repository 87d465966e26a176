"""What actors say to the bus: answers, errors, and the promise never to write where a caller must not make us write."""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

import nats.errors
import structlog
from msgspec import Struct
from trunkline_events import headers
from trunkline_events.connection import Connection, Replies
from trunkline_events.quick import Message, Reply
from trunkline_events.refusal import Refused
from trunkline_events.subjects import INBOX, is_inbox

from trunkline_actors.totals import Totals

if TYPE_CHECKING:
    from trunkline_actors.keys_door import Door

log = structlog.get_logger()


class Delivery(Struct, frozen=True):
    """A message as an endpoint got it. `headers` is never None."""

    subject: str
    reply: str
    headers: Mapping[str, str]
    data: bytes

    def header(self, name: str) -> str | None:
        """A header's text, percent-decoded; None where it is absent or empty."""
        value = self.headers.get(name)
        return headers.decode_value(value) if value else None

    @property
    def traceparent(self) -> str | None:
        """The caller's W3C trace context, where it has that shape: it is kept with every event."""
        value = self.headers.get(headers.TRACEPARENT, "")
        return value if _TRACEPARENT.fullmatch(value) else None


_TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")


class Bus:
    """Publishing, for the actors of one process. `dropped` counts replies that were asked for outside the inboxes."""

    def __init__(self, connection: Connection, inbox_prefixes: tuple[str, ...] = (INBOX,)) -> None:
        self.connection = connection
        self.nats = connection.nats
        self.replies = Replies(connection)
        self.dropped = 0
        self.totals = Totals()
        """What this process has counted."""
        self.local: dict[str, tuple[object, Callable[[Delivery], None]]] = {}
        """Endpoints of this process by their subject, each with the actor whose it is."""
        self.door: Door | None = None
        """Who may ask for what here; without one, everybody."""
        self._prefixes = inbox_prefixes

    def may_reply(self, reply: str) -> bool:
        """Whether this is an inbox; if not, it is counted, and whatever asked for it is to be dropped."""
        if is_inbox(reply, self._prefixes):
            return True
        self.dropped += 1
        log.warning("bus.reply_dropped", dropped=self.dropped)
        return False

    async def publish(
        self, subject: str, data: bytes = b"", fields: dict[str, str] | None = None, reply: str = ""
    ) -> None:
        """Send a message; while the connection is down it waits in nats-py's buffer. Never raises.

        What is for an inbox of this very process goes there at once.
        """
        if self.replies.owns(subject):
            self.replies.hand_over(subject, Reply(data, fields))
            return
        try:
            await self.nats.publish(subject, data, reply=reply, headers=fields)
        except nats.errors.MaxPayloadError:
            log.error("bus.message_too_large", subject=subject, size=len(data))  # noqa: TRY400 - no trace is needed
        except (nats.errors.Error, ValueError) as error:
            log.warning("bus.not_published", subject=subject, error=type(error).__name__)

    async def send(self, subject: str, data: bytes, fields: dict[str, str], reply: str) -> None:
        """Send a message to an endpoint: to that of this process, where it has one, before those of others."""
        local = self.local.get(subject)
        if local is not None:
            local[1](Delivery(subject, reply, fields, data))
            return
        await self.publish(subject, data, fields, reply)

    def publish_together(self, messages: Iterable[Message]) -> None:
        """Send messages at once, without waiting. Raises ConnectionClosedError, OutboundBufferLimitError."""
        others = []
        for subject, reply, fields, data in messages:
            if self.replies.owns(subject):
                self.replies.hand_over(subject, Reply(data, fields))
            else:
                others.append((subject, reply, fields, data))
        if others:
            self.nats.publish_together(others)

    async def refuse(
        self, reply: str, refused: Refused, op: str, request_id: str | None, extra: dict[str, str] | None = None
    ) -> None:
        """Answer with an error, as ADR-32 has it and in our own JSON."""
        fields = {
            headers.ERROR: _one_line(refused.message),
            headers.ERROR_CODE: str(refused.status),
            **(extra or {}),
        }
        if request_id:
            fields[headers.REQUEST] = headers.encode_value(request_id)
        await self.publish(reply, refused.body(op, request_id), fields)


def _one_line(text: str) -> str:
    return " ".join(text.encode("ascii", "replace").decode().split())[:500]


def trace_id(traceparent: str | None) -> str | None:
    """The trace a `traceparent` belongs to (W3C Trace Context: version-trace-parent-flags)."""
    parts = (traceparent or "").split("-")
    return parts[1] if len(parts) == 4 else None
