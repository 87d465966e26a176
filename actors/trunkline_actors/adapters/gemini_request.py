"""What Gemini is sent: an OpenAI request as `generateContent` or `batchEmbedContents` takes it (v1beta). Pure.

What has no counterpart is refused as an invalid request that names the field; only what cannot change an answer
(`user`, `metadata`, `store`, …) is left out. https://ai.google.dev/api/generate-content
"""

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import msgspec
from trunkline_events.failure import FailureClass

from trunkline_actors.adapters import Call
from trunkline_actors.adapters.faults import upstream_error
from trunkline_actors.adapters.gemini_messages import contents_of, refused

Fields = dict[str, Any]

_PLAIN = {
    "temperature": "temperature",
    "top_p": "topP",
    "top_k": "topK",
    "seed": "seed",
    "n": "candidateCount",
    "presence_penalty": "presencePenalty",
    "frequency_penalty": "frequencyPenalty",
}
# fmt: off
_CARRIED = {
    *_PLAIN, "messages", "tools", "tool_choice", "stop", "max_tokens", "max_completion_tokens", "response_format",
    "reasoning_effort", "extra_body",
}
# What concerns who asks, where the answer goes or what it costs, and not what is answered.
_LEFT_OUT = {
    "model", "stream", "stream_options", "route", "metadata", "user", "store", "service_tier", "safety_identifier",
    "prompt_cache_key", "prompt_cache_retention", "prediction",
}
# fmt: on
# Values that ask for nothing but what Gemini does anyway.
_DEFAULTS: dict[str, object] = {
    "parallel_tool_calls": True,
    "logprobs": False,
    "top_logprobs": 0,
    "logit_bias": {},
    "modalities": ["text"],
    "verbosity": "medium",
    "functions": [],
}
_MODES = {"auto": "AUTO", "none": "NONE", "required": "ANY"}

# Google's own table for its OpenAI endpoint: up to Gemini 2.5 thinking has a budget in tokens, from 3 on a level.
_BUDGETS = {"none": 0, "minimal": 1024, "low": 1024, "medium": 8192, "high": 24576, "xhigh": 24576}
_LEVELS = {"minimal": "MINIMAL", "low": "LOW", "medium": "MEDIUM", "high": "HIGH", "xhigh": "XHIGH"}
_VERSION = re.compile(r"gemini-(\d+)")
_THINKING_FIELDS = {
    "thinking_budget": "thinkingBudget",
    "thinking_level": "thinkingLevel",
    "include_thoughts": "includeThoughts",
}


def model_path(model: str) -> str:
    """The resource of a model below the base URL: `models/<model>`, unless the name has its collection already."""
    return quote(model if "/" in model else f"models/{model}", safe="/-._~")


def chat_body(call: Call) -> tuple[bytes, int]:
    """The request for `generateContent` and `streamGenerateContent` alike, and how many candidates it asks for.

    Raises UpstreamError (invalid request).
    """
    fields = _fields(call.body)
    for name, value in fields.items():
        if name not in _CARRIED and name not in _LEFT_OUT and value != _DEFAULTS.get(name):
            raise refused(name, "Gemini has nothing like it: leave it out")
    generation = _generation(call, fields)
    google = _google(fields, generation)
    system, contents = contents_of(fields.get("messages"), signed=_major(call.model) >= 3)
    request: Fields = {"contents": contents}
    if system:
        request["systemInstruction"] = {"parts": system}
    tools = fields.get("tools", [])
    if not isinstance(tools, list):
        raise refused("tools", "give a list of tools")
    if declarations := [_declaration(tool, f"tools[{at}]") for at, tool in enumerate(tools)]:
        request["tools"] = [{"functionDeclarations": declarations}]
        if (choice := fields.get("tool_choice")) is not None:
            request["toolConfig"] = {"functionCallingConfig": _calling(choice)}
    if generation:
        request["generationConfig"] = generation
    asked = generation.get("candidateCount")
    return msgspec.json.encode(request | google), asked if isinstance(asked, int) else 1


def embeddings_body(call: Call) -> tuple[bytes, bool]:
    """The request for `batchEmbedContents`, and whether the vectors are wanted as base64.

    OpenAI's own client asks for base64 unless told otherwise. Raises UpstreamError (invalid request).
    """
    fields = _fields(call.body)
    for name, value in fields.items():
        if name not in {"input", "dimensions", "encoding_format", "model", "user", "route", "metadata"} and value:
            raise refused(name, "Gemini has nothing like it: leave it out")
    asked = fields.get("input")
    texts = [asked] if isinstance(asked, str) else asked
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
        raise refused("input", "Gemini embeds texts: give a string or a list of strings, not tokens")
    size = {} if fields.get("dimensions") is None else {"outputDimensionality": fields["dimensions"]}
    name = call.model if "/" in call.model else f"models/{call.model}"
    requests = [{"model": name, "content": {"parts": [{"text": text}]}, **size} for text in texts]
    encoding = fields.get("encoding_format", "float")
    if encoding not in ("float", "base64"):
        raise refused("encoding_format", "use float or base64")
    return msgspec.json.encode({"requests": requests}), encoding == "base64"


def _fields(body: bytes) -> Fields:
    try:
        fields = msgspec.json.decode(body, type=Fields)
    except (ValueError, RecursionError) as error:
        raise upstream_error(FailureClass.INVALID_REQUEST, "the request body is no JSON object") from error
    return {name: value for name, value in fields.items() if value is not None}


def _generation(call: Call, fields: Mapping[str, Any]) -> Fields:
    config = {theirs: fields[ours] for ours, theirs in _PLAIN.items() if ours in fields}
    limit = call.max_tokens
    if limit is None:
        limit = fields.get("max_completion_tokens", fields.get("max_tokens"))
    if limit is not None:
        config["maxOutputTokens"] = limit
    if stop := fields.get("stop"):
        config["stopSequences"] = [stop] if isinstance(stop, str) else stop
    if (wanted := fields.get("response_format")) is not None:
        config |= _response_format(wanted)
    if (effort := fields.get("reasoning_effort")) is not None:
        config["thinkingConfig"] = _thinking(effort, call.model)
    return config


def _response_format(wanted: Any) -> Fields:
    kind = wanted.get("type") if isinstance(wanted, dict) else None
    if kind == "text":
        return {}
    if kind == "json_object":
        return {"responseMimeType": "application/json"}
    if kind != "json_schema":
        raise refused("response_format.type", "use text, json_object or json_schema")
    schema = wanted.get("json_schema")
    if not isinstance(schema, dict) or not isinstance(schema.get("schema"), dict):
        raise refused("response_format.json_schema.schema", "give a JSON schema")
    return {"responseMimeType": "application/json", "responseJsonSchema": schema["schema"]}


def _thinking(effort: Any, model: str) -> Fields:
    table: Mapping[str, object] = _BUDGETS if _major(model) < 3 else _LEVELS
    if not isinstance(effort, str) or effort not in table:
        raise refused("reasoning_effort", f"this model takes {', '.join(table)}")
    if effort == "none":
        return {"thinkingBudget": 0}
    return {"thinkingBudget" if table is _BUDGETS else "thinkingLevel": table[effort], "includeThoughts": True}


def _major(model: str) -> int:
    # Names without a version (gemini-flash-latest, a tuned model) are those of today.
    found = _VERSION.search(model)
    return int(found[1]) if found else 3


def _google(fields: Mapping[str, Any], generation: Fields) -> Fields:
    """What Google's own OpenAI endpoint takes in `extra_body.google`: exact thinking, and a cached content."""
    extra = fields.get("extra_body") or {}
    google = extra.get("google") if isinstance(extra, dict) else None
    if extra and (not isinstance(google, dict) or set(extra) != {"google"}):
        raise refused("extra_body", "only the object extra_body.google is known here")
    request: Fields = {}
    for name, value in (google or {}).items():
        if name == "cached_content":
            request["cachedContent"] = value
        elif name == "thinking_config" and isinstance(value, dict) and set(value) <= set(_THINKING_FIELDS):
            if "thinkingConfig" in generation:
                raise refused("reasoning_effort", "give either this or extra_body.google.thinking_config")
            generation["thinkingConfig"] = {_THINKING_FIELDS[key]: said for key, said in value.items()}
        else:
            raise refused(f"extra_body.google.{name}", "use thinking_config or cached_content")
    return request


def _declaration(tool: Any, where: str) -> Fields:
    if not isinstance(tool, dict) or tool.get("type") != "function" or not isinstance(tool.get("function"), dict):
        raise refused(where, "Gemini takes tools of type function")
    function = tool["function"]
    declaration: Fields = {"name": function.get("name")}
    if function.get("description"):
        declaration["description"] = function["description"]
    if function.get("parameters"):
        # The JSON schema as it is: the older `parameters` takes a subset of OpenAPI's only.
        declaration["parametersJsonSchema"] = function["parameters"]
    return declaration


def _calling(choice: Any) -> Fields:
    if isinstance(choice, str) and choice in _MODES:
        return {"mode": _MODES[choice]}
    kind = choice.get("type") if isinstance(choice, dict) else None
    if kind == "function" and isinstance(choice.get("function"), dict):
        return {"mode": "ANY", "allowedFunctionNames": [choice["function"].get("name")]}
    if kind == "allowed_tools" and isinstance(allowed := choice.get("allowed_tools"), dict):
        tools = allowed.get("tools")
        if not isinstance(tools, list):
            raise refused("tool_choice.allowed_tools.tools", "give a list of tools")
        declared = [_declaration(tool, "tool_choice.allowed_tools.tools") for tool in tools]
        mode = "ANY" if allowed.get("mode") == "required" else "VALIDATED"
        return {"mode": mode, "allowedFunctionNames": [one["name"] for one in declared]}
    raise refused("tool_choice", "use auto, none, required or a function by its name")
