"""OpenAI's Chat Completions and Embeddings, as its own server speaks them, and those who speak them with an accent."""

import base64
import json
from collections.abc import Sequence
from typing import Any, Literal

from trunkline_events.failure import FailureClass
from trunkline_events.usage import Usage
from upstream import Reply, Request, answer

from wires import Called, Embedding, Finish, Image, Said, Seen, Stream, Tool, Turn, Wire

# fmt: off
_CHAT_FIELDS = {
    "model", "messages", "stream", "stream_options", "max_tokens", "max_completion_tokens", "stop", "temperature",
    "top_p", "seed", "n", "tools", "tool_choice", "parallel_tool_calls", "response_format", "reasoning_effort",
    "frequency_penalty", "presence_penalty", "logit_bias", "logprobs", "top_logprobs", "metadata", "store", "user",
}
# fmt: on
_REFUSALS: dict[FailureClass, tuple[int, str, str | None]] = {
    FailureClass.RATE_LIMITED: (429, "requests", "rate_limit_exceeded"),
    FailureClass.OVERLOADED: (503, "service_unavailable_error", "server_is_overloaded"),
    FailureClass.UNAVAILABLE: (500, "server_error", None),
    FailureClass.TIMEOUT: (504, "timeout_error", None),
    FailureClass.AUTH: (401, "invalid_request_error", "invalid_api_key"),
    FailureClass.INVALID_REQUEST: (400, "invalid_request_error", "invalid_value"),
    FailureClass.CONTEXT_LENGTH: (400, "invalid_request_error", "context_length_exceeded"),
    FailureClass.CONTENT_FILTER: (400, "invalid_request_error", "content_policy_violation"),
    FailureClass.MODEL_NOT_FOUND: (404, "invalid_request_error", "model_not_found"),
}


class OpenAIWire:
    """The format itself."""

    transports: tuple[Literal["raw", "sdk"], ...] = ("raw", "sdk")
    counts: frozenset[Literal["cached", "reasoning"]] = frozenset({"cached", "reasoning"})
    finishes: frozenset[Finish] = frozenset({"stop", "length", "tool_calls", "content_filter"})
    call_ids = True
    malformed = b'data: {"id":"1","choices":[{"index":0,"delta":{"conte\n\n'
    thinking_field = "reasoning_content"
    limit_fields = frozenset({"max_tokens"})
    prelude = b""

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def base_url(self, origin: str) -> str:
        return f"{origin}/v1"

    def whole(self, said: Said) -> Reply:
        message: dict[str, object] = {"role": "assistant", "content": "".join(said.text) or None, "refusal": None}
        if said.thinking:
            message[self.thinking_field] = "".join(said.thinking)
        if said.calls:
            message["tool_calls"] = [
                {"id": c.id, "type": "function", "function": {"name": c.name, "arguments": "".join(c.arguments)}}
                for c in said.calls
            ]
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": said.finish}
        usage = {} if said.usage is None else {"usage": self.usage(said.usage)}
        return answer({**_head("chat.completion"), "choices": [choice], **usage})

    def stream(self, said: Said) -> Stream:
        deltas: list[dict[str, object]] = [{"role": "assistant", "content": ""}]
        deltas += [{self.thinking_field: piece} for piece in said.thinking]
        deltas += [{"content": piece} for piece in said.text]
        for at, call in enumerate(said.calls):
            first = {"index": at, "id": call.id, "type": "function", "function": {"name": call.name, "arguments": ""}}
            deltas.append({"tool_calls": [first]})
            deltas += [{"tool_calls": [{"index": at, "function": {"arguments": piece}}]} for piece in call.arguments]
        chunks = [self._chunk([{"index": 0, "delta": delta, "finish_reason": None}]) for delta in deltas]
        chunks.append(self._chunk([{"index": 0, "delta": {}, "finish_reason": said.finish}]))
        settled = len(chunks)
        if said.usage is not None:
            chunks.append(self._chunk([], usage=self.usage(said.usage)))
        events = [self.prelude + _event(chunk) for chunk in chunks]
        return Stream(events=(*events, b"data: [DONE]\n\n"), settled=settled)

    def usage(self, usage: Usage) -> dict[str, object]:
        return {
            "prompt_tokens": usage.input_tokens,
            "completion_tokens": usage.output_tokens,
            "total_tokens": usage.input_tokens + usage.output_tokens,
            "prompt_tokens_details": {"cached_tokens": usage.cached_input_tokens, "audio_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": usage.reasoning_tokens, "audio_tokens": 0},
        }

    def refusing(self, kind: FailureClass, retry_after: int | None = None) -> Reply | None:
        if kind not in _REFUSALS:
            return None
        status, error = _REFUSALS[kind][0], self.error(kind)
        return answer(error, status) if retry_after is None else answer(error, status, retry_after=str(retry_after))

    def failing(self, kind: FailureClass) -> bytes | None:
        return _event(self.error(kind)) if kind in _REFUSALS else None

    def error(self, kind: FailureClass) -> dict[str, object]:
        _, named, code = _REFUSALS[kind]
        return {"error": {"message": "The server says no.", "type": named, "param": None, "code": code}}

    def embeddings(self, vectors: Sequence[Sequence[float]], input_tokens: int) -> Reply:
        data = [{"object": "embedding", "index": at, "embedding": vector} for at, vector in enumerate(vectors)]
        usage = {"prompt_tokens": input_tokens, "total_tokens": input_tokens}
        return answer({"object": "list", "data": data, "model": "m", "usage": usage})

    def checked(self) -> Reply:
        return answer({"object": "list", "data": [{"id": "m", "object": "model", "created": 1, "owned_by": "us"}]})

    def seen(self, request: Request) -> Seen:
        body = self._read(request, "/v1/chat/completions")
        assert set(body) <= _CHAT_FIELDS, f"unknown parameters: {set(body) - _CHAT_FIELDS}"
        stream = body.get("stream", False)
        assert body.get("stream_options", {"include_usage": True}) == {"include_usage": True}
        assert stream or "stream_options" not in body, "stream_options is only allowed when stream is set"
        limits = {"max_tokens", "max_completion_tokens"} & set(body)
        assert limits <= self.limit_fields, f"unsupported parameter: {limits}"
        assert len(limits) <= 1, "setting both at the same time is not supported"
        stop, wanted = body.get("stop") or (), body.get("response_format")
        return Seen(
            model=body["model"],
            stream=stream,
            system="\n".join(_text(m["content"]) for m in body["messages"] if m["role"] == "system"),
            turns=tuple(_turn(message) for message in body["messages"] if message["role"] != "system"),
            tools=tuple(_tool(tool) for tool in body.get("tools", ())),
            max_tokens=body[limits.pop()] if limits else None,
            stop=(stop,) if isinstance(stop, str) else tuple(stop),
            temperature=body.get("temperature"),
            schema=wanted["json_schema"]["schema"] if wanted and wanted["type"] == "json_schema" else None,
        )

    def seen_embedding(self, request: Request) -> Embedding:
        body = self._read(request, "/v1/embeddings")
        assert set(body) <= {"model", "input", "dimensions", "encoding_format", "user"}
        inputs = body["input"]
        return Embedding(body["model"], (inputs,) if isinstance(inputs, str) else tuple(inputs))

    def _read(self, request: Request, path: str) -> Any:
        assert (request.method, request.path) == ("POST", path)
        assert request.headers["content-type"].startswith("application/json")
        assert request.headers["authorization"].startswith("Bearer ")
        return json.loads(request.body)

    def _chunk(self, choices: list[dict[str, object]], **more: object) -> dict[str, object]:
        return {**_head("chat.completion.chunk"), "choices": choices, **more}


class OpenAI(OpenAIWire):
    """OpenAI, where a limit has a new name; the old one still goes with models that don't reason."""

    limit_fields = frozenset({"max_tokens", "max_completion_tokens"})


class OpenRouter(OpenAIWire):
    """OpenRouter: comments while it waits, `reasoning`, its own cost in usage, errors by number, inside chunks too."""

    thinking_field = "reasoning"
    prelude = b": OPENROUTER PROCESSING\n\n"

    def base_url(self, origin: str) -> str:
        return f"{origin}/api/v1"

    def usage(self, usage: Usage) -> dict[str, object]:
        return super().usage(usage) | {"cost": 0.00014, "is_byok": False}

    def error(self, kind: FailureClass) -> dict[str, object]:
        status, _, name = _REFUSALS[kind]
        named = {FailureClass.CONTEXT_LENGTH, FailureClass.CONTENT_FILTER, FailureClass.OVERLOADED}
        return {"error": {"code": name if kind in named else status, "message": "Provider returned error"}}

    def failing(self, kind: FailureClass) -> bytes | None:
        if kind not in _REFUSALS:
            return None
        choice: dict[str, object] = {"index": 0, "delta": {"content": ""}, "finish_reason": "error"}
        return _event(self._chunk([choice], provider="Some", **self.error(kind)))

    def _read(self, request: Request, path: str) -> Any:
        return super()._read(request._replace(path=request.path.removeprefix("/api")), path)


class DeepSeek(OpenAIWire):
    """DeepSeek, which tells cache hits and misses beside the prompt, and keeps connections alive with comments."""

    prelude = b": keep-alive\n\n"

    def usage(self, usage: Usage) -> dict[str, object]:
        hits = usage.cached_input_tokens
        told = super().usage(usage)
        del told["prompt_tokens_details"]
        return told | {"prompt_cache_hit_tokens": hits, "prompt_cache_miss_tokens": usage.input_tokens - hits}


def _event(payload: object) -> bytes:
    # As servers write it: text as it is, so that a cut may fall inside a character.
    return b"data: " + json.dumps(payload, ensure_ascii=False).encode() + b"\n\n"


def _head(kind: str) -> dict[str, object]:
    return {"id": "chatcmpl-1", "object": kind, "created": 1795262400, "model": "m-2026"}


def _text(content: str | list[dict[str, Any]] | None) -> str:
    parts = content if isinstance(content, list) else [{"type": "text", "text": content or ""}]
    return "".join(part["text"] for part in parts if part["type"] == "text")


def _turn(message: dict[str, Any]) -> Turn:
    content = message.get("content")
    parts = content if isinstance(content, list) else []
    calls = tuple(
        Called(call["id"], call["function"]["name"], (call["function"]["arguments"],))
        for call in message.get("tool_calls", ())
    )
    assert (message["role"] == "tool") == ("tool_call_id" in message)
    return Turn(
        role=message["role"],
        text=_text(content),
        images=tuple(_image(part["image_url"]["url"]) for part in parts if part["type"] == "image_url"),
        calls=calls,
        call_id=message.get("tool_call_id"),
    )


def _image(url: str) -> Image:
    if not url.startswith("data:"):
        return Image(url=url)
    media, _, data = url.removeprefix("data:").partition(";base64,")
    return Image(data=base64.b64decode(data, validate=True), type=media)


def _tool(tool: dict[str, Any]) -> Tool:
    assert tool["type"] == "function"
    function = tool["function"]
    return Tool(function["name"], function.get("description", ""), function["parameters"])


WIRES: list[Wire] = [
    OpenAI("openai"),
    OpenAIWire("openai-compatible"),
    OpenRouter("openrouter"),
    DeepSeek("deepseek"),
]
