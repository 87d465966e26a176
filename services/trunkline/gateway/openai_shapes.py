"""Bodies of OpenAI's paths for the OpenAPI document: what routing reads. Everything else goes upstream as it is."""

from typing import Any, Literal

from msgspec import Struct
from trunkline_actors.requests import Route


class ChatMessage(Struct, frozen=True, kw_only=True):
    """One message, as OpenAI has it."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[dict[str, Any]] | None = None


class ChatRequest(Struct, frozen=True, kw_only=True):
    """A request of Chat Completions; `model` is a registered one or `auto`, `route` how it is to be routed."""

    model: str
    messages: list[ChatMessage]
    stream: bool | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    n: int | None = None
    temperature: float | None = None
    tools: list[dict[str, Any]] | None = None
    response_format: dict[str, Any] | None = None
    stream_options: dict[str, Any] | None = None
    metadata: dict[str, Any] | None = None
    route: Route | None = None


class EmbeddingsRequest(Struct, frozen=True, kw_only=True):
    """A request of embeddings."""

    model: str
    input: str | list[str | int | list[int]]
    route: Route | None = None


CHAT_COMPLETION = {"type": "object", "required": ["id", "object", "model", "choices"]}
EMBEDDINGS = {"type": "object", "required": ["object", "model", "data"]}
