"""What a router and a provider say to each other about one attempt. Internal: both ends are ours, of one version.

A dispatch is one line of JSON, then the caller's body as it came: headers are written and read a character at a time,
which for this much text would cost more than the rest of the message.
"""

from typing import Literal

import msgspec
from msgspec import Struct
from trunkline_events.failure import FailureClass
from trunkline_events.rate import Rate
from trunkline_events.thread import Books, Operation

from trunkline_actors.plugins import Used


class Dispatch(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An attempt for a provider to run. The body travels beside it, as the caller sent it.

    `books` and `books_seq` are the thread's after the reservation, so that the settlement needs no read. `listeners`
    are the inboxes that get the answer; `sent` is how many chunks, all silent, earlier attempts sent them. `claim`
    names the request for its repeats, where it has an id; `unclaimed`: no record is kept under that. `limits` is what
    the answer says of its key's.
    `cache` is the name to keep the answer under for `cache_s` seconds, empty: it is not to be kept. `clamped`: it
    may be shorter than was asked for, for want of money.
    """

    request_id: str
    attempt_id: str
    attempt: int
    attempts: int
    thread: str
    books: Books
    books_seq: int
    operation: Operation
    model: str
    upstream: str
    rate: Rate
    reserve_nanos: int
    input_bound: int
    stream: bool
    decided_at: float
    deadline: float
    listeners: list[str]
    sent: int = 0
    max_tokens: int | None = None
    include_usage: bool = False
    version: str = ""
    claim: str | None = None
    unclaimed: bool = False
    fingerprint: str = ""
    key: str = ""
    limits: str = ""
    cache: str = ""
    clamped: bool = False
    cache_s: float = 0.0
    slices: dict[str, str] = {}
    traceparent: str | None = None


class Outcome(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How an attempt went. `ended`: the caller has its answer or its error. `failed`: it has heard nothing yet.

    `unserved` and `lost` are the router's own words: no process took the attempt; one took it and failed, so that only
    the log can tell what became of it. `cost_nanos` is what it cost, `sent` the number of the last chunk; `served`
    lists the inboxes that heard the end: one that asked for the same request a moment too late is not among them.
    `called` tells a failure of the upstream from one before it was called.
    """

    status: Literal["ended", "failed", "unserved", "lost"]
    books: Books | None = None
    books_seq: int = 0
    failure: FailureClass | None = None
    message: str = ""
    retry_after: float | None = None
    cost_nanos: int | None = None
    sent: int = 0
    served: list[str] = []
    called: bool = True


class Join(Struct, frozen=True):
    """Another caller asks for a request that may be running: `scope` identifies it, `inbox` wants its answer too."""

    scope: str
    inbox: str


class Pulse(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Once a second from every process: what it has under way, and what it has answered since the last one.

    `attempts` lists the attempts it keeps alive; `waiting` maps those that its routers gave away to where they want to
    hear how each went, which keeps none alive; `answered` lists attempts whose caller has heard how they ended.
    `position` is how far the process has read the registry. `degraded` are its degraded modes, since when each (Unix
    time), and `failing` the analyzers that failed here, how often each. `plugins` are the kinds of providers it serves.
    """

    process: str
    roles: list[str]
    attempts: list[str]
    answered: list[str]
    position: int
    waiting: dict[str, str] = {}
    degraded: dict[str, float] = {}
    failing: dict[str, int] = {}
    plugins: list[Used] = []


_dispatch_decoder = msgspec.json.Decoder(Dispatch)
outcome_decoder = msgspec.json.Decoder(Outcome)
_join_decoder = msgspec.json.Decoder(Join)
_pulse_decoder = msgspec.json.Decoder(Pulse)
encode = msgspec.json.Encoder().encode


_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


def read_join(data: bytes) -> Join | None:
    """Who wants to join what; None where it is unreadable, which nobody answers: only who has the request does."""
    try:
        return _join_decoder.decode(data)
    except _UNREADABLE:
        return None


def read_pulse(data: bytes) -> Pulse | None:
    """What a process has under way; None where it is unreadable."""
    try:
        return _pulse_decoder.decode(data)
    except _UNREADABLE:
        return None


def pack(dispatch: Dispatch, body: bytes) -> bytes:
    """A dispatch and the caller's body as one message."""
    return b"%b\n%b" % (encode(dispatch), body)


def unpack(data: bytes) -> tuple[Dispatch, bytes] | None:
    """What `pack` put together; None for anything else."""
    line, _, body = data.partition(b"\n")
    try:
        return _dispatch_decoder.decode(line), body
    except _UNREADABLE:
        return None
