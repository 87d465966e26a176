"""Which adapter serves which kind of provider."""

from collections.abc import Mapping

from trunkline_actors.adapters import Adapter
from trunkline_actors.adapters.openai_compatible import OpenAICompatible
from trunkline_actors.adapters.scripted import Scripted

_OPENAI = "https://api.openai.com/v1"
_OLLAMA = "http://127.0.0.1:11434/v1"

KINDS = ("ollama", "openai", "openai-compatible", "scripted")


class UnknownKind(ValueError):
    """No adapter serves this kind of provider. Use one of KINDS."""

    def __init__(self, kind: str) -> None:
        super().__init__(f"unknown kind of provider {kind!r}; known: {', '.join(KINDS)}")
        self.kind = kind


class NoBaseUrl(ValueError):
    """This kind of provider has no address of its own. Give it a base_url."""

    def __init__(self, kind: str) -> None:
        super().__init__(f"a provider of kind {kind!r} needs a base_url, such as http://127.0.0.1:8080/v1")
        self.kind = kind


def build(
    kind: str,
    base_url: str | None = None,
    api_key: str | None = None,
    headers: Mapping[str, str] | None = None,
    timeout_s: float = 60.0,
) -> Adapter:
    """The adapter for one provider instance; nothing is connected or imported yet.

    `timeout_s` bounds each single wait on the network. Raises UnknownKind and NoBaseUrl.
    """
    match kind:
        case "scripted":
            return Scripted()
        case "openai":
            # OpenAI's reasoning models refuse `max_tokens`; all of its models take `max_completion_tokens`.
            url, limit_field = base_url or _OPENAI, "max_completion_tokens"
        case "ollama":
            # Spoken to on its OpenAI endpoint; people give Ollama's address without the path.
            url, limit_field = f"{(base_url or _OLLAMA).rstrip('/').removesuffix('/v1')}/v1", "max_tokens"
        case "openai-compatible":
            if not base_url:
                raise NoBaseUrl(kind)
            url, limit_field = base_url, "max_tokens"
        case _:
            raise UnknownKind(kind)
    return OpenAICompatible(url, api_key=api_key, headers=headers, timeout=timeout_s, limit_field=limit_field)
