"""Answers and streams of OpenAI's Responses API as Chat Completions. Pure.

https://platform.openai.com/docs/api-reference/responses-streaming
"""

from collections.abc import Iterator
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct
from trunkline_events.failure import FailureClass, UpstreamError
from trunkline_events.usage import Usage

from trunkline_actors.adapters import Answer, Chunk, End
from trunkline_actors.adapters.faults import from_answer, upstream_error
from trunkline_actors.adapters.sse import EventDecoder, EventTooLarge

_encode = msgspec.json.encode
_decode = msgspec.json.Decoder(dict[str, Any]).decode
_MALFORMED = (ValueError, RecursionError, KeyError, TypeError, AttributeError, OverflowError)
_FINISHES = {"max_output_tokens": "length", "content_filter": "content_filter"}
# Which event adds to which field of a delta.
_FIELDS = {
    "response.output_text.delta": "content",
    "response.refusal.delta": "refusal",
    "response.reasoning_summary_text.delta": "reasoning_content",
    "response.reasoning_text.delta": "reasoning_content",
}
_ENDS = ("response.completed", "response.incomplete")

Tokens = Annotated[int, Meta(ge=0)] | None


class _InputDetails(Struct):
    cached_tokens: Tokens = None


class _OutputDetails(Struct):
    reasoning_tokens: Tokens = None


class _Usage(Struct):
    input_tokens: Tokens = None
    output_tokens: Tokens = None
    input_tokens_details: _InputDetails | None = None
    output_tokens_details: _OutputDetails | None = None


def read_response(body: bytes, *, secrets: tuple[str, ...] = ()) -> Answer:
    """A whole answer. Raises UpstreamError where it is none, or says that it failed."""
    try:
        response = _decode(body)
        if response.get("error"):
            raise UpstreamError(from_answer(200, {}, body, now=0.0, secrets=secrets))
        message, calls = _message(response["output"])
        finish = _finish(response, called=bool(calls))
        head = _head(response, "chat.completion")
        usage = _usage(response.get("usage"))
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": finish}
        told = head | {"choices": [choice]} | ({} if usage is None else {"usage": _told(usage)})
        return Answer(body=_encode(told), usage=usage, finish=finish)
    except _MALFORMED as error:
        raise upstream_error(FailureClass.INTERNAL, "upstream sent no response", 200) from error


class ResponsesReader:
    """Reads one stream: bytes in as they arrive, Chunks out, then one End. As `wire.StreamReader`."""

    def __init__(self, *, include_usage: bool, secrets: tuple[str, ...] = ()) -> None:
        self.done = False
        self._events = EventDecoder()
        self._include_usage = include_usage
        self._secrets = secrets
        self._head: dict[str, Any] = {}
        self._calls: dict[int, int] = {}  # the number of each call, by that of its item
        self._usage: Usage | None = None
        self._finish = "stop"
        self._any = False

    def feed(self, data: bytes) -> Iterator[Chunk]:
        """The chunks these bytes complete. Raises UpstreamError at an error or a malformed event, in its turn."""
        try:
            payloads = self._events.feed(data)
        except EventTooLarge as error:
            raise upstream_error(FailureClass.INTERNAL, str(error), 200) from error
        return self._chunks(payloads)

    def finish(self) -> Iterator[Chunk]:
        """The chunks left when the bytes ended without a last empty line. Raises as `feed` does."""
        return self._chunks(self._events.finish())

    def end(self) -> End:
        """The clean end. Raises UpstreamError if nothing said that it is one."""
        if not self._any:
            raise upstream_error(FailureClass.INTERNAL, "upstream sent no event stream", 200)
        if not self.done:
            raise upstream_error(FailureClass.CONNECTION, "upstream cut the stream: no response.completed", 200)
        return End(usage=self._usage, finish=self._finish)

    def _chunks(self, payloads: list[bytes]) -> Iterator[Chunk]:
        for payload in payloads:
            if self.done or payload == b"[DONE]":
                return
            try:
                event = _decode(payload)
                chunks = list(self._read(event["type"], event, payload))
            except _MALFORMED as error:
                raise upstream_error(FailureClass.INTERNAL, "upstream sent a malformed event", 200) from error
            self._any = True
            yield from chunks

    def _read(self, kind: str, event: dict[str, Any], payload: bytes) -> Iterator[Chunk]:
        if kind in _FIELDS:
            yield self._delta({_FIELDS[kind]: event["delta"]}, event["delta"])
        elif kind == "response.created":
            self._head = _head(event["response"], "chat.completion.chunk")
            yield self._delta({"role": "assistant", "content": ""})
        elif kind == "response.output_item.added" and event["item"]["type"] == "function_call":
            number = self._calls.setdefault(event["output_index"], len(self._calls))
            item = event["item"]
            begun = {"name": item["name"], "arguments": item.get("arguments") or ""}
            call = {"index": number, "id": item["call_id"], "type": "function", "function": begun}
            yield self._delta({"tool_calls": [call]}, begun["arguments"])
        elif kind == "response.function_call_arguments.delta":
            call = {"index": self._calls[event["output_index"]], "function": {"arguments": event["delta"]}}
            yield self._delta({"tool_calls": [call]}, event["delta"])
        elif kind in _ENDS:
            yield from self._ended(event["response"])
        elif kind in {"error", "response.failed"}:
            raise self._failed(event, payload)

    def _ended(self, response: dict[str, Any]) -> Iterator[Chunk]:
        self._finish = _finish(response, called=bool(self._calls))
        self._usage = _usage(response.get("usage"))
        self.done = True
        yield self._delta({}, finish=self._finish)
        if self._include_usage and self._usage is not None:
            yield Chunk(_encode(self._head | {"choices": [], "usage": _told(self._usage)}))

    def _failed(self, event: dict[str, Any], payload: bytes) -> UpstreamError:
        told = event.get("error") or (event.get("response") or {}).get("error")
        body = _encode({"error": told}) if told else payload
        return UpstreamError(from_answer(200, {}, body, now=0.0, secrets=self._secrets))

    def _delta(self, delta: dict[str, Any], text: str = "", finish: str | None = None) -> Chunk:
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        return Chunk(_encode(self._head | {"choices": [choice]}), len(text.encode()))


def _head(response: dict[str, Any], kind: str) -> dict[str, Any]:
    return {
        "id": response["id"],
        "object": kind,
        "created": int(response.get("created_at") or 0),
        "model": response.get("model") or "",
    }


def _message(output: list[dict[str, Any]]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The items of an answer as one message, and its calls of tools."""
    text, refusal, thought, calls = "", "", "", []
    for item in output:
        match item["type"]:
            case "message":
                text += "".join(part["text"] for part in item["content"] if part["type"] == "output_text")
                refusal += "".join(part["refusal"] for part in item["content"] if part["type"] == "refusal")
            case "reasoning":
                thought += "".join(part["text"] for part in item.get("content") or item.get("summary") or ())
            case "function_call":
                function = {"name": item["name"], "arguments": item["arguments"]}
                calls.append({"id": item["call_id"], "type": "function", "function": function})
    message: dict[str, Any] = {"role": "assistant", "content": text or (None if calls or refusal else "")}
    message["refusal"] = refusal or None
    if thought:
        message["reasoning_content"] = thought
    if calls:
        message["tool_calls"] = calls
    return message, calls


def _finish(response: dict[str, Any], *, called: bool) -> str:
    if response.get("status") == "incomplete":
        return _FINISHES.get((response.get("incomplete_details") or {}).get("reason", ""), "stop")
    return "tool_calls" if called else "stop"


def _usage(told: object) -> Usage | None:
    """Token counts. None where absent or nonsense: a count must not fail an answer."""
    try:
        said = msgspec.convert(told, _Usage)
    except (ValueError, RecursionError):
        return None
    if said.input_tokens is None or said.output_tokens is None:
        return None
    cached = (said.input_tokens_details and said.input_tokens_details.cached_tokens) or 0
    thought = (said.output_tokens_details and said.output_tokens_details.reasoning_tokens) or 0
    return Usage(
        input_tokens=said.input_tokens,
        cached_input_tokens=min(cached, said.input_tokens),
        output_tokens=said.output_tokens,
        reasoning_tokens=min(thought, said.output_tokens),
    )


def _told(usage: Usage) -> dict[str, Any]:
    return {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.input_tokens + usage.output_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_input_tokens},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
    }
