"""Which kinds of providers there are, and the adapter of one instance. Everything that may be wrong has an error."""

from collections.abc import Iterable
from functools import lru_cache
from importlib import invalidate_caches
from importlib.metadata import EntryPoint, entry_points

from trunkline_actors.adapters import Adapter
from trunkline_actors.adapters.kinds import GROUP, BadSettings, Kind, Settings
from trunkline_actors.plugins import Plugin, unknown_kind

_DUTIES = ("complete", "stream", "embed", "check", "close")


class Unusable(ValueError):
    """A provider can't be served as it is registered or installed. The text says what to do, and is safe to show."""


class UnknownKind(Unusable):
    """No adapter serves this kind of provider. Use one of those named, or install the package that brings it."""

    def __init__(self, kind: str) -> None:
        super().__init__(unknown_kind(kind, kinds()))
        self.kind = kind


class NoBaseUrl(BadSettings, Unusable):
    """This kind of provider has no address of its own. Give it a base_url."""

    def __init__(self, kind: str) -> None:
        text = f"a provider of kind {kind!r} needs a base_url, such as http://127.0.0.1:8080/v1"
        super().__init__("base_url", text)
        self.kind = kind


class NotAKind(Unusable):
    """What the entry point names is no `Kind`. Whoever wrote the plugin has to mend that."""

    def __init__(self, plugin: Plugin, found: object) -> None:
        super().__init__(
            f"{plugin.object} of {plugin.distribution} is a {type(found).__name__}; "
            "an entry point of trunkline.providers must name a trunkline_actors.adapters.kinds.Kind"
        )


class NotAnAdapter(Unusable):
    """What `build` made is no adapter. Whoever wrote the plugin has to mend that."""

    def __init__(self, kind: str, made: object, missing: Iterable[str]) -> None:
        super().__init__(
            f"build of kind {kind!r} made a {type(made).__name__} without {', '.join(missing)}; "
            "see the protocol trunkline_actors.adapters.Adapter"
        )


@lru_cache(maxsize=1)
def _points() -> dict[str, tuple[EntryPoint, Plugin]]:
    found = [(point, _plugin(point)) for point in entry_points(group=GROUP)]
    # Where two packages bring the same name it is ours, or the first one's by name: never whichever lies first on the
    # path. The last one put into a dict stays.
    found.sort(key=lambda one: (not one[1].built_in, one[1].distribution), reverse=True)
    return {point.name: (point, plugin) for point, plugin in found}


def _plugin(point: EntryPoint) -> Plugin:
    dist = point.dist
    name, version = (dist.metadata["Name"] or "", dist.version) if dist else ("", "")
    return Plugin(name=point.name, object=point.value, distribution=name, version=version)


def kinds() -> tuple[str, ...]:
    """The names of all kinds, ours and those of installed packages; nothing is imported for that."""
    return tuple(sorted(_points()))


def plugins() -> list[Plugin]:
    """All kinds, by name, with where they come from; nothing is imported for that."""
    return [plugin for _, (_, plugin) in sorted(_points().items())]


def plugin_of(name: str) -> Plugin | None:
    """A kind by its name, as it is installed."""
    found = _points().get(name)
    return found[1] if found else None


def look_again() -> None:
    """Find out anew what is installed, the next time somebody asks."""
    invalidate_caches()
    _points.cache_clear()


def kind_of(name: str) -> Kind:
    """A kind by its name. Raises UnknownKind, NotAKind, and whatever importing a foreign package may raise."""
    found = _points().get(name)
    if found is None:  # it may have been installed since
        look_again()
        found = _points().get(name)
    if found is None:
        raise UnknownKind(name)
    point, plugin = found
    kind = point.load()
    if not isinstance(kind, Kind):
        raise NotAKind(plugin, kind)
    return kind


def build(name: str, settings: Settings) -> Adapter:
    """The adapter for one provider instance; nothing is connected yet.

    Raises UnknownKind, NoBaseUrl, NotAKind, NotAnAdapter, and what the kind's own `build` raises.
    """
    kind = kind_of(name)
    if kind.networked and not (settings.base_url or kind.base_url):
        raise NoBaseUrl(name)
    adapter = kind.build(settings)
    missing = [duty for duty in _DUTIES if not callable(getattr(adapter, duty, None))]
    if missing:
        raise NotAnAdapter(name, adapter, missing)
    return adapter
