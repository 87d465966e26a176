"""Chat completions as answers of OpenAI's Responses API, whole and streamed. Pure.

Thinking is told as a reasoning item's summary, which is what clients show. Wire format:
https://platform.openai.com/docs/api-reference/responses-streaming
"""

from collections.abc import Mapping
from typing import Any

import msgspec

from trunkline.errors import TrunklineError
from trunkline.gateway.pieces import Frame, Part, Parts, Spent, parts_of, read_frame, spent
from trunkline.gateway.reading import given
from trunkline.gateway.responses_input import sealed
from trunkline.gateway.responses_request import ResponsesRequest, Text
from trunkline.gateway.routes import Dialect
from trunkline.gateway.voices import KEEP_ALIVE, unreadable, usage_in

_INCOMPLETE = {"length": "max_output_tokens", "content_filter": "content_filter"}
_PREFIXES = {"thinking": "rs", "redacted": "rs", "text": "msg", "refusal": "msg", "call": "fc"}
_FAILED = {"rate_limited": "rate_limit_exceeded", "budget_exceeded": "insufficient_quota"}
_encode = msgspec.json.encode


class Responses:
    """Tells one answer to a client of the Responses API."""

    dialect: Dialect = "openai"

    def __init__(self, asked: ResponsesRequest) -> None:
        self._asked = asked
        self._out: list[bytes] = []
        self._parts = Parts(self)
        self._began = False
        self._number = 0
        self._head: dict[str, Any] = {}
        self._own = ""
        self._finish = "stop"
        self._spent: Spent | None = None
        self._ending = False

    def head(self, receipt: dict[str, str]) -> dict[str, str]:
        """As it is."""
        return receipt

    def whole(self, body: bytes) -> bytes:
        """A response. Raises ProviderError where the body is no chat completion."""
        frame = read_frame(body)
        if not frame.choices or (message := frame.choices[0].message) is None:
            raise unreadable("message")
        self._name(frame)
        parts = parts_of(message)
        finish = frame.choices[0].finish_reason or "stop"
        return _encode(self._ended(parts, finish, spent(frame.usage)))

    def chunk(self, data: bytes) -> bytes:
        """The events that a chunk comes to."""
        frame = read_frame(data)
        self._begin_with(frame)
        if frame.usage is not None:
            self._spent = spent(frame.usage)
        for choice in (frame.choices or ())[:1]:
            if choice.delta is not None:
                self._parts.feed(choice.delta)
            self._finish = choice.finish_reason or self._finish
        return self._take()

    def alive(self) -> bytes:
        """A comment."""
        return KEEP_ALIVE

    def failure(self, error: TrunklineError) -> bytes:
        """What was told so far, as failed, then an event on which clients raise."""
        told = {"code": _FAILED.get(error.code, "server_error"), "message": error.message}
        if self._began:
            output = [
                self._item(part, "completed" if part.ended else "incomplete") for part in self._parts.all if part.said
            ]
            self._tell(
                "response.failed", {"response": self._head | {"status": "failed", "error": told, "output": output}}
            )
        flat = {"code": error.code, "message": error.message, "param": error.param}
        self._tell("error", {**flat, "error": {"type": "server_error", **flat}})
        return self._take()

    def end(self, fields: Mapping[str, str]) -> bytes:
        """The last items and the whole response."""
        self._begin_with(Frame())
        self._ending = True
        self._parts.end()
        if self._spent is None:
            used = usage_in(fields)
            self._spent = Spent(
                used.input_tokens, used.cached_input_tokens, 0, used.output_tokens, used.reasoning_tokens
            )
        response = self._ended(self._parts.all, self._finish, self._spent)
        self._tell(f"response.{response['status']}", {"response": response})
        return self._take()

    # -- what happens to parts ---------------------------------------------------------------------------------------

    def begin(self, part: Part) -> None:
        """An item begins, with its first part of content."""
        item = self._item(part, "in_progress", begun=True)
        self._tell("response.output_item.added", {"output_index": part.number, "item": item})
        place = self._place(part)
        if part.kind == "thinking":
            empty = {"type": "summary_text", "text": ""}
            self._tell("response.reasoning_summary_part.added", {**place, "summary_index": 0, "part": empty})
        elif part.kind in ("text", "refusal"):
            self._tell("response.content_part.added", {**place, "content_index": 0, "part": _content(part, "")})

    def add(self, part: Part, piece: str) -> None:
        """An item gets longer."""
        match part.kind:
            case "text":
                # By far the most events are of these: they are put together without an encoder of objects.
                name, rest = "response.output_text.delta", b'"content_index":0,"logprobs":[],'
            case "refusal":
                name, rest = "response.refusal.delta", b'"content_index":0,'
            case "thinking":
                name, rest = "response.reasoning_summary_text.delta", b'"summary_index":0,'
            case "call":
                name, rest = "response.function_call_arguments.delta", b""
            case "redacted":
                return
        data = b'{"type":"%b","sequence_number":%d,"item_id":%b,"output_index":%d,%b"delta":%b}' % (
            name.encode(),
            self._number,
            _encode(self._id(part)),
            part.number,
            rest,
            _encode(piece),
        )
        self._number += 1
        self._out.append(b"event: %b\ndata: %b\n\n" % (name.encode(), data))

    def finish(self, part: Part) -> None:
        """An item ends: each of its parts is told once more, whole."""
        place, text = self._place(part), part.text
        match part.kind:
            case "thinking":
                place["summary_index"] = 0
                self._tell("response.reasoning_summary_text.done", {**place, "text": text})
                whole = {"type": "summary_text", "text": text}
                self._tell("response.reasoning_summary_part.done", {**place, "part": whole})
            case "text":
                place["content_index"] = 0
                self._tell("response.output_text.done", {**place, "text": text, "logprobs": []})
                self._tell("response.content_part.done", {**place, "part": _content(part, text)})
            case "refusal":
                place["content_index"] = 0
                self._tell("response.refusal.done", {**place, "refusal": text})
                self._tell("response.content_part.done", {**place, "part": _content(part, text)})
            case "call":
                whole_call = {"name": part.name, "arguments": text or "{}"}
                self._tell("response.function_call_arguments.done", {**place, **whole_call})
            case "redacted":
                pass
        # What a limit cut is the last item.
        last = self._ending and part is self._parts.all[-1]
        item = self._item(part, "incomplete" if last and self._finish in _INCOMPLETE else "completed")
        self._tell("response.output_item.done", {"output_index": part.number, "item": item})

    # -- the response and its items ----------------------------------------------------------------------------------

    def _begin_with(self, frame: Frame) -> None:
        if self._began:
            return
        self._began = True
        self._name(frame)
        begun = self._head | {"status": "in_progress"}
        self._tell("response.created", {"response": begun})
        self._tell("response.in_progress", {"response": begun})

    def _name(self, frame: Frame) -> None:
        self._own = (frame.id or "").removeprefix("chatcmpl-").removeprefix("resp_")
        asked = self._asked
        effort = asked.reasoning.effort if asked.reasoning is not None else None
        self._head = {
            "id": f"resp_{self._own}",
            "object": "response",
            "created_at": int(frame.created or 0),
            "status": "in_progress",
            "background": False,
            "error": None,
            "incomplete_details": None,
            "instructions": self._asked.instructions,
            "max_output_tokens": self._asked.max_output_tokens,
            "metadata": self._asked.metadata or {},
            "model": frame.model or self._asked.model,
            "output": [],
            "parallel_tool_calls": self._asked.parallel_tool_calls is not False,
            "previous_response_id": None,
            "reasoning": {"effort": effort, "summary": None},
            "service_tier": self._asked.service_tier or "auto",
            "store": False,
            "temperature": self._asked.temperature,
            "text": {"format": {"type": "text"}} | _echo(asked.text),
            "tool_choice": "auto" if asked.tool_choice is None else msgspec.to_builtins(asked.tool_choice),
            "tools": msgspec.to_builtins(asked.tools or []),
            "top_p": self._asked.top_p,
            "truncation": "disabled",
            "usage": None,
            "user": self._asked.user,
        }

    def _ended(self, parts: list[Part], finish: str, used: Spent) -> dict[str, Any]:
        reason = _INCOMPLETE.get(finish)
        status = "incomplete" if reason else "completed"
        told = {"status": status, "incomplete_details": {"reason": reason} if reason else None}
        output = [self._item(part, status if part is parts[-1] else "completed") for part in parts]
        return self._head | told | {"output": output, "usage": _told(used)}

    def _item(self, part: Part, status: str, *, begun: bool = False) -> dict[str, Any]:
        text = "" if begun else part.text
        match part.kind:
            case "thinking":
                summary = [] if begun else [{"type": "summary_text", "text": text}]
                seal = None if begun else sealed(signature=part.signature)
                return {"id": self._id(part), "type": "reasoning", "summary": summary, "encrypted_content": seal}
            case "redacted":
                seal = None if begun else sealed(redacted=text)
                return {"id": self._id(part), "type": "reasoning", "summary": [], "encrypted_content": seal}
            case "call":
                named = {"call_id": part.call_id, "name": part.name, "arguments": "" if begun else text or "{}"}
                return {"id": self._id(part), "type": "function_call", "status": status, **named}
            case _:
                content = [] if begun else [_content(part, text)]
                return {
                    "id": self._id(part),
                    "type": "message",
                    "status": status,
                    "role": "assistant",
                    "content": content,
                }

    def _id(self, part: Part) -> str:
        return f"{_PREFIXES[part.kind]}_{self._own}_{part.number}"

    def _place(self, part: Part) -> dict[str, Any]:
        return {"item_id": self._id(part), "output_index": part.number}

    def _tell(self, name: str, fields: dict[str, Any]) -> None:
        data = _encode({"type": name, "sequence_number": self._number, **fields})
        self._number += 1
        self._out.append(b"event: %b\ndata: %b\n\n" % (name.encode(), data))

    def _take(self) -> bytes:
        out = b"".join(self._out)
        self._out.clear()
        return out


def _echo(text: Text | None) -> dict[str, Any]:
    if text is None:
        return {}
    wanted = {} if text.format is None else {"format": given(msgspec.to_builtins(text.format))}
    return wanted | given({"verbosity": text.verbosity})


def _content(part: Part, text: str) -> dict[str, Any]:
    if part.kind == "refusal":
        return {"type": "refusal", "refusal": text}
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _told(used: Spent) -> dict[str, Any]:
    return {
        "input_tokens": used.input,
        "input_tokens_details": {"cached_tokens": used.cached, "cache_write_tokens": used.written},
        "output_tokens": used.output,
        "output_tokens_details": {"reasoning_tokens": used.thought},
        "total_tokens": used.input + used.output,
    }
