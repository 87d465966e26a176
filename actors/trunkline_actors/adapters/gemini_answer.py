"""What Gemini answers, as OpenAI's clients read it: whole answers, streams, embeddings, usage. Pure.

Parts marked `thought` become `reasoning_content`, calls of functions `tool_calls` (with ids made where Gemini gives
none), and signatures `extra_content.google.thought_signature`, where Google's own OpenAI endpoint has them.
https://ai.google.dev/api/generate-content#v1beta.GenerateContentResponse
"""

import base64
import struct
from collections.abc import Iterator
from contextlib import suppress
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Raw, Struct
from trunkline_events.failure import FailureClass, UpstreamError
from trunkline_events.usage import Usage

from trunkline_actors.adapters import Answer, Chunk, End
from trunkline_actors.adapters.faults import upstream_error
from trunkline_actors.adapters.gemini_faults import failure_of
from trunkline_actors.adapters.gemini_parts import BLOCKED, Candidate, Gathered, finish_reason, gather
from trunkline_actors.adapters.sse import EventDecoder, EventTooLarge

Tokens = Annotated[int, Meta(ge=0)] | None

_MALFORMED = (ValueError, RecursionError)
_NULL = Raw(b"null")
_encode = msgspec.json.encode


class Made(Struct, frozen=True, kw_only=True):
    """What an answer needs that Gemini may not give.

    `ident` is unused by any other answer, `now` is Unix time in whole seconds, `model` the name that was asked for.
    """

    ident: str
    now: int
    model: str


class _PromptFeedback(Struct, rename="camel"):
    block_reason: str | None = None


class _Response(Struct, rename="camel"):
    candidates: list[Candidate] | None = None
    prompt_feedback: _PromptFeedback | None = None
    usage_metadata: Raw = Raw()
    response_id: str | None = None
    model_version: str | None = None
    error: Raw = Raw()


class _Usage(Struct, rename="camel"):
    prompt_token_count: Tokens = None
    tool_use_prompt_token_count: Tokens = None
    cached_content_token_count: Tokens = None
    candidates_token_count: Tokens = None
    thoughts_token_count: Tokens = None


class _Vector(Struct):
    values: list[float]


class _Vectors(Struct, rename="camel"):
    embeddings: list[_Vector]
    usage_metadata: Raw = Raw()


_decode_response = msgspec.json.Decoder(_Response).decode
_decode_any = msgspec.json.Decoder(Raw).decode
_decode_usage = msgspec.json.Decoder(_Usage).decode
_decode_vectors = msgspec.json.Decoder(_Vectors).decode


def read_completion(body: bytes, made: Made, *, secrets: tuple[str, ...] = ()) -> Answer:
    """A whole answer as a `chat.completion`. Raises UpstreamError where it is none, though its status was 200."""
    response = _response(body, secrets)
    choices: list[dict[str, Any]] = []
    blocked: UpstreamError | None = None
    for at, candidate in enumerate(response.candidates or ()):
        index = at if candidate.index is None else candidate.index
        gathered = gather(candidate, _ident(made, index), 0)
        try:
            finish = finish_reason(candidate.finish_reason or "STOP", gathered.size > 0, bool(gathered.calls))
        except UpstreamError as error:
            if error.failure.kind is not FailureClass.CONTENT_FILTER:
                raise
            blocked, finish = blocked or error, "content_filter"
        choices.append({"index": index, "message": _message(gathered), "logprobs": None, "finish_reason": finish})
    if blocked is not None and all(choice["finish_reason"] == "content_filter" for choice in choices):
        raise blocked
    if not choices:
        raise upstream_error(FailureClass.INTERNAL, "upstream sent no candidates", 200)
    usage = read_usage(response.usage_metadata)
    completion = _head("chat.completion", response, made) | {"choices": choices}
    if usage is not None:
        completion["usage"] = usage_body(usage)
    return Answer(body=_encode(completion), usage=usage, finish=choices[0]["finish_reason"])


def read_embeddings(body: bytes, model: str, *, as_base64: bool, secrets: tuple[str, ...] = ()) -> Answer:
    """An embeddings answer. Raises UpstreamError where it is none, though its status was 200."""
    try:
        found = _decode_vectors(body)
    except _MALFORMED as error:
        raise _not_a(body, "embeddings", secrets) from error
    data = [
        {"object": "embedding", "index": at, "embedding": _packed(one.values) if as_base64 else one.values}
        for at, one in enumerate(found.embeddings)
    ]
    usage = read_usage(found.usage_metadata)
    tokens = usage.input_tokens if usage else 0
    answer = {"object": "list", "data": data, "model": model}
    return Answer(
        body=_encode(answer | {"usage": {"prompt_tokens": tokens, "total_tokens": tokens}}), usage=usage, finish="stop"
    )


def read_usage(raw: Raw) -> Usage | None:
    """Token counts out of a `usageMetadata`. None where it has none, or nonsense: a count must not fail an answer.

    Gemini counts thoughts beside the candidates, and what its own tools fed the model beside the prompt.
    """
    if not raw:
        return None
    try:
        said = _decode_usage(raw)
    except _MALFORMED:
        return None
    if said.prompt_token_count is None and said.candidates_token_count is None and said.thoughts_token_count is None:
        return None
    prompt = (said.prompt_token_count or 0) + (said.tool_use_prompt_token_count or 0)
    thoughts = said.thoughts_token_count or 0
    return Usage(
        input_tokens=prompt,
        cached_input_tokens=min(said.cached_content_token_count or 0, prompt),
        output_tokens=(said.candidates_token_count or 0) + thoughts,
        reasoning_tokens=thoughts,
    )


def usage_body(usage: Usage) -> dict[str, object]:
    """Usage as an OpenAI `usage` object."""
    return {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.input_tokens + usage.output_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_input_tokens},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
    }


def rest_of(events: EventDecoder) -> list[bytes]:
    """The last event of a stream that ended without an empty line, if it is whole: half a JSON object is none."""
    whole = []
    for payload in events.feed(b"\n\n"):
        with suppress(*_MALFORMED):
            _decode_any(payload)
            whole.append(payload)
    return whole


class StreamReader:
    """Reads one stream of `candidates` answers: bytes in as they arrive, Chunks out, then one End.

    `done` says that nothing more is to come: Gemini marks the end of a stream by each candidate's finish reason alone.
    """

    def __init__(
        self, made: Made, *, candidates: int = 1, include_usage: bool = False, secrets: tuple[str, ...] = ()
    ) -> None:
        self._made = made
        self._candidates = candidates
        self._include_usage = include_usage
        self._secrets = secrets
        self._events = EventDecoder()
        self._usage = Raw()
        self._calls: dict[int, int] = {}  # calls so far, by index of each candidate seen
        self._sizes: dict[int, int] = {}
        self._finished: dict[int, str] = {}
        self._chunk_head = b""
        self._usage_head: dict[str, Any] = {}

    @property
    def done(self) -> bool:
        return bool(self._usage) and len(self._finished) >= max(self._candidates, len(self._calls))

    def feed(self, data: bytes) -> Iterator[Chunk]:
        """The chunks these bytes complete. Raises UpstreamError at an error or a malformed event, in its turn."""
        try:
            payloads = self._events.feed(data)
        except EventTooLarge as error:
            raise upstream_error(FailureClass.INTERNAL, str(error), 200) from error
        return self._chunks(payloads)

    def finish(self) -> Iterator[Chunk]:
        """The chunks left when the bytes ended, the usage chunk among them where it was asked for.

        Raises UpstreamError if the stream was cut, and as `feed` does.
        """
        yield from self._chunks(rest_of(self._events))
        if not self._usage_head:
            raise upstream_error(FailureClass.INTERNAL, "upstream sent no event stream", 200)
        if not self._finished or len(self._finished) < len(self._calls):
            raise upstream_error(FailureClass.CONNECTION, "upstream cut the stream: no finish reason", 200)
        if self._include_usage and (usage := read_usage(self._usage)) is not None:
            yield Chunk(_encode(self._usage_head | {"choices": [], "usage": usage_body(usage)}))

    def end(self) -> End:
        """The clean end, after `finish`."""
        return End(usage=read_usage(self._usage), finish=next(iter(self._finished.values()), "stop"))

    def _chunks(self, payloads: list[bytes]) -> Iterator[Chunk]:
        for payload in payloads:
            response = _response(payload, self._secrets)
            if not self._usage_head:
                self._usage_head = _head("chat.completion.chunk", response, self._made)
                self._chunk_head = _encode(self._usage_head)[:-1] + b',"choices":[{"index":'
            if response.usage_metadata:
                self._usage = response.usage_metadata
            for at, candidate in enumerate(response.candidates or ()):
                if (chunk := self._read(at if candidate.index is None else candidate.index, candidate)) is not None:
                    yield chunk

    def _read(self, index: int, candidate: Candidate) -> Chunk | None:
        first = index not in self._calls
        before = self._calls.get(index, 0)
        gathered = gather(candidate, _ident(self._made, index), before)
        self._calls[index] = before + len(gathered.calls)
        self._sizes[index] = self._sizes.get(index, 0) + gathered.size
        finish = b"null"
        if candidate.finish_reason and index not in self._finished:
            any_text = self._sizes[index] > 0 or self._candidates > 1  # one of several is told by its choice alone
            named = finish_reason(candidate.finish_reason, any_text, self._calls[index] > 0)
            self._finished[index] = named
            finish = _encode(named)
        delta = _delta(gathered, before)
        if first:
            delta = {"role": "assistant"} | delta
        if not delta and finish == b"null":
            return None
        data = b'%b%d,"delta":%b,"finish_reason":%b}]}' % (self._chunk_head, index, _encode(delta), finish)
        return Chunk(data, gathered.size)


def _response(payload: bytes, secrets: tuple[str, ...]) -> _Response:
    try:
        response = _decode_response(payload)
    except _MALFORMED as error:
        raise _not_a(payload, "Gemini answer", secrets) from error
    if response.error and response.error != _NULL:
        raise UpstreamError(failure_of(200, {}, payload, now=0.0, secrets=secrets))
    if (feedback := response.prompt_feedback) is not None and feedback.block_reason:
        why = f" ({feedback.block_reason})" if feedback.block_reason in BLOCKED else ""
        raise upstream_error(FailureClass.CONTENT_FILTER, f"upstream blocked the prompt{why}", 200)
    if response.candidates is None and not response.usage_metadata and response.response_id is None:
        raise upstream_error(FailureClass.INTERNAL, "upstream sent no candidates", 200)
    return response


def _head(kind: str, response: _Response, made: Made) -> dict[str, Any]:
    ident, model = response.response_id or made.ident, response.model_version or made.model
    return {"id": ident, "object": kind, "created": made.now, "model": model}


def _ident(made: Made, index: int) -> str:
    return f"{made.ident}_{index}" if index else made.ident


def _message(gathered: Gathered) -> dict[str, Any]:
    message = {"role": "assistant", "content": None if gathered.calls else ""} | _delta(gathered, None)
    return message | {"refusal": None}


def _delta(gathered: Gathered, calls_before: int | None) -> dict[str, Any]:
    """What was said, as a delta, or as a message's fields where `calls_before` (the calls counted so far) is None."""
    delta: dict[str, Any] = {}
    if gathered.thinking:
        delta["reasoning_content"] = gathered.thinking
    if gathered.text:
        delta["content"] = gathered.text
    if gathered.images:
        delta["images"] = gathered.images
    if gathered.calls:
        calls = gathered.calls
        if calls_before is not None:
            calls = [{"index": at} | call for at, call in enumerate(calls, calls_before)]
        delta["tool_calls"] = calls
    if gathered.signature is not None:
        delta["extra_content"] = {"google": {"thought_signature": gathered.signature}}
    return delta


def _packed(vector: list[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()


def _not_a(body: bytes, wanted: str, secrets: tuple[str, ...]) -> UpstreamError:
    # A success status around an error, inside a list too.
    if body.lstrip()[:1] in (b"{", b"[") and b'"error"' in body:
        return UpstreamError(failure_of(200, {}, body, now=0.0, secrets=secrets))
    return upstream_error(FailureClass.INTERNAL, f"upstream sent no {wanted}", 200)
