"""The client for code without asyncio: the same names, types and errors, on an event loop in a thread of its own.

with trunkline.connect_sync() as gw:
    print(gw.chat.create("auto", "Hello!").text)

Any number of threads may use one gateway at once. Closing it, from any thread, ends what the others wait for.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any

from trunkline_events.envelope import RecordedEvent
from trunkline_events.loop_thread import LoopThread
from trunkline_events.usage import Usage
from trunkline_projections.as_of import State

from trunkline import chat, client, errors
from trunkline.chat import Chunk, Completion, Messages, Receipt
from trunkline.secrets import Secrets

_Loop = LoopThread[client.Gateway]

_CLOSED = "this client is closed; connect again with `trunkline.connect_sync`"


class Commands:
    """One family of commands, as `trunkline.client.Commands` has them, each waiting for its reply."""

    def __init__(self, loop: _Loop, commands: client.Commands | Secrets) -> None:
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
        self.budgets = Commands(loop, gateway.budgets)
        self.policy = Commands(loop, gateway.policy)
        self.routing = Commands(loop, gateway.routing)
        self.circuits = Commands(loop, gateway.circuits)
        self.plugins = Commands(loop, gateway.plugins)
        self.secrets = Commands(loop, gateway.secrets)
        self.keys = Commands(loop, gateway.keys)

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

    def state_at(self, at: int | float | None = None, **options: Any) -> State:
        """The gateway as it was, with the arguments of `trunkline.client.Gateway.state_at`. Raises TrunklineError."""
        return self._loop.call(lambda: self._gateway.state_at(at, **options))

    def close(self) -> None:
        """Close the connection; whatever waits on it, in any thread, gets Unavailable."""
        self._loop.close()


@contextmanager
def connect(url: str, key: str | None = None) -> Iterator[Gateway]:
    """Connect to the bus. Raises Unavailable where no server answers."""
    loop = _Loop("trunkline-client", lambda: client.connect(url, key), lambda: errors.unavailable(_CLOSED))
    gateway = Gateway(loop, loop.open())
    try:
        yield gateway
    finally:
        gateway.close()
