"""Ollama's own API, played from the server's side: JSON lines, images as base64, no ids of calls, options by name."""

import base64
import json
from collections.abc import Sequence
from typing import Any, Literal

from trunkline_events.failure import FailureClass
from trunkline_events.usage import Usage
from upstream import Reply, Request, answer

from wires import Called, Embedding, Finish, Image, Said, Seen, Stream, Tool, Turn, Wire

NDJSON = "application/x-ndjson"

# The status and the sentence of each error, as Ollama's source has them.
_REFUSALS: dict[FailureClass, tuple[int, str]] = {
    FailureClass.AUTH: (401, "unauthorized"),
    FailureClass.RATE_LIMITED: (429, "you have reached your hourly usage limit"),
    FailureClass.OVERLOADED: (503, "server busy, please try again.  maximum pending requests exceeded"),
    FailureClass.UNAVAILABLE: (500, "llama runner process has terminated: signal: killed"),
    FailureClass.INVALID_REQUEST: (400, '"m" does not support tools'),
    FailureClass.CONTEXT_LENGTH: (400, "the input length exceeds the context length"),
    FailureClass.MODEL_NOT_FOUND: (404, 'model "m" not found, try pulling it first'),
}
_FAILURES = {
    FailureClass.UNAVAILABLE: "an error was encountered while running the model: unexpected EOF",
    FailureClass.CONTEXT_LENGTH: "the input length exceeds the context length",
}
_CHAT_FIELDS = {
    *("model", "messages", "tools", "stream", "format", "options", "keep_alive", "think", "truncate", "shift"),
    *("logprobs", "top_logprobs"),
}
_MESSAGE_FIELDS = {"role", "content", "thinking", "images", "tool_calls", "tool_name", "tool_call_id"}
# fmt: off
_OPTIONS = {
    "num_keep", "seed", "num_predict", "top_k", "top_p", "min_p", "typical_p", "repeat_last_n", "temperature",
    "repeat_penalty", "presence_penalty", "frequency_penalty", "stop", "num_ctx", "num_batch", "num_gpu", "main_gpu",
    "use_mmap", "num_thread",
}
# fmt: on


class OllamaWire:
    """Ollama, whose answers have neither ids of calls nor parts of counts, and whose errors are a sentence."""

    kind = "ollama"
    transports: tuple[Literal["raw", "sdk"], ...] = ("raw", "sdk")
    counts: frozenset[Literal["cached", "reasoning"]] = frozenset()
    finishes: frozenset[Finish] = frozenset({"stop", "length", "tool_calls"})
    call_ids = False
    malformed = b'{"model":"m","message":{"role":"assis\n'

    def base_url(self, origin: str) -> str:
        return origin

    def whole(self, said: Said) -> Reply:
        message = _message("".join(said.text), "".join(said.thinking), said.calls)
        return answer({**_HEAD, "message": message, **_ended(said)})

    def stream(self, said: Said) -> Stream:
        parts = [_message("", piece) for piece in said.thinking]
        parts += [_message(piece) for piece in said.text]
        parts += [_message(calls=(call,)) for call in said.calls]
        lines = [_line({**_HEAD, "message": message, "done": False}) for message in parts]
        lines.append(_line({**_HEAD, "message": _message(), **_ended(said)}))
        return Stream(events=tuple(lines), settled=len(lines), content_type=NDJSON)

    def refusing(self, kind: FailureClass, retry_after: int | None = None) -> Reply | None:
        if kind not in _REFUSALS:
            return None
        status, sentence = _REFUSALS[kind]
        more = {} if retry_after is None else {"retry_after": str(retry_after)}
        return answer({"error": sentence}, status, **more)

    def failing(self, kind: FailureClass) -> bytes | None:
        return _line({"error": _FAILURES[kind]}) if kind in _FAILURES else None

    def embeddings(self, vectors: Sequence[Sequence[float]], input_tokens: int) -> Reply:
        return answer(
            {
                "model": "m",
                "embeddings": [list(vector) for vector in vectors],
                "total_duration": 14143917,
                "load_duration": 1019500,
                "prompt_eval_count": input_tokens,
            }
        )

    def checked(self) -> Reply:
        details = {"family": "llama", "parameter_size": "3.2B", "quantization_level": "Q4_K_M"}
        model = {"name": "m:latest", "model": "m:latest", "size": 2019393189, "digest": "a80c", "details": details}
        return answer({"models": [model]})

    def seen(self, request: Request) -> Seen:
        body = _read(request, "/api/chat")
        assert set(body) <= _CHAT_FIELDS, f"ignored: {set(body) - _CHAT_FIELDS}"
        options = body.get("options", {})
        assert set(options) <= _OPTIONS, f"ignored: {set(options) - _OPTIONS}"
        assert body.get("truncate") in (None, False), "the oldest messages would be dropped in silence"
        wanted, messages = body.get("format"), body["messages"]
        return Seen(
            model=body["model"],
            stream=body["stream"],
            system="\n".join(message["content"] for message in messages if message["role"] == "system"),
            turns=tuple(_turn(message) for message in messages if message["role"] != "system"),
            tools=tuple(_tool(tool) for tool in body.get("tools", ())),
            max_tokens=options.get("num_predict"),
            stop=tuple(options.get("stop", ())),
            temperature=options.get("temperature"),
            schema=wanted if isinstance(wanted, dict) else None,
        )

    def seen_embedding(self, request: Request) -> Embedding:
        body = _read(request, "/api/embed")
        assert set(body) <= {"model", "input", "truncate", "options", "keep_alive", "dimensions"}
        inputs = body["input"]
        return Embedding(body["model"], (inputs,) if isinstance(inputs, str) else tuple(inputs))


_HEAD = {"model": "m", "created_at": "2026-11-21T12:00:00.000000001Z"}


def _line(content: object) -> bytes:
    return json.dumps(content, ensure_ascii=False).encode() + b"\n"


def _message(text: str = "", thinking: str = "", calls: tuple[Called, ...] = ()) -> dict[str, object]:
    message: dict[str, object] = {"role": "assistant", "content": text}
    if thinking:
        message["thinking"] = thinking
    if calls:
        message["tool_calls"] = [
            {"function": {"index": place, "name": call.name, "arguments": json.loads("".join(call.arguments))}}
            for place, call in enumerate(calls)
        ]
    return message


def _ended(said: Said) -> dict[str, object]:
    counts = _counts(said.usage) if said.usage else {}
    reason = "length" if said.finish == "length" else "stop"
    return {"done": True, "done_reason": reason, "total_duration": 5191566416, "load_duration": 2154458, **counts}


def _counts(usage: Usage) -> dict[str, int]:
    return {
        "prompt_eval_count": usage.input_tokens,
        "prompt_eval_duration": 383809000,
        "eval_count": usage.output_tokens,
        "eval_duration": 4799921000,
    }


def _read(request: Request, path: str) -> Any:
    assert (request.method, request.path) == ("POST", path)
    assert request.headers["content-type"].startswith("application/json")
    assert request.headers["authorization"].startswith("Bearer ")
    return json.loads(request.body)


def _turn(message: dict[str, Any]) -> Turn:
    assert set(message) <= _MESSAGE_FIELDS, f"ignored: {set(message) - _MESSAGE_FIELDS}"
    assert message["role"] in {"user", "assistant", "tool"}
    calls = []
    for call in message.get("tool_calls", ()):
        assert isinstance(call["function"]["arguments"], dict)
        calls.append(Called("", call["function"]["name"], (json.dumps(call["function"]["arguments"]),)))
    assert (message["role"] == "tool") == ("tool_name" in message)
    return Turn(
        role=message["role"],
        text=message.get("content", ""),
        images=tuple(Image(data=base64.b64decode(data, validate=True)) for data in message.get("images", ())),
        calls=tuple(calls),
        name=message.get("tool_name"),
    )


def _tool(tool: dict[str, Any]) -> Tool:
    assert tool["type"] == "function"
    function = tool["function"]
    return Tool(function["name"], function.get("description", ""), function["parameters"])


WIRES: list[Wire] = [OllamaWire()]
