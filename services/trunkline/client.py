"""The client library: chat, commands and events over the bus."""

import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Coroutine
from contextlib import aclosing, asynccontextmanager
from contextvars import ContextVar
from typing import Any

import msgspec
import nats.errors
import nats.js.errors
from nats.aio.msg import Msg
from trunkline_actors import money, slices
from trunkline_actors.keys import own_key
from trunkline_actors.keys_door import pepper_of
from trunkline_events import headers, subjects
from trunkline_events.connection import Connection, Unreachable
from trunkline_events.envelope import RecordedEvent
from trunkline_events.jetstream import JetStreamLog
from trunkline_events.log import LogError, LogUnavailable, Scope
from trunkline_events.reading import events_of
from trunkline_events.times import format_time
from trunkline_projections.as_of import FOLDED, Builder, State

from trunkline import errors
from trunkline.chat import Chat, Embeddings
from trunkline.local_models import LocalModels
from trunkline.secrets import Secrets

COMMAND_TIMEOUT = 10.0
LONGEST_DRAINING = 300
"""Seconds that a command may take longer, since it was asked to wait; one for more is refused at once."""

LARGEST = 2**63
"""Sequences and times are below it."""

acts_for: ContextVar[str] = ContextVar("acts_for", default="")
"""The key of whom commands are asked for, in this task: it goes before that of the connection."""

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
            waits = arguments.get("drain_s") or arguments.get("wait_s")
            longer = waits if isinstance(waits, int | float) and 0 < waits <= LONGEST_DRAINING else 0
            timeout = COMMAND_TIMEOUT + longer
            return await self._gateway.command(f"{self._prefix}.{verb}", arguments, timeout)

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
        self.budgets = Commands(self, subjects.BUDGETS)
        self.policy = Commands(self, subjects.POLICY)
        self.routing = Commands(self, subjects.ROUTING)
        self.circuits = Commands(self, subjects.CIRCUITS)
        self.plugins = Commands(self, subjects.PLUGINS)
        self.secrets = Secrets(self)
        self.keys = Commands(self, subjects.KEYS)
        self.workflows = Commands(self, subjects.WORKFLOWS)

    def local_models(self, provider: str) -> LocalModels:
        """The models on the machine of one provider instance: list, pull, delete."""
        return LocalModels(self._connection.nats, self.command, provider, self._fields() or {})

    async def command(
        self, subject: str, arguments: dict[str, Any], timeout: float = COMMAND_TIMEOUT
    ) -> dict[str, Any]:
        """Ask a command endpoint: arguments as JSON, the reply as a dict. Raises TrunklineError."""
        fields = self._fields()
        body = msgspec.json.encode(arguments)
        try:
            message = await self._connection.nats.request(subject, body, timeout=timeout, headers=fields)
        except nats.errors.NoRespondersError:
            role = "workflow" if subject.startswith(f"{subjects.WORKFLOWS}.") else "registry"
            raise errors.unavailable(f"nobody serves {subject}; start it with `trunkline run {role}`") from None
        except nats.errors.MaxPayloadError:
            raise errors.too_large(len(body), self._connection.nats.max_payload) from None
        except (nats.errors.Error, TimeoutError) as error:
            raise errors.unavailable(f"{subject} did not answer: {error}") from error
        answered = message.headers or {}
        if headers.ERROR_CODE in answered:
            raise errors.from_answer(answered[headers.ERROR_CODE], answered.get(headers.ERROR, ""), message.data)
        reply: dict[str, Any] = msgspec.json.decode(message.data)
        return reply

    async def act_as_itself(self) -> bool:
        """Act as the gateway itself from now on, where this user of the bus may read what API keys are hashed under."""
        try:
            self._key = own_key(await pepper_of(self._connection, None))
        except LogUnavailable:
            return False
        return True

    def _fields(self) -> dict[str, str] | None:
        key = acts_for.get() or self._key
        return {headers.KEY: headers.encode_value(key)} if key else None

    async def ask_all(
        self, subject: str, body: bytes, first: float, further: float, expected: int | None = None
    ) -> list[Msg]:
        """Ask what every process hears; the answers, of `expected` processes or of whoever answers in time.

        The first may take `first` seconds and each next one `further`; where so many are expected, all of them `first`.
        """
        bus = self._connection.nats
        fields = self._fields()
        inbox = bus.new_inbox()
        subscription = await bus.subscribe(inbox)
        answers: list[Msg] = []
        try:
            await bus.publish(subject, body, reply=inbox, headers=fields)
            while expected is None or len(answers) < expected:
                wait = first if expected is not None or not answers else further
                answer = await subscription.next_msg(timeout=wait)
                if (answer.headers or {}).get("Status") == "503":  # nobody listens
                    break
                answers.append(answer)
        except (nats.errors.Error, TimeoutError):
            pass
        finally:
            await subscription.unsubscribe()
        return answers

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
        if id == "":
            raise _invalid("id", "an id must not be empty")
        if since is not None and not 0 <= since < LARGEST:
            raise _invalid("since", "since is a sequence from 0 on, or a Unix time")
        log = await self.log()
        scope = Scope(categories, id)
        moment = since if isinstance(since, float) else None
        try:
            after = since if isinstance(since, int) else (await log.end() if since is None else 0)
            async with aclosing(events_of(log, after, scope=scope, since=moment)) as events:
                async for event in events:
                    yield event
        except LogError as error:
            raise errors.unavailable(f"the log can't be read: {error}") from error

    async def state_at(
        self,
        at: int | float | None = None,
        *,
        threads: Collection[str] | None = None,
        limit: int = 100,
        after: str = "",
    ) -> State:
        """The gateway as it was: registry, breakers, budgets and the books of threads.

        `at` is an int for the sequence of the last event that counts, a float for a Unix time, None for now; by time
        counts what was stored by then (`Log.position_at`). `threads` asks for these and no others, else there are
        `limit` of them, from after the id `after`. Raises NotFound for what wasn't there then, InvalidRequest,
        Unavailable.
        """
        log = await self.log()
        seen: set[str] = set()
        try:
            sequence, moment = await _position(log, at)
            builder = Builder(sequence, moment, money.turn, slices.turn)
            async with aclosing(log.read(scope=Scope(FOLDED))) as happened:
                async for event in happened:
                    if event.sequence > sequence:
                        break
                    builder.happened(event)
            async with aclosing(log.last_of_each("budget", sequence)) as budgets:
                async for event in budgets:
                    builder.was_last_of_its_budget(event)
            last = log.last_of_each("thread", sequence, only=threads, after="" if threads else after)
            async with aclosing(last) as lasts:
                async for event in lasts:
                    seen.add(event.aggregate)
                    if not builder.was_last_of_its_thread(event, None if threads else limit):
                        break
        except LogError as error:
            raise errors.unavailable(f"the log can't be read: {error}") from error
        for thread in threads or ():
            if thread not in seen:
                raise _not_found(
                    f"nothing had happened in thread {thread!r} by event {sequence:,}; see `trunkline threads list`"
                )
        return builder.state()

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


async def _position(log: JetStreamLog, at: int | float | None) -> tuple[int, float]:
    """The sequence that is meant, and the time it was then."""
    end = await log.end()
    if at is None:
        return end, time.time()
    if isinstance(at, int):
        if at < 1:
            raise _invalid("at", "sequences count from 1")
        event = await log.get(at) if at <= end else None
        if event is None:
            raise _not_found(f"there is no event {at:,}: the log ends at {end:,}; see `trunkline events tail`")
        return at, event.time
    if at > time.time():
        raise _not_found(f"{format_time(at)} is yet to come; `trunkline audit state` shows what is so now")
    sequence = await log.position_at(at)
    if sequence == 0:
        raise _not_found(f"the log had not begun at {format_time(at)}; see `trunkline events replay`")
    return sequence, at


def _not_found(message: str) -> errors.NotFound:
    return errors.NotFound(message, code="not_found", status=404)


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


def _invalid(param: str, message: str) -> errors.InvalidRequest:
    return errors.InvalidRequest(message, code="invalid_request", status=400, param=param)
