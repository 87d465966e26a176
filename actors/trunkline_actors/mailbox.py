"""Pykka actors on asyncio: a bounded inbox, a future to await, and a loop that is a task.

Messages are taken in order, one at a time. A handler that returns a coroutine goes on beside the mailbox, so that
nothing that waits blocks it; when the actor stops, what still lies in the mailbox is handed to `turn_away`, and what
goes on is given time to end.
"""

import asyncio
import inspect
import sys
from collections import deque
from collections.abc import Callable, Coroutine, Generator
from typing import Any, TypeVar

import pykka
import structlog

log = structlog.get_logger()

T = TypeVar("T")

MAILBOX_LIMIT = 10_000

Spawn = Callable[[Coroutine[Any, Any, Any]], "asyncio.Task[Any]"]
"""Lets work go on beside a mailbox, as `AsyncioActor.spawn` does; whoever gives it away waits for it at the end."""


class MailboxFull(Exception):
    """The actor has more messages waiting than it may hold. Tell the sender to come back later."""


class Mailbox:
    """An inbox for an actor that is a task: `put` never waits, `next` does."""

    def __init__(self, limit: int = MAILBOX_LIMIT) -> None:
        self._waiting: deque[Any] = deque()
        self._limit = limit
        self._reader: asyncio.Future[None] | None = None

    def put(self, envelope: Any, /) -> None:
        """Put a message at the end. Raises MailboxFull."""
        if len(self._waiting) >= self._limit:
            raise MailboxFull
        self._waiting.append(envelope)
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    def get(self) -> Any:
        """Take the first message; only where `empty` is false."""
        return self._waiting.popleft()

    def empty(self) -> bool:
        """Whether no message waits."""
        return not self._waiting

    def __len__(self) -> int:
        return len(self._waiting)

    async def next(self) -> Any:
        """Take the first message, when there is one."""
        while not self._waiting:
            self._reader = asyncio.get_running_loop().create_future()
            await self._reader
        return self._waiting.popleft()


class AsyncioFuture(pykka.Future[T]):
    """A Pykka future to be awaited on the loop its actor runs on."""

    def __init__(self) -> None:
        super().__init__()
        self._future: asyncio.Future[T] = asyncio.get_running_loop().create_future()

    def get(self, *, timeout: float | None = None) -> T:
        """The value, where it is there. Raises InvalidStateError where it isn't: await the future instead."""
        return self._future.result()

    def set(self, value: T | None = None) -> None:
        if not self._future.done():
            self._future.set_result(value)  # type: ignore[arg-type]  # Pykka's own: None stands for no value

    def set_exception(self, exc_info: Any = None) -> None:
        if not self._future.done():
            self._future.set_exception((exc_info or sys.exc_info())[1] or RuntimeError("no exception"))
            self._future.exception()  # it is the asker's to look at; one who doesn't care gets no warning

    def __await__(self) -> Generator[Any, None, T]:
        return self._future.__await__()


class AsyncioActor(pykka.Actor):
    """A Pykka actor whose loop is an asyncio task.

    Override `starting`, `on_receive`, `turn_away`, `stopped` and `fallen`.
    """

    actor_inbox: Mailbox

    @staticmethod
    def _create_actor_inbox() -> Mailbox:
        return Mailbox()

    @staticmethod
    def _create_future() -> AsyncioFuture[Any]:
        return AsyncioFuture()

    def _start_actor_loop(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()
        self.started: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.ended = asyncio.create_task(self._run(), name=type(self).__name__)

    def launch(self) -> None:
        """What `start` does with an actor it has made: register it and start its loop."""
        pykka.ActorRegistry.register(self.actor_ref)
        self._start_actor_loop()

    async def idle(self, timeout: float) -> bool:
        """Return when nothing goes on beside the mailbox; false after `timeout` seconds."""
        try:
            async with asyncio.timeout(timeout):
                while self._tasks or not self.actor_inbox.empty():
                    await (asyncio.wait(self._tasks) if self._tasks else asyncio.sleep(0))
        except TimeoutError:
            return False
        return True

    def cut(self) -> None:
        """Cancel what goes on beside the mailbox."""
        for task in self._tasks:
            task.cancel()

    async def starting(self) -> None:
        """Set up, before the first message. What it raises stops the actor and is raised to who awaits `started`."""

    async def turn_away(self, message: Any) -> None:
        """Answer a message that came too late: the actor is stopping."""

    async def stopped(self) -> None:
        """Clean up, after the last message and the last coroutine."""

    async def fallen(self) -> None:
        """Let go of what would draw messages to an actor that is no more."""

    def spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Let work go on beside the mailbox; the actor waits for it when it stops."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._finished)
        return task

    @property
    def in_flight(self) -> int:
        """How much work goes on beside the mailbox."""
        return len(self._tasks)

    def _finished(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("actor.task_failed", actor=type(self).__name__, error=repr(error), exc_info=error)

    async def _run(self) -> None:
        try:
            await self._live()
        except Exception as error:
            if not self.started.done():
                self._handle_failure(*sys.exc_info())
                self.started.set_exception(error)
            await self.fallen()
            await self._empty()
            raise
        await self._empty()
        while self._tasks:
            await asyncio.wait(self._tasks)
        await self.stopped()

    async def _live(self) -> None:
        await self.starting()
        self.started.set_result(None)
        while not self.actor_stopped.is_set():
            await self._take(await self.actor_inbox.next())

    async def _empty(self) -> None:
        while not self.actor_inbox.empty():
            await self._leave(self.actor_inbox.get())

    async def _take(self, envelope: Any) -> None:
        try:
            response = self._handle_receive(envelope.message)
            if inspect.iscoroutine(response):
                response = self.spawn(response)
            if envelope.reply_to is not None:
                envelope.reply_to.set(response)
        except Exception:
            if envelope.reply_to is not None:
                envelope.reply_to.set_exception()
            else:
                # Its state may be half changed: let it fall, and whoever supervises it start another.
                self._handle_failure(*sys.exc_info())
                self.on_failure(*sys.exc_info())
                raise

    async def _leave(self, envelope: Any) -> None:
        if envelope.reply_to is not None:
            envelope.reply_to.set_exception((pykka.ActorDeadError, pykka.ActorDeadError("stopping"), None))
        else:
            await self.turn_away(envelope.message)
