"""The input of a Responses request as the messages of a Chat Completions request. Pure.

An assistant's text, reasoning and calls are items of their own there, and one message here. `encrypted_content` of
reasoning that came from here is Anthropic's signature, see `sealed`: it goes back in `reasoning_details`.
"""

from typing import Any

from msgspec import Struct
from trunkline_actors.adapters.anthropic_turns import FORMAT

from trunkline.gateway.reading import Target, given, refused

_SIGNED, _REDACTED = f"{FORMAT}:signature:", f"{FORMAT}:redacted:"
_ROLES = {"user": "user", "system": "system", "developer": "system", "assistant": "assistant"}


class Piece(Struct):
    """A part of an item's content, of any type."""

    type: str
    text: str = ""
    refusal: str = ""
    image_url: str | None = None
    detail: str | None = None
    file_data: str | None = None
    filename: str | None = None


class Item(Struct):
    """An item of the input, of any type; without one it is a message."""

    type: str = "message"
    role: str = ""
    content: str | list[Piece] | None = None
    call_id: str = ""
    name: str = ""
    arguments: str = ""
    output: str | list[Piece] | None = None
    summary: list[Piece] | None = None
    encrypted_content: str | None = None


def sealed(signature: str = "", redacted: str = "") -> str | None:
    """`encrypted_content` for thinking with a signature, or for redacted thinking; None where there is neither."""
    if redacted:
        return _REDACTED + redacted
    return _SIGNED + signature if signature else None


def chat_messages(given_input: str | list[Item], target: Target) -> list[dict[str, Any]]:
    """The messages. Raises InvalidRequest, naming the place."""
    if isinstance(given_input, str):
        return [{"role": "user", "content": given_input}]
    made: list[dict[str, Any]] = []
    spoken: _Spoken | None = None
    beside: list[dict[str, Any]] = []  # what tools gave that no message of a tool can hold
    for at, item in enumerate(given_input):
        where = f"input[{at}]"
        if _is_assistants(item):
            spoken = spoken or _Spoken()
            spoken.add(item, where)
            continue
        if spoken is not None:
            made += _shown(beside) + spoken.messages(target)
            spoken, beside = None, []
        if item.type == "function_call_output":
            made.append(_result(item, where, target, beside))
            continue
        made += [*_shown(beside), _message(item, where)]
        beside = []
    made += _shown(beside)
    return made + (spoken.messages(target) if spoken is not None else [])


def _is_assistants(item: Item) -> bool:
    return item.type in ("reasoning", "function_call") or (item.type == "message" and item.role == "assistant")


def _shown(parts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{"role": "user", "content": list(parts)}] if parts else []


class _Spoken:
    """What an assistant said between two of the others."""

    def __init__(self) -> None:
        self._texts: list[str] = []
        self._refusals: list[str] = []
        self._calls: list[dict[str, Any]] = []
        self._details: list[dict[str, Any]] = []
        self._thoughts: list[str] = []
        self._place = 0

    def add(self, item: Item, where: str) -> None:
        match item.type:
            case "message":
                self._say(item.content, where)
            case "function_call":
                if not item.call_id or not item.name:
                    raise refused(f"{where} is a function_call without call_id or name", where)
                function = {"name": item.name, "arguments": item.arguments}
                self._calls.append({"id": item.call_id, "type": "function", "function": function})
                self._place += 1
            case _:
                self._think(item)

    def _say(self, content: str | list[Piece] | None, where: str) -> None:
        pieces = [Piece("output_text", text=content)] if isinstance(content, str) else content or []
        for at, piece in enumerate(pieces):
            if piece.type in ("output_text", "input_text", "text"):
                if piece.text:
                    self._place += not self._texts
                    self._texts.append(piece.text)
            elif piece.type == "refusal":
                self._refusals.append(piece.refusal)
            else:
                raise refused(f"{where}.content[{at}] is of type {piece.type!r}, which no assistant says", where)

    def _think(self, item: Item) -> None:
        pieces = [*(item.summary or ()), *(item.content if isinstance(item.content, list) else ())]
        text, seal = "".join(piece.text for piece in pieces), item.encrypted_content or ""
        self._thoughts.append(text)
        if seal.startswith(_SIGNED):
            signed = {"type": "reasoning.text", "text": text, "signature": seal.removeprefix(_SIGNED)}
            self._details.append({**signed, "format": FORMAT, "index": self._place})
        elif seal.startswith(_REDACTED):
            kept = {"type": "reasoning.encrypted", "data": seal.removeprefix(_REDACTED)}
            self._details.append({**kept, "format": FORMAT, "index": self._place})
        else:
            return  # no other provider wants to have it back
        self._place += 1

    def messages(self, target: Target) -> list[dict[str, Any]]:
        """The message; none where there was nothing but thinking that can't be sent."""
        message = given(
            {
                "role": "assistant",
                "content": "".join(self._texts) or None,
                "refusal": "".join(self._refusals) or None,
                "tool_calls": self._calls or None,
                "reasoning_details": self._details if self._details and target.signs else None,
                "reasoning_content": "".join(self._thoughts) or None if target.remembers else None,
            }
        )
        if len(message) == 1:
            return []
        return [{"content": None, **message}]


def _message(item: Item, where: str) -> dict[str, Any]:
    if item.type == "item_reference":
        raise refused(f"{where} refers to an item, and none are kept here: send the item itself", where)
    if item.type != "message":
        message = f"{where} is of type {item.type!r}, which can't be passed on; leave it out"
        raise refused(message, where)
    if item.role not in _ROLES:
        raise refused(f"{where}.role is one of {', '.join(_ROLES)}, not {item.role!r}", f"{where}.role")
    content = item.content
    if content is None or isinstance(content, str):
        return {"role": _ROLES[item.role], "content": content or ""}
    parts = [_part(piece, f"{where}.content[{at}]") for at, piece in enumerate(content)]
    single = len(parts) == 1 and parts[0]["type"] == "text"
    return {"role": _ROLES[item.role], "content": parts[0]["text"] if single else parts}


def _result(item: Item, where: str, target: Target, beside: list[dict[str, Any]]) -> dict[str, Any]:
    if not item.call_id:
        raise refused(f"{where} is a function_call_output without call_id", where)
    content: str | list[dict[str, Any]]
    if item.output is None or isinstance(item.output, str):
        content = item.output or ""
    else:
        parts = [_part(piece, f"{where}.output[{at}]") for at, piece in enumerate(item.output)]
        texts = [part for part in parts if part["type"] == "text"]
        if target.kind == "anthropic":
            content = parts
        else:
            content = "".join(part["text"] for part in texts)
            beside += [part for part in parts if part["type"] != "text"]
    return {"role": "tool", "tool_call_id": item.call_id, "content": content}


def _part(piece: Piece, where: str) -> dict[str, Any]:
    match piece.type:
        case "input_text" | "output_text" | "text":
            return {"type": "text", "text": piece.text}
        case "input_image" if piece.image_url:
            image = given({"url": piece.image_url, "detail": piece.detail})
            return {"type": "image_url", "image_url": image}
        case "input_file" if piece.file_data:
            return {"type": "file", "file": given({"file_data": piece.file_data, "filename": piece.filename})}
        case "input_image" | "input_file":
            raise refused(f"{where} must hold an image_url or file_data: files aren't kept or fetched here", where)
        case kind:
            raise refused(f"{where} is of type {kind!r}, which can't be passed on; leave it out", where)
