"""The kinds of providers that come with Trunkline; pyproject.toml names each as an entry point."""

from msgspec import structs

from trunkline_actors.adapters import Adapter
from trunkline_actors.adapters.kinds import Kind, Settings
from trunkline_actors.adapters.openai_compatible import OpenAICompatible
from trunkline_actors.adapters.scripted import Scripted


def _openai_wire(settings: Settings, *, limit_field: str = "max_tokens", base_url: str = "") -> Adapter:
    return OpenAICompatible(
        settings.base_url or base_url,
        api_key=settings.key,
        headers=settings.headers,
        timeout=settings.timeout_s,
        limit_field=limit_field,
    )


def _openai(settings: Settings) -> Adapter:
    # OpenAI's reasoning models refuse `max_tokens`; all of its models take `max_completion_tokens`.
    return _openai_wire(settings, limit_field="max_completion_tokens", base_url="https://api.openai.com/v1")


def _ollama(settings: Settings) -> Adapter:
    # Spoken to on its OpenAI endpoint; people give Ollama's address without the path.
    url = (settings.base_url or "http://127.0.0.1:11434").rstrip("/").removesuffix("/v1")
    return _openai_wire(structs.replace(settings, base_url=f"{url}/v1"))


SCRIPTED = Kind(
    name="scripted",
    build=lambda _settings: Scripted(),
    abilities=frozenset({"chat", "embeddings", "tools", "thinking"}),
    networked=False,
)
OPENAI = Kind(
    name="openai",
    build=_openai,
    abilities=frozenset({"chat", "embeddings", "tools", "vision", "image_urls", "json_schema", "thinking"}),
    base_url="https://api.openai.com/v1",
)
OPENAI_COMPATIBLE = Kind(
    name="openai-compatible",
    build=_openai_wire,
    abilities=frozenset({"chat", "embeddings", "tools", "vision", "image_urls", "json_schema", "thinking"}),
)
OLLAMA = Kind(
    name="ollama",
    build=_ollama,
    abilities=frozenset({"chat", "embeddings", "tools", "vision", "json_schema", "thinking"}),
    base_url="http://127.0.0.1:11434",
)
