"""What is sent to Ollama: an OpenAI request in the form of its own API, /api/chat and /api/embed. Pure.

https://github.com/ollama/ollama/blob/main/docs/api.md, and its api/types.go. What is not there can't be asked for: more
than one choice, images by address, files, audio. What only Ollama has may be given beside OpenAI's fields: `options`,
`keep_alive`, `think`, `format`.
"""

import base64
import binascii
from typing import Any, Literal

import msgspec
from msgspec import Struct
from trunkline_events.failure import FailureClass, UpstreamError

from trunkline_actors.adapters import Call
from trunkline_actors.adapters.faults import upstream_error

_decode = msgspec.json.decode
_OPTIONS = ("temperature", "top_p", "top_k", "min_p", "seed", "frequency_penalty", "presence_penalty")
_LIMITS = ("max_tokens", "max_completion_tokens")
_EFFORTS: dict[str, bool | str] = {"none": False, "minimal": "low", "xhigh": "high"}
_ROLES = {"developer": "system", "function": "tool"}


class Embedding(Struct, frozen=True):
    """An embeddings request to be sent, and how its caller wants the vectors."""

    body: dict[str, Any]
    encoding: Literal["float", "base64"]


def chat_request(call: Call, *, stream: bool) -> dict[str, Any]:
    """The request for /api/chat. Images in it are text in base64. Raises UpstreamError (invalid request)."""
    body = _object(call)
    if body.get("n") not in (None, 1):
        raise _invalid("Ollama gives one choice: leave `n` out")
    names: dict[str, str] = {}
    messages = [_message(one, names) for one in _list(body, "messages")]
    request: dict[str, Any] = {"model": call.model, "messages": messages, "stream": stream}
    if tools := _tools(body):
        request["tools"] = tools
    if options := _options(body, call.max_tokens):
        request["options"] = options
    wanted = _format(body)
    if wanted is not None:
        request["format"] = wanted
    think = _think(body)
    if think is not None:
        request["think"] = think
    if body.get("keep_alive") is not None:
        request["keep_alive"] = body["keep_alive"]
    # Without this Ollama drops the oldest messages of a prompt that is too long, and tells nobody.
    request["truncate"] = body.get("truncate", False)
    return request


def embed_request(call: Call) -> Embedding:
    """The request for /api/embed. Raises UpstreamError (invalid request)."""
    body = _object(call)
    inputs = body.get("input")
    texts = [inputs] if isinstance(inputs, str) else inputs
    if not isinstance(texts, list) or not texts or not all(isinstance(one, str) for one in texts):
        raise _invalid("`input` must be a text or a list of texts: Ollama takes no tokens")
    if body.get("encoding_format") not in (None, "float", "base64"):
        raise _invalid("encoding_format must be float or base64")
    request: dict[str, Any] = {"model": call.model, "input": inputs, "truncate": body.get("truncate", False)}
    for name in ("dimensions", "keep_alive"):
        if body.get(name) is not None:
            request[name] = body[name]
    if isinstance(body.get("options"), dict):
        request["options"] = body["options"]
    return Embedding(request, "base64" if body.get("encoding_format") == "base64" else "float")


# -- messages ----------------------------------------------------------------------------------------------------------


def _message(said: Any, names: dict[str, str]) -> dict[str, Any]:
    """One message. `names` are those of the tools called so far, by the ids of the calls: Ollama knows names only."""
    if not isinstance(said, dict) or not isinstance(said.get("role"), str):
        raise _invalid("each message must be an object with a role")
    role = _ROLES.get(said["role"], said["role"])
    text, images = _content(said.get("content"))
    message: dict[str, Any] = {"role": role, "content": text}
    if images:
        message["images"] = images
    thought = said.get("reasoning_content") or said.get("reasoning")
    if role == "assistant" and isinstance(thought, str):
        message["thinking"] = thought
    if role == "assistant" and said.get("tool_calls"):
        message["tool_calls"] = [_called(one, names) for one in _list(said, "tool_calls")]
    if role == "tool":
        call_id = said.get("tool_call_id")
        name = names.get(call_id) if isinstance(call_id, str) else None
        name = name or said.get("name")
        if not isinstance(name, str):
            raise _invalid("the result of a tool answers no call: its tool_call_id is that of none before it")
        message["tool_name"] = name
        if isinstance(call_id, str):
            message["tool_call_id"] = call_id
    return message


def _called(said: Any, names: dict[str, str]) -> dict[str, Any]:
    function = said.get("function") if isinstance(said, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise _invalid("each of tool_calls must have a function with a name")
    arguments = function.get("arguments")
    if isinstance(arguments, str):
        try:
            arguments = _decode(arguments.encode() or b"{}")
        except (ValueError, RecursionError):
            arguments = None
    if not isinstance(arguments, dict):
        raise _invalid(f"the arguments of the call to {function['name'][:64]} are no JSON object")
    call: dict[str, Any] = {"function": {"name": function["name"], "arguments": arguments}}
    if isinstance(said.get("id"), str):
        names[said["id"]] = function["name"]
        call["id"] = said["id"]
    return call


def _content(content: Any) -> tuple[str, list[str]]:
    if content is None or isinstance(content, str):
        return content or "", []
    if not isinstance(content, list):
        raise _invalid("the content of a message must be text or a list of parts")
    texts, images = [], []
    for part in content:
        kind = part.get("type") if isinstance(part, dict) else None
        if kind in ("text", "refusal") and isinstance(part.get(kind), str):
            texts.append(part[kind])
        elif kind == "image_url":
            images.append(_image(part.get("image_url")))
        else:
            raise _invalid("Ollama takes text and images: a part of a message is neither")
    return "".join(texts), images


def _image(given: Any) -> str:
    """The base64 text of an image. Anything but a data: URL might be a file of this machine, or an address to call."""
    url = given.get("url") if isinstance(given, dict) else given
    if not isinstance(url, str) or not url.startswith("data:"):
        raise _invalid(
            "Ollama takes images as bytes only: image_url must be a data: URL, such as data:image/png;base64,…"
        )
    head, _, data = url.partition(",")
    if not head.endswith(";base64"):
        raise _invalid("the data: URL of an image must be base64")
    try:
        base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError):
        raise _invalid("the data: URL of an image holds no base64") from None
    if not data:
        raise _invalid("the data: URL of an image is empty")
    return data


# -- what else is asked for --------------------------------------------------------------------------------------------


def _tools(body: dict[str, Any]) -> list[Any]:
    choice = body.get("tool_choice")
    tools = body.get("tools") or []
    if not isinstance(tools, list) or choice == "none":
        return []
    if isinstance(choice, dict):  # Ollama can't be told to call one; offered no other, it calls that or none
        wanted = _named(choice)
        tools = [one for one in tools if _named(one) == wanted]
    return tools


def _named(tool: Any) -> object:
    function = tool.get("function") if isinstance(tool, dict) else None
    return function.get("name") if isinstance(function, dict) else None


def _options(body: dict[str, Any], max_tokens: int | None) -> dict[str, Any]:
    given = body.get("options")
    options = dict(given) if isinstance(given, dict) else {}
    options |= {name: body[name] for name in _OPTIONS if body.get(name) is not None}
    stop = body.get("stop")
    if stop:
        options["stop"] = [stop] if isinstance(stop, str) else stop
    asked = next((body[name] for name in reversed(_LIMITS) if body.get(name) is not None), None)
    limit = asked if max_tokens is None else max_tokens
    if limit is not None:
        options["num_predict"] = limit
    return options


def _format(body: dict[str, Any]) -> Any:
    wanted = body.get("response_format")
    if not isinstance(wanted, dict):
        return body.get("format")
    if wanted.get("type") == "json_object":
        return "json"
    if wanted.get("type") == "json_schema":
        described = wanted.get("json_schema")
        schema = described.get("schema") if isinstance(described, dict) else None
        if not isinstance(schema, dict):
            raise _invalid("response_format.json_schema.schema must be an object")
        return schema
    return body.get("format")


def _think(body: dict[str, Any]) -> bool | str | None:
    think = body.get("think")
    if isinstance(think, bool | str):
        return think
    effort = body.get("reasoning_effort")
    return _EFFORTS.get(effort, effort) if isinstance(effort, str) else None


def _object(call: Call) -> dict[str, Any]:
    try:
        body = _decode(call.body)
    except (ValueError, RecursionError):
        body = None
    if not isinstance(body, dict):
        raise _invalid("the request body is no JSON object")
    return body


def _list(body: dict[str, Any], name: str) -> list[Any]:
    found = body.get(name)
    if not isinstance(found, list):
        raise _invalid(f"`{name}` must be a list")
    return found


def _invalid(message: str) -> UpstreamError:
    return upstream_error(FailureClass.INVALID_REQUEST, message)
