"""What an upstream may say, as plain data, and the wire formats it may say it in.

Each module in this package renders these scenarios as the real HTTP answers of its wire format, and reads requests as
that format's server would: `WIRES` names one `Wire` for each kind of provider. `tests/contract/test_scenarios.py` holds
every kind to the same scenarios with them, in both directions: what was sent, and what came back.
"""

import importlib
import pkgutil
from collections.abc import Sequence
from typing import Any, Literal, Protocol

from msgspec import Struct
from trunkline_events.failure import FailureClass
from trunkline_events.usage import Usage
from upstream import Reply, Request

Finish = Literal["stop", "length", "tool_calls", "content_filter"]


class Called(Struct, frozen=True):
    """A call of a tool. `arguments` is JSON in the pieces a stream has it in; a wire without such pieces joins them."""

    id: str
    name: str
    arguments: tuple[str, ...] = ("{}",)


class Said(Struct, frozen=True, kw_only=True):
    """One answer of a model, in the order thinking, text, calls. A stream has one event at least for each piece.

    Usage as ours counts it: input with cached, output with reasoning. None: the upstream tells none. A wire leaves out
    the counts it has no field for (see `Wire.counts`).
    """

    text: tuple[str, ...] = ()
    thinking: tuple[str, ...] = ()
    calls: tuple[Called, ...] = ()
    finish: Finish = "stop"
    usage: Usage | None = Usage(input_tokens=12, output_tokens=5)


class Stream(Struct, frozen=True, kw_only=True):
    """A streamed answer as its events: each with the line ends (LF) that close it, so that joining them is the body.

    `settled` is the number of first events after which a body that ends well is a whole answer: before, it was cut.
    """

    events: tuple[bytes, ...]
    settled: int
    content_type: str = "text/event-stream"


class Image(Struct, frozen=True):
    """An image a server was sent: as bytes, decoded, or as an address."""

    data: bytes | None = None
    url: str | None = None
    type: str | None = None
    """The media type, where the wire carries it beside the bytes."""


class Turn(Struct, frozen=True, kw_only=True):
    """A message as a server reads it. The result of a tool is a turn of its own, whatever the wire wraps it in.

    `call_id` and `name` are of the call that a tool's turn answers, each where the wire carries it.
    """

    role: Literal["user", "assistant", "tool"]
    text: str = ""
    images: tuple[Image, ...] = ()
    calls: tuple[Called, ...] = ()
    call_id: str | None = None
    name: str | None = None


class Tool(Struct, frozen=True):
    """A tool offered to the model; `parameters` is its JSON schema."""

    name: str
    description: str
    parameters: dict[str, Any]


class Seen(Struct, frozen=True, kw_only=True):
    """A chat request as the server of a wire format understands it. Fields the request has not are None or empty."""

    model: str
    stream: bool
    turns: tuple[Turn, ...]
    system: str = ""
    tools: tuple[Tool, ...] = ()
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    temperature: float | None = None
    schema: dict[str, Any] | None = None
    """The JSON schema that the answer must keep to."""


class Embedding(Struct, frozen=True):
    """An embeddings request as the server understands it."""

    model: str
    inputs: tuple[str, ...]


class Wire(Protocol):
    """One kind of provider, played from the server's side. What a kind can carry is said by its own `abilities`."""

    kind: str
    transports: tuple[Literal["raw", "sdk"], ...]
    counts: frozenset[Literal["cached", "reasoning"]]
    """Which parts of usage the wire has fields for, beside input and output."""
    finishes: frozenset[Finish]
    """The finish reasons it can express."""
    call_ids: bool
    """Whether calls of tools have ids on the wire; where not, the adapter makes them."""
    malformed: bytes
    """An event of a stream that no parser can read, closed as events are."""

    def base_url(self, origin: str) -> str:
        """The `base_url` to register for a server at `origin`, such as http://127.0.0.1:8080."""
        ...

    def whole(self, said: Said) -> Reply:
        """The answer to a request that didn't ask for a stream."""
        ...

    def stream(self, said: Said) -> Stream:
        """The answer to a request for a stream."""
        ...

    def refusing(self, kind: FailureClass, retry_after: int | None = None) -> Reply | None:
        """The error answer that means `kind`; None where this wire has none. `retry_after`: seconds, as a header."""
        ...

    def failing(self, kind: FailureClass) -> bytes | None:
        """An error as an event inside a stream under status 200, closed as events are; None where there is none."""
        ...

    def embeddings(self, vectors: Sequence[Sequence[float]], input_tokens: int) -> Reply:
        """The answer to an embeddings request. Asked only of kinds with that ability."""
        ...

    def checked(self) -> Reply:
        """What the request that `check` sends is answered with where all is well."""
        ...

    def seen(self, request: Request) -> Seen:
        """Read a chat request strictly: whatever the real server would refuse or ignore fails an assertion."""
        ...

    def seen_embedding(self, request: Request) -> Embedding:
        """Read an embeddings request as strictly."""
        ...


def wires() -> dict[str, Wire]:
    """The wire of each kind that has one, by the modules of this package."""
    found: dict[str, Wire] = {}
    for module in pkgutil.iter_modules(__path__):
        for wire in importlib.import_module(f"wires.{module.name}").WIRES:
            assert wire.kind not in found, f"two modules of tests/wires play {wire.kind}"
            found[wire.kind] = wire
    return found
