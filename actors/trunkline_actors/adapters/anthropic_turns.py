"""The messages of a Chat Completions request as the system prompt and the alternating turns of Messages. Pure.

System and developer messages come first, whatever their place was; turns that follow one another with the same role
become one; results of tools are the user's. Thinking blocks go back exactly as they came, see `anthropic_answer`.
"""

from typing import Any, Literal

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType
from trunkline_events.failure import FailureClass, UpstreamError

from trunkline_actors.adapters import faults

FORMAT = "anthropic-claude-v1"
"""OpenRouter's name for reasoning details that hold Anthropic's blocks; details of other formats aren't sent."""

Anything = Raw | UnsetType
Block = dict[str, Any]


class Image(Struct, forbid_unknown_fields=True):
    """`detail` has no counterpart and is left out on purpose."""

    url: str
    detail: str | None = None


class File(Struct, forbid_unknown_fields=True):
    """A document by its bytes; `file_id` would name one that OpenAI stores."""

    file_data: str
    filename: str | None = None


class Part(Struct, forbid_unknown_fields=True):
    """A part of a message's content."""

    type: Literal["text", "image_url", "file", "refusal"]
    text: str | None = None
    image_url: Image | None = None
    file: File | None = None
    refusal: str | None = None
    cache_control: Anything = UNSET


class Function(Struct, forbid_unknown_fields=True):
    """A function called, with its arguments in JSON."""

    name: str
    arguments: str = ""


class ToolCall(Struct, forbid_unknown_fields=True):
    """A call of a tool. `index` is what clients leave in that join the pieces of a stream."""

    id: str
    function: Function
    type: Literal["function"] = "function"
    index: int | None = None


class Detail(Struct):
    """One of `reasoning_details`: thinking with its signature, or encrypted. `index` is its place among the blocks."""

    type: str
    text: str = ""
    signature: str | None = None
    data: str | None = None
    format: str | None = None
    index: int | None = None


class Message(Struct, forbid_unknown_fields=True):
    """A message. Thinking without its signature, names and annotations are left out on purpose: none can be sent."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[Part] | None = None
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | None = None
    reasoning_details: list[Detail] | None = None
    refusal: str | None = None
    audio: None = None
    function_call: None = None
    name: Anything = UNSET
    reasoning_content: Anything = UNSET
    reasoning: Anything = UNSET
    annotations: Anything = UNSET
    parsed: Anything = UNSET


_read_arguments = msgspec.json.Decoder(dict[str, Raw]).decode


def turns(messages: list[Message]) -> tuple[list[Block], list[dict[str, Any]]]:
    """The blocks of the system prompt, and the turns. Raises UpstreamError (invalid request), naming the place."""
    system: list[Block] = []
    made: list[dict[str, Any]] = []
    for at, message in enumerate(messages):
        where = f"messages[{at}]"
        if message.role in ("system", "developer"):
            system += _content(message.content, where)
            continue
        blocks = _assistant(message, where) if message.role == "assistant" else _user(message, where)
        role = "assistant" if message.role == "assistant" else "user"
        if made and made[-1]["role"] == role:
            made[-1]["content"] += blocks
        elif blocks:
            made.append({"role": role, "content": blocks})
    return system, made


def _user(message: Message, where: str) -> list[Block]:
    blocks = _content(message.content, where)
    if message.role == "user":
        return blocks
    if not message.tool_call_id:
        raise refused(f"{where} of role tool without tool_call_id")
    return [{"type": "tool_result", "tool_use_id": message.tool_call_id, "content": blocks}]


def _assistant(message: Message, where: str) -> list[Block]:
    said = _content(message.content, where)
    if message.refusal:
        said.append({"type": "text", "text": message.refusal})
    for at, call in enumerate(message.tool_calls or ()):
        arguments = call.function.arguments or "{}"
        try:
            _read_arguments(arguments)
        except (ValueError, RecursionError) as error:
            raise refused(f"{where}.tool_calls[{at}].function.arguments, which are no JSON object") from error
        called = {"id": call.id, "name": call.function.name, "input": Raw(arguments.encode())}
        said.append({"type": "tool_use", **called})
    # Anthropic checks that thinking stands where it stood: between calls of tools too.
    thinking = [(detail, block) for detail in message.reasoning_details or () if (block := _thinking(detail))]
    for detail, block in sorted(thinking, key=lambda pair: pair[0].index or 0):
        said.insert(detail.index or 0 if detail.index is not None else _leading(said), block)
    return said


def _leading(blocks: list[Block]) -> int:
    return next((at for at, block in enumerate(blocks) if "thinking" not in block["type"]), len(blocks))


def _thinking(detail: Detail) -> Block | None:
    if detail.format not in (None, FORMAT):
        return None
    if detail.type == "reasoning.encrypted" and detail.data:
        return {"type": "redacted_thinking", "data": detail.data}
    if detail.type == "reasoning.text" and detail.signature:
        return {"type": "thinking", "thinking": detail.text, "signature": detail.signature}
    return None


def _content(content: str | list[Part] | None, where: str) -> list[Block]:
    """Blocks of content. Empty texts are left out, since Anthropic refuses them."""
    if content is None or isinstance(content, str):
        return [{"type": "text", "text": content}] if content else []
    blocks = []
    for at, part in enumerate(content):
        if (block := _block(part, f"{where}.content[{at}]")) is not None:
            if part.cache_control is not UNSET:
                block["cache_control"] = part.cache_control
            blocks.append(block)
    return blocks


def _block(part: Part, where: str) -> Block | None:
    if part.type == "image_url" and part.image_url is not None:
        return {"type": "image", "source": _image(part.image_url.url, f"{where}.image_url")}
    if part.type == "file" and part.file is not None:
        kind, data = _bytes(part.file.file_data, f"{where}.file")
        if kind != "application/pdf":
            raise refused(f"{where}.file of type {kind}; only application/pdf is")
        source = {"type": "base64", "media_type": kind, "data": data}
        return {"type": "document", "source": source} | ({"title": part.file.filename} if part.file.filename else {})
    text = part.refusal if part.type == "refusal" else part.text
    return {"type": "text", "text": text} if text else None


def _image(url: str, where: str) -> dict[str, str]:
    if url.startswith("https://"):
        return {"type": "url", "url": url}
    kind, data = _bytes(url, where)
    return {"type": "base64", "media_type": kind, "data": data}


def _bytes(url: str, where: str) -> tuple[str, str]:
    """Media type and base64 of a data URL. The bytes may be many: they are cut out once and not looked at."""
    head, comma, data = url.partition(",")
    kind, semicolon, encoding = head.removeprefix("data:").partition(";")
    if not (head.startswith("data:") and comma and kind) or semicolon + encoding.rpartition(";")[2] != ";base64":
        raise refused(f"{where}: it must be a data URL in base64, or an image's https address")
    return kind, data


def refused(what: str) -> UpstreamError:
    """The error for a request that Messages can't express; `what` names the field."""
    return faults.upstream_error(FailureClass.INVALID_REQUEST, f"not possible with Anthropic: {faults.safe(what)}")
