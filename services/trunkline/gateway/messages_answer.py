"""Chat completions as answers of Anthropic's Messages API, whole and streamed. Pure.

Wire format: https://platform.claude.com/docs/en/api/messages and …/build-with-claude/streaming
"""

from collections.abc import Mapping
from typing import Any

import msgspec

from trunkline.errors import TrunklineError
from trunkline.gateway import dialects
from trunkline.gateway.pieces import Frame, Part, Parts, Spent, arguments_of, parts_of, read_frame, spent
from trunkline.gateway.routes import Dialect
from trunkline.gateway.voices import KEEP_ALIVE, unreadable, usage_in

STOPPED = {
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "function_call": "tool_use",
    "content_filter": "refusal",
}
"""Any other reason to stop is `end_turn`. Which stop sequence it was, Chat Completions doesn't tell."""

_PING = b'event: ping\ndata: {"type":"ping"}\n\n'
_EMPTY = {"thinking": "thinking", "text": "text", "call": "input_json"}
_encode = msgspec.json.encode


def message_of(body: bytes) -> bytes:
    """A whole message. Raises ProviderError where the body is no chat completion."""
    frame = read_frame(body)
    if not frame.choices or (said := frame.choices[0].message) is None:
        raise unreadable("message")
    parts = parts_of(said)
    finish = frame.choices[0].finish_reason or "stop"
    refusal = "".join(part.text for part in parts if part.kind == "refusal")
    whole = _head(frame) | {
        "content": [_block(part, whole=True) for part in parts if part.kind != "refusal"],
        **_stopped(finish, refusal, called=any(part.kind == "call" for part in parts)),
        "usage": _told(spent(frame.usage)),
    }
    return _encode(whole)


class Messages:
    """Tells one answer to a client of the Messages API."""

    dialect: Dialect = "anthropic"

    def __init__(self) -> None:
        self._out: list[bytes] = []
        self._parts = Parts(self)
        self._began = False
        self._refusal: list[str] = []
        self._finish = "stop"
        self._spent: Spent | None = None
        self._blocks = 0

    def head(self, receipt: dict[str, str]) -> dict[str, str]:
        """With the request's id under the name that Anthropic's clients look for as well."""
        return receipt | ({"request-id": receipt["x-request-id"]} if "x-request-id" in receipt else {})

    def whole(self, body: bytes) -> bytes:
        """A message."""
        return message_of(body)

    def chunk(self, data: bytes) -> bytes:
        """The events that a chunk comes to."""
        frame = read_frame(data)
        if not self._began:
            self._start(frame)
        if frame.usage is not None:
            self._spent = spent(frame.usage)
        for choice in (frame.choices or ())[:1]:
            if choice.delta is not None:
                self._parts.feed(choice.delta)
            self._finish = choice.finish_reason or self._finish
        return self._take()

    def alive(self) -> bytes:
        """A ping; before the message has begun, a comment."""
        return _PING if self._began else KEEP_ALIVE

    def failure(self, error: TrunklineError) -> bytes:
        """An event on which clients raise."""
        return _event("error", dialects.body_of(error, "anthropic"))

    def end(self, fields: Mapping[str, str]) -> bytes:
        """Why it stopped, what it took, and the last event."""
        if not self._began:
            self._start(Frame())
        self._parts.end()
        if self._spent is None:
            used = usage_in(fields)
            self._spent = Spent(
                used.input_tokens, used.cached_input_tokens, 0, used.output_tokens, used.reasoning_tokens
            )
        stopped = _stopped(self._finish, "".join(self._refusal), called=self._parts.called)
        self._tell("message_delta", {"delta": stopped, "usage": _told(self._spent)})
        self._tell("message_stop", {})
        return self._take()

    # -- what happens to parts ---------------------------------------------------------------------------------------

    def begin(self, part: Part) -> None:
        """A block begins; a redacted one when its data is there."""
        if part.kind in _EMPTY:
            self._tell("content_block_start", {"index": self._blocks, "content_block": _block(part, whole=False)})

    def add(self, part: Part, piece: str) -> None:
        """A block gets longer."""
        match part.kind:
            case "text":
                delta = b'"text_delta","text"'
            case "thinking":
                delta = b'"thinking_delta","thinking"'
            case "call":
                delta = b'"input_json_delta","partial_json"'
            case "refusal":
                self._refusal.append(piece)
                return
            case "redacted":
                return
        # By far the most events are of these: they are put together without an encoder of objects.
        data = b'{"type":"content_block_delta","index":%d,"delta":{"type":%b:%b}}' % (
            self._blocks,
            delta,
            _encode(piece),
        )
        self._out.append(_event("content_block_delta", data))

    def finish(self, part: Part) -> None:
        """A block ends; signed thinking with its signature."""
        if part.kind == "refusal":
            return
        if part.kind == "redacted":
            self._tell("content_block_start", {"index": self._blocks, "content_block": _block(part, whole=True)})
        if part.signature:
            delta = {"type": "signature_delta", "signature": part.signature}
            self._tell("content_block_delta", {"index": self._blocks, "delta": delta})
        self._tell("content_block_stop", {"index": self._blocks})
        self._blocks += 1

    def _start(self, frame: Frame) -> None:
        self._began = True
        empty: dict[str, Any] = {"content": [], "stop_reason": None, "stop_sequence": None, "usage": _told(Spent())}
        self._tell("message_start", {"message": _head(frame) | empty})

    def _tell(self, name: str, fields: dict[str, Any]) -> None:
        self._out.append(_event(name, _encode({"type": name, **fields})))

    def _take(self) -> bytes:
        out = b"".join(self._out)
        self._out.clear()
        return out


def _event(name: str, data: bytes) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (name.encode(), data)


def _head(frame: Frame) -> dict[str, Any]:
    known = frame.id or ""
    own = known if known.startswith("msg_") else f"msg_{known.removeprefix('chatcmpl-')}"
    return {"id": own, "type": "message", "role": "assistant", "model": frame.model or ""}


def _block(part: Part, *, whole: bool) -> dict[str, Any]:
    """A block; not whole: as a stream begins it."""
    text = part.text if whole else ""
    match part.kind:
        case "thinking":
            # What nobody signed has an empty signature: the field must be there, and no provider wants it back.
            return {"type": "thinking", "thinking": text, "signature": part.signature if whole else ""}
        case "redacted":
            return {"type": "redacted_thinking", "data": text}
        case "call":
            given = arguments_of(part) if whole else {}
            return {"type": "tool_use", "id": part.call_id, "name": part.name, "input": given}
        case _:
            return {"type": "text", "text": text}


def _stopped(finish: str, refusal: str, *, called: bool) -> dict[str, Any]:
    """Why the answer ended. Some providers call tools and say `stop` all the same."""
    reason = "refusal" if refusal else STOPPED.get(finish, "tool_use" if called else "end_turn")
    stopped: dict[str, Any] = {"stop_reason": reason, "stop_sequence": None}
    if refusal:
        stopped["stop_details"] = {"type": "refusal", "explanation": refusal}
    return stopped


def _told(used: Spent) -> dict[str, Any]:
    """Token counts as Anthropic tells them: what the cache was read for or written to is beside the input."""
    return {
        "input_tokens": used.input - used.cached - used.written,
        "cache_creation_input_tokens": used.written,
        "cache_read_input_tokens": used.cached,
        "output_tokens": used.output,
        "output_tokens_details": {"thinking_tokens": used.thought},
    }
