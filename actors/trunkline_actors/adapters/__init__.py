"""How an upstream is called: one protocol, one module per wire format.

An adapter knows a wire format and nothing else: no bus, no log, no budget. It raises `UpstreamError` and nothing
else (cancellation apart), and it never retries: retries are decided, recorded and counted by the router. (A kept-alive
connection found dead before anything was answered is opened again once, beneath all that.)
"""

from collections.abc import AsyncGenerator
from typing import Protocol

from msgspec import Struct
from trunkline_events.usage import Usage


class Call(Struct, frozen=True, kw_only=True):
    """One upstream call.

    `body` is the caller's JSON, untouched: a Chat Completions or an embeddings request. `model` is the upstream's own
    name of the model and replaces the body's. `max_tokens`, where not None, replaces what the body asked for.
    `include_usage` says whether a stream's caller asked for the usage chunk. `timeout` is in seconds, for the
    whole call.
    """

    body: bytes
    model: str
    max_tokens: int | None = None
    include_usage: bool = False
    timeout: float = 60.0


class Answer(Struct, frozen=True, kw_only=True):
    """A whole answer: `body` is one OpenAI `chat.completion` (or embeddings list) as JSON.

    `usage` is None where the upstream sent none; `finish` is OpenAI's finish reason. `charged_nanos` is what the
    upstream says it charged, in nano-dollars, where it says so.
    """

    body: bytes
    usage: Usage | None
    finish: str
    charged_nanos: int | None = None


class Chunk(Struct, frozen=True):
    """One `chat.completion.chunk` as JSON. `text_bytes` counts the UTF-8 bytes generated in it, thinking included."""

    data: bytes
    text_bytes: int = 0


class End(Struct, frozen=True, kw_only=True):
    """The clean end of a stream; always the last item. `usage` is None where the upstream sent none.

    `charged_nanos` as in Answer.
    """

    usage: Usage | None
    finish: str
    charged_nanos: int | None = None


class Adapter(Protocol):
    """One upstream, spoken to in its own wire format. One instance serves many calls at once."""

    async def complete(self, call: Call) -> Answer:
        """Answer a chat request as a whole. Raises UpstreamError."""
        ...

    def stream(self, call: Call) -> AsyncGenerator[Chunk | End, None]:
        """Answer a chat request chunk by chunk, then one End. Raises UpstreamError, also after chunks were given.

        Closing the iterator (`aclose`) or cancelling its task cuts the upstream call at once.
        """
        ...

    async def embed(self, call: Call) -> Answer:
        """Answer an embeddings request. Raises UpstreamError."""
        ...

    async def check(self) -> None:
        """Return if the upstream can be reached with the credentials at hand. Raises UpstreamError."""
        ...

    async def close(self) -> None:
        """Release connections. Calls under way end in UpstreamError."""
        ...
