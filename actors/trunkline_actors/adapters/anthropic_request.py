"""A Chat Completions request as Anthropic's Messages API wants it. Pure.

What Messages has no field for is refused by name, so that nobody believes in a setting that did nothing; the fields
left out on purpose are named in `_Request`. Wire format: https://platform.claude.com/docs/en/api/messages, version
2023-06-01, whose later changes are optional fields.
"""

import re
from typing import Any, Literal

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType
from trunkline_events.failure import FailureClass

from trunkline_actors.adapters import Call, faults
from trunkline_actors.adapters.anthropic_turns import Message, refused, turns

DEFAULT_MAX_TOKENS = 8192
"""Messages must have a limit. This one is within what every model may generate and what is reserved without one."""

_LEAST_BUDGET = 1024
_SHARE = {"minimal": 0.1, "low": 0.2, "medium": 0.5, "high": 0.8, "xhigh": 0.95, "max": 0.95}
_EFFORT = {"minimal": "low", "low": "low", "medium": "medium", "high": "high", "xhigh": "xhigh", "max": "max"}
_CLAUDE = re.compile(r"claude-(?:[a-z]+-)?(\d)(?:[-.](\d{1,2}))?(?!\d)")
_TIERS = {"auto": "auto", "priority": "auto", "default": "standard_only"}
_NO_PARAMETERS = {"type": "object", "properties": {}}
_encode = msgspec.json.encode

Anything = Raw | UnsetType


class _Schema(Struct, forbid_unknown_fields=True):
    """`name`, `description` and `strict` say nothing to Anthropic, where every schema is binding."""

    schema: dict[str, Any]
    name: str = ""
    description: str | None = None
    strict: bool | None = None


class _Format(Struct, forbid_unknown_fields=True):
    type: str
    json_schema: _Schema | None = None


class _Function(Struct, forbid_unknown_fields=True):
    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class _Tool(Struct, forbid_unknown_fields=True):
    type: Literal["function"]
    function: _Function
    cache_control: Anything = UNSET


class _Named(Struct, forbid_unknown_fields=True):
    name: str


class _Choice(Struct, forbid_unknown_fields=True):
    type: Literal["function"]
    function: _Named


class _Request(Struct, forbid_unknown_fields=True):
    """A Chat Completions request. A field that isn't here is refused by its name."""

    messages: list[Message] = []
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    stop: str | list[str] | None = None
    tools: list[_Tool] | None = None
    tool_choice: str | _Choice | None = None
    parallel_tool_calls: bool | None = None
    response_format: _Format | None = None
    reasoning_effort: str | None = None
    user: str | None = None
    safety_identifier: str | None = None
    service_tier: str | None = None
    # Anthropic's own, sent as they are.
    thinking: Anything = UNSET
    cache_control: Anything = UNSET
    # Refused, but for the values that ask for nothing.
    n: int | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    logit_bias: dict[str, float] | None = None
    modalities: list[str] | None = None
    verbosity: str | None = None
    # Ours, or of no influence on the answer by OpenAI's own words, and left out on purpose.
    model: Anything = UNSET
    stream: Anything = UNSET
    stream_options: Anything = UNSET
    route: Anything = UNSET
    metadata: Anything = UNSET
    store: Anything = UNSET
    seed: Anything = UNSET
    prediction: Anything = UNSET
    prompt_cache_key: Anything = UNSET
    prompt_cache_retention: Anything = UNSET


_decode = msgspec.json.Decoder(_Request).decode


def messages_body(call: Call, *, stream: bool) -> bytes:
    """The Messages request to send. Raises UpstreamError (invalid request), naming the field, where there is none."""
    try:
        request = _decode(call.body)
    except msgspec.ValidationError as error:
        raise refused(str(error).replace("`", "")) from error  # safe() would take two of these for a quotation
    except (ValueError, RecursionError) as error:
        raise faults.upstream_error(FailureClass.INVALID_REQUEST, "the request body is no JSON object") from error
    _refuse_what_cannot_be_carried(request)
    system, messages = turns(request.messages)
    limit = call.max_tokens or request.max_completion_tokens or request.max_tokens or DEFAULT_MAX_TOKENS
    fields: dict[str, Any] = {"model": call.model, "max_tokens": limit, "messages": messages}
    if system:
        fields["system"] = system
    if stream:
        fields["stream"] = True
    fields |= _sampling(request) | _tools(request) | _thought(request, call.model, limit)
    if (end_user := request.user or request.safety_identifier) is not None:
        fields["metadata"] = {"user_id": end_user}
    if request.service_tier is not None:
        fields["service_tier"] = _TIERS[request.service_tier]
    if request.cache_control is not UNSET:
        fields["cache_control"] = request.cache_control
    return _encode(fields)


def _refuse_what_cannot_be_carried(request: _Request) -> None:
    wrong = {
        "n": request.n not in (None, 1),
        "logprobs": bool(request.logprobs),
        "top_logprobs": bool(request.top_logprobs),
        "frequency_penalty": bool(request.frequency_penalty),
        "presence_penalty": bool(request.presence_penalty),
        "logit_bias": bool(request.logit_bias),
        "modalities": request.modalities not in (None, ["text"]),
        "verbosity": request.verbosity not in (None, "medium"),
        "service_tier": request.service_tier not in (None, *_TIERS),
        "reasoning_effort": request.reasoning_effort not in (None, "none", *_EFFORT),
    }
    for name, is_wrong in wrong.items():
        if is_wrong:
            raise refused(f"{name} = {_encode(getattr(request, name)).decode()}")


def _sampling(request: _Request) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    # 1 is Anthropic's own default, and its newer models refuse both fields. OpenAI's scale goes to 2, Anthropic's to 1.
    if request.temperature is not None and request.temperature < 1:
        fields["temperature"] = request.temperature
    if request.top_p is not None and request.top_p < 1:
        fields["top_p"] = request.top_p
    if request.top_k is not None:
        fields["top_k"] = request.top_k
    if request.stop:
        fields["stop_sequences"] = [request.stop] if isinstance(request.stop, str) else request.stop
    return fields


def _tools(request: _Request) -> dict[str, Any]:
    if not request.tools:
        return {}
    choice = _choice(request.tool_choice)
    if request.parallel_tool_calls is False and (choice is None or choice["type"] != "none"):
        choice = (choice or {"type": "auto"}) | {"disable_parallel_tool_use": True}
    fields: dict[str, Any] = {"tools": [_tool(tool) for tool in request.tools]}
    return fields if choice is None else fields | {"tool_choice": choice}


def _tool(tool: _Tool) -> dict[str, Any]:
    function = tool.function
    made: dict[str, Any] = {"name": function.name, "input_schema": function.parameters or _NO_PARAMETERS}
    if function.description:
        made["description"] = function.description
    if function.strict:
        made["strict"] = True
    if tool.cache_control is not UNSET:
        made["cache_control"] = tool.cache_control
    return made


def _choice(choice: str | _Choice | None) -> dict[str, Any] | None:
    match choice:
        case None:
            return None
        case "auto" | "none":
            return {"type": choice}
        case "required":
            return {"type": "any"}
        case _Choice():
            return {"type": "tool", "name": choice.function.name}
        case _:
            raise refused(f"tool_choice = {choice!r}")


def _thought(request: _Request, model: str, limit: int) -> dict[str, Any]:
    """How much to think, and the schema of the answer: Anthropic has both in `output_config`."""
    fields: dict[str, Any] = {}
    config: dict[str, Any] = {}
    effort = request.reasoning_effort
    if request.thinking is not UNSET:
        fields["thinking"] = request.thinking
    elif effort == "none":
        fields["thinking"] = {"type": "disabled"}
    elif effort is not None and not thinks_adaptively(model):
        fields["thinking"] = {"type": "enabled", "budget_tokens": _budget(effort, limit)}
    elif effort is not None:
        # Newer models leave their thinking out unless they are asked for it.
        fields["thinking"] = {"type": "adaptive", "display": "summarized"}
    if effort is not None and effort != "none" and thinks_adaptively(model):
        config["effort"] = _EFFORT[effort]
    wanted = request.response_format
    if wanted is not None and wanted.type == "json_schema" and wanted.json_schema is not None:
        config["format"] = {"type": "json_schema", "schema": wanted.json_schema.schema}
    elif wanted is not None and wanted.type != "text":
        raise refused(f"response_format of type {wanted.type!r}; give a json_schema")
    return fields | {"output_config": config} if config else fields


def _budget(effort: str, limit: int) -> int:
    if limit <= _LEAST_BUDGET:
        raise refused(f"reasoning_effort with max_tokens {limit}; thinking needs more than {_LEAST_BUDGET}")
    return min(max(int(limit * _SHARE[effort]), _LEAST_BUDGET), limit - 1)


def thinks_adaptively(model: str) -> bool:
    """Whether a model takes an effort (Claude 4.6 and later) rather than a budget of tokens, told by its name.

    A Claude without a number is taken for a new one; what isn't a Claude imitates the older form.
    """
    if (found := _CLAUDE.search(model)) is None:
        return "claude" in model
    return (int(found[1]), int(found[2] or 0)) >= (4, 6)
