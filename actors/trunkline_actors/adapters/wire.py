"""What OpenAI-wire adapters share: the body sent, and answers, streams and usage read. Pure.

Measured cost matters here, since every chunk of every stream passes through: a chunk is decoded only into the small
structs below, which skip what they don't name, and its bytes go on as they came unless a field must be renamed.
"""

import math
from collections.abc import Iterator
from decimal import Decimal
from typing import Annotated

import msgspec
from msgspec import Meta, Raw, Struct
from trunkline_events.failure import FailureClass, UpstreamError
from trunkline_events.usage import Usage

from trunkline_actors.adapters import Answer, Call, Chunk, End
from trunkline_actors.adapters.dialect import PLAIN, Dialect, Limit
from trunkline_actors.adapters.faults import from_answer, upstream_error
from trunkline_actors.adapters.sse import EventDecoder, EventTooLarge

Tokens = Annotated[int, Meta(ge=0)] | None
Amount = Decimal | None
Fields = dict[str, Raw]

_OTHER: dict[Limit, Limit] = {"max_tokens": "max_completion_tokens", "max_completion_tokens": "max_tokens"}
_MOST_DOLLARS = 1_000_000  # more for one answer is nonsense
_TRUE = Raw(b"true")
_NULL = Raw(b"null")
_MALFORMED = (ValueError, RecursionError)  # msgspec's own errors, and bad UTF-8, are ValueErrors
_encode = msgspec.json.encode
_decode_fields = msgspec.json.Decoder(Fields).decode


class _Function(Struct):
    arguments: str | None = None


class _ToolCall(Struct):
    function: _Function | None = None


class _Text(Struct):
    """A delta or a message. `reasoning` is what Groq, OpenRouter and Ollama call `reasoning_content`."""

    content: str | list[Raw] | None = None
    reasoning_content: str | None = None
    reasoning: object = None
    refusal: str | None = None
    tool_calls: list[_ToolCall] | None = None


class _Choice(Struct):
    index: int | str | float | None = None
    delta: _Text | None = None
    message: _Text | None = None
    finish_reason: str | None = None


class _Frame(Struct):
    choices: list[_Choice] | None = None
    usage: Raw = Raw()
    error: Raw = Raw()


class _Vectors(Struct):
    data: list[Raw] | None = None
    usage: Raw = Raw()


class _PromptDetails(Struct):
    cached_tokens: Tokens = None


class _CompletionDetails(Struct):
    reasoning_tokens: Tokens = None


class _Usage(Struct):
    """`prompt_cache_hit_tokens` is DeepSeek's name for cached tokens."""

    prompt_tokens: Tokens = None
    completion_tokens: Tokens = None
    total_tokens: Tokens = None
    prompt_tokens_details: _PromptDetails | None = None
    completion_tokens_details: _CompletionDetails | None = None
    prompt_cache_hit_tokens: Tokens = None


class _CostDetails(Struct):
    upstream_inference_cost: Amount = None


class _Cost(Struct):
    """OpenRouter's, in US dollars. With a key of one's own at the provider, that one charges too."""

    cost: Amount = None
    is_byok: bool = False
    cost_details: _CostDetails | None = None


_decode_cost = msgspec.json.Decoder(_Cost).decode
_decode_frame = msgspec.json.Decoder(_Frame).decode
_decode_vectors = msgspec.json.Decoder(_Vectors).decode
_decode_usage = msgspec.json.Decoder(_Usage).decode


def chat_body(call: Call, *, stream: bool, dialect: Dialect = PLAIN) -> bytes:
    """The chat request to send upstream: the caller's, with model, streaming and limit replaced, our fields dropped.

    Raises UpstreamError (invalid request) if the body is no JSON object.
    """
    fields = _own_fields_dropped(call)
    _set_limit(fields, call.max_tokens, dialect)
    if stream:
        fields["stream"] = _TRUE
        options = _object(fields.get("stream_options"))
        fields["stream_options"] = Raw(_encode(options | {"include_usage": _TRUE}))
    else:
        fields.pop("stream", None)
        fields.pop("stream_options", None)  # OpenAI refuses it without `stream`
    return _encode(fields)


def _set_limit(fields: Fields, limit: int | None, dialect: Dialect) -> None:
    """Put the limit, the caller's or `limit` in its place, under the one name it is to have upstream."""
    own, other = (_said(fields.pop(name, None)) for name in (dialect.limit, _OTHER[dialect.limit]))
    name = _OTHER[dialect.limit] if other is not None and own is None and dialect.other_limit else dialect.limit
    value = Raw(b"%d" % limit) if limit is not None else own if own is not None else other
    if value is not None:
        fields[name] = value


def _said(raw: Raw | None) -> Raw | None:
    return None if raw is None or raw == _NULL else raw


def embeddings_body(call: Call) -> bytes:
    """The embeddings request to send upstream. Raises UpstreamError (invalid request) if the body is no JSON object."""
    return _encode(_own_fields_dropped(call))


def read_completion(body: bytes, *, secrets: tuple[str, ...] = (), dialect: Dialect = PLAIN) -> Answer:
    """A whole chat answer. Raises UpstreamError where it is none, though its status was 200."""
    try:
        frame = _decode_frame(body)
    except _MALFORMED as error:
        raise _not_a(body, "chat completion", secrets) from error
    if not frame.choices:
        raise _not_a(body, "chat completion", secrets)
    finish = next((choice.finish_reason for choice in frame.choices if choice.finish_reason), "stop")
    if any(_has_foreign_reasoning(choice.message) for choice in frame.choices):
        body = _reasoning_renamed(body)
    charged = read_charge(frame.usage) if dialect.tells_cost else None
    return Answer(body=body, usage=read_usage(frame.usage), finish=finish, charged_nanos=charged)


def read_embeddings(body: bytes, *, secrets: tuple[str, ...] = ()) -> Answer:
    """An embeddings answer. Raises UpstreamError where it is none, though its status was 200."""
    try:
        vectors = _decode_vectors(body)
    except _MALFORMED as error:
        raise _not_a(body, "list of embeddings", secrets) from error
    if vectors.data is None:
        raise _not_a(body, "list of embeddings", secrets)
    return Answer(body=body, usage=read_usage(vectors.usage), finish="stop")


def read_usage(raw: Raw) -> Usage | None:
    """Token counts out of a `usage` object. None where it has none, or nonsense: a count must not fail an answer."""
    if not raw or raw == _NULL:
        return None
    try:
        said = _decode_usage(raw)
    except _MALFORMED:
        return None
    if said.prompt_tokens is None and said.completion_tokens is None:
        return None
    prompt, output = said.prompt_tokens or 0, said.completion_tokens or 0
    details = said.prompt_tokens_details
    cached = (details and details.cached_tokens) or said.prompt_cache_hit_tokens or 0
    thought = (said.completion_tokens_details and said.completion_tokens_details.reasoning_tokens) or 0
    if thought and (thought > output or said.total_tokens == prompt + output + thought):
        output += thought  # xAI counts thinking beside the completion, all others within it
    return Usage(
        input_tokens=prompt, cached_input_tokens=min(cached, prompt), output_tokens=output, reasoning_tokens=thought
    )


def read_charge(raw: Raw) -> int | None:
    """What a `usage` object says was charged, in nano-dollars, rounded up. None where it makes no sense."""
    if not raw or raw == _NULL:
        return None
    try:
        said = _decode_cost(raw)
    except _MALFORMED:
        return None
    beside = said.cost_details.upstream_inference_cost if said.is_byok and said.cost_details else None
    amounts = [amount for amount in (said.cost, beside) if amount is not None]
    # Each is asked first whether it is finite: to add a signalling NaN raises, and so does to compare it.
    if said.cost is None or not all(one.is_finite() and 0 <= one < _MOST_DOLLARS for one in amounts):
        return None
    return math.ceil(sum(amounts, Decimal(0)).scaleb(9))


class StreamReader:
    """Reads one stream: bytes in as they arrive, Chunks out, then one End.

    The usage-only chunk is given only where `include_usage` is true. `done` says that upstream's `[DONE]` was read.
    """

    def __init__(self, *, include_usage: bool, secrets: tuple[str, ...] = (), dialect: Dialect = PLAIN) -> None:
        self.done = False
        self._events = EventDecoder()
        self._include_usage = include_usage
        self._secrets = secrets
        self._usage: Usage | None = None
        self._tells_cost = dialect.tells_cost
        self._charged: int | None = None
        self._finish = ""
        self._over: dict[int | str | float | None, bool] = {}  # whether a choice that began has finished, by its index
        self._any = False

    def feed(self, data: bytes) -> Iterator[Chunk]:
        """The chunks these bytes complete. Raises UpstreamError at an error or a malformed chunk, in its turn."""
        try:
            payloads = self._events.feed(data)
        except EventTooLarge as error:
            raise upstream_error(FailureClass.INTERNAL, str(error), 200) from error
        return self._chunks(payloads)

    def finish(self) -> Iterator[Chunk]:
        """The chunks left when the bytes ended without a last empty line. Raises as `feed` does."""
        return self._chunks(self._events.finish())

    def end(self) -> End:
        """The clean end. Raises UpstreamError if nothing said that it is one."""
        if not self._any and not self.done:
            raise upstream_error(FailureClass.INTERNAL, "upstream sent no event stream", 200)
        if not self.done and not (self._over and all(self._over.values())):
            raise upstream_error(FailureClass.CONNECTION, "upstream cut the stream: no finish reason, no [DONE]", 200)
        return End(usage=self._usage, finish=self._finish or "stop", charged_nanos=self._charged)

    def _chunks(self, payloads: list[bytes]) -> Iterator[Chunk]:
        for payload in payloads:
            if self.done:
                return
            if payload == b"[DONE]":
                self.done = True
            elif (chunk := self._read(payload)) is not None:
                yield chunk

    def _read(self, payload: bytes) -> Chunk | None:
        try:
            frame = _decode_frame(payload)
        except _MALFORMED as error:
            raise _not_a(payload, "chunk", self._secrets) from error
        if frame.choices is None or (frame.error and frame.error != _NULL):
            raise _not_a(payload, "chunk", self._secrets)
        self._any = True
        if frame.usage and frame.usage != _NULL:
            if (usage := read_usage(frame.usage)) is not None:
                self._usage = usage
                if self._tells_cost:
                    self._charged = read_charge(frame.usage)
            if not frame.choices and not self._include_usage:
                return None
        size, foreign = 0, False
        for choice in frame.choices:
            if choice.finish_reason:
                self._finish, self._over[choice.index] = choice.finish_reason, True
            self._over.setdefault(choice.index, False)
            if choice.delta is not None:
                size += text_bytes(choice.delta)
                foreign = foreign or _has_foreign_reasoning(choice.delta)
        return Chunk(_reasoning_renamed(payload) if foreign else payload, size)


def text_bytes(text: _Text) -> int:
    """UTF-8 bytes of what was generated in a delta: content, thinking, refusal and the arguments of tool calls."""
    size = 0
    if text.content:
        size += _length(text.content) if isinstance(text.content, str) else sum(len(bytes(p)) for p in text.content)
    if text.reasoning_content:
        size += _length(text.reasoning_content)
    elif isinstance(text.reasoning, str):
        size += _length(text.reasoning)
    if text.refusal:
        size += _length(text.refusal)
    for call in text.tool_calls or ():
        if call.function is not None and call.function.arguments:
            size += _length(call.function.arguments)
    return size


def not_a_stream(body: bytes, *, secrets: tuple[str, ...] = ()) -> UpstreamError:
    """The error for a stream request that was answered, with status 200, by a body that is no event stream."""
    return _not_a(body, "event stream", secrets)


def _length(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())


def _own_fields_dropped(call: Call) -> Fields:
    try:
        fields = _decode_fields(call.body)
    except _MALFORMED as error:
        raise upstream_error(FailureClass.INVALID_REQUEST, "the request body is no JSON object") from error
    fields.pop("route", None)
    fields["model"] = Raw(_encode(call.model))
    if "thread_id" in (metadata := _object(fields.get("metadata"))):
        del metadata["thread_id"]
        if metadata:
            fields["metadata"] = Raw(_encode(metadata))
        else:
            del fields["metadata"]
    return fields


def _object(raw: Raw | None) -> Fields:
    try:
        return _decode_fields(raw) if raw is not None else {}
    except _MALFORMED:
        return {}


def _has_foreign_reasoning(text: _Text | None) -> bool:
    return text is not None and isinstance(text.reasoning, str) and text.reasoning_content is None


def _reasoning_renamed(body: bytes) -> bytes:
    fields = _decode_fields(body)
    choices = msgspec.json.decode(fields["choices"], type=list[Fields])
    for choice in choices:
        for place in ("delta", "message"):
            text = _object(choice.get(place))
            if "reasoning" in text and text["reasoning"] != _NULL:
                text["reasoning_content"] = text.pop("reasoning")
                choice[place] = Raw(_encode(text))
    fields["choices"] = Raw(_encode(choices))
    return _encode(fields)


def _not_a(body: bytes, wanted: str, secrets: tuple[str, ...]) -> UpstreamError:
    # A success status around an error object: some gateways do that, and OpenAI does inside streams.
    if body.lstrip()[:1] in (b"{", b"[") and b'"error"' in body:
        return UpstreamError(from_answer(200, {}, body, now=0.0, secrets=secrets))
    return upstream_error(FailureClass.INTERNAL, f"upstream sent no {wanted}", 200)
