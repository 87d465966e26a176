"""How many tokens an input can have: counted where the model's tokenizer is at hand, bounded by bytes elsewhere. Pure.

Bytes are a strict bound. Every token of a byte-level vocabulary stands for at least one byte of UTF-8, and JSON never
writes a text in fewer bytes than it has, so a body has at least as many bytes as its texts, tools and schemas have
tokens. Beside them stands only what the provider writes round each message, a handful of tokens, for which the names
and quotes of its JSON and 16 more leave room; and images, which are billed by size and not by what we can read:

    len(body) + 16 * messages + image_bound(upstream) * count_images(body)

A count replaces the bytes of that, never the images, since models with one tokenizer bill images differently:

    count_input(body, operation, encoding) + image_bound(upstream) * count_images(body)

Counting takes up to 20 ms, so it is for those whom the bytes would keep out. Take the lesser of the two bounds.
"""

from collections.abc import Iterator
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import Meta, Raw, Struct

from trunkline_actors.tokens import count

REPLY_TOKENS = 3
"""Every reply is primed with `<|start|>assistant<|message|>`."""
MESSAGE_TOKENS = 3
NAME_TOKENS = 1
"""These three are OpenAI's own, from "How to count tokens with tiktoken" in its cookbook, for all models since
gpt-3.5-turbo-0613."""
PART_TOKENS = 1
"""Nothing is documented to stand between the parts of a message; a line end might."""
CALL_TOKENS = 24
"""A bound on what a call of a tool has round its name and arguments, alone or among parallel ones."""
RESULT_TOKENS = 72
"""A bound on the tool's name that stands before its result: OpenAI allows 64 characters."""
TOOL_TOKENS = 16
"""A bound on what is written round one definition beyond what its JSON has: names and quotes make room for most."""
TOOLS_TOKENS = 64
"""A bound on what is written round all definitions, or round a schema for the answer."""

IMAGE_TOKENS = 3_000
"""A bound for one image where nothing else is known: most tile- and patch-based models stay below it."""

T = TypeVar("T")


# -- which tokenizer -----------------------------------------------------------------------------------------------

_ENCODINGS = {
    "gpt-3.5": "cl100k_base",
    "gpt-4": "cl100k_base",
    "text-embedding-3-": "cl100k_base",
    "text-embedding-ada-002": "cl100k_base",
    "chatgpt-4o": "o200k_base",
    "gpt-4.1": "o200k_base",
    "gpt-4.5": "o200k_base",
    "gpt-4o": "o200k_base",
    "gpt-5": "o200k_base",
    "o1": "o200k_base",
    "o3": "o200k_base",
    "o4": "o200k_base",
}


def encoding_of(kind: str, upstream: str) -> str | None:
    """The tokenizer of a model, by its provider's kind and its name there; None where none is known or at hand.

    Never for `openai-compatible`: nobody knows what runs there under a well-known name.
    """
    if kind == "openrouter":
        vendor, _, upstream = upstream.partition("/")
        kind = vendor
    return _longest(_ENCODINGS, upstream.removeprefix("ft:")) if kind == "openai" else None


def _longest(table: dict[str, T], name: str) -> T | None:
    """The entry of the longest prefix of a name."""
    prefix = max((one for one in table if name.startswith(one)), key=len, default=None)
    return None if prefix is None else table[prefix]


# -- images --------------------------------------------------------------------------------------------------------

_IMAGES = {
    "gpt-4o-mini": 2_833 + 8 * 5_667,  # tiles of 512 pixels, of which 2,048 by 768 have eight
    "gpt-4.1-mini": 2_489,  # 1,536 patches of 32 pixels, times 1.62
    "gpt-4.1-nano": 3_779,  # times 2.46
    "gpt-5-mini": 2_489,
    "gpt-5-nano": 3_779,
    "gpt-5.4": 12_000,  # 10,000 patches at detail "original"; times 1.2, which is measured and not documented
    "gpt-5.4-mini": 2_489,
    "gpt-5.4-nano": 3_779,
    "gpt-5.5": 12_000,
    "gpt-5.6": 120_000,  # no limit is documented: 100,000 patches, a picture of 100 megapixels
    "gpt-6": 36_000,  # 30,000 patches, more are refused
    "o4-mini": 2_642,  # 1,536 patches, times 1.72
    "claude": 4_784,  # 28 pixels a patch, up to 2,576 pixels a side
}


def image_bound(upstream: str) -> int:
    """The most tokens that one image is billed at, by the model's name upstream, whoever serves it.

    From OpenAI's guide "Images and vision", its sections on model sizing and on calculating costs, read in November
    2026, and Anthropic's "Vision". Every image counts as the largest there is: its size isn't known before it is read.
    """
    name = upstream.rpartition("/")[2].removeprefix("ft:")
    return _longest(_IMAGES, name) or IMAGE_TOKENS


class _Message(Struct):
    content: Any = None


class _Messages(Struct):
    messages: list[_Message]


_messages = msgspec.json.Decoder(_Messages)
_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)  # a ValidationError is a DecodeError


def count_images(body: bytes) -> int:
    """How many images a chat request has, however its JSON writes their names; 0 where it can't be read."""
    if b"image" not in body and b"\\u" not in body:
        return 0
    try:
        messages = _messages.decode(body).messages
    except _UNREADABLE:
        return 0
    parts = (part for message in messages if isinstance(message.content, list) for part in message.content)
    return sum(isinstance(part, dict) and "image_url" in part for part in parts)


# -- what a request says, as far as we know what it costs ------------------------------------------------------------


class _Known(Struct, forbid_unknown_fields=True):
    """Something all of whose fields are known to us: any other may cost tokens that we wouldn't count."""


class _Text(_Known, tag="text", tag_field="type"):
    text: str


class _Refusal(_Known, tag="refusal", tag_field="type"):
    refusal: str


class _Image(_Known, tag="image_url", tag_field="type"):
    image_url: Any


class _Function(_Known):
    name: str
    arguments: str


class _Call(_Known):
    id: str
    function: _Function
    type: Literal["function"] = "function"


class _Said(_Known):
    """A message. The fields that must be empty are those that SDKs write where they have nothing to say."""

    role: str
    content: str | list[_Text | _Refusal | _Image] | None = None
    name: str | None = None
    refusal: str | None = None
    tool_calls: list[_Call] | None = None
    function_call: _Function | None = None
    tool_call_id: str | None = None
    audio: None = None
    annotations: Annotated[list[Any], Meta(max_length=0)] | None = None


# fmt: off
_FREE = frozenset({
    "dimensions", "encoding_format", "frequency_penalty", "function_call", "logit_bias", "logprobs",
    "max_completion_tokens", "max_tokens", "metadata", "model", "n", "parallel_tool_calls", "presence_penalty",
    "prompt_cache_key", "prompt_cache_retention", "reasoning_effort", "route", "safety_identifier", "seed",
    "service_tier", "stop", "store", "stream", "stream_options", "temperature", "tool_choice", "top_logprobs", "top_p",
    "user", "verbosity",
})
# fmt: on
"""Fields of a request that cost no tokens of their own; which tool is to be called is covered by TOOLS_TOKENS."""
_CHAT = _FREE | {"messages", "tools", "functions", "response_format"}
_EMBEDDINGS = _FREE | {"input"}

_fields = msgspec.json.Decoder(dict[str, Raw])
_said = msgspec.json.Decoder(list[_Said])
_listed = msgspec.json.Decoder(list[Raw])
_inputs = msgspec.json.Decoder(str | list[str | int | list[int]])


def count_input(body: bytes, operation: Literal["chat", "embeddings"], encoding: str) -> int | None:
    """A bound on the input tokens of an OpenAI request, images apart; exact for its texts, as OpenAI documents them.

    Tools and schemas are bounded by the bytes of their JSON. None for whatever can't be counted, which bytes must bound
    then: too much text, audio, files, fields unknown to us, and what is no request at all.
    """
    try:
        fields = {name: raw for name, raw in _fields.decode(body).items() if bytes(raw) != b"null"}
        if not fields.keys() <= (_CHAT if operation == "chat" else _EMBEDDINGS):
            return None
        costs = list(_chat(fields) if operation == "chat" else _input(fields))
    except _UNREADABLE:
        return None
    texts = count([one for one in costs if isinstance(one, str)], encoding)
    return None if texts is None else texts + sum(one for one in costs if isinstance(one, int))


def _chat(fields: dict[str, Raw]) -> Iterator[str | int]:
    """The texts of a chat, and how many tokens it has beside them."""
    yield REPLY_TOKENS
    for message in _said.decode(fields.get("messages", b"[]")):
        yield from _message(message)
    for name in ("tools", "functions"):
        if name in fields:
            yield TOOLS_TOKENS + sum(TOOL_TOKENS + len(bytes(tool)) for tool in _listed.decode(fields[name]))
    if "response_format" in fields:
        yield TOOLS_TOKENS + len(bytes(fields["response_format"]))


def _message(message: _Said) -> Iterator[str | int]:
    yield MESSAGE_TOKENS
    yield message.role
    if message.name is not None:
        yield NAME_TOKENS
        yield message.name
    if isinstance(message.content, str):
        yield message.content
    for part in message.content if isinstance(message.content, list) else ():
        yield PART_TOKENS
        if not isinstance(part, _Image):
            yield part.text if isinstance(part, _Text) else part.refusal
    if message.refusal is not None:
        yield message.refusal
    called = [call.function for call in message.tool_calls or ()]
    for function in [*called, message.function_call] if message.function_call else called:
        yield CALL_TOKENS
        yield function.name
        yield function.arguments
    if message.tool_call_id is not None:
        yield RESULT_TOKENS


def _input(fields: dict[str, Raw]) -> Iterator[str | int]:
    given = _inputs.decode(fields.get("input", b"[]"))
    for one in [given] if isinstance(given, str) else given:
        if isinstance(one, str):
            yield one
        else:
            yield 1 if isinstance(one, int) else len(one)  # tokens already
