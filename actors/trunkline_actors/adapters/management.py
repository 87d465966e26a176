"""What an adapter can do that manages the models of its upstream: the ability `management`. Shapes and a protocol."""

from collections.abc import AsyncGenerator
from typing import Protocol, runtime_checkable

from msgspec import Struct

from trunkline_actors.managed import Described, LocalModel


class PullProgress(Struct, frozen=True, kw_only=True):
    """How far a pull is: what the upstream does just now, and the bytes of all files it has named so far."""

    status: str
    total_bytes: int = 0
    completed_bytes: int = 0


@runtime_checkable
class Manages(Protocol):
    """An adapter that lists, describes, pulls and deletes its upstream's models. Only UpstreamError is raised."""

    def same_model(self, one: str, other: str) -> bool:
        """Whether two names mean the same model, such as `llama3.2` and `llama3.2:latest`."""
        ...

    async def local_models(self) -> list[LocalModel]:
        """The models whose files the upstream has."""
        ...

    async def describe(self, model: str) -> Described:
        """What the upstream knows of one of them."""
        ...

    def pull(self, model: str) -> AsyncGenerator[PullProgress, None]:
        """Fetch a model's files; it is there when this ends. Closing the iterator ends the pull; what came is kept."""
        ...

    async def delete(self, model: str) -> None:
        """Delete a model's files."""
        ...
