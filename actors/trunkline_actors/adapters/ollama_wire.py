"""What Ollama answers: chats, streams of JSON lines, embeddings and errors, read into OpenAI's shapes. Pure."""

import base64
import struct
from collections.abc import Iterable, Iterator
from typing import Any, Literal

import msgspec
from msgspec import Raw, Struct, field
from trunkline_events.failure import Failure, FailureClass, UpstreamError
from trunkline_events.usage import Usage

from trunkline_actors.adapters import Answer, Chunk, End
from trunkline_actors.adapters.faults import classify, read_fault, retry_after, safe, upstream_error
from trunkline_actors.adapters.json_lines import LineCutter
from trunkline_actors.adapters.thinking import ThinkSplitter

_MALFORMED = (ValueError, RecursionError)
_encode = msgspec.json.encode

# Ollama has no codes, only a sentence: these words are in its own source.
_TOO_LONG = ("context length", "context window", "prompt too long", "exceeds maximum context")


class _Function(Struct):
    name: str = ""
    arguments: Raw = Raw(b"{}")


class _ToolCall(Struct):
    function: _Function = field(default_factory=_Function)
    id: str = ""


class _Message(Struct):
    content: str | None = None
    thinking: str | None = None
    tool_calls: list[_ToolCall] | None = None


class Part(Struct):
    """A line of a stream, or the whole answer: its last one has `done`."""

    message: _Message | None = None
    done: bool = False
    done_reason: str | None = None
    prompt_eval_count: object = None
    eval_count: object = None
    error: Any = None


class _Vectors(Struct):
    embeddings: list[Raw] | None = None
    prompt_eval_count: object = None


_decode_part = msgspec.json.Decoder(Part).decode
_decode_vectors = msgspec.json.Decoder(_Vectors).decode


def failure_of(
    status: int | None, headers: Any, body: bytes, *, now: float = 0.0, secrets: tuple[str, ...] = ()
) -> Failure:
    """What an error answer means. `status` is 200, or None, for an error inside an answer that began well."""
    fault = read_fault(body)
    told = fault.message.lower()
    began_well = status is None or status < 300
    kind = classify(None if began_well else status, fault)
    if any(words in told for words in _TOO_LONG):
        kind = FailureClass.CONTEXT_LENGTH
    elif status == 503 and "busy" in told:  # more wait for a model than it keeps waiting
        kind = FailureClass.OVERLOADED
    elif kind is FailureClass.INTERNAL and began_well and fault.message:
        kind = FailureClass.UNAVAILABLE  # the process that runs the model is gone, or out of memory
    message = f"upstream answered {'with an error' if began_well else status}"
    if fault.message and kind in _TELLING:
        message += f": {safe(fault.message, secrets)}"
    return Failure(kind=kind, message=message, status=status, retry_after=retry_after(headers, now))


# Whose sentence names what to change, and quotes nothing but the name of a model.
_TELLING = {FailureClass.INVALID_REQUEST, FailureClass.MODEL_NOT_FOUND, FailureClass.UNAVAILABLE}


class Identity(Struct, frozen=True):
    """What an answer of ours is called: its id, when it was made (Unix time), the model; ids of calls begin so too."""

    id: str
    created: int
    model: str

    def head(self, kind: str) -> dict[str, Any]:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model}


def read_completion(body: bytes | Part, identity: Identity, *, secrets: tuple[str, ...] = ()) -> Answer:
    """A whole chat answer as OpenAI's. Raises UpstreamError where it is none, though its status was 200."""
    part = body if isinstance(body, Part) else _part(body, "chat answer", secrets)
    if part.message is None:
        raise upstream_error(FailureClass.INTERNAL, "upstream sent no chat answer", 200)
    if not part.done:
        raise upstream_error(FailureClass.CONNECTION, "upstream cut the answer: it is not done", 200)
    said = part.message
    thinking, text = said.thinking or "", said.content or ""
    if not thinking:
        splitter = ThinkSplitter()
        thinking, text = (a + b for a, b in zip(splitter.feed(text), splitter.finish(), strict=True))
    calls = _calls(said, identity, 0)
    finish = _finish(part, bool(calls))
    message: dict[str, Any] = {"role": "assistant", "content": text if text or not calls else None}
    if thinking:
        message["reasoning_content"] = thinking
    if calls:
        message["tool_calls"] = [{name: value for name, value in call.items() if name != "index"} for call in calls]
    usage = _usage(part.prompt_eval_count, part.eval_count)
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": finish}
    answer = {**identity.head("chat.completion"), "choices": [choice]}
    if usage is not None:
        answer["usage"] = _shown(usage)
    return Answer(body=_encode(answer), usage=usage, finish=finish)


def read_embeddings(
    body: bytes, model: str, encoding: Literal["float", "base64"], *, secrets: tuple[str, ...] = ()
) -> Answer:
    """An embeddings answer as OpenAI's. Raises UpstreamError where it is none."""
    try:
        vectors = _decode_vectors(body)
        rows = vectors.embeddings
        if rows is None:
            raise _not_a(body, "list of embeddings", secrets)
        told = [_packed(row) if encoding == "base64" else row for row in rows]
    except _MALFORMED as error:
        raise _not_a(body, "list of embeddings", secrets) from error
    usage = _usage(vectors.prompt_eval_count, None)
    count = 0 if usage is None else usage.input_tokens
    answer: dict[str, Any] = {
        "object": "list",
        "data": [{"object": "embedding", "index": place, "embedding": row} for place, row in enumerate(told)],
        "model": model,
        "usage": {"prompt_tokens": count, "total_tokens": count},
    }
    return Answer(body=_encode(answer), usage=usage, finish="stop")


class StreamReader:
    """Reads one stream: bytes (`feed`) or parts (`part`) in as they arrive, Chunks out, then one End.

    `done` says that the part which ends it was read. The usage chunk is given only where `include_usage` is true.
    """

    def __init__(self, identity: Identity, *, include_usage: bool, secrets: tuple[str, ...] = ()) -> None:
        self.done = False
        self._identity = identity
        self._include_usage = include_usage
        self._secrets = secrets
        self._lines = LineCutter()
        self._splitter: ThinkSplitter | None = ThinkSplitter()
        self._calls = 0
        self._any = False
        self._usage: Usage | None = None
        self._finish = "stop"
        # All chunks begin alike.
        self._head = _encode(identity.head("chat.completion.chunk"))[:-1] + b',"choices":'

    def feed(self, data: bytes) -> Iterator[Chunk]:
        """The chunks these bytes complete. Raises UpstreamError at an error or a malformed line, in its turn."""
        return self._read(self._lines.feed(data))

    def finish(self) -> Iterator[Chunk]:
        """The chunks left when the bytes ended without a last line feed."""
        rest = self._lines.finish()
        try:
            whole = bool(rest.strip()) and _decode_part(rest) is not None
        except _MALFORMED:
            whole = False  # it was cut, which `end` tells
        return self._read([rest] if whole else [])

    def end(self) -> End:
        """The clean end. Raises UpstreamError if nothing said that it is one."""
        if not self._any:
            raise upstream_error(FailureClass.INTERNAL, "upstream sent no stream of a chat", 200)
        if not self.done:
            raise upstream_error(FailureClass.CONNECTION, "upstream cut the stream: it is not done", 200)
        return End(usage=self._usage, finish=self._finish)

    def _read(self, lines: Iterable[bytes]) -> Iterator[Chunk]:
        for line in lines:
            if self.done:
                return
            if line.strip():
                yield from self.part(_part(line, "chunk", self._secrets))

    def part(self, part: Part) -> Iterator[Chunk]:
        """The chunks that one part makes. Raises UpstreamError where it is an error."""
        if part.error is not None or part.message is None:
            raise _not_a(_encode({"error": part.error}) if part.error else b"", "chunk", self._secrets)
        said = part.message
        thinking, text = said.thinking or "", said.content or ""
        if self._splitter is not None:
            if thinking:  # Ollama takes it apart itself
                held = self._splitter.finish()
                thinking, text = held[0] + thinking, held[1] + text
                self._splitter = None
            else:
                thinking, text = self._splitter.feed(text)
                if part.done or said.tool_calls:
                    thinking, text = (a + b for a, b in zip((thinking, text), self._splitter.finish(), strict=True))
        calls = _calls(said, self._identity, self._calls)
        self._calls += len(calls)
        delta: dict[str, Any] = {}
        if not self._any:
            delta["role"] = "assistant"
        if thinking:
            delta["reasoning_content"] = thinking
        if text:
            delta["content"] = text
        if calls:
            delta["tool_calls"] = calls
        self._any = True
        if delta:
            size = _length(thinking) + _length(text) + sum(_length(call["function"]["arguments"]) for call in calls)
            yield self._chunk([{"index": 0, "delta": delta, "finish_reason": None}], size)
        if part.done:
            self.done = True
            self._finish = _finish(part, bool(self._calls))
            self._usage = _usage(part.prompt_eval_count, part.eval_count)
            yield self._chunk([{"index": 0, "delta": {}, "finish_reason": self._finish}])
            if self._include_usage and self._usage is not None:
                yield self._chunk([], usage=self._usage)

    def _chunk(self, choices: list[dict[str, Any]], size: int = 0, usage: Usage | None = None) -> Chunk:
        tail = b"}" if usage is None else b',"usage":' + _encode(_shown(usage)) + b"}"
        return Chunk(self._head + _encode(choices) + tail, size)


def _part(data: bytes, wanted: str, secrets: tuple[str, ...]) -> Part:
    try:
        part = _decode_part(data)
    except _MALFORMED as error:
        raise _not_a(data, wanted, secrets) from error
    if part.error is not None:
        raise _not_a(data, wanted, secrets)
    return part


def _not_a(body: bytes, wanted: str, secrets: tuple[str, ...]) -> UpstreamError:
    if body.lstrip()[:1] == b"{" and b'"error"' in body:
        return UpstreamError(failure_of(200, {}, body, secrets=secrets))
    return upstream_error(FailureClass.INTERNAL, f"upstream sent no {wanted}", 200)


def _calls(said: _Message, identity: Identity, first: int) -> list[dict[str, Any]]:
    """The calls in a message, with the ids Ollama gave them, or ids of ours where it gave none."""
    return [
        {
            "index": place,
            "id": call.id or f"call_{identity.id.rpartition('-')[2]}_{place}",
            "type": "function",
            "function": {"name": call.function.name, "arguments": bytes(call.function.arguments).decode() or "{}"},
        }
        for place, call in enumerate(said.tool_calls or (), first)
    ]


def _finish(part: Part, called: bool) -> str:
    if part.done_reason == "length":
        return "length"
    return "tool_calls" if called else "stop"


def _usage(given: Any, generated: Any) -> Usage | None:
    """Token counts. None where there are none, or nonsense: a count must not fail an answer."""
    # A prompt that was evaluated before is counted by newer versions and left out by older ones: then it is unknown.
    counts = [count for count in (given, generated) if count is not None]
    if not counts or not all(type(count) is int and count >= 0 for count in counts):
        return None
    return Usage(input_tokens=given or 0, output_tokens=generated or 0)


def _shown(usage: Usage) -> dict[str, int]:
    return {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.input_tokens + usage.output_tokens,
    }


def _packed(row: Raw) -> str:
    numbers = msgspec.json.decode(row, type=list[float])
    return base64.b64encode(struct.pack(f"<{len(numbers)}f", *numbers)).decode()


def _length(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())
