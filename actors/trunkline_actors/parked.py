"""A request that waits for money: its message on the stream, the stream, and its place in the attendant's hands.

Wire format: a line of JSON, then the caller's body as it came, as a dispatch has it. Acknowledgements are JetStream's
(https://docs.nats.io, "Consumer details"): `+ACK`, `-NAK`, and `+WPI` for "work in progress".
"""

import asyncio
import contextlib
from collections.abc import Callable

import msgspec
import nats.errors
import structlog
from msgspec import Struct
from nats.aio.client import Msg
from nats.js import api
from trunkline_events import subjects
from trunkline_events.failure import FailureClass
from trunkline_events.thread import Operation

from trunkline_actors.followups import Course
from trunkline_actors.inflight import Run
from trunkline_actors.moment import Request
from trunkline_actors.requests import Parsed
from trunkline_actors.waiting import Ticket, WaitingRoom

log = structlog.get_logger()

LONGEST = 3_900.0
"""Seconds a message is kept: longer than any deadline."""
MOST_BYTES = 1 << 30
ASK_AGAIN = 1.0
"""Seconds after which the first in line asks anyway: signs that money came back may be lost."""


def stream_config(replicas: int) -> api.StreamConfig:
    """The work queue: what is acknowledged is gone, and what is too much is refused."""
    return api.StreamConfig(
        name=subjects.PARKED_STREAM,
        subjects=[subjects.PARKED],
        retention=api.RetentionPolicy.WORK_QUEUE,
        storage=api.StorageType.FILE,
        discard=api.DiscardPolicy.NEW,
        max_age=LONGEST,
        max_bytes=MOST_BYTES,
        num_replicas=replicas,
    )


class Parked(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A request that waits, and all that is needed to go on with it. Its body travels beside it.

    `at` is the budget it waits for; `taken` is where the router that parked it hears that the attendant has it.
    """

    request_id: str
    operation: Operation
    thread: str
    listeners: list[str]
    attempt: int
    deadline: float
    at: str
    taken: str
    key: str = ""
    scope: str | None = None
    fingerprint: str = ""
    traceparent: str | None = None
    base: int = 0
    attempt_ids: list[str] = []
    sent: int = 0
    tried: list[str] = []
    versions: list[str] = []
    failures: list[FailureClass] = []
    rested: int = 0
    cache_s: float = 0.0
    unclaimed: bool = False
    course: Course = Course()

    def run(self) -> Run:
        """The run it was, to be gone on with here."""
        return Run(
            request_id=self.request_id,
            scope=self.scope,
            thread=self.thread,
            listeners=list(self.listeners),
            key=self.key,
            fingerprint=self.fingerprint,
            traceparent=self.traceparent,
            base=self.base,
            attempt_ids=list(self.attempt_ids),
            sent=self.sent,
            cache_s=self.cache_s,
            course=self.course,
            owned=True,
            unclaimed=self.unclaimed,
        )

    def request(self, run: Run, parsed: Parsed) -> Request:
        """What is still to be served of it: its next attempt."""
        return Request(
            request_id=run.request_id,
            attempt_id=run.attempt_id(self.attempt),
            attempt=self.attempt,
            parsed=parsed,
            tried=tuple(self.tried),
            versions=tuple(self.versions),
            failures=tuple(self.failures),
            rested=self.rested,
            reply=run.listeners[0],
            deadline=self.deadline,
            key=run.key,
            thread=run.thread,
        )


def thread_scope(thread: str) -> str:
    """The name of a thread's own budget among those that are waited for."""
    return f"thread:{thread}"


def thread_of(scope: str) -> str | None:
    """The thread whose own budget this is, None for a budget above threads."""
    return scope.removeprefix("thread:") if scope.startswith("thread:") else None


_parked = msgspec.json.Decoder(Parked)


def pack(parked: Parked, body: bytes) -> bytes:
    """A parked request and its body as one message."""
    return b"%b\n%b" % (msgspec.json.encode(parked), body)


def unpack(data: bytes) -> tuple[Parked, bytes] | None:
    """What `pack` put together; None for anything else."""
    line, _, body = data.partition(b"\n")
    try:
        return _parked.decode(line), body
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


class Place:
    """A parked request in the attendant's hands. `changed` is called when it moves in line."""

    def __init__(self, ticket: Ticket, message: Msg, room: WaitingRoom, changed: Callable[[], None]) -> None:
        self._ticket = ticket
        self._message = message
        self._room = room
        self._changed = changed
        self._turn = asyncio.Event()
        self._word = asyncio.get_running_loop().time()
        ticket.call = self._turn.set
        self.gone = False
        """Somebody else attends now, and has the request: nothing is to be said or done here."""

    @property
    def at(self) -> str:
        """The budget it waits for."""
        return self._ticket.at

    @property
    def ahead(self) -> str | None:
        """A budget that is needed and at which somebody waits who came earlier."""
        return self._room.before(self._ticket)

    async def wait(self, scope: str, seconds: float) -> None:
        """Wait for one's turn at this budget, not for long: signs that money came back may be lost."""
        self._room.move(self._ticket, scope)
        self._changed()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(min(ASK_AGAIN, seconds)):
                await self._turn.wait()
        self._turn.clear()
        now = asyncio.get_running_loop().time()
        if now - self._word > ASK_AGAIN / 2 and not self.gone:
            self._word = now
            await self._say(self._message.in_progress)

    def call(self) -> None:
        """Ask again now, whoever is first."""
        self._turn.set()

    async def done(self) -> None:
        """It is decided, or has been answered: take it off the stream. Twice is once."""
        self._room.leave(self._ticket)
        self._changed()
        if not self.gone:
            self.gone = True
            await self._say(self._message.ack)

    async def leave(self) -> None:
        """Let go of it: whoever attends next is given it at once."""
        if not self.gone:
            self.gone = True
            self._turn.set()
            await self._say(self._message.nak)

    async def _say(self, word: Callable[[], object]) -> None:
        try:
            await word()  # type: ignore[misc]
        except (nats.errors.Error, nats.js.errors.Error, TimeoutError) as error:
            log.warning("parking.not_acknowledged", error=type(error).__name__)
