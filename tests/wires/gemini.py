"""Gemini's generateContent and batchEmbedContents (v1beta), as Google's own server speaks them."""

import base64
import json
import re
from collections.abc import Sequence
from typing import Any, Literal

from trunkline_actors.adapters import gemini_sdk
from trunkline_events.failure import FailureClass
from trunkline_events.usage import Usage
from upstream import Reply, Request, answer

from wires import Called, Embedding, Finish, Image, Said, Seen, Stream, Tool, Turn, Wire

# The adapter does so at its first call; done here, it takes nothing of a scenario's time.
gemini_sdk.load()

_FINISHES = {"stop": "STOP", "tool_calls": "STOP", "length": "MAX_TOKENS", "content_filter": "SAFETY"}
_CODES = {
    FailureClass.RATE_LIMITED: (429, "RESOURCE_EXHAUSTED"),
    FailureClass.UNAVAILABLE: (503, "UNAVAILABLE"),
    FailureClass.TIMEOUT: (504, "DEADLINE_EXCEEDED"),
    FailureClass.AUTH: (400, "INVALID_ARGUMENT"),  # with a reason; a bad key is no 401 here
    FailureClass.INVALID_REQUEST: (400, "INVALID_ARGUMENT"),
    FailureClass.MODEL_NOT_FOUND: (404, "NOT_FOUND"),
    FailureClass.ABORTED: (499, "CANCELLED"),
}
_CONFIG = {
    "temperature",
    "topP",
    "topK",
    "seed",
    "candidateCount",
    "maxOutputTokens",
    "stopSequences",
    "presencePenalty",
    "frequencyPenalty",
    "responseMimeType",
    "responseJsonSchema",
    "thinkingConfig",
}


class GeminiWire:
    """The format itself."""

    kind = "gemini"
    transports: tuple[Literal["raw", "sdk"], ...] = ("raw", "sdk")
    counts: frozenset[Literal["cached", "reasoning"]] = frozenset({"cached", "reasoning"})
    finishes: frozenset[Finish] = frozenset({"stop", "length", "tool_calls", "content_filter"})
    call_ids = True
    malformed = b'data: {"candidates":[{"content":{"parts":[{"te\n\n'

    def base_url(self, origin: str) -> str:
        return origin

    def whole(self, said: Said) -> Reply:
        parts: list[dict[str, object]] = []
        if said.thinking:
            parts.append({"text": "".join(said.thinking), "thought": True})
        if said.text:
            parts.append({"text": "".join(said.text)})
        return answer(self._event([*parts, *_calls(said)], said, finish=True))

    def stream(self, said: Said) -> Stream:
        pieces: list[list[dict[str, object]]] = [[{"text": piece, "thought": True}] for piece in said.thinking]
        pieces += [[{"text": piece}] for piece in said.text]
        if said.calls:
            pieces.append(_calls(said))
        events = [self._event(parts, said, finish=False) for parts in pieces]
        events.append(self._event([{"text": ""}], said, finish=True))
        return Stream(events=tuple(_sse(event) for event in events), settled=len(events))

    def refusing(self, kind: FailureClass, retry_after: int | None = None) -> Reply | None:
        if kind not in _CODES:
            return None
        status, error = _CODES[kind][0], self._error(kind)
        return answer(error, status) if retry_after is None else answer(error, status, retry_after=str(retry_after))

    def failing(self, kind: FailureClass) -> bytes | None:
        return _sse(self._error(kind)) if kind in _CODES else None

    def embeddings(self, vectors: Sequence[Sequence[float]], input_tokens: int) -> Reply:
        del input_tokens  # not told
        return answer({"embeddings": [{"values": vector} for vector in vectors]})

    def checked(self) -> Reply:
        return answer({"models": [{"name": "models/m", "supportedGenerationMethods": ["generateContent"]}]})

    def seen(self, request: Request) -> Seen:
        model, method, body = self._read(request)
        assert method in {"generateContent", "streamGenerateContent?alt=sse"}
        assert set(body) <= {"contents", "systemInstruction", "tools", "toolConfig", "generationConfig"}
        config = body.get("generationConfig", {})
        assert set(config) <= _CONFIG, f"unknown names: {set(config) - _CONFIG}"
        assert "responseJsonSchema" not in config or config["responseMimeType"] == "application/json"
        assert body["contents"], "contents is not specified"
        assert "toolConfig" not in body or body["tools"]
        return Seen(
            model=model,
            stream=method.startswith("stream"),
            system="\n".join(_text(body.get("systemInstruction", {"parts": []}))),
            turns=tuple(turn for content in body["contents"] for turn in _turns(content)),
            tools=tuple(
                Tool(one["name"], one.get("description", ""), one["parametersJsonSchema"])
                for tool in body.get("tools", ())
                for one in tool["functionDeclarations"]
            ),
            max_tokens=config.get("maxOutputTokens"),
            stop=tuple(config.get("stopSequences", ())),
            temperature=config.get("temperature"),
            schema=config.get("responseJsonSchema"),
        )

    def seen_embedding(self, request: Request) -> Embedding:
        model, method, body = self._read(request)
        assert method == "batchEmbedContents"
        assert {one["model"] for one in body["requests"]} == {f"models/{model}"}
        return Embedding(model, tuple("".join(_text(one["content"])) for one in body["requests"]))

    def _read(self, request: Request) -> tuple[str, str, Any]:
        assert request.method == "POST"
        assert request.headers["x-goog-api-key"]
        assert "key" not in request.path.partition("?")[2], "a key in the URL"
        assert request.headers["content-type"].startswith("application/json")
        assert request.path.startswith("/v1beta/models/")
        model, _, method = request.path.removeprefix("/v1beta/models/").partition(":")
        return model, method, _camel(json.loads(request.body))

    def _event(self, parts: list[dict[str, object]], said: Said, *, finish: bool) -> dict[str, object]:
        candidate: dict[str, object] = {"content": {"parts": parts, "role": "model"}, "index": 0}
        if finish:
            candidate["finishReason"] = _FINISHES[said.finish]
        usage = {} if said.usage is None else {"usageMetadata": _usage(said.usage)}
        return {"candidates": [candidate], **usage, "modelVersion": "m-2026", "responseId": "r1"}

    def _error(self, kind: FailureClass) -> dict[str, object]:
        code, status = _CODES[kind]
        error: dict[str, object] = {"code": code, "message": "The server says no.", "status": status}
        if kind is FailureClass.AUTH:
            info = {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID"}
            error["details"] = [info | {"domain": "googleapis.com"}]
        return {"error": error}


def _camel(held: Any, name: str = "") -> Any:
    """Fields by their names in JSON: Google's server takes those of the protocol too. What is the caller's stays."""
    if isinstance(held, list):
        return [_camel(one, name) for one in held]
    if not isinstance(held, dict) or name in {"args", "response", "parametersJsonSchema", "responseJsonSchema"}:
        return held
    named = {re.sub("_([a-z])", lambda at: at[1].upper(), key): value for key, value in held.items()}
    return {key: _camel(value, key) for key, value in named.items()}


def _calls(said: Said) -> list[dict[str, object]]:
    return [
        {"functionCall": {"id": c.id, "name": c.name, "args": json.loads("".join(c.arguments))}} for c in said.calls
    ]


def _usage(usage: Usage) -> dict[str, int]:
    counts = {
        "promptTokenCount": usage.input_tokens,
        "candidatesTokenCount": usage.output_tokens - usage.reasoning_tokens,
        "totalTokenCount": usage.input_tokens + usage.output_tokens,
    }
    if usage.reasoning_tokens:
        counts["thoughtsTokenCount"] = usage.reasoning_tokens
    if usage.cached_input_tokens:
        counts["cachedContentTokenCount"] = usage.cached_input_tokens
    return counts


def _sse(payload: object) -> bytes:
    # As Google's server ends its lines; text as it is, so that a cut may fall inside a character.
    return b"data: " + json.dumps(payload, ensure_ascii=False).encode() + b"\n\n"


def _text(content: dict[str, Any]) -> list[str]:
    return [part["text"] for part in content["parts"] if "text" in part]


def _turns(content: dict[str, Any]) -> list[Turn]:
    """The turns of one content; each result is one of its own."""
    parts = content["parts"]
    assert parts, "contents.parts must not be empty"
    results = [part["functionResponse"] for part in parts if "functionResponse" in part]
    if results:
        assert (content["role"], len(results)) == ("user", len(parts))
        return [Turn(role="tool", call_id=r["id"], name=r["name"], text=_output(r["response"])) for r in results]
    assert content["role"] in {"user", "model"}
    calls = [part["functionCall"] for part in parts if "functionCall" in part]
    return [
        Turn(
            role="user" if content["role"] == "user" else "assistant",
            text="".join(_text(content)),
            images=tuple(_image(part) for part in parts if "inlineData" in part or "fileData" in part),
            calls=tuple(Called(c["id"], c["name"], (json.dumps(c["args"]),)) for c in calls),
        )
    ]


def _output(response: dict[str, Any]) -> str:
    return response["output"] if set(response) == {"output"} else json.dumps(response)


def _image(part: dict[str, Any]) -> Image:
    if "fileData" in part:
        return Image(url=part["fileData"]["fileUri"])
    blob = part["inlineData"]
    # Base64 of either alphabet, as JSON of protocol buffers has it.
    return Image(data=base64.b64decode(blob["data"].replace("-", "+").replace("_", "/")), type=blob["mimeType"])


WIRES: list[Wire] = [GeminiWire()]
