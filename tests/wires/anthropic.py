"""Anthropic's Messages, as its own server speaks them at version 2023-06-01."""

import base64
import json
from collections.abc import Sequence
from typing import Any, Literal

from trunkline_events.failure import FailureClass
from trunkline_events.usage import Usage
from upstream import Reply, Request, answer

from wires import Called, Embedding, Finish, Image, Said, Seen, Stream, Tool, Turn, Wire

# fmt: off
_FIELDS = {
    "model", "messages", "max_tokens", "system", "stream", "stop_sequences", "temperature", "top_p", "top_k", "tools",
    "tool_choice", "thinking", "output_config", "metadata", "service_tier", "cache_control",
}
# fmt: on
_STOPPED: dict[Finish, str] = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "content_filter": "refusal",
}
_REFUSALS: dict[FailureClass, tuple[int, str, str]] = {
    FailureClass.RATE_LIMITED: (429, "rate_limit_error", "This request would exceed your rate limit."),
    FailureClass.OVERLOADED: (529, "overloaded_error", "Overloaded"),
    FailureClass.UNAVAILABLE: (500, "api_error", "Internal server error"),
    FailureClass.TIMEOUT: (504, "timeout_error", "Request timed out"),
    FailureClass.AUTH: (401, "authentication_error", "invalid x-api-key"),
    FailureClass.INVALID_REQUEST: (400, "invalid_request_error", "top_k: Input should be greater than 0"),
    FailureClass.CONTEXT_LENGTH: (
        400,
        "invalid_request_error",
        "prompt is too long: 210000 tokens > 200000 maximum",
    ),
    FailureClass.MODEL_NOT_FOUND: (404, "not_found_error", "model: nope"),
}
SIGNATURE = "EqQBCgIYAhIM1gbcDa9GJwZA2b3h"


class Anthropic:
    """The format itself."""

    kind = "anthropic"
    transports: tuple[Literal["raw", "sdk"], ...] = ("raw", "sdk")
    counts: frozenset[Literal["cached", "reasoning"]] = frozenset({"cached", "reasoning"})
    finishes: frozenset[Finish] = frozenset(_STOPPED)
    call_ids = True
    malformed = b'event: content_block_delta\ndata: {"type":"content_block_delta","index":0,"del\n\n'

    def base_url(self, origin: str) -> str:
        return origin

    def whole(self, said: Said) -> Reply:
        blocks: list[dict[str, Any]] = []
        if said.thinking:
            blocks.append({"type": "thinking", "thinking": "".join(said.thinking), "signature": SIGNATURE})
        if said.text:
            blocks.append({"type": "text", "text": "".join(said.text)})
        blocks += [{**_tool_use(call), "input": json.loads("".join(call.arguments))} for call in said.calls]
        return answer({**_head(said.usage), "content": blocks, "stop_reason": _STOPPED[said.finish]})

    def stream(self, said: Said) -> Stream:
        events: list[dict[str, Any]] = [
            {"type": "message_start", "message": {**_head(said.usage, output=1), "content": [], "stop_reason": None}},
            {"type": "ping"},
        ]
        blocks: list[tuple[dict[str, Any], list[dict[str, Any]]]] = []
        if said.thinking:
            deltas = [{"type": "thinking_delta", "thinking": piece} for piece in said.thinking]
            deltas.append({"type": "signature_delta", "signature": SIGNATURE})
            blocks.append(({"type": "thinking", "thinking": "", "signature": ""}, deltas))
        if said.text:
            blocks.append(
                ({"type": "text", "text": ""}, [{"type": "text_delta", "text": piece} for piece in said.text])
            )
        for call in said.calls:
            pieces = ("", *(() if call.arguments == ("{}",) else call.arguments))
            blocks.append((_tool_use(call), [{"type": "input_json_delta", "partial_json": piece} for piece in pieces]))
        for at, (block, deltas) in enumerate(blocks):
            events.append({"type": "content_block_start", "index": at, "content_block": block})
            events += [{"type": "content_block_delta", "index": at, "delta": delta} for delta in deltas]
            events.append({"type": "content_block_stop", "index": at})
        stopped = {"stop_reason": _STOPPED[said.finish], "stop_sequence": None}
        usage = {} if said.usage is None else {"usage": _usage(said.usage)}
        events += [{"type": "message_delta", "delta": stopped, **usage}, {"type": "message_stop"}]
        return Stream(events=tuple(_event(event) for event in events), settled=len(events) - 1)

    def refusing(self, kind: FailureClass, retry_after: int | None = None) -> Reply | None:
        if kind not in _REFUSALS:
            return None
        error, status = _error(kind), _REFUSALS[kind][0]
        return answer(error, status) if retry_after is None else answer(error, status, retry_after=str(retry_after))

    def failing(self, kind: FailureClass) -> bytes | None:
        return _event(_error(kind)) if kind in _REFUSALS else None

    def embeddings(self, vectors: Sequence[Sequence[float]], input_tokens: int) -> Reply:
        raise AssertionError("Anthropic has no embeddings")

    def checked(self) -> Reply:
        model = {"type": "model", "id": "claude-sonnet-4-5", "display_name": "Claude", "created_at": "2025-09-29"}
        return answer({"data": [model], "has_more": False, "first_id": model["id"], "last_id": model["id"]})

    def seen(self, request: Request) -> Seen:
        assert (request.method, request.path) == ("POST", "/v1/messages")
        assert request.headers["anthropic-version"] == "2023-06-01"
        assert request.headers["content-type"].startswith("application/json")
        assert request.headers["x-api-key"]
        assert "authorization" not in request.headers
        body = json.loads(request.body)
        assert set(body) <= _FIELDS, f"extra inputs are not permitted: {set(body) - _FIELDS}"
        assert body["max_tokens"] > 0
        assert 0 <= body.get("temperature", 1) <= 1
        roles = [message["role"] for message in body["messages"]]
        assert roles == [("user", "assistant")[at % 2] for at in range(len(roles))], "roles must alternate"
        system = body.get("system", "")
        return Seen(
            model=body["model"],
            stream=body.get("stream", False),
            system="\n".join(block["text"] for block in _blocks(system)),
            turns=tuple(turn for message in body["messages"] for turn in _turns(message, _names(body["messages"]))),
            tools=tuple(Tool(t["name"], t.get("description", ""), t["input_schema"]) for t in body.get("tools", ())),
            max_tokens=body["max_tokens"],
            stop=tuple(body.get("stop_sequences", ())),
            temperature=body.get("temperature"),
            schema=body.get("output_config", {}).get("format", {}).get("schema"),
        )

    def seen_embedding(self, request: Request) -> Embedding:
        raise AssertionError("Anthropic has no embeddings")


def _event(payload: dict[str, Any]) -> bytes:
    # As servers write it: text as it is, so that a cut may fall inside a character; padded at times.
    data = json.dumps(payload, ensure_ascii=False).encode()
    return b"event: %b\ndata: %b%b\n\n" % (payload["type"].encode(), data, b" " * (len(data) % 5))


def _head(usage: Usage | None, output: int | None = None) -> dict[str, Any]:
    told = {} if usage is None else {"usage": _usage(usage) | ({} if output is None else {"output_tokens": output})}
    return {"id": "msg_1", "type": "message", "role": "assistant", "model": "m-2026", "stop_sequence": None, **told}


def _usage(usage: Usage) -> dict[str, Any]:
    fresh = usage.input_tokens - usage.cached_input_tokens
    return {
        "input_tokens": fresh - fresh // 4,
        "cache_creation_input_tokens": fresh // 4,
        "cache_read_input_tokens": usage.cached_input_tokens,
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {"thinking_tokens": usage.reasoning_tokens},
    }


def _tool_use(call: Called) -> dict[str, Any]:
    return {"type": "tool_use", "id": call.id, "name": call.name, "input": {}}


def _error(kind: FailureClass) -> dict[str, Any]:
    _, name, message = _REFUSALS[kind]
    return {"type": "error", "error": {"type": name, "message": message}, "request_id": "req_1"}


def _blocks(content: str | list[dict[str, Any]]) -> list[dict[str, Any]]:
    blocks = [{"type": "text", "text": content}] if isinstance(content, str) and content else content
    assert isinstance(blocks, list) or not blocks
    for block in blocks or []:
        assert block["type"] != "text" or block["text"], "text content blocks must be non-empty"
    return list(blocks or [])


def _names(messages: list[dict[str, Any]]) -> dict[str, str]:
    blocks = [block for message in messages for block in _blocks(message["content"])]
    return {block["id"]: block["name"] for block in blocks if block["type"] == "tool_use"}


def _turns(message: dict[str, Any], names: dict[str, str]) -> list[Turn]:
    blocks = _blocks(message["content"])
    assert blocks, "messages must have non-empty content"
    results = [block for block in blocks if block["type"] == "tool_result"]
    assert blocks[: len(results)] == results, "tool_result blocks must come first"
    made = [
        Turn(role="tool", text=_text(_blocks(r["content"])), call_id=r["tool_use_id"], name=names[r["tool_use_id"]])
        for r in results
    ]
    rest = blocks[len(results) :]
    if rest:
        calls = [Called(b["id"], b["name"], (json.dumps(b["input"]),)) for b in rest if b["type"] == "tool_use"]
        images = [_image(block["source"]) for block in rest if block["type"] == "image"]
        made.append(Turn(role=message["role"], text=_text(rest), images=tuple(images), calls=tuple(calls)))
    return made


def _text(blocks: list[dict[str, Any]]) -> str:
    return "".join(block["text"] for block in blocks if block["type"] == "text")


def _image(source: dict[str, str]) -> Image:
    if source["type"] == "url":
        return Image(url=source["url"])
    assert source["type"] == "base64"
    return Image(data=base64.b64decode(source["data"], validate=True), type=source["media_type"])


WIRES: list[Wire] = [Anthropic()]
