"""Kinds of providers: each is an entry point of the group `trunkline.providers`, ours like those of other packages.

An entry point names a `Kind`. Its module must be cheap to import: SDKs are imported when the first call needs them.
"""

from collections.abc import Callable, Mapping
from typing import Literal

from msgspec import Struct

from trunkline_actors.adapters import Adapter

GROUP = "trunkline.providers"
"""The group of entry points: `name = "module:KIND"` for each kind."""

Ability = Literal["chat", "embeddings", "tools", "vision", "image_urls", "json_schema", "thinking", "management"]
"""What an adapter can carry: `image_urls` beside images as bytes, `management` is listing, pulling, deleting models."""


class BadSettings(ValueError):
    """A provider can't be served with these settings. For `build` to raise: which field, and what to do about it.

    The text is shown to whoever looks at the provider, so it must hold no secret.
    """

    def __init__(self, field: str, what: str) -> None:
        super().__init__(f"{field}: {what}")
        self.field = field


class Settings(Struct, frozen=True, kw_only=True):
    """What an adapter is built with: the provider's registration, and the key it may use, where it has one.

    `timeout_s` bounds each single wait on the network. `local`: private addresses may be called. `transport` chooses
    between our own HTTP path and the provider's SDK, where a kind has both.
    """

    provider: str
    base_url: str | None = None
    key: str | None = None
    headers: Mapping[str, str] = {}
    timeout_s: float = 60.0
    local: bool = False
    transport: Literal["raw", "sdk"] = "raw"

    def __repr__(self) -> str:
        """Without the key: this may come into a traceback."""
        return f"Settings(provider={self.provider!r}, base_url={self.base_url!r}, key={'***' if self.key else None})"


class Kind(Struct, frozen=True, kw_only=True):
    """One kind of provider: what it can do, and how its adapters are made.

    `base_url` is used where a registration has none; None: it must have one, unless it isn't `networked`. `extra` names
    the extra of our package that brings what it needs. `build` connects and imports nothing yet.
    """

    name: str
    build: Callable[[Settings], Adapter]
    abilities: frozenset[Ability]
    base_url: str | None = None
    networked: bool = True
    extra: str | None = None


class MissingExtra(ValueError):
    """What this kind of provider needs isn't installed. Install the extra that the message names."""

    def __init__(self, extra: str) -> None:
        super().__init__(f"this needs a package that isn't installed: pip install 'trunkline[{extra}]'")
        self.extra = extra
