"""How an answer of the bus is told to clients of one kind. Pure."""

from collections.abc import Mapping
from typing import Protocol

import msgspec
from trunkline_events import headers
from trunkline_events.usage import Usage

from trunkline.errors import ProviderError, TrunklineError
from trunkline.gateway import dialects
from trunkline.gateway.routes import Dialect

KEEP_ALIVE = b": keep-alive\n\n"
_DONE = b"data: [DONE]\n\n"
_decode_usage = msgspec.json.Decoder(Usage | None).decode


class Voice(Protocol):
    """Tells one answer. One for each request, since a stream's knows how far it has come.

    What is told of a stream are server-sent events, as the bytes that go out.
    """

    dialect: Dialect

    def head(self, receipt: dict[str, str]) -> dict[str, str]:
        """The headers of an answer that has this receipt."""
        ...

    def whole(self, body: bytes) -> bytes:
        """The body of a plain answer, from a `chat.completion`. Raises ProviderError where it is none."""
        ...

    def chunk(self, data: bytes) -> bytes:
        """What one `chat.completion.chunk` adds to a stream. Raises ProviderError where it is none."""
        ...

    def alive(self) -> bytes:
        """Something that keeps the connection open and says nothing."""
        ...

    def failure(self, error: TrunklineError) -> bytes:
        """The stream broke off: nothing follows."""
        ...

    def end(self, fields: Mapping[str, str]) -> bytes:
        """The stream is whole; `fields` are the headers of the bus's last message, with usage."""
        ...


class OpenAI:
    """Chat Completions: as on the bus."""

    dialect: Dialect = "openai"

    def head(self, receipt: dict[str, str]) -> dict[str, str]:
        """As it is."""
        return receipt

    def whole(self, body: bytes) -> bytes:
        """As it is."""
        return body

    def chunk(self, data: bytes) -> bytes:
        """As it is."""
        return b"data: %b\n\n" % data

    def alive(self) -> bytes:
        """A comment."""
        return KEEP_ALIVE

    def failure(self, error: TrunklineError) -> bytes:
        """An event that clients raise on."""
        return b"data: %b\n\n" % dialects.body_of(error, "openai")

    def end(self, fields: Mapping[str, str]) -> bytes:
        """`[DONE]`."""
        return _DONE


OPENAI = OpenAI()


def usage_in(fields: Mapping[str, str]) -> Usage:
    """The token counts of a stream's last message; zeros where it has none."""
    told = fields.get(headers.USAGE)
    return (_decode_usage(told) if told else None) or Usage()


def unreadable(what: str) -> TrunklineError:
    """What came from the provider is no answer that can be told in another dialect."""
    return ProviderError(
        f"the model's answer holds no {what} that can be read; ask again, or another model",
        code="provider_error",
        status=502,
        retryable=True,
    )
