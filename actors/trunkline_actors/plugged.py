"""A plugin's adapter, fenced in: whatever it does, its provider is all that suffers.

It is imported, built and initialised beside everything else, each with a deadline; it is tried again with pauses that
grow. What it raises becomes an UpstreamError, and so does what it returns where that is of the wrong type. Built-in
adapters go the same way. What no fence keeps out: code that blocks the event loop, or ends the process.
"""

import asyncio
import inspect
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import Any, NoReturn

import structlog
from trunkline_events.failure import Failure, FailureClass, UpstreamError
from trunkline_events.plugin import Stage
from trunkline_events.registry import Provider
from trunkline_events.tasks import end_task
from trunkline_events.usage import Usage

from trunkline_actors.adapters import Adapter, Answer, Call, Chunk, End
from trunkline_actors.adapters.factory import kind_of, plugin_of
from trunkline_actors.bounded import bounded, in_thread
from trunkline_actors.plugin_faults import WrongType, failure_of, name_of, place_of
from trunkline_actors.plugins import Plugin, Standing, Trouble, standing

log = structlog.get_logger()

START_S = 10.0
"""Seconds for the import of a plugin, and again for its `initialize`."""
CHECK_S = 8.0
CLOSE_S = 5.0
FIRST_PAUSE = 1.0
LONGEST_PAUSE = 300.0
MOST_CRASHES = 3
"""Calls in a row that end in what no adapter may do, after which it is taken out of use and built anew."""

Make = Callable[[Provider], Adapter | Awaitable[Adapter]]


class Plugged:
    """The adapter of one provider instance. An `Adapter` itself; `start` it before use.

    `trouble` says why it can't be used now; `changed` is called whenever that changes.
    """

    def __init__(
        self, provider: Provider, make: Make, clock: Callable[[], float], changed: Callable[["Plugged"], None]
    ) -> None:
        self.provider = provider
        self.plugin = Plugin(name=provider.kind, object="")
        self.trouble: Trouble | None = None
        self.crashes = 0
        """Calls so far that ended in what no adapter may do."""
        self.last_error = ""
        self._make = make
        self._clock = clock
        self._changed = changed
        self._made: Adapter | None = None
        self._failure = Failure(kind=FailureClass.TIMEOUT, message=f"{self._named} is not ready yet; try again")
        self._in_a_row = self._failures = 0
        self._starting: asyncio.Task[None] | None = None
        self._retry: asyncio.TimerHandle | None = None
        self._closing: set[asyncio.Task[Any]] = set()
        self._closed = False

    @property
    def adapter(self) -> Adapter | None:
        """The plugin's own adapter, for what it can do beside the protocol; None where it can't be used."""
        return self._made

    @property
    def standing(self) -> Standing:
        """How it stands."""
        return standing(self.plugin, self.trouble, self.last_error)

    def start(self) -> None:
        """Begin to make the adapter ready."""
        self._retry = None
        if not self._closed:
            self._starting = asyncio.create_task(self._begin())

    async def ready(self, within: float) -> Failure | None:
        """Wait until the adapter can be used, at most so many seconds; why it can't be, where it can't."""
        if self._made is not None:
            return None
        starting = self._starting
        if starting is not None and not starting.done():
            await asyncio.wait([starting], timeout=max(0.0, within))
        return self._failure if self.adapter is None else None

    @property
    def _named(self) -> str:
        plugin = self.plugin
        of = f" ({plugin.distribution} {plugin.version})" if plugin.distribution else ""
        return f"the plugin for {plugin.name!r}{of}"

    # -- its life --------------------------------------------------------------------------------------------------

    async def _begin(self) -> None:
        stage: Stage = "import"
        made: Adapter | None = None
        try:
            kind = self.provider.kind
            await bounded(lambda: in_thread(lambda: kind_of(kind)), START_S)
            self.plugin = plugin_of(kind) or self.plugin
            stage = "build"
            made = await bounded(self._build, START_S)
            stage = "initialize"
            initialize = getattr(made, "initialize", None)
            if initialize is not None:
                await bounded(lambda: _awaited(initialize()), START_S)
        except asyncio.CancelledError:
            if made is not None:
                self._let_go(made)
            raise
        except Exception as error:  # noqa: BLE001 - whatever it was: it is this plugin's
            self.plugin = plugin_of(self.provider.kind) or self.plugin
            if made is not None:
                self._let_go(made)
            self._failed(stage, error)
            return
        self._made, self.trouble, self._in_a_row = made, None, 0
        self._changed(self)

    async def _build(self) -> Adapter:
        made = self._make(self.provider)
        return await made if inspect.isawaitable(made) else made

    def _failed(self, stage: Stage, error: BaseException) -> None:
        self._failures += 1
        pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(self._failures - 1, 16))
        now = self._clock()
        self._failure = failure_of(stage, error, self._named)
        self.last_error = name_of(error)
        self.trouble = Trouble(
            stage=stage,
            error=self.last_error,
            message=self._failure.message,
            since=self.trouble.since if self.trouble else now,
            failures=self._failures,
            retry_at=now + pause,
        )
        log.error(
            "plugin.failed",
            plugin=self.plugin.name,
            version=self.plugin.version,
            provider=self.provider.id,
            stage=stage,
            error=self.last_error,
            at=place_of(error),
            retry_s=pause,
        )
        if not self._closed:
            self._retry = asyncio.get_running_loop().call_later(pause, self.start)
        self._changed(self)

    def _crashed(self, duty: str, error: BaseException) -> UpstreamError:
        """A call ended in what no adapter may do; too many of those in a row, and it is taken out of use."""
        self.crashes += 1
        self._in_a_row += 1
        self.last_error = name_of(error)
        log.error(
            "plugin.crashed",
            plugin=self.plugin.name,
            version=self.plugin.version,
            provider=self.provider.id,
            duty=duty,
            error=self.last_error,
            at=place_of(error),
        )
        if self._in_a_row >= MOST_CRASHES and self._made is not None:
            broken, self._made = self._made, None
            self._let_go(broken)
            self._failed("call", error)
        return UpstreamError(failure_of("call", error, self._named, duty))

    def _fine(self) -> None:
        self._in_a_row = self._failures = 0

    def _let_go(self, adapter: Adapter) -> None:
        task = asyncio.create_task(self._close(adapter))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    async def _close(self, adapter: Adapter) -> None:
        try:
            await bounded(lambda: _awaited(adapter.close()), CLOSE_S)
        except Exception as error:  # noqa: BLE001 - nobody needs it any more
            log.warning("plugin.not_closed", plugin=self.plugin.name, error=name_of(error), at=place_of(error))

    async def close(self) -> None:
        """Release what it holds; after some seconds that is left to itself."""
        self._closed = True
        if self._retry is not None:
            self._retry.cancel()
        await end_task(self._starting)
        made, self._made = self._made, None
        if made is not None:
            self._let_go(made)
        if self._closing:
            await asyncio.wait(list(self._closing))

    # -- calls -----------------------------------------------------------------------------------------------------

    async def complete(self, call: Call) -> Answer:
        """Answer a chat request as a whole. Raises UpstreamError."""
        return await self._answer("complete", call)

    async def embed(self, call: Call) -> Answer:
        """Answer an embeddings request. Raises UpstreamError."""
        return await self._answer("embed", call)

    async def stream(self, call: Call) -> AsyncGenerator[Chunk | End, None]:
        """Answer a chat request chunk by chunk, then one End. Raises UpstreamError, also after chunks were given."""
        end: End | None = None
        giving = False  # whether a GeneratorExit would be our own: whoever was given something leaves
        try:
            async with aclosing(_generator(self._usable().stream(call))) as source:
                async for item in source:
                    # `type` and not `isinstance`: this is asked of every chunk.
                    if type(item) is Chunk and _is_sound(item):
                        giving = True
                        yield item
                        giving = False
                    elif isinstance(item, End) and _counts(item.usage, item.finish):
                        end = item
                        break
                    else:
                        _wrong("stream")
            if end is None:
                _wrong("stream")
        except UpstreamError as error:
            self._known(error)
            raise
        except asyncio.CancelledError as error:
            if _is_ours():
                raise
            raise self._crashed("stream", error) from error
        except GeneratorExit as error:
            if giving:
                raise
            raise self._crashed("stream", error) from error
        except BaseException as error:
            raise self._crashed("stream", error) from error
        self._fine()
        yield end

    async def check(self) -> None:
        """Return if the upstream can be reached. Raises UpstreamError."""
        failure = await self.ready(CHECK_S)
        if failure is not None:
            raise UpstreamError(failure)
        adapter = self._usable()
        try:
            await bounded(lambda: _awaited(adapter.check()), CHECK_S)
        except UpstreamError as error:
            self._known(error)
            raise
        except Exception as error:
            raise self._crashed("check", error) from error

    async def _answer(self, duty: str, call: Call) -> Answer:
        try:
            answer = await getattr(self._usable(), duty)(call)
            if not (isinstance(answer, Answer) and type(answer.body) is bytes and _counts(answer.usage, answer.finish)):
                _wrong(duty)
        except UpstreamError as error:
            self._known(error)
            raise
        except asyncio.CancelledError as error:
            if _is_ours():
                raise
            raise self._crashed(duty, error) from error
        except BaseException as error:
            raise self._crashed(duty, error) from error
        self._fine()
        return answer

    def _usable(self) -> Adapter:
        if self._made is None:
            raise UpstreamError(self._failure)
        return self._made

    def _known(self, error: UpstreamError) -> None:
        """An upstream that fails is nothing that a plugin has to answer for, if it says so in the right words."""
        if not isinstance(getattr(error, "failure", None), Failure):
            raise self._crashed("UpstreamError", error) from error
        if self._made is not None:
            self._in_a_row = 0


def _wrong(duty: str) -> NoReturn:
    raise WrongType(duty)


def _generator(given: object) -> AsyncGenerator[object, None]:
    if isinstance(given, AsyncGenerator):
        return given
    if inspect.iscoroutine(given):
        given.close()
    _wrong("stream")


async def _awaited(given: Any) -> None:
    """A hook may be a coroutine or a plain function."""
    if inspect.isawaitable(given):
        await given


def _is_sound(chunk: Chunk) -> bool:
    return type(chunk.data) is bytes and type(chunk.text_bytes) is int and chunk.text_bytes >= 0


def _counts(usage: object, finish: object) -> bool:
    return (usage is None or isinstance(usage, Usage)) and isinstance(finish, str)


def _is_ours() -> bool:
    """Whether this task is being cancelled: if not, it is the plugin that raised CancelledError."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
