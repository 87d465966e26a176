"""The kinds of providers that come with Trunkline; pyproject.toml names each as an entry point."""

from collections.abc import Callable

from trunkline_actors.adapters import Adapter, dialect
from trunkline_actors.adapters.dialect import PLAIN, Dialect
from trunkline_actors.adapters.kinds import Ability, Kind, Settings
from trunkline_actors.adapters.ollama import OLLAMA as OLLAMA
from trunkline_actors.adapters.openai_compatible import OpenAICompatible
from trunkline_actors.adapters.scripted import Scripted

_CHAT: frozenset[Ability] = frozenset({"chat", "tools", "vision", "image_urls", "json_schema", "thinking"})


def _speaking(dialect: Dialect, base_url: str = "") -> Callable[[Settings], Adapter]:
    def build(settings: Settings) -> Adapter:
        return OpenAICompatible(
            settings.base_url or base_url,
            api_key=settings.key,
            headers=settings.headers,
            timeout=settings.timeout_s,
            local=settings.local,
            transport=settings.transport,
            dialect=dialect,
        )

    return build


SCRIPTED = Kind(
    name="scripted",
    build=lambda _settings: Scripted(),
    abilities=frozenset({"chat", "embeddings", "tools", "thinking"}),
    networked=False,
)
_OPENAI_URL = "https://api.openai.com/v1"
OPENAI = Kind(
    name="openai",
    build=_speaking(dialect.OPENAI, _OPENAI_URL),
    abilities=_CHAT | {"embeddings"},
    base_url=_OPENAI_URL,
)
OPENAI_COMPATIBLE = Kind(
    name="openai-compatible",
    build=_speaking(PLAIN),
    abilities=_CHAT | {"embeddings"},
)
_OPENROUTER_URL = "https://openrouter.ai/api/v1"
OPENROUTER = Kind(
    name="openrouter",
    build=_speaking(dialect.OPENROUTER, _OPENROUTER_URL),
    abilities=_CHAT | {"embeddings"},
    base_url=_OPENROUTER_URL,
)
_DEEPSEEK_URL = "https://api.deepseek.com/v1"
DEEPSEEK = Kind(
    name="deepseek",
    build=_speaking(dialect.DEEPSEEK, _DEEPSEEK_URL),
    abilities=_CHAT,
    base_url=_DEEPSEEK_URL,
)
