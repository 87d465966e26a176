"""An upstream that needs no key and no network: the upstream model name is a script of what it answers.

The scripts (`echo`, `say:<text>`, `fail:<class>`, `stall`, …) are listed in `script`.
"""

import asyncio
import base64
import hashlib
import itertools
import math
import secrets
import struct
import time
from collections.abc import AsyncGenerator, Iterator
from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType
from trunkline_events.failure import FailureClass, UpstreamError
from trunkline_events.usage import Usage

from trunkline_actors.adapters import Answer, Call, Chunk, End
from trunkline_actors.adapters.faults import upstream_error
from trunkline_actors.adapters.script import Function, Play, Request, limited, read_script, tokens

_DIMENSIONS = 8
_ids = map(f"chatcmpl-{secrets.token_hex(6)}-{{:x}}".format, itertools.count(1))


class _EmbeddingsRequest(Struct):
    input: str | list[str | int | list[int]] = ""
    dimensions: Annotated[int, Meta(ge=1, le=4096)] | None = None
    encoding_format: Literal["float", "base64"] = "float"


class _ToolCall(Struct, frozen=True):
    function: Function
    index: int = 0
    id: str = "call_1"
    type: str = "function"


class _Said(Struct):
    """A message, or what a chunk adds to one."""

    role: str | UnsetType = UNSET
    content: str | UnsetType | None = UNSET
    reasoning_content: str | UnsetType = UNSET
    tool_calls: list[_ToolCall] | UnsetType = UNSET


class _Whole(Struct):
    message: _Said
    finish_reason: str
    index: int = 0


class _Piece(Struct):
    delta: _Said
    finish_reason: str | None = None
    index: int = 0


class _Counts(Struct):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    completion_tokens_details: dict[str, int]


class _Reply(Struct):
    """A chat completion, or one chunk of it."""

    id: str
    object: str
    created: int
    model: str
    choices: list[_Whole] | list[_Piece]
    usage: _Counts | UnsetType = UNSET


_decode_request = msgspec.json.Decoder(Request).decode
_decode_embeddings = msgspec.json.Decoder(_EmbeddingsRequest).decode
_encode = msgspec.json.Encoder().encode


class Scripted:
    """The scripted upstream. Keeps nothing between calls; one instance serves any number of them."""

    def __init__(self) -> None:
        self._closed = asyncio.Event()

    async def complete(self, call: Call) -> Answer:
        """Answer a chat request as a whole. Raises UpstreamError."""
        request, play = self._start(call)
        if play.chunks is not None:
            if play.stalls:
                await self._wait(math.inf, call.timeout)
            raise _cut()
        play, spent, finish = limited(request, play, call.max_tokens)
        if play.rate != math.inf:
            await self._wait(spent.output_tokens / play.rate, call.timeout)
        message = _Said(role="assistant", content=None if play.tool else play.text)
        if play.thinking:
            message.reasoning_content = play.thinking
        if play.tool:
            message.tool_calls = [_ToolCall(play.tool)]
        choices = [_Whole(message, finish)]
        reply = _Reply(next(_ids), "chat.completion", int(time.time()), call.model, choices, _counts(spent))
        return Answer(body=_encode(reply), usage=spent, finish=finish)

    async def stream(self, call: Call) -> AsyncGenerator[Chunk | End, None]:
        """Answer a chat request chunk by chunk, then one End. Raises UpstreamError, also after chunks were given."""
        clock = asyncio.get_running_loop().time
        started = clock()
        request, play = self._start(call)
        play, spent, finish = limited(request, play, call.max_tokens)
        reply = _Reply(next(_ids), "chat.completion.chunk", int(time.time()), call.model, [])
        for number, said in enumerate(itertools.islice(_deltas(play), play.chunks)):
            if play.rate != math.inf:
                passed = clock() - started
                await self._wait(number / play.rate - passed, call.timeout - passed)
            reply.choices = [_Piece(said)]
            yield Chunk(_encode(reply), _text_bytes(said))
        if play.chunks is not None:
            if play.stalls:
                await self._wait(math.inf, call.timeout - (clock() - started))
            raise _cut()
        reply.choices = [_Piece(_Said(), finish)]
        yield Chunk(_encode(reply))
        if call.include_usage:
            reply.choices, reply.usage = [], _counts(spent)
            yield Chunk(_encode(reply))
        yield End(usage=spent, finish=finish)

    async def embed(self, call: Call) -> Answer:
        """Answer an embeddings request. Raises UpstreamError."""
        play = self._start(call)[1]
        if play.chunks is not None:
            if play.stalls:
                await self._wait(math.inf, call.timeout)
            raise _cut()
        return _embeddings(call)

    async def check(self) -> None:
        """Return. Raises UpstreamError once closed."""
        if self._closed.is_set():
            raise _closed()

    async def close(self) -> None:
        """End the calls that wait, and refuse new ones, with UpstreamError."""
        self._closed.set()

    def _start(self, call: Call) -> tuple[Request, Play]:
        if self._closed.is_set():
            raise _closed()
        try:
            request = _decode_request(call.body)
        except (ValueError, RecursionError) as error:
            raise upstream_error(FailureClass.INVALID_REQUEST, "the request body is no chat request", 400) from error
        try:
            return request, read_script(call.model, request)
        except ValueError as error:
            raise upstream_error(FailureClass.MODEL_NOT_FOUND, "no such script", 404) from error

    async def _wait(self, delay: float, timeout: float) -> None:
        """Wait `delay` seconds. Raises UpstreamError after `timeout` seconds, or as soon as the adapter is closed."""
        if delay <= 0:
            return
        try:
            async with asyncio.timeout(min(delay, timeout)):
                await self._closed.wait()
        except TimeoutError as error:
            if delay > timeout:
                raise upstream_error(FailureClass.TIMEOUT, "the script did not answer in time") from error
            return
        raise _closed()


def _deltas(play: Play) -> Iterator[_Said]:
    yield _Said(role="assistant", content="")
    if play.tool:
        yield _Said(tool_calls=[_ToolCall(play.tool)])
        return
    for token in tokens(play.thinking):
        yield _Said(reasoning_content=token)
    for token in tokens(play.text):
        yield _Said(content=token)


def _embeddings(call: Call) -> Answer:
    try:
        request = _decode_embeddings(call.body)
    except (ValueError, RecursionError) as error:
        raise upstream_error(FailureClass.INVALID_REQUEST, "the request body is no embeddings request", 400) from error
    texts = _inputs(request.input)
    data = [
        {"object": "embedding", "index": index, "embedding": _vector(text, request)} for index, text in enumerate(texts)
    ]
    count = sum(len(text.split()) for text in texts)
    usage = {"prompt_tokens": count, "total_tokens": count}
    body = _encode({"object": "list", "data": data, "model": call.model, "usage": usage})
    return Answer(body=body, usage=Usage(input_tokens=count), finish="stop")


def _inputs(given: str | list[str | int | list[int]]) -> list[str]:
    """One text per input: a list of numbers is one input, already in tokens."""
    if isinstance(given, str):
        return [given]
    if given and isinstance(given[0], int):
        return [" ".join(map(str, given))]
    return [" ".join(map(str, one)) if isinstance(one, list) else str(one) for one in given]


def _vector(text: str, request: _EmbeddingsRequest) -> list[float] | str:
    size = request.dimensions or _DIMENSIONS
    raw = struct.unpack(f"<{size}i", hashlib.shake_256(text.encode()).digest(4 * size))
    length = math.hypot(*raw)
    unit = [number / length for number in raw]
    return unit if request.encoding_format == "float" else base64.b64encode(struct.pack(f"<{size}f", *unit)).decode()


def _counts(spent: Usage) -> _Counts:
    total = spent.input_tokens + spent.output_tokens
    return _Counts(spent.input_tokens, spent.output_tokens, total, {"reasoning_tokens": spent.reasoning_tokens})


def _text_bytes(said: _Said) -> int:
    if said.tool_calls:
        return sum(len(call.function.arguments.encode()) for call in said.tool_calls)
    text = said.reasoning_content if said.content is UNSET else said.content
    return len(text.encode()) if isinstance(text, str) else 0


def _cut() -> UpstreamError:
    return upstream_error(FailureClass.CONNECTION, "the script cut the connection")


def _closed() -> UpstreamError:
    return upstream_error(FailureClass.CONNECTION, "the scripted provider was closed")
