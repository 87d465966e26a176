"""An upstream that needs no key and no network: the upstream model name says what it answers.

    echo                 the last user message's text
    say                  "Hello from the scripted provider."          say:<text>           that text
    think:<text>         that text as reasoning_content, then `say`'s sentence
    tokens:<n>           n tokens at once                             tokens:<n>@<rate>    n tokens at <rate> a second
    tool                 one call of the request's first tool, with {"query": <last user text>}; `say`'s sentence where
                         there are no tools; once the last message is a tool's, that message's text
    fail:<class>         fails, with a failure class of trunkline_events.failure
    fail:<class>:<s>     the same, with retry_after = s seconds
    cut:<k>              a stream of exactly k chunks, then a cut connection; not streamed: a cut connection
    stall                never answers, until cancelled or timed out  stall:<k>            k chunks of a stream, then so

Anything else fails with `model_not_found`. A token is a word with the spaces before it; input tokens are the words of
all messages. A limit (`call.max_tokens`, else the body's) cuts the answer, thinking first, with finish `length`.
The first chunk holds the role, the last the finish reason; a usage chunk follows where the caller asked for one.
Embeddings: any script but fail, cut and stall gives a unit vector per input, made from its hash: the same each time,
of 8 dimensions or as many as the body's `dimensions` says, as floats or base64.
"""

import asyncio
import base64
import hashlib
import itertools
import math
import re
import secrets
import struct
import time
from collections.abc import AsyncGenerator, Iterator
from functools import lru_cache
from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType
from trunkline_events.failure import Failure, FailureClass, UpstreamError
from trunkline_events.usage import Usage

from trunkline_actors.adapters import Answer, Call, Chunk, End
from trunkline_actors.adapters.faults import upstream_error

_SENTENCE = "Hello from the scripted provider."
_DIMENSIONS = 8
_MOST_TOKENS = 1_000_000
_TOKEN = re.compile(r"\s*\S+(?:\s+\Z)?")
_ids = map(f"chatcmpl-{secrets.token_hex(6)}-{{:x}}".format, itertools.count(1))


class _Part(Struct):
    text: str = ""


class _Message(Struct):
    role: str = "user"
    content: str | list[_Part] | None = None


class _Named(Struct):
    name: str = "tool"


class _Tool(Struct):
    function: _Named = _Named()


class _Request(Struct):
    messages: list[_Message] = []
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    tools: list[_Tool] | None = None


class _EmbeddingsRequest(Struct):
    input: str | list[str] | list[int] | list[list[int]] = ""
    dimensions: Annotated[int, Meta(ge=1, le=4096)] | None = None
    encoding_format: Literal["float", "base64"] = "float"


class _Function(Struct, frozen=True):
    name: str
    arguments: str


class _ToolCall(Struct, frozen=True):
    function: _Function
    index: int = 0
    id: str = "call_1"
    type: str = "function"


class _Said(Struct):
    """A message, or what a chunk adds to one."""

    role: str | UnsetType = UNSET
    content: str | None | UnsetType = UNSET
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


class _Play(Struct):
    """What a script comes to. `chunks` is where a stream ends badly: in a cut, or (`stalls`) in silence."""

    text: str = ""
    thinking: str = ""
    tool: _Function | None = None
    rate: float = math.inf
    chunks: int | None = None
    stalls: bool = False


_decode_request = msgspec.json.Decoder(_Request).decode
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
        play, spent, finish = _limited(request, play, call)
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
        play, spent, finish = _limited(request, play, call)
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

    def _start(self, call: Call) -> tuple[_Request, _Play]:
        if self._closed.is_set():
            raise _closed()
        try:
            request = _decode_request(call.body)
        except (ValueError, RecursionError) as error:
            raise upstream_error(FailureClass.INVALID_REQUEST, "the request body is no chat request", 400) from error
        try:
            return request, _play(call.model, request)
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


def _play(script: str, request: _Request) -> _Play:
    """Read a script. Raises ValueError where it isn't one."""
    verb, colon, rest = script.partition(":")
    match verb, bool(colon):
        case "echo", False:
            return _Play(_last_user_text(request))
        case "say", _:
            return _Play(rest if colon else _SENTENCE)
        case "think", True:
            return _Play(_SENTENCE, thinking=rest)
        case "tokens", True:
            count, paced, rate = rest.partition("@")
            return _Play(_words(int(count)), rate=_positive(rate) if paced else math.inf)
        case "tool", False:
            return _tool_play(request)
        case "fail", True:
            kind, _, delay = rest.partition(":")
            after = _positive(delay) if delay else None
            raise UpstreamError(Failure(kind=FailureClass(kind), message="the script says so", retry_after=after))
        case ("cut", True) | ("stall", _):
            chunks = int(rest) if colon else 0
            return _Play(_words(chunks), chunks=chunks, stalls=verb == "stall")
        case _:
            raise ValueError(script)


def _tool_play(request: _Request) -> _Play:
    if request.messages and request.messages[-1].role == "tool":
        return _Play(_text(request.messages[-1]))
    if not request.tools:
        return _Play(_SENTENCE)
    arguments = _encode({"query": _last_user_text(request)}).decode()
    return _Play(tool=_Function(request.tools[0].function.name, arguments))


def _limited(request: _Request, play: _Play, call: Call) -> tuple[_Play, Usage, str]:
    """The play cut to the call's limit, what it costs, and its finish reason."""
    limit = call.max_tokens or request.max_completion_tokens or request.max_tokens or math.inf
    thought, spoken = len(play.thinking.split()), len(play.text.split())
    finish = "stop"
    if play.tool:
        finish, spoken = "tool_calls", len(play.tool.arguments.split())
    elif thought + spoken > limit:
        finish, thought = "length", min(thought, int(limit))
        spoken = min(spoken, int(limit) - thought)
        play = _Play("".join(_tokens(play.text)[:spoken]), "".join(_tokens(play.thinking)[:thought]), rate=play.rate)
    asked = sum([len(_text(message).split()) for message in request.messages])
    return play, Usage(input_tokens=asked, output_tokens=thought + spoken, reasoning_tokens=thought), finish


def _deltas(play: _Play) -> Iterator[_Said]:
    yield _Said(role="assistant", content="")
    if play.tool:
        yield _Said(tool_calls=[_ToolCall(play.tool)])
        return
    for token in _tokens(play.thinking):
        yield _Said(reasoning_content=token)
    for token in _tokens(play.text):
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
    """One text per input; token numbers stand for themselves."""
    if isinstance(given, str):
        return [given]
    if given and isinstance(given[0], int):
        return [" ".join(map(str, given))]
    return [one if isinstance(one, str) else " ".join(map(str, one)) for one in given if not isinstance(one, int)]


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
    text = (
        (said.content or said.reasoning_content or "") if not said.tool_calls else said.tool_calls[0].function.arguments
    )
    return len(text.encode()) if isinstance(text, str) else 0


def _last_user_text(request: _Request) -> str:
    return next((_text(message) for message in reversed(request.messages) if message.role == "user"), "")


def _text(message: _Message) -> str:
    if isinstance(message.content, str):
        return message.content
    return " ".join([part.text for part in message.content or () if part.text])


def _tokens(text: str) -> list[str]:
    return _TOKEN.findall(text) or ([text] if text else [])


@lru_cache(maxsize=32)
def _words(count: int) -> str:
    if not 0 <= count <= _MOST_TOKENS:
        raise ValueError(count)
    return " ".join([f"w{number}" for number in range(1, count + 1)])


def _positive(text: str) -> float:
    number = float(text)
    if not 0 < number < math.inf:
        raise ValueError(text)
    return number


def _cut() -> UpstreamError:
    return upstream_error(FailureClass.CONNECTION, "the script cut the connection")


def _closed() -> UpstreamError:
    return upstream_error(FailureClass.CONNECTION, "the scripted provider was closed")
