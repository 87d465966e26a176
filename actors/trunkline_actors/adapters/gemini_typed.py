"""Gemini's requests and answers in the types of the `google-genai` package, and back in JSON."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import msgspec
from trunkline_events.failure import FailureClass, UpstreamError

from trunkline_actors.adapters import faults

if TYPE_CHECKING:
    from google import genai


def split(path: str) -> tuple[str, str]:
    """The model and the method that a path names."""
    model, _, asked = path.partition("?")[0].removeprefix("/").rpartition(":")
    return unquote(model), asked


def generated(client: "genai.Client", model: str, body: bytes) -> Callable[[], Any]:
    """What asks for a whole answer when called. Raises UpstreamError (invalid request), as the two below do."""
    contents, config = _typed(body)
    return lambda: client.aio.models.generate_content(model=model, contents=contents, config=config)


def streamed(client: "genai.Client", model: str, body: bytes) -> Callable[[], Any]:
    """What asks for a stream when called."""
    contents, config = _typed(body)
    return lambda: client.aio.models.generate_content_stream(model=model, contents=contents, config=config)


def _typed(body: bytes) -> tuple[Any, Any]:
    """The contents and the configuration of a request as Google's types. Raises UpstreamError (invalid request)."""
    from google.genai import types
    from pydantic import ValidationError

    request = msgspec.json.decode(body)
    config = request.pop("generationConfig", {})
    contents = request.pop("contents")
    # One call of ours is one request: nothing is gone on with or called by itself.
    once = {"automaticContinuation": False, "automaticFunctionCalling": {"disable": True}}
    try:
        return (
            [types.Content.model_validate(content) for content in contents],
            types.GenerateContentConfig.model_validate(config | request | once),
        )
    except ValidationError as error:
        raise _unfit(error) from error


def embedded(client: "genai.Client", model: str, body: bytes) -> Callable[[], Any]:
    """What asks for embeddings when called."""
    from google.genai import types
    from pydantic import ValidationError

    requests = msgspec.json.decode(body)["requests"]
    size = requests[0].get("outputDimensionality")
    try:
        contents = [types.Content.model_validate(one["content"]) for one in requests]
        config = types.EmbedContentConfig(output_dimensionality=size)
    except ValidationError as error:
        raise _unfit(error) from error
    return lambda: client.aio.models.embed_content(model=model, contents=contents, config=config)


def _unfit(error: Any) -> UpstreamError:
    where = ".".join(str(step) for step in error.errors()[0]["loc"])
    return faults.upstream_error(FailureClass.INVALID_REQUEST, f"{faults.safe(where)}: not what Gemini takes")


async def listed(client: "genai.Client") -> Any:
    """A page of the list of models, one model long."""
    found = await client.aio.models.list(config={"page_size": 1})
    return {"models": [model.name for model in found.page]}


def bytes_of(response: Any) -> bytes:
    """A response of the SDK as the JSON it came from; bytes, such as signatures, are base64 again."""
    if not isinstance(response, dict):
        kept_out = {"sdk_http_response", "parsed", "automatic_function_calling_history"}
        response = response.model_dump(by_alias=True, exclude_none=True, exclude=kept_out)
    return msgspec.json.encode(response, enc_hook=str)
