"""What paths there are: for each its handler, who may call it, what it takes and gives, for the OpenAPI document."""

from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, Any, Literal

from msgspec import Struct

from trunkline.gateway.http import HttpRequest, decoded

if TYPE_CHECKING:
    from trunkline.gateway.edge import Edge, Principal

Handler = Callable[["Edge", HttpRequest, "Principal"], Awaitable[None]]
Access = Literal["open", "chat", "read", "admin"]
"""Who may: anybody, or a key with this scope. `admin` may do whatever `read` may."""
Dialect = Literal["openai", "anthropic"]
"""Whose shape errors have."""


class Route(Struct, frozen=True, kw_only=True):
    """One path and method. `{name}` in a path stands for one part of it.

    `takes` and `gives` are the types of the body and of the answer, or JSON schemas; None: there is none, or it is no
    JSON. `streams`: the answer may be a stream of server-sent events.
    """

    method: str
    path: str
    handler: Handler
    access: Access
    summary: str
    tag: str
    takes: Any = None
    gives: Any = None
    query: dict[str, str] = {}
    """Fields of the query: name → what it means."""
    asks: Any = None
    """The struct that the query makes, where its fields have types."""
    media: str = "application/json"
    """What the answer is."""
    status: int = 200
    streams: bool = False
    dialect: Dialect = "openai"
    rest: bool = False
    """Whether the last part, which is named, takes all that is left of a path, slashes too."""


class Routes:
    """Finds the route of a request: by the whole path where no part is named, else part by part."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self.all = list(routes)
        self._plain: dict[str, dict[str, Route]] = {}
        self._named: list[tuple[list[str], dict[str, Route]]] = []
        self._rest: list[tuple[list[str], dict[str, Route]]] = []
        for route in self.all:
            if "{" not in route.path:
                self._plain.setdefault(route.path, {})[route.method] = route
                continue
            parts = route.path.split("/")
            known = next((methods for shape, methods in self._named if shape == parts), None)
            if known is None:
                known = {}
                self._named.append((parts, known))
            known[route.method] = route
            if route.rest:
                self._rest.append((parts, known))

    def find(self, path: str) -> tuple[dict[str, Route], dict[str, str]]:
        """The routes of this path by method, and its named parts; nothing where there is no such path.

        Raises UnicodeDecodeError for parts that are no text.
        """
        plain = self._plain.get(path)
        if plain is not None:
            return plain, {}
        parts = path.split("/")
        for shape, methods in self._named:
            if _fits(shape, parts):
                return methods, _named(shape, parts)
        for shape, methods in self._rest:
            last = len(shape) - 1
            if len(parts) > len(shape) and _fits(shape, joined := [*parts[:last], "/".join(parts[last:])]):
                return methods, _named(shape, joined)
        return {}, {}


def _fits(shape: list[str], parts: list[str]) -> bool:
    return len(shape) == len(parts) and all(
        (one.startswith("{") and part != "") or one == part for one, part in zip(shape, parts, strict=True)
    )


def _named(shape: list[str], parts: list[str]) -> dict[str, str]:
    return {one[1:-1]: decoded(part) for one, part in zip(shape, parts, strict=True) if one.startswith("{")}
