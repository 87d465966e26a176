"""Which kinds of providers there are, and the adapter of one instance."""

from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points

from trunkline_actors.adapters import Adapter
from trunkline_actors.adapters.kinds import GROUP, Kind, Settings


class UnknownKind(ValueError):
    """No adapter serves this kind of provider. Use one of those named, or install the package that brings it."""

    def __init__(self, kind: str) -> None:
        super().__init__(f"unknown kind of provider {kind!r}; known: {', '.join(kinds())}")
        self.kind = kind


class NoBaseUrl(ValueError):
    """This kind of provider has no address of its own. Give it a base_url."""

    def __init__(self, kind: str) -> None:
        super().__init__(f"a provider of kind {kind!r} needs a base_url, such as http://127.0.0.1:8080/v1")
        self.kind = kind


@lru_cache(maxsize=1)
def _points() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=GROUP)}


def kinds() -> tuple[str, ...]:
    """The names of all kinds, ours and those of installed packages; nothing is imported for that."""
    return tuple(sorted(_points()))


def kind_of(name: str) -> Kind:
    """A kind by its name. Raises UnknownKind, and whatever importing a foreign package may raise."""
    point = _points().get(name)
    if point is None:
        raise UnknownKind(name)
    kind: Kind = point.load()
    return kind


def build(name: str, settings: Settings) -> Adapter:
    """The adapter for one provider instance; nothing is connected yet. Raises UnknownKind and NoBaseUrl."""
    kind = kind_of(name)
    if kind.networked and not (settings.base_url or kind.base_url):
        raise NoBaseUrl(name)
    return kind.build(settings)
