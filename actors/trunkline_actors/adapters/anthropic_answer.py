"""Whole answers of Anthropic's Messages API as OpenAI's clients know them. Pure.

Thinking is given as `reasoning_content`, and its signed blocks in `reasoning_details`, in OpenRouter's shape: a caller
who sends the message back with them has them sent to Anthropic exactly as they came, see `anthropic_turns`.
Wire format: https://platform.claude.com/docs/en/api/messages
"""

from typing import Annotated, Any

import msgspec
from msgspec import Meta, Raw, Struct, structs
from trunkline_events.usage import Usage

from trunkline_actors.adapters import Answer
from trunkline_actors.adapters.anthropic_faults import not_a
from trunkline_actors.adapters.anthropic_turns import FORMAT

Tokens = Annotated[int, Meta(ge=0)] | None

FINISH = {
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}
"""Every other reason to stop is `stop`: end_turn, stop_sequence, pause_turn, and what may be added."""

_MALFORMED = (ValueError, RecursionError)
_encode = msgspec.json.encode


class _OutputDetails(Struct):
    thinking_tokens: Tokens = None


class Counts(Struct):
    """Cached input is beside `input_tokens` here. Counts of later events replace those before."""

    input_tokens: Tokens = None
    cache_creation_input_tokens: Tokens = None
    cache_read_input_tokens: Tokens = None
    output_tokens: Tokens = None
    output_tokens_details: _OutputDetails | None = None


class StopDetails(Struct):
    """Why the model refused, in words."""

    explanation: str | None = None


class Block(Struct):
    """A block of content of any type. Unknown types, of tools that run at Anthropic, are passed over."""

    type: str
    text: str = ""
    thinking: str = ""
    signature: str | None = None
    data: str = ""
    id: str = ""
    name: str = ""
    input: Raw = Raw(b"{}")


class Message(Struct):
    """An answer, or what is known of it when a stream begins."""

    id: str = ""
    model: str = ""
    content: list[Block] | None = None
    stop_reason: str | None = None
    stop_details: StopDetails | None = None
    usage: Raw = Raw()


_decode_message = msgspec.json.Decoder(Message).decode
_decode_usage = msgspec.json.Decoder(Counts).decode


def read_message(body: bytes, *, created: int, secrets: tuple[str, ...] = ()) -> Answer:
    """A whole answer. `created` is Unix time in seconds. Raises UpstreamError where it is none, though status 200."""
    try:
        message = _decode_message(body)
    except _MALFORMED as error:
        raise not_a(body, "message", secrets) from error
    if message.content is None:
        raise not_a(body, "message", secrets)
    text, thinking = [], []
    details: list[dict[str, Any]] = []
    calls: list[dict[str, Any]] = []
    for at, block in enumerate(message.content):
        if block.type == "text":
            text.append(block.text)
        elif block.type == "tool_use":
            calls.append(call_of(block, bytes(block.input).decode()))
        else:
            thinking.append(block.thinking)
            details += [detail] if (detail := detail_of(at, block)) is not None else []
    said: dict[str, Any] = {"role": "assistant", "content": "".join(text) or None}
    said |= {"reasoning_content": "".join(thinking)} if any(thinking) else {}
    said |= {"reasoning_details": details} if details else {}
    said |= {"tool_calls": calls} if calls else {}
    if message.stop_details is not None and message.stop_details.explanation:
        said["refusal"] = message.stop_details.explanation
    counted = add_counts(Counts(), message.usage)
    finish = FINISH.get(message.stop_reason or "", "stop")
    whole = {
        "id": message.id,
        "object": "chat.completion",
        "created": created,
        "model": message.model,
        "choices": [{"index": 0, "message": said, "finish_reason": finish, "logprobs": None}],
    }
    usage = usage_of(counted)
    if counted is not None and usage is not None:
        whole["usage"] = told(counted, usage)
    return Answer(body=_encode(whole), usage=usage, finish=finish)


def call_of(block: Block, arguments: str) -> dict[str, Any]:
    """A call of a tool; `arguments` is its JSON."""
    return {"id": block.id, "type": "function", "function": {"name": block.name, "arguments": arguments}}


def detail_of(at: int, block: Block) -> dict[str, Any] | None:
    """A block of thinking as one of `reasoning_details`; `index` is its place among all blocks of the answer."""
    if block.type == "redacted_thinking":
        return {"type": "reasoning.encrypted", "data": block.data, "format": FORMAT, "index": at}
    if block.type != "thinking" or not block.signature:
        return None  # what nobody signed can't be sent back
    thought = {"type": "reasoning.text", "text": block.thinking, "signature": block.signature}
    return {**thought, "format": FORMAT, "index": at}


def add_counts(before: Counts, raw: Raw) -> Counts | None:
    """The counts with those of a `usage` object put in. None where it is absent or nonsense: it must not fail all."""
    if not raw or raw == Raw(b"null"):
        return None
    try:
        said = _decode_usage(raw)
    except _MALFORMED:
        return None
    return structs.replace(before, **{name: got for name, got in structs.asdict(said).items() if got is not None})


def usage_of(counted: Counts | None) -> Usage | None:
    """The counts as ours: what was read from the cache and what was written to it is input too.

    None where the output was not counted: that is the count which comes last.
    """
    if counted is None or counted.output_tokens is None:
        return None
    cached, output = counted.cache_read_input_tokens or 0, counted.output_tokens
    details = counted.output_tokens_details
    return Usage(
        input_tokens=(counted.input_tokens or 0) + cached + (counted.cache_creation_input_tokens or 0),
        cached_input_tokens=cached,
        output_tokens=output,
        reasoning_tokens=min((details and details.thinking_tokens) or 0, output),
    )


def told(counted: Counts, usage: Usage) -> dict[str, Any]:
    """The counts, and what they are as ours, as OpenAI tells them."""
    return {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.input_tokens + usage.output_tokens,
        "prompt_tokens_details": {
            "cached_tokens": usage.cached_input_tokens,
            "cache_write_tokens": counted.cache_creation_input_tokens or 0,
        },
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
    }
