"""A request of OpenAI's Responses API as a Chat Completions request. Pure.

What Chat Completions has no field for is refused by name; the fields left out on purpose are named in
`ResponsesRequest`. Wire format: https://platform.openai.com/docs/api-reference/responses/create
"""

from typing import Any

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from trunkline.gateway.reading import Target, given, read, refused
from trunkline.gateway.responses_input import Item, chat_messages

Anything = Raw | UnsetType
_ENCRYPTED = "reasoning.encrypted_content"
_CHOICES = ("auto", "none", "required")
_encode = msgspec.json.encode


class _Tool(Struct):
    type: str
    name: str = ""
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class _Choice(Struct):
    type: str
    name: str | None = None


class _Format(Struct):
    type: str
    name: str = "answer"
    schema: dict[str, Any] | None = None
    strict: bool | None = None
    description: str | None = None


class Text(Struct):
    """How the answer's text is to look."""

    format: _Format | None = None
    verbosity: str | None = None


class _Reasoning(Struct):
    """`summary` says how thinking is told: here it is told whole where the provider tells it."""

    effort: str | None = None
    summary: str | None = None
    generate_summary: str | None = None


class ResponsesRequest(Struct, forbid_unknown_fields=True):
    """A Responses request. A field that isn't here is refused by its name."""

    model: str
    input: str | list[Item] = []
    instructions: str | None = None
    stream: bool | None = None
    tools: list[_Tool] | None = None
    tool_choice: str | _Choice | None = None
    parallel_tool_calls: bool | None = None
    text: Text | None = None
    max_output_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_logprobs: int | None = None
    reasoning: _Reasoning | None = None
    metadata: dict[str, str] | None = None
    user: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    prompt_cache_retention: str | None = None
    service_tier: str | None = None
    include: list[str] | None = None
    route: Anything = UNSET
    """Ours, as in a Chat Completions request."""
    # Refused, but for the values that ask for nothing.
    store: bool | None = None
    previous_response_id: str | None = None
    conversation: Any = None
    prompt: Any = None
    background: bool | None = None
    truncation: str | None = None
    # Of no influence on the answer here, and left out on purpose: there are no tools that run elsewhere.
    max_tool_calls: int | None = None
    stream_options: Anything = UNSET


_decoder = msgspec.json.Decoder(ResponsesRequest)


def read_responses(body: bytes) -> ResponsesRequest:
    """The request in a body. Raises InvalidRequest."""
    return read(_decoder, body)


def chat_request(request: ResponsesRequest, target: Target) -> bytes:
    """The Chat Completions request to send on. Raises InvalidRequest, naming the field, where there is none."""
    _refuse_what_is_not_kept(request)
    messages: list[dict[str, Any]] = []
    if request.instructions:
        messages.append({"role": "system", "content": request.instructions})
    messages += chat_messages(request.input, target)
    text, thread = request.text or Text(), (request.metadata or {}).get("thread_id")
    fields = {
        "model": request.model,
        "messages": messages,
        "stream": request.stream,
        "stream_options": {"include_usage": True} if request.stream else None,
        "max_completion_tokens": request.max_output_tokens,
        "temperature": request.temperature,
        "top_p": request.top_p,
        "reasoning_effort": request.reasoning.effort if request.reasoning is not None else None,
        "response_format": _format(text.format),
        "verbosity": text.verbosity,
        # Providers take other metadata only of who has them keep the answer.
        "metadata": {"thread_id": thread} if thread is not None else None,
        "user": request.user,
        "safety_identifier": request.safety_identifier,
        "prompt_cache_key": request.prompt_cache_key,
        "prompt_cache_retention": request.prompt_cache_retention,
        "service_tier": request.service_tier if request.service_tier != "auto" else None,
        "route": None if request.route is UNSET else request.route,
    }
    return _encode(given(fields | _tools(request)))


def _refuse_what_is_not_kept(request: ResponsesRequest) -> None:
    if request.store:
        raise refused("answers aren't kept here: leave `store` out, or set it to false", "store")
    if request.previous_response_id is not None or request.conversation is not None:
        name = "conversation" if request.conversation is not None else "previous_response_id"
        raise refused(f"conversations aren't kept here: send all of it in `input`, without {name!r}", name)
    if request.prompt is not None:
        raise refused("prompts aren't kept here: send `instructions` and `input`", "prompt")
    if request.background:
        raise refused("nothing runs in the background here: leave `background` out, and stream", "background")
    if request.truncation not in (None, "disabled"):
        raise refused("nothing is left out of a conversation here: leave `truncation` out", "truncation")
    for name in request.include or ():
        if name != _ENCRYPTED:
            raise refused(f"{name!r} can't be included here, only {_ENCRYPTED}; leave it out", "include")
    if request.top_logprobs:
        raise refused(
            "logprobs aren't told here: leave `top_logprobs` out, or use /v1/chat/completions", "top_logprobs"
        )


def _format(wanted: _Format | None) -> dict[str, Any] | None:
    match wanted:
        case None | _Format(type="text"):
            return None
        case _Format(type="json_object"):
            return {"type": "json_object"}
        case _Format(type="json_schema") if wanted.schema is not None:
            named = {
                "name": wanted.name,
                "schema": wanted.schema,
                "strict": wanted.strict,
                "description": wanted.description,
            }
            return {"type": "json_schema", "json_schema": given(named)}
        case _:
            raise refused("text.format is text, json_object, or json_schema with a schema", "text.format")


def _tools(request: ResponsesRequest) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    if request.tools:
        fields["tools"] = [_tool(at, tool) for at, tool in enumerate(request.tools)]
        if request.parallel_tool_calls is not None:
            fields["parallel_tool_calls"] = request.parallel_tool_calls
    choice = request.tool_choice
    match choice:
        case None:
            pass
        case str() if choice in _CHOICES:
            if request.tools:  # without tools there is nothing to choose, and providers refuse that
                fields["tool_choice"] = choice
        case _Choice(type="function") if choice.name:
            fields["tool_choice"] = {"type": "function", "function": {"name": choice.name}}
        case _:
            raise refused("tool_choice is auto, none, required, or a function by its name", "tool_choice")
    return fields


def _tool(at: int, tool: _Tool) -> dict[str, Any]:
    if tool.type != "function":
        message = f"tools[{at}] is of type {tool.type!r}, which runs at OpenAI; give functions of your own"
        raise refused(message, f"tools[{at}].type")
    if not tool.name:
        raise refused(f"tools[{at}] needs a name", f"tools[{at}].name")
    function = {
        "name": tool.name,
        "description": tool.description,
        "parameters": tool.parameters,
        "strict": tool.strict,
    }
    return {"type": "function", "function": given(function)}
