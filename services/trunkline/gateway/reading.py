"""What requests in the dialects of Messages and Responses are read with. Pure."""

from typing import Any, TypeVar

import msgspec
from msgspec import Struct
from trunkline_actors.shapes import mistyped
from trunkline_projections.models import Registry

from trunkline.errors import InvalidRequest

_MALFORMED = (ValueError, RecursionError)
_T = TypeVar("_T")


class Target(Struct, frozen=True):
    """What is known of the model that is asked for: the kind of its provider, and whether it thinks.

    An empty kind: not known, as where the gateway chooses the model. What other kinds would refuse, or read as
    something else, is sent to those that have it.
    """

    kind: str = ""
    thinks: bool = False

    @property
    def signs(self) -> bool:
        """Whether signed thinking may go there. A model that the gateway chooses may be the one that signed."""
        return self.kind in ("anthropic", "openrouter", "")

    @property
    def caches(self) -> bool:
        """Whether marks for Anthropic's cache may go there."""
        return self.kind in ("anthropic", "openrouter")

    @property
    def remembers(self) -> bool:
        """Whether thinking without a signature is wanted back."""
        return self.kind in ("deepseek", "ollama")


def target_of(registry: Registry, model: str) -> Target:
    """What the registry knows of a model."""
    found = registry.models.get(model)
    provider = registry.providers.get(found.provider) if found is not None else None
    if found is None or provider is None:
        return Target()
    return Target(kind=provider.kind, thinks="thinking" in found.features)


def refused(message: str, param: str | None = None) -> InvalidRequest:
    """The error for a request that makes no sense, or can't be carried; `param` names the field."""
    return InvalidRequest(message, code="invalid_request", status=400, param=param)


def read(decoder: "msgspec.json.Decoder[_T]", body: bytes) -> _T:
    """The request in a body. Raises InvalidRequest, naming the place at fault."""
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        what, place = mistyped(error)
        param = place.lstrip(".") or None
        raise refused(f"{param}: {what}" if param else what, param) from error
    except _MALFORMED as error:
        raise refused(f"the body is no JSON: {error}") from error


def given(fields: dict[str, Any]) -> dict[str, Any]:
    """The fields that say something."""
    return {name: value for name, value in fields.items() if value is not None}
