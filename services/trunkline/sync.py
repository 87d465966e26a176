"""The client for code without asyncio: the same names, types and errors, on an event loop in a thread of its own.

with trunkline.connect_sync() as gw:
    print(gw.chat.create("auto", "Hello!").text)

Any number of threads may use one gateway at once. Closing it, from any thread, ends what the others wait for.
"""

import asyncio
import concurrent.futures
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, TypeVar

from trunkline_events.envelope import RecordedEvent
from trunkline_events.usage import Usage

from trunkline import chat, client, errors
from trunkline.chat import Chunk, Completion, Messages, Receipt

T = TypeVar("T")

_CLOSED = "this client is closed; connect again with `trunkline.connect_sync`"


class _Loop:
    """A thread with an event loop, on which an async gateway lives."""

    def __init__(self, url: str, key: str | None) -> None:
        self._url, self._key = url, key
        self._ready: concurrent.futures.Future[client.Gateway] = concurrent.futures.Future()
        self._tasks: set[asyncio.Task[Any] | None] = set()
        self._lock = threading.Lock()
        self.closed = False
        self._loop: asyncio.AbstractEventLoop
        self._stop: asyncio.Event
        self._thread = threading.Thread(target=self._serve, name="trunkline-client", daemon=True)

    def open(self) -> client.Gateway:
        """Connect. Raises Unavailable where no server answers."""
        self._thread.start()
        return self._ready.result()

    def call(self, work: Callable[[], Awaitable[T]]) -> T:
        """Run on the loop and wait; interrupted, cancel it. Raises what it raises, and Unavailable once closed."""
        with self._lock:  # so that nothing is handed over after `close` has begun
            if self.closed:
                raise errors.unavailable(_CLOSED)
            future = asyncio.run_coroutine_threadsafe(self._tracked(work), self._loop)
        try:
            return future.result()
        except concurrent.futures.CancelledError:
            raise errors.unavailable(_CLOSED) from None
        except KeyboardInterrupt:
            future.cancel()
            raise

    def close(self) -> None:
        """End what is under way, close the connection, end the thread. Idempotent."""
        with self._lock:
            if not self.closed:
                self.closed = True
                self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    async def _tracked(self, work: Callable[[], Awaitable[T]]) -> T:
        task = asyncio.current_task()
        self._tasks.add(task)
        try:
            return await work()
        finally:
            self._tasks.discard(task)

    def _serve(self) -> None:
        try:
            with asyncio.Runner() as runner:
                runner.run(self._live())
        except BaseException as error:
            if self._ready.done():
                raise
            self._ready.set_exception(error)

    async def _live(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        async with client.connect(self._url, self._key) as gateway:
            self._ready.set_result(gateway)
            await self._stop.wait()
            # While the connection is there, so that a stream which is left behind is aborted.
            left = [task for task in self._tasks if task is not None]
            for task in left:
                task.cancel()
            await asyncio.gather(*left, return_exceptions=True)


class Commands:
    """One family of commands, as `trunkline.client.Commands` has them, each waiting for its reply."""

    def __init__(self, loop: _Loop, commands: client.Commands) -> None:
        self._loop = loop
        self._commands = commands

    def __getattr__(self, verb: str) -> Callable[..., dict[str, Any]]:
        command: client.Command = getattr(self._commands, verb)
        return lambda **arguments: self._loop.call(lambda: command(**arguments))


class Stream:
    """An answer as it is generated: iterate for chunks; afterwards `receipt`, `usage` and `cost` are there.

    Leaving the `with` early aborts the request; what was generated until then is settled. For one thread at a time.
    """

    def __init__(self, loop: _Loop, stream: chat.Stream) -> None:
        self._loop = loop
        self._stream = stream

    @property
    def request_id(self) -> str:
        """Names the request, for `gw.chat.abort` from another thread."""
        return self._stream.request_id

    @property
    def receipt(self) -> Receipt | None:
        """What it came to, once the stream has ended."""
        return self._stream.receipt

    @property
    def usage(self) -> Usage | None:
        """The tokens it took, once the stream has ended."""
        return self._stream.usage

    @property
    def cost(self) -> str | None:
        """US dollars, once the stream has ended."""
        return self._stream.cost

    def __enter__(self) -> "Stream":
        self._loop.call(self._stream.__aenter__)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._loop.closed:
            self._loop.call(lambda: self._stream.__aexit__(kind, error, trace))

    def __iter__(self) -> Iterator[Chunk]:
        return self

    def __next__(self) -> Chunk:
        try:
            return self._loop.call(self._stream.__anext__)
        except StopAsyncIteration:
            raise StopIteration from None


class Chat:
    """`gw.chat`: chat requests, with the arguments of `trunkline.chat.Chat`."""

    def __init__(self, loop: _Loop, asynchronous: chat.Chat) -> None:
        self._loop = loop
        self._chat = asynchronous

    def create(self, model: str, messages: Messages, **options: Any) -> Completion:
        """Ask, and return the whole answer. Raises TrunklineError."""
        return self._loop.call(lambda: self._chat.create(model, messages, **options))

    def stream(self, model: str, messages: Messages, **options: Any) -> Stream:
        """Ask, and iterate over the answer: `with gw.chat.stream(…) as s: for chunk in s: …`."""

        async def made() -> chat.Stream:
            return self._chat.stream(model, messages, **options)

        return Stream(self._loop, self._loop.call(made))

    def abort(self, request_id: str) -> None:
        """Cut a running request short; returns when its upstream call is cut. Raises NotFound."""
        self._loop.call(lambda: self._chat.abort(request_id))


class Embeddings:
    """`gw.embeddings`: embeddings requests."""

    def __init__(self, loop: _Loop, asynchronous: chat.Embeddings) -> None:
        self._loop = loop
        self._embeddings = asynchronous

    def create(self, model: str, input: str | list[str], **options: Any) -> Completion:  # noqa: A002 - OpenAI's name
        """Embed. `data` of the answer is OpenAI's list of embeddings. Raises TrunklineError."""
        return self._loop.call(lambda: self._embeddings.create(model, input, **options))


class Gateway:
    """An open connection to a Trunkline gateway. Make one with `trunkline.connect_sync`."""

    def __init__(self, loop: _Loop, gateway: client.Gateway) -> None:
        self._loop = loop
        self._gateway = gateway
        self.chat = Chat(loop, gateway.chat)
        self.embeddings = Embeddings(loop, gateway.embeddings)
        self.models = Commands(loop, gateway.models)
        self.providers = Commands(loop, gateway.providers)
        self.threads = Commands(loop, gateway.threads)

    def command(
        self, subject: str, arguments: dict[str, Any], timeout: float = client.COMMAND_TIMEOUT
    ) -> dict[str, Any]:
        """Ask a command endpoint. Raises TrunklineError."""
        return self._loop.call(lambda: self._gateway.command(subject, arguments, timeout))

    def events(
        self,
        *categories: str,
        id: str | None = None,  # noqa: A002 - the public name
        since: int | float | None = None,
    ) -> Iterator[RecordedEvent]:
        """Events as they happen, for ever, with the arguments of `trunkline.client.Gateway.events`.

        Without `since` they count from the first `next`. Closing the gateway ends the wait with Unavailable.
        """
        events = self._gateway.events(*categories, id=id, since=since)
        try:
            while True:
                yield self._loop.call(events.__anext__)
        finally:
            if not self._loop.closed:
                self._loop.call(events.aclose)

    def close(self) -> None:
        """Close the connection; whatever waits on it, in any thread, gets Unavailable."""
        self._loop.close()


@contextmanager
def connect(url: str, key: str | None = None) -> Iterator[Gateway]:
    """Connect to the bus. Raises Unavailable where no server answers."""
    loop = _Loop(url, key)
    gateway = Gateway(loop, loop.open())
    try:
        yield gateway
    finally:
        gateway.close()
