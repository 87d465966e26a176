"""Streams of Anthropic's Messages API as OpenAI's chunks. Pure.

Thinking and its signed blocks are given as `anthropic_answer` says; in a stream each block comes once more, whole, when
it ends. Wire format: https://platform.claude.com/docs/en/build-with-claude/streaming
"""

from collections.abc import Iterator
from typing import Any

import msgspec
from msgspec import Raw, Struct, structs
from trunkline_events.failure import FailureClass

from trunkline_actors.adapters import Chunk, End, faults
from trunkline_actors.adapters.anthropic_answer import (
    FINISH,
    Block,
    Counts,
    Message,
    StopDetails,
    add_counts,
    call_of,
    detail_of,
    told,
    usage_of,
)
from trunkline_actors.adapters.anthropic_faults import not_a
from trunkline_actors.adapters.sse import EventDecoder, EventTooLarge

_MALFORMED = (ValueError, RecursionError)
_NULL, _EMPTY = Raw(b"null"), Raw(b"{}")
_encode = msgspec.json.encode


class _Delta(Struct):
    type: str = ""
    text: str = ""
    thinking: str = ""
    signature: str = ""
    partial_json: str = ""
    stop_reason: str | None = None
    stop_details: StopDetails | None = None


class _Event(Struct):
    type: str = ""
    index: int = 0
    delta: _Delta | None = None
    message: Message | None = None
    content_block: Block | None = None
    usage: Raw = Raw()
    error: Raw = Raw()


_decode_event = msgspec.json.Decoder(_Event).decode


class StreamReader:
    """Reads one stream: bytes in as they arrive, Chunks out, then one End.

    The usage chunk is given only where `include_usage` is true. `done` says that `message_stop` was read.
    """

    def __init__(self, *, include_usage: bool, created: int, secrets: tuple[str, ...] = ()) -> None:
        self.done = False
        self._events = EventDecoder()
        self._include_usage = include_usage
        self._created = created
        self._secrets = secrets
        self._head = b""  # a chunk up to its choices
        self._counted = Counts()
        self._finish = ""
        self._block: Block | None = None  # the thinking or the call of a tool that is coming in
        self._thinking: list[str] = []
        self._calls = 0
        self._argued = False  # whether the current call has got any of its arguments

    def feed(self, data: bytes) -> Iterator[Chunk]:
        """The chunks these bytes complete. Raises UpstreamError at an error or a malformed event, in its turn."""
        try:
            payloads = self._events.feed(data)
        except EventTooLarge as error:
            raise faults.upstream_error(FailureClass.INTERNAL, str(error), 200) from error
        return self._chunks(payloads)

    def finish(self) -> Iterator[Chunk]:
        """The chunks left when the bytes ended without a last empty line. Raises as `feed` does."""
        return self._chunks(self._events.finish())

    def end(self) -> End:
        """The clean end. Raises UpstreamError if nothing said that it is one.

        A reason to stop says so as well as `message_stop`: nothing but that event comes after it.
        """
        if not self._head:
            raise faults.upstream_error(FailureClass.INTERNAL, "upstream sent no event stream", 200)
        if not self._finish and not self.done:
            raise faults.upstream_error(FailureClass.CONNECTION, "upstream cut the stream: no reason to stop", 200)
        return End(usage=usage_of(self._counted), finish=self._finish or "stop")

    def _chunks(self, payloads: list[bytes]) -> Iterator[Chunk]:
        for payload in payloads:
            if self.done:
                return
            try:
                event = _decode_event(payload)
            except _MALFORMED as error:
                raise not_a(payload, "event", self._secrets) from error
            if event.error and event.error != _NULL:
                raise not_a(payload, "event", self._secrets)
            yield from self._read(event)

    def _read(self, event: _Event) -> Iterator[Chunk]:
        kind = event.type
        if kind == "message_start" and event.message is not None:
            yield self._started(event.message)
        elif kind == "message_stop":
            self.done = True
        elif not self._head:
            if kind != "ping":
                raise faults.upstream_error(FailureClass.INTERNAL, "upstream sent no event stream of messages", 200)
        elif kind == "content_block_delta" and event.delta is not None:
            yield from self._went_on(event.delta)
        elif kind == "content_block_start" and event.content_block is not None:
            yield from self._block_started(event.content_block)
        elif kind == "content_block_stop":
            yield from self._block_ended(event.index)
        elif kind == "message_delta" and event.delta is not None:
            yield from self._ended(event.delta, event.usage)

    def _started(self, message: Message) -> Chunk:
        head = {"id": message.id, "object": "chat.completion.chunk", "created": self._created, "model": message.model}
        self._head = _encode(head)[:-1]
        counted = add_counts(Counts(), message.usage) or Counts()
        self._counted = structs.replace(counted, output_tokens=None)  # so far: the last event has what was generated
        return self._chunk({"role": "assistant", "content": ""})

    def _went_on(self, delta: _Delta) -> Iterator[Chunk]:
        # By far the most events are of these: their chunks are put together without an encoder of objects.
        if delta.text:
            yield self._text(b"content", delta.text)
        elif delta.thinking:
            self._thinking.append(delta.thinking)
            yield self._text(b"reasoning_content", delta.thinking)
        elif delta.partial_json:
            self._argued = True
            piece = {"index": self._calls - 1, "function": {"arguments": delta.partial_json}}
            yield self._chunk({"tool_calls": [piece]}, _length(delta.partial_json))
        elif delta.signature and self._block is not None:
            self._block.signature = (self._block.signature or "") + delta.signature

    def _block_started(self, block: Block) -> Iterator[Chunk]:
        self._block, self._thinking, self._argued = block, [], False
        if block.type == "tool_use":
            self._calls += 1
            # Some imitators send all arguments at once, here.
            given = bytes(block.input).decode() if block.input != _EMPTY else ""
            self._argued = bool(given)
            yield self._chunk({"tool_calls": [{"index": self._calls - 1, **call_of(block, given)}]}, _length(given))
        elif block.text or block.thinking:
            yield from self._went_on(_Delta(text=block.text, thinking=block.thinking))

    def _block_ended(self, index: int) -> Iterator[Chunk]:
        block, self._block = self._block, None
        if block is None:
            return
        if block.type == "tool_use" and not self._argued:
            # A call without arguments has no pieces; to OpenAI's clients that wouldn't be JSON.
            yield self._chunk({"tool_calls": [{"index": self._calls - 1, "function": {"arguments": "{}"}}]}, 2)
        block.thinking = "".join(self._thinking)
        if (detail := detail_of(index, block)) is not None:
            yield self._chunk({"reasoning_details": [detail]})

    def _ended(self, delta: _Delta, usage: Raw) -> Iterator[Chunk]:
        self._counted = add_counts(self._counted, usage) or self._counted
        if not delta.stop_reason:
            return
        self._finish = FINISH.get(delta.stop_reason, "stop")
        why = delta.stop_details.explanation if delta.stop_details is not None else None
        yield self._chunk({"refusal": why} if why else {}, 0, self._finish)
        if self._include_usage and (counts := usage_of(self._counted)) is not None:
            yield Chunk(self._head + b',"choices":[],"usage":' + _encode(told(self._counted, counts)) + b"}")

    def _text(self, field: bytes, text: str) -> Chunk:
        data = b'%b,"choices":[{"index":0,"delta":{"%b":%b},"finish_reason":null}]}'
        return Chunk(data % (self._head, field, _encode(text)), _length(text))

    def _chunk(self, delta: dict[str, Any], size: int = 0, finish: str | None = None) -> Chunk:
        choices = [{"index": 0, "delta": delta, "finish_reason": finish}]
        return Chunk(self._head + b',"choices":' + _encode(choices) + b"}", size)


def _length(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())
