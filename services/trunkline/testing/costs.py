"""What the calls of a test cost, and how much they may."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from trunkline_events.money import nanos_from_usd, usd_from_nanos

from trunkline.chat import Chat, Completion, Embeddings, Stream

if TYPE_CHECKING:
    from trunkline.client import Gateway

LISTENERS: list[Callable[[int], None]] = []
"""Told of the nano-dollars of each chat that a ScriptedCaller answered."""


def tell(nanos: int) -> None:
    """A chat has cost so much."""
    for listener in LISTENERS:
        listener(nanos)


class OverBudget(AssertionError):
    """The calls of this test have cost more than it may. Ask less, ask a cheaper model, or raise the limit."""


class CostTracker:
    """Counts what calls cost: of every ScriptedCaller while it listens, and of each `Gateway` client it watches."""

    def __init__(self, limit_usd: str | None = None) -> None:
        self._limit = None if limit_usd is None else nanos_from_usd(limit_usd)
        self._nanos = 0
        self._streams: list[Stream] = []
        self._watched: list[tuple[Gateway, Chat, Embeddings]] = []
        self.calls = 0

    @property
    def spent_usd(self) -> str:
        """US dollars until now; of streams those that have ended."""
        return usd_from_nanos(self._spent())

    def _spent(self) -> int:
        return self._nanos + sum(nanos_from_usd(stream.cost or "0") for stream in self._streams)

    def limit(self, usd: str) -> None:
        """The test fails where it costs more than this."""
        self._limit = nanos_from_usd(usd)

    def add(self, usd: str) -> None:
        """Something else has cost so much: `result.metrics["cost_usd"]` of an engine's run, for one."""
        self.add_nanos(nanos_from_usd(usd))

    def add_nanos(self, nanos: int) -> None:
        """The same in nano-dollars."""
        self.calls += 1
        self._nanos += nanos

    def watch(self, gateway: "Gateway") -> "Gateway":
        """Count the chats and embeddings of this client too. Over the limit it asks nothing more."""
        self._watched.append((gateway, gateway.chat, gateway.embeddings))
        gateway.chat = _CountedChat(gateway.chat, self)
        gateway.embeddings = _CountedEmbeddings(gateway.embeddings, self)
        return gateway

    def unwatch(self) -> None:
        """Leave all clients as they were."""
        for gateway, chat, embeddings in reversed(self._watched):
            gateway.chat, gateway.embeddings = chat, embeddings
        self._watched.clear()

    def check(self) -> None:
        """Raises OverBudget."""
        spent = self._spent()
        if self._limit is not None and spent > self._limit:
            raise OverBudget(
                f"{self.calls} calls cost {usd_from_nanos(spent)} US dollars; at most "
                f"{usd_from_nanos(self._limit)} were to be spent here"
            )

    def streams(self, stream: Stream) -> Stream:
        """Count a stream, whose cost is there when it has ended."""
        self.calls += 1
        self._streams.append(stream)
        return stream


class _CountedChat(Chat):
    def __init__(self, inner: Chat, tracker: CostTracker) -> None:
        self._inner, self._tracker = inner, tracker

    async def create(self, *args: Any, **more: Any) -> Completion:
        self._tracker.check()
        done = await self._inner.create(*args, **more)
        self._tracker.add(done.cost)
        return done

    def stream(self, *args: Any, **more: Any) -> Stream:
        self._tracker.check()
        return self._tracker.streams(self._inner.stream(*args, **more))

    async def abort(self, request_id: str) -> None:
        await self._inner.abort(request_id)


class _CountedEmbeddings(Embeddings):
    def __init__(self, inner: Embeddings, tracker: CostTracker) -> None:
        self._inner, self._tracker = inner, tracker

    async def create(self, *args: Any, **more: Any) -> Completion:
        self._tracker.check()
        done = await self._inner.create(*args, **more)
        self._tracker.add(done.cost)
        return done
