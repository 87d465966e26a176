"""A Chat Completions request as one of OpenAI's Responses API, for the models that are served by that alone. Pure."""

from typing import Any

import msgspec
from trunkline_events.failure import FailureClass
from trunkline_events.registry import RESPONSES

from trunkline_actors.adapters import Call
from trunkline_actors.adapters.faults import upstream_error

_SAME = (
    *("temperature", "top_p", "parallel_tool_calls", "user", "service_tier", "safety_identifier"),
    *("prompt_cache_key", "prompt_cache_retention", "top_logprobs"),
)
# The API has nothing of the kind: refused by name, unless the value is what it does anyway.
_UNKNOWN: dict[str, tuple[Any, ...]] = {
    "stop": (None, [], ""),
    "n": (None, 1),
    "seed": (None,),
    "logit_bias": (None, {}),
    "logprobs": (None, False),
    "frequency_penalty": (None, 0),
    "presence_penalty": (None, 0),
    "audio": (None,),
    "functions": (None, []),
    "function_call": (None,),
}
_LEAST_OUTPUT = 16  # what the API insists on


def responses_body(call: Call, *, stream: bool) -> bytes:
    """The request to send. Raises UpstreamError (invalid request) for what the API can't carry, named.

    Nothing is stored upstream, unless the caller asked for that.
    """
    try:
        asked = msgspec.json.decode(call.body, type=dict[str, Any])
        return msgspec.json.encode(_converted(asked, call, stream=stream))
    except (ValueError, RecursionError, TypeError, AttributeError, KeyError) as error:
        message = "the request can't be read as a Chat Completions request"
        raise upstream_error(FailureClass.INVALID_REQUEST, message) from error


def _converted(asked: dict[str, Any], call: Call, *, stream: bool) -> dict[str, Any]:
    for name, harmless in _UNKNOWN.items():
        if name in asked and asked[name] not in harmless:
            raise upstream_error(FailureClass.INVALID_REQUEST, f"the Responses API has no {name!r}: leave it out")
    body: dict[str, Any] = {name: asked[name] for name in _SAME if asked.get(name) is not None}
    body["model"] = call.model.removeprefix(RESPONSES)
    body["input"] = [item for message in asked.get("messages", ()) for item in _items(message)]
    body["store"] = bool(asked.get("store"))
    if stream:
        body["stream"] = True
    limit = call.max_tokens or asked.get("max_completion_tokens") or asked.get("max_tokens")
    if limit is not None:
        body["max_output_tokens"] = max(limit, _LEAST_OUTPUT)
    if asked.get("reasoning_effort") is not None:
        body["reasoning"] = {"effort": asked["reasoning_effort"]}
    if tools := asked.get("tools"):
        body["tools"] = [_tool(tool) for tool in tools]
    if asked.get("tool_choice") is not None:
        body["tool_choice"] = _choice(asked["tool_choice"])
    text = {"format": _format(asked["response_format"])} if asked.get("response_format") else {}
    if asked.get("verbosity") is not None:
        text["verbosity"] = asked["verbosity"]
    if text:
        body["text"] = text
    metadata = {name: value for name, value in (asked.get("metadata") or {}).items() if name != "thread_id"}
    return body | ({"metadata": metadata} if metadata else {})


def _items(message: dict[str, Any]) -> list[dict[str, Any]]:
    """One message as the items of an input: its text, and each call of a tool apart."""
    role, content = message["role"], message.get("content")
    if role == "tool":
        return [{"type": "function_call_output", "call_id": message["tool_call_id"], "output": _plain(content)}]
    if role != "assistant":
        return [
            {"role": role, "content": content if isinstance(content, str) else [_part(part) for part in content or ()]}
        ]
    parts = [] if _plain(content) == "" else [{"type": "output_text", "text": _plain(content)}]
    if message.get("refusal"):
        parts.append({"type": "refusal", "refusal": message["refusal"]})
    said = [{"role": "assistant", "content": parts}] if parts else []
    calls = [
        {"type": "function_call", "call_id": call["id"], **_named(call["function"])}
        for call in message.get("tool_calls") or ()
    ]
    return [*said, *calls]


def _named(function: dict[str, Any]) -> dict[str, Any]:
    return {"name": function["name"], "arguments": function["arguments"]}


def _part(part: dict[str, Any]) -> dict[str, Any]:
    match part["type"]:
        case "text":
            return {"type": "input_text", "text": part["text"]}
        case "image_url":
            image = part["image_url"]
            return {"type": "input_image", "image_url": image["url"], "detail": image.get("detail", "auto")}
        case "file":
            return {"type": "input_file", **part["file"]}
        case kind:
            message = f"the Responses API takes no content of type {kind!r}"
            raise upstream_error(FailureClass.INVALID_REQUEST, message)


def _plain(content: str | list[dict[str, Any]] | None) -> str:
    if isinstance(content, str):
        return content
    return "".join(part["text"] for part in content or () if part["type"] == "text")


def _tool(tool: dict[str, Any]) -> dict[str, Any]:
    if tool["type"] != "function":
        return tool
    # Strict is what the API would take for granted, and Chat Completions does not.
    return {"type": "function", "strict": False, "parameters": None, **tool["function"]}


def _choice(choice: str | dict[str, Any]) -> str | dict[str, Any]:
    if isinstance(choice, dict) and choice.get("type") == "function":
        return {"type": "function", "name": choice["function"]["name"]}
    return choice


def _format(wanted: dict[str, Any]) -> dict[str, Any]:
    return {"type": "json_schema", **wanted["json_schema"]} if wanted["type"] == "json_schema" else wanted
