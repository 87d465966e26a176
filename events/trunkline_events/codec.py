"""Bodies of events as JSON: registered names, upcasters, and tolerance for what is not known.

A stored name is `<category>.<fact>.v<version>` and never an import path, so that code can move. To change a shape,
add a class with the next version as its tag and an upcaster from the last one; old bytes stay as they are, for ever.
docs/evolving-events.md goes through it, step by step.
"""

from collections.abc import Callable, Iterable
from types import ModuleType
from typing import Any

import msgspec

from trunkline_events import budget, circuit, gateway, key, plugin, policy, registry, secret, thread, workflow
from trunkline_events.envelope import Event, Unknown

Upcaster = Callable[[dict[str, Any]], dict[str, Any]]
"""A pure step from the fields of version v to those of v+1."""

_encoder = msgspec.json.Encoder()


class _TypeOnly(msgspec.Struct):
    type: str = ""


_type_decoder = msgspec.json.Decoder(_TypeOnly)


def _events_of(modules: Iterable[ModuleType]) -> dict[str, type[Any]]:
    found: dict[str, type[Any]] = {}
    for module in modules:
        for value in vars(module).values():
            if isinstance(value, type) and issubclass(value, msgspec.Struct) and value.__module__ == module.__name__:
                config = value.__struct_config__
                if config.tag_field == "type" and isinstance(config.tag, str) and ".v" in config.tag:
                    found[config.tag] = value
    return found


class Codec:
    """Turns bodies of known events into bytes and back.

    `upcasters` maps an old name to its successor and the step to it. A name may be in both: it is still written, for
    readers of the version before, and read as its successor already. Raises ValueError for steps that never end.
    """

    def __init__(self, types: dict[str, type[Any]], upcasters: dict[str, tuple[str, Upcaster]] | None = None) -> None:
        self.types = types
        self.upcasters = upcasters or {}
        for name in self.upcasters:
            self._check_steps(name)
        self._names = {cls: name for name, cls in types.items()}
        self._decoders = {name: msgspec.json.Decoder(cls) for name, cls in types.items() if name not in self.upcasters}

    def _check_steps(self, name: str) -> None:
        passed = [name]
        while name in self.upcasters:
            name = self.upcasters[name][0]
            if name in passed:
                raise ValueError(
                    f"upcasters lead in a circle: {' -> '.join([*passed, name])}; a step goes one way only"
                )
            passed.append(name)

    @property
    def readable(self) -> frozenset[str]:
        """Every name whose events can be read: those written today, and the old ones that steps lead up from."""
        return frozenset(self.types) | frozenset(self.upcasters)

    def name(self, body: Event) -> str:
        """The registered name of this event. Raises KeyError for one that was never registered."""
        return self._names[type(body)]

    def encode(self, body: Event) -> bytes:
        """The body as JSON, its name in the field `type`."""
        return _encoder.encode(body)

    def decode(self, name: str | None, data: bytes) -> Event | Unknown:
        """The body, brought up to the version we know; Unknown where that can't be done. Never raises."""
        try:
            name = name or _type_decoder.decode(data).type
            decoder = self._decoders.get(name)
            if decoder is not None:
                event: Event = decoder.decode(data)
                return event
            return self._upcast(name, data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            return Unknown(name or "", data, str(error))

    def _upcast(self, name: str, data: bytes) -> Event | Unknown:
        if name not in self.upcasters:
            return Unknown(name, data, f"no event is registered as {name!r}")
        fields = msgspec.json.decode(data, type=dict[str, Any])
        try:
            while name in self.upcasters:
                name, step = self.upcasters[name]
                fields = {**step(fields), "type": name}
            event: Event = msgspec.convert(fields, self.types[name])
        except Exception as error:  # noqa: BLE001 - a step meets what nobody foresaw; that event is skipped
            return Unknown(name, data, f"could not be brought up to date: {error!r}")
        return event


EVENT_MODULES = (registry, policy, thread, budget, circuit, gateway, secret, plugin, key, workflow)
UPCASTERS: dict[str, tuple[str, Upcaster]] = {}
"""The steps up from every version that was ever written. None is ever removed: somebody's log begins with it."""
CODEC = Codec(_events_of(EVENT_MODULES), UPCASTERS)
"""Every event Trunkline writes, by its stored name."""
