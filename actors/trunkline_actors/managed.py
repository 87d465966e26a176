"""What is known of the models on a provider's own machine. Pure."""

from msgspec import Struct


class LocalModel(Struct, frozen=True, kw_only=True):
    """A model whose files an upstream has. `loaded`: it is in memory, `memory_bytes` of it on accelerators.

    `parameters` is its size as its makers give it, like `7.6B`; times are as the upstream writes them.
    """

    model: str
    digest: str = ""
    size_bytes: int | None = None
    family: str = ""
    parameters: str = ""
    quantization: str = ""
    modified_at: str | None = None
    loaded: bool = False
    memory_bytes: int | None = None
    expires_at: str | None = None


class Described(Struct, frozen=True, kw_only=True):
    """What an upstream knows of one of its models, beside what its list says. `features` are those of the registry."""

    context_window: int | None = None
    features: list[str] = []
