"""The client library: chat, commands and events over the bus."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import nats.errors
import nats.js.errors
from trunkline_events import headers, subjects
from trunkline_events.connection import Connection, Unreachable
from trunkline_events.envelope import RecordedEvent
from trunkline_events.jetstream import JetStreamLog
from trunkline_events.log import LogError, Scope

from trunkline import errors
from trunkline.chat import Chat, Embeddings

COMMAND_TIMEOUT = 10.0
BEHIND = 1024
"""Events an iterator may be behind before its consumer is held back."""

Command = Callable[..., Coroutine[Any, Any, dict[str, Any]]]
"""Asks one command: its arguments by name, the reply as a dict. Raises TrunklineError."""


class Commands:
    """One family of commands: `gw.models.register(id=…, provider=…)` asks `trunkline.models.register`."""

    def __init__(self, gateway: "Gateway", prefix: str) -> None:
        self._gateway = gateway
        self._prefix = prefix

    def __getattr__(self, verb: str) -> Command:
        if verb.startswith("_"):
            raise AttributeError(verb)

        async def command(**arguments: Any) -> dict[str, Any]:
            return await self._gateway.command(f"{self._prefix}.{verb}", arguments)

        return command


class Gateway:
    """An open connection to a Trunkline gateway. Make one with `trunkline.connect`."""

    def __init__(self, connection: Connection, key: str | None = None) -> None:
        self._connection = connection
        self._key = key
        self._log: JetStreamLog | None = None
        self.chat = Chat(connection.nats, key)
        self.embeddings = Embeddings(connection.nats, key)
        self.models = Commands(self, subjects.MODELS)
        self.providers = Commands(self, subjects.PROVIDERS)
        self.threads = Commands(self, subjects.THREADS)

    async def command(
        self, subject: str, arguments: dict[str, Any], timeout: float = COMMAND_TIMEOUT
    ) -> dict[str, Any]:
        """Ask a command endpoint: arguments as JSON, the reply as a dict. Raises TrunklineError."""
        fields = {headers.KEY: self._key} if self._key else None
        body = msgspec.json.encode(arguments)
        try:
            message = await self._connection.nats.request(subject, body, timeout=timeout, headers=fields)
        except nats.errors.NoRespondersError:
            raise errors.unavailable(f"nobody serves {subject}; start it with `trunkline run registry`") from None
        except nats.errors.MaxPayloadError:
            raise errors.too_large(len(body), self._connection.nats.max_payload) from None
        except (nats.errors.Error, TimeoutError) as error:
            raise errors.unavailable(f"{subject} did not answer: {error}") from error
        answered = message.headers or {}
        if headers.ERROR_CODE in answered:
            raise errors.from_answer(answered[headers.ERROR_CODE], answered.get(headers.ERROR, ""), message.data)
        reply: dict[str, Any] = msgspec.json.decode(message.data)
        return reply

    async def events(
        self,
        *categories: str,
        id: str | None = None,  # noqa: A002 - the public name
        since: int | float | None = None,
    ) -> AsyncGenerator[RecordedEvent, None]:
        """Events as they happen, for ever: of all categories or some, of one aggregate where `id` is given.

        `since` resumes without a gap: an int is the sequence of the last event you have, a float a Unix time;
        0 is the beginning of the log, None is now. A slow reader holds back its own consumer and nothing else.
        Raises Unavailable where there is no log.
        """
        log = await self.log()
        scope = Scope(categories or (subjects.CATEGORIES if id else ()), id)
        queue: asyncio.Queue[RecordedEvent] = asyncio.Queue(maxsize=BEHIND)
        moment = since if isinstance(since, float) else None
        try:
            after = since if isinstance(since, int) else (await log.end() if since is None else 0)
            follower = await log.follow(queue.put, after, scope=scope, since=moment)
        except (LogError, nats.errors.Error, nats.js.errors.Error) as error:
            raise errors.unavailable(f"the log can't be read: {error}") from error
        try:
            while True:
                yield await queue.get()
        finally:
            await follower.stop()

    async def log(self) -> JetStreamLog:
        """The log itself, for reading: `read`, `last`, `get`, `end`. Raises Unavailable where there is none.

        A reader doesn't make the log: its replicas are for those to choose who run the gateway.
        """
        if self._log is None:
            log = JetStreamLog(self._connection)
            try:
                await log.end()
            except LogError as error:
                raise errors.unavailable(str(error)) from error
            self._log = log
        return self._log

    async def close(self) -> None:
        """Close the connection."""
        if self._log is not None:
            await self._log.close()
        await self._connection.close()


@asynccontextmanager
async def connect(url: str, key: str | None = None) -> AsyncIterator[Gateway]:
    """Connect to the bus. Raises Unavailable where no server answers."""
    try:
        connection = await Connection.open(url, name="trunkline client")
    except Unreachable as error:
        raise errors.unavailable(str(error)) from error
    gateway = Gateway(connection, key)
    try:
        yield gateway
    finally:
        await gateway.close()
