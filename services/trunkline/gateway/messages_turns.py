"""The turns of a Messages request as the messages of a Chat Completions request. Pure.

Results of tools become messages of their own; thinking goes back in `reasoning_details`, where the Anthropic adapter
finds it (see `anthropic_turns`), so that a signature comes to Anthropic as it left it.
"""

from typing import Any, Literal

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType
from trunkline_actors.adapters.anthropic_turns import FORMAT

from trunkline.gateway.reading import Target, given, refused

Content = str | list[dict[str, Any]]
_NULL = Raw(b"null")


class Source(Struct):
    """Where an image or a document is."""

    type: str
    media_type: str = ""
    data: str = ""
    url: str = ""


class Block(Struct):
    """A block of content of any type."""

    type: str
    text: str = ""
    source: Source | None = None
    title: str | None = None
    cache_control: Raw | UnsetType = UNSET
    thinking: str = ""
    signature: str | None = None
    data: str = ""
    id: str = ""
    name: str = ""
    input: Raw = Raw(b"{}")
    tool_use_id: str = ""
    content: "str | list[Block] | None" = None
    is_error: bool | None = None


class Turn(Struct):
    """A message."""

    role: Literal["user", "assistant", "system"]
    content: str | list[Block]


def chat_messages(turns: list[Turn], target: Target) -> list[dict[str, Any]]:
    """The messages. Raises InvalidRequest, naming the place."""
    made: list[dict[str, Any]] = []
    for at, turn in enumerate(turns):
        where = f"messages[{at}].content"
        if isinstance(turn.content, str):
            made.append({"role": turn.role, "content": turn.content})
        elif turn.role == "assistant":
            made.append(_assistant(turn.content, where, target))
        else:
            made += _results_and_rest(turn.role, turn.content, where, target)
    return made


def parts(content: str | list[Block] | None, where: str, target: Target) -> Content:
    """Text and images as the content of a message: a string where there is but one text."""
    if content is None or isinstance(content, str):
        return content or ""
    made = [part for at, block in enumerate(content) if (part := _part(block, f"{where}[{at}]", target)) is not None]
    if len(made) == 1 and set(made[0]) == {"type", "text"}:
        return str(made[0]["text"])
    return made


def _results_and_rest(role: str, blocks: list[Block], where: str, target: Target) -> list[dict[str, Any]]:
    made: list[dict[str, Any]] = []
    rest: list[dict[str, Any]] = []
    for at, block in enumerate(blocks):
        if block.type == "tool_result":
            result, beside = _result(block, f"{where}[{at}]", target)
            made.append(result)
            rest += beside
        elif (part := _part(block, f"{where}[{at}]", target)) is not None:
            rest.append(part)
    if rest:
        single = len(rest) == 1 and set(rest[0]) == {"type", "text"}
        made.append({"role": role, "content": rest[0]["text"] if single else rest})
    return made


def _result(block: Block, where: str, target: Target) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A tool's message, and what can't be in one: only Anthropic takes images there, so the user shows them."""
    if not block.tool_use_id:
        raise refused(f"{where} is a tool_result without tool_use_id", where)
    content = parts(block.content, f"{where}.content", target)
    beside: list[dict[str, Any]] = []
    if not isinstance(content, str) and target.kind != "anthropic":
        beside = [part for part in content if part["type"] != "text"]
        content = "".join(part["text"] for part in content if part["type"] == "text")
    if block.is_error:
        # Chat Completions has no such mark; the model must see it.
        content = f"Error: {content}" if isinstance(content, str) else [{"type": "text", "text": "Error:"}, *content]
    return {"role": "tool", "tool_call_id": block.tool_use_id, "content": content}, beside


def _assistant(blocks: list[Block], where: str, target: Target) -> dict[str, Any]:
    texts: list[Block] = []
    calls: list[dict[str, Any]] = []
    details: list[dict[str, Any]] = []
    unsigned: list[str] = []
    place = 0
    for at, block in enumerate(blocks):
        match block.type:
            case "text":
                if not block.text:
                    continue  # Anthropic refuses these, though it gives them
                texts.append(block)
            case "tool_use":
                calls.append(_call(block, f"{where}[{at}]"))
            case "thinking":
                unsigned.append(block.thinking)
                if not block.signature:
                    continue
                told = {"type": "reasoning.text", "text": block.thinking, "signature": block.signature}
                details.append({**told, "format": FORMAT, "index": place})
            case "redacted_thinking":
                details.append({"type": "reasoning.encrypted", "data": block.data, "format": FORMAT, "index": place})
            case kind:
                raise refused(
                    f"{where}[{at}] is of type {kind!r}, which can't be passed on; leave it out", f"{where}[{at}]"
                )
        place += 1
    fields = {
        "role": "assistant",
        "content": parts(texts, where, target) or ("" if not calls else None),
        "tool_calls": calls or None,
        "reasoning_details": details if details and target.signs else None,
        "reasoning_content": "".join(unsigned) if any(unsigned) and target.remembers else None,
    }
    return given(fields) | ({"content": None} if fields["content"] is None else {})


def _call(block: Block, where: str) -> dict[str, Any]:
    if not block.id or not block.name:
        raise refused(f"{where} is a tool_use without id or name", where)
    # Written anew: what stands between its values may be any white space.
    arguments = msgspec.json.format(bytes(block.input), indent=-1).decode()
    return {"id": block.id, "type": "function", "function": {"name": block.name, "arguments": arguments}}


def _part(block: Block, where: str, target: Target) -> dict[str, Any] | None:
    """One part; None for an empty text, which some providers refuse."""
    part: dict[str, Any]
    match block.type:
        case "text":
            if not block.text:
                return None
            part = {"type": "text", "text": block.text}
        case "image":
            part = {"type": "image_url", "image_url": {"url": _address(block.source, where)}}
        case "document" if block.source is not None and block.source.type == "text":
            part = {"type": "text", "text": block.source.data}
        case "document":
            if block.source is None or block.source.type != "base64":
                raise refused(f"{where}: a document must be text, or base64; none is fetched", where)
            part = {
                "type": "file",
                "file": given({"file_data": _address(block.source, where), "filename": block.title}),
            }
        case kind:
            raise refused(f"{where} is of type {kind!r}, which can't be passed on; leave it out", where)
    if target.caches and block.cache_control not in (UNSET, _NULL):
        part["cache_control"] = block.cache_control
    return part


def _address(source: Source | None, where: str) -> str:
    if source is not None and source.type == "base64" and source.media_type and source.data:
        return f"data:{source.media_type};base64,{source.data}"
    if source is not None and source.type == "url" and source.url:
        return source.url
    raise refused(f"{where}.source must be base64 with a media_type and data, or a url; files aren't kept here", where)
