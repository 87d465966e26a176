"""NATS micro services (ADR-32) around an actor's mailbox: discovery, statistics, queue groups, and an orderly end.

nats-py brings an implementation of its own; docs/decisions says why it can't be used here.
Wire format: https://github.com/nats-io/nats-architecture-and-design, ADR-32.
"""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from datetime import UTC, datetime
from typing import Any, Literal

import msgspec
import nats.errors
import pykka
import structlog
from msgspec import Struct
from nats.aio.client import Msg
from trunkline_events import headers
from trunkline_events.log import LogRefused, LogUnavailable
from trunkline_events.refusal import Refused
from trunkline_events.subjects import QUEUE

from trunkline_actors.bus import Bus, Delivery
from trunkline_actors.keys import Access
from trunkline_actors.mailbox import AsyncioActor, MailboxFull

log = structlog.get_logger()

DRAIN_WAIT = 2.0
"""Seconds for the server to say that it has sent us everything."""

Handler = Callable[[Delivery], Awaitable[Refused | None]]
"""Handles one delivery, answering it itself; or gives a refusal, which is then the answer."""

STOPPING = Refused(code="stopping", message="this process is stopping; send the request again")
_INTERNAL = Refused(code="internal", message="something went wrong here; the log of this process says what")
_FULL = Refused(code="unavailable", message="too many requests are waiting here; send it again a little later")


def log_down(error: LogUnavailable | LogRefused) -> Refused:
    """What a caller is told where the log did not take what has to be in it."""
    if isinstance(error, LogRefused) and error.no_room:
        return Refused(code="unavailable", message="the log's disk is full: free some space on it, and send again")
    return Refused(code="unavailable", message="the log can't be written right now; send the request again")


class Endpoint(Struct, frozen=True, kw_only=True):
    """One subject an actor listens on. `queue` empty: every replica hears every message.

    `need` is the scope that an API key must have for it; empty: it is for the gateway's own processes, or sees to that
    itself.
    """

    name: str
    subject: str
    handler: Handler
    queue: str = QUEUE
    need: Access | Literal[""] = ""


class _Stats:
    """Counts of one endpoint, as ADR-32 has them; times in nanoseconds."""

    def __init__(self) -> None:
        self.requests = self.errors = self.processing = self.in_flight = 0
        self.last_error = ""


class ServiceActor(AsyncioActor):
    """An actor with endpoints: each message is put in the mailbox, and answered even if the actor is stopping."""

    def __init__(self, bus: Bus, name: str, version: str, metadata: dict[str, str] | None = None) -> None:
        super().__init__()
        self.bus = bus
        self._service = {
            "name": name,
            "id": bus.nats.new_inbox().rpartition(".")[2],
            "version": version,
            "metadata": metadata or {},
        }
        self._stats: dict[str, _Stats] = {}
        self._subscriptions: dict[str, Any] = {}
        self._control: list[Any] = []
        self._since = datetime.now(UTC)

    def endpoints(self) -> list[Endpoint]:
        """What this actor listens on."""
        raise NotImplementedError

    async def starting(self) -> None:
        for endpoint in self.endpoints():
            self._stats[endpoint.name] = _Stats()
            subscription = await self._subscribe(endpoint)
            # What all replicas hear is about work under way, so it is heard until that has ended.
            if endpoint.queue:
                self._subscriptions[endpoint.name] = subscription
            else:
                self._control.append(subscription)
        await self._listen_for_control()
        await self.bus.nats.flush()

    async def move(self) -> None:
        """Listen where `endpoints` says now; what was sent to where it listened before is heard too."""
        for endpoint in self.endpoints():
            before = self._subscriptions.get(endpoint.name)
            if before is None or before.subject == endpoint.subject:
                continue
            after = await self._subscribe(endpoint)
            if self._subscriptions.get(endpoint.name) is not before:  # it takes no more messages by now
                await self._unsubscribe([after])
                return
            self._subscriptions[endpoint.name] = after
            with contextlib.suppress(TimeoutError, nats.errors.Error):
                await self.bus.nats.flush()
            await self._drain([before])

    # -- messages --------------------------------------------------------------------------------------------------

    async def _subscribe(self, endpoint: Endpoint) -> Any:
        def take(delivery: Delivery) -> None:
            try:
                self.actor_ref.tell((endpoint, delivery))
            except MailboxFull:
                self.spawn(self._decline(endpoint, delivery, _FULL))
            except pykka.ActorDeadError:  # and its successor is not listening yet
                self.spawn(self._decline(endpoint, delivery, STOPPING))

        # Called as the message is read off the wire: this only puts it in the mailbox.
        def receive(subject: bytes, reply: bytes, data: bytes, head: bytes | None) -> None:
            inbox = reply.decode()
            if self.bus.may_reply(inbox):
                take(Delivery(subject.decode(), inbox, headers.parse(head) if head else {}, data))

        subscription = await self.bus.nats.subscribe_raw(endpoint.subject, receive, endpoint.queue)
        if endpoint.queue:
            self.bus.local[endpoint.subject] = (self, take)
        return subscription

    def _not_here(self, subscriptions: Iterable[Any]) -> None:
        """Others of this process find these endpoints here no more."""
        for subscription in subscriptions:
            known = self.bus.local.get(subscription.subject)
            if known is not None and known[0] is self:
                del self.bus.local[subscription.subject]

    def on_receive(self, message: tuple[Endpoint, Delivery]) -> Coroutine[Any, Any, None]:
        endpoint, delivery = message
        return self._handle(endpoint, delivery)

    async def _handle(self, endpoint: Endpoint, delivery: Delivery) -> None:
        stats = self._stats[endpoint.name]
        stats.requests += 1
        stats.in_flight += 1
        started = time.perf_counter_ns()
        try:
            refused = self._kept_out(endpoint, delivery) or await endpoint.handler(delivery)
        except (LogUnavailable, LogRefused) as error:
            log.warning("endpoint.log_down", endpoint=endpoint.name, error=str(error))
            refused = log_down(error)
        except Exception as error:
            log.exception("endpoint.failed", endpoint=endpoint.name, error=type(error).__name__)
            refused = _INTERNAL
        finally:
            stats.in_flight -= 1
            stats.processing += time.perf_counter_ns() - started
        if refused is not None:
            self.count_error(endpoint.name, refused)
            await self.bus.refuse(delivery.reply, refused, endpoint.name, delivery.header("Trunkline-Request"))
            await self.refused(delivery)

    def _kept_out(self, endpoint: Endpoint, delivery: Delivery) -> Refused | None:
        if not endpoint.need or self.bus.door is None:
            return None
        admitted = self.bus.door.on_bus(delivery.header(headers.KEY), endpoint.need)
        return admitted if isinstance(admitted, Refused) else None

    async def refused(self, delivery: Delivery) -> None:
        """What else a caller hears after an error."""

    def count_error(self, endpoint: str, refused: Refused) -> None:
        """An endpoint answered with an error; one that answers itself says so here."""
        stats = self._stats[endpoint]
        stats.errors += 1
        stats.last_error = f"{refused.status}:{refused.code}"
        self.bus.totals.refused(str(self._service["name"]), endpoint, refused.code)

    async def turn_away(self, message: tuple[Endpoint, Delivery]) -> None:
        endpoint, delivery = message
        await self._decline(endpoint, delivery, STOPPING)

    async def _decline(self, endpoint: Endpoint, delivery: Delivery, refused: Refused) -> None:
        # Where every replica hears a message, one that can't look at it leaves the answer to those that can.
        if endpoint.queue:
            await self.bus.refuse(delivery.reply, refused, endpoint.name, delivery.header("Trunkline-Request"))
            await self.refused(delivery)

    async def quiesce(self) -> None:
        """Take no more messages; those the server sent already are put in the mailbox first, and none is lost."""
        subscriptions, self._subscriptions = list(self._subscriptions.values()), {}
        await self._drain(subscriptions)

    async def _drain(self, subscriptions: list[Any]) -> None:
        self._not_here(subscriptions)
        if self.bus.nats.is_connected:
            with contextlib.suppress(TimeoutError):  # the server may go away meanwhile
                async with asyncio.timeout(DRAIN_WAIT):
                    await asyncio.gather(*(one.drain() for one in subscriptions), return_exceptions=True)
                return
        await self._unsubscribe(subscriptions)

    async def stopped(self) -> None:
        await self._unsubscribe(self._control)

    async def fallen(self) -> None:
        await self._unsubscribe([*self._subscriptions.values(), *self._control])

    async def _unsubscribe(self, subscriptions: list[Any]) -> None:
        self._not_here(filter(None, subscriptions))
        for subscription in filter(None, subscriptions):
            with contextlib.suppress(nats.errors.Error):
                await subscription.unsubscribe()

    # -- discovery -------------------------------------------------------------------------------------------------

    async def _listen_for_control(self) -> None:
        name, identifier = self._service["name"], self._service["id"]
        for verb, describe in (("PING", self._ping), ("INFO", self._info), ("STATS", self._statistics)):
            for subject in (f"$SRV.{verb}", f"$SRV.{verb}.{name}", f"$SRV.{verb}.{name}.{identifier}"):
                callback = self._describer(describe)
                self._control.append(await self.bus.nats.subscribe(subject, cb=callback))

    def _describer(self, describe: Callable[[], dict[str, Any]]) -> Callable[[Msg], Coroutine[Any, Any, None]]:
        async def answer(message: Msg) -> None:
            if self.bus.may_reply(message.reply):
                await self.bus.publish(message.reply, msgspec.json.encode(describe()))

        return answer

    def _ping(self) -> dict[str, Any]:
        return {"type": "io.nats.micro.v1.ping_response", **self._service}

    def _info(self) -> dict[str, Any]:
        return {
            "type": "io.nats.micro.v1.info_response",
            **self._service,
            "description": (type(self).__doc__ or "").partition("\n")[0],
            "endpoints": [
                {
                    "name": one.name,
                    "subject": one.subject,
                    "queue_group": one.queue,
                    "metadata": {"scope": one.need} if one.need else {},
                }
                for one in self.endpoints()
            ],
        }

    def _statistics(self) -> dict[str, Any]:
        return {
            "type": "io.nats.micro.v1.stats_response",
            **self._service,
            "started": self._since.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "endpoints": [self._endpoint_stats(one) for one in self.endpoints()],
        }

    def _endpoint_stats(self, endpoint: Endpoint) -> dict[str, Any]:
        stats = self._stats[endpoint.name]
        return {
            "name": endpoint.name,
            "subject": endpoint.subject,
            "queue_group": endpoint.queue,
            "num_requests": stats.requests,
            "num_errors": stats.errors,
            "last_error": stats.last_error,
            "processing_time": stats.processing,
            "average_processing_time": stats.processing // stats.requests if stats.requests else 0,
            "data": {"in_flight": stats.in_flight, "waiting": len(self.actor_inbox)},
        }
