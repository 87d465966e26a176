"""A request of Anthropic's Messages API as a Chat Completions request. Pure.

What Chat Completions has no field for is refused by name; the fields left out on purpose are named in
`MessagesRequest`.
Wire format: https://platform.claude.com/docs/en/api/messages, version 2023-06-01.
"""

from typing import Any, Literal

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from trunkline.gateway.messages_turns import Block, Turn, chat_messages, parts
from trunkline.gateway.reading import Target, given, read, refused

Anything = Raw | UnsetType
_NULL = Raw(b"null")
_encode = msgspec.json.encode
_EFFORTS = ((0.2, "low"), (0.5, "medium"), (1.0, "high"))
"""Efforts up to which share of `max_tokens` a thinking budget comes: as the Anthropic adapter has it the other way."""
_TIERS = {"auto": "auto", "standard_only": "default"}


class _Tool(Struct):
    name: str = ""
    type: str | None = None
    description: str | None = None
    input_schema: dict[str, Any] | None = None
    strict: bool | None = None
    cache_control: Anything = UNSET


class _Choice(Struct):
    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None
    disable_parallel_tool_use: bool | None = None


class _Thinking(Struct):
    type: str
    budget_tokens: int | None = None


class _Format(Struct):
    type: Literal["json_schema"]
    schema: dict[str, Any]


class _Output(Struct):
    effort: str | None = None
    format: _Format | None = None


class _Metadata(Struct):
    user_id: str | None = None
    thread_id: str | None = None


class MessagesRequest(Struct, forbid_unknown_fields=True):
    """A Messages request. A field that isn't here is refused by its name."""

    model: str
    max_tokens: int
    messages: list[Turn]
    system: str | list[Block] | None = None
    stream: bool | None = None
    stop_sequences: list[str] | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    tools: list[_Tool] | None = None
    tool_choice: _Choice | None = None
    thinking: Anything = UNSET
    output_config: _Output | None = None
    metadata: _Metadata | None = None
    service_tier: str | None = None
    cache_control: Anything = UNSET
    thread: Anything = UNSET
    """A conversation that Anthropic keeps; refused in words that its clients understand."""
    route: Anything = UNSET
    """Ours, as in a Chat Completions request."""
    # Of no influence on the answer, and left out on purpose.
    diagnostics: Anything = UNSET
    inference_geo: None = None
    container: None = None


_decoder = msgspec.json.Decoder(MessagesRequest)
_decode_thinking = msgspec.json.Decoder(_Thinking | None)


def read_messages(body: bytes) -> MessagesRequest:
    """The request in a body. Raises InvalidRequest.

    The one for a `thread` has the code on which Anthropic's own tool runner sends all of the conversation instead.
    """
    asked = read(_decoder, body)
    if asked.thread not in (UNSET, _NULL):
        error = refused("conversations aren't kept here; send all messages, and no thread", "thread")
        error.metadata["error_code"] = "thread_unsupported_request"
        raise error
    return asked


def chat_request(request: MessagesRequest, target: Target) -> bytes:
    """The Chat Completions request to send on. Raises InvalidRequest, naming the field, where there is none."""
    system = parts(request.system, "system", target)
    messages = [{"role": "system", "content": system}] if system else []
    messages += chat_messages(request.messages, target)
    output = request.output_config or _Output()
    metadata = request.metadata or _Metadata()
    fields = {
        "model": request.model,
        "messages": messages,
        "max_tokens": request.max_tokens,
        "stream": request.stream,
        "stream_options": {"include_usage": True} if request.stream else None,
        "stop": request.stop_sequences or None,
        "temperature": request.temperature,
        "top_p": request.top_p,
        "top_k": request.top_k,
        "user": metadata.user_id,
        "metadata": given({"thread_id": metadata.thread_id}) or None,
        "service_tier": _tier(request.service_tier),
        "response_format": _format(output.format),
        "route": None if request.route is UNSET else request.route,
    }
    if request.cache_control not in (UNSET, _NULL) and target.kind == "anthropic":
        fields["cache_control"] = request.cache_control
    return _encode(given(fields | _tools(request, target) | _thought(request, output, target)))


def _tier(tier: str | None) -> str | None:
    if tier is not None and tier not in _TIERS:
        raise refused(f"service_tier is one of {', '.join(_TIERS)}, not {tier!r}", "service_tier")
    return None if tier in (None, "auto") else _TIERS[tier]


def _format(wanted: _Format | None) -> dict[str, Any] | None:
    if wanted is None:
        return None
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": wanted.schema, "strict": True}}


def _tools(request: MessagesRequest, target: Target) -> dict[str, Any]:
    if not request.tools:
        return {}
    fields: dict[str, Any] = {"tools": [_tool(at, tool, target) for at, tool in enumerate(request.tools)]}
    choice = request.tool_choice
    if choice is None:
        return fields
    match choice.type:
        case "any":
            fields["tool_choice"] = "required"
        case "tool":
            if not choice.name:
                raise refused("tool_choice of type tool needs a name", "tool_choice.name")
            fields["tool_choice"] = {"type": "function", "function": {"name": choice.name}}
        case _:
            fields["tool_choice"] = choice.type
    if choice.disable_parallel_tool_use:
        fields["parallel_tool_calls"] = False
    return fields


def _tool(at: int, tool: _Tool, target: Target) -> dict[str, Any]:
    if tool.type not in (None, "custom"):
        raise refused(
            f"tools[{at}] is of type {tool.type!r}, which runs at Anthropic; give tools of your own", f"tools[{at}]"
        )
    if not tool.name or tool.input_schema is None:
        raise refused(f"tools[{at}] needs a name and an input_schema", f"tools[{at}]")
    function = {
        "name": tool.name,
        "description": tool.description,
        "parameters": tool.input_schema,
        "strict": tool.strict,
    }
    made: dict[str, Any] = {"type": "function", "function": given(function)}
    if target.caches and tool.cache_control not in (UNSET, _NULL):
        made["cache_control"] = tool.cache_control
    return made


def _thought(request: MessagesRequest, output: _Output, target: Target) -> dict[str, Any]:
    """How much to think: exactly so for Anthropic's own, as an effort for others."""
    wanted = None if request.thinking is UNSET else read(_decode_thinking, bytes(request.thinking))
    if target.kind == "anthropic":
        exact = {"thinking": request.thinking} if wanted is not None else {}
        return exact | given({"reasoning_effort": output.effort})
    if wanted is None:
        return given({"reasoning_effort": output.effort})
    match wanted.type:
        case "disabled":
            # A model that doesn't think may not know the field.
            return {"reasoning_effort": "none"} if target.thinks else {}
        case "enabled":
            if wanted.budget_tokens is None:
                raise refused("thinking of type enabled needs budget_tokens", "thinking.budget_tokens")
            share = wanted.budget_tokens / max(request.max_tokens, 1)
            effort = next((effort for most, effort in _EFFORTS if share <= most), "high")
            return {"reasoning_effort": output.effort or effort}
        case "adaptive":
            return {"reasoning_effort": output.effort or "medium"}
        case kind:
            raise refused(
                f"thinking of type {kind!r} is not known here; use enabled, adaptive or disabled", "thinking.type"
            )
