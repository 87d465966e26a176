"""What every process told of its calls, put together by model: the mapping that routing decides by. Pure."""

import itertools
from collections.abc import Iterable, Iterator, Mapping

import msgspec
from msgspec import Struct
from trunkline_events.measured import Measured
from trunkline_events.registry import Model
from trunkline_projections.models import Registry

from trunkline_actors.tallies import Count, Line, Tally

FORGOTTEN = 10.0
"""Seconds after which what a process told goes, unless it told it again."""
RENEWED = 0.1
"""Seconds for which one mapping holds, however much is told meanwhile."""
_SWEEP = 1.0
AT_ONCE = 100
"""Models that are put together in one go, some 40 µs each: a decision must not wait for a thousand."""


class Told(Struct, frozen=True, kw_only=True, array_like=True):
    """How one line stands at one process: what ended in the last five minutes, and what runs."""

    provider: str
    model: str
    version: str
    in_flight: Count
    tally: Tally


class Statistics(Struct, frozen=True, kw_only=True):
    """What one process measured, or a part of it."""

    process: str
    lines: list[Told]


_decoder = msgspec.json.Decoder(Statistics)
encode = msgspec.json.Encoder().encode


def read(data: bytes) -> Statistics | None:
    """What a process told; None where it is unreadable."""
    try:
        return _decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def parts(process: str, told: Iterable[Told], most: int) -> Iterator[bytes]:
    """The same as messages of about `most` bytes; none where there is nothing to tell."""
    part: list[msgspec.Raw] = []
    size = 0
    for one in told:
        line = encode(one)
        if part and size + len(line) > most:
            yield encode({"process": process, "lines": part})
            part, size = [], 0
        part.append(msgspec.Raw(line))
        size += len(line)
    if part:
        yield encode({"process": process, "lines": part})


class Standings:
    """The newest word of every process, by model. `now` is always monotonic."""

    def __init__(self) -> None:
        self._lines: dict[str, dict[Line, dict[str, tuple[Told, float]]]] = {}
        self._changed: dict[str, None] = {}  # a set in the order in which they changed
        self._registry: Registry | None = None
        self._measured: dict[str, dict[str, Measured]] = {}
        self._mapping: Mapping[str, Measured] = {}
        self._made = self._swept = float("-inf")

    def told(self, statistics: Statistics, now: float) -> None:
        """A process said how it stands; a line on which nothing ran or runs is as if there were none."""
        process = statistics.process
        for told in statistics.lines:
            line = Line(told.provider, told.model, told.version)
            if not told.in_flight and not told.tally.calls:
                self._forget(line, process)
                continue
            processes = self._lines.setdefault(told.model, {}).setdefault(line, {})
            before = processes.get(process)
            processes[process] = (told, now)
            if before is None or before[0] != told:
                self._changed[told.model] = None

    def measured(self, registry: Registry, now: float) -> Mapping[str, Measured]:
        """By the name that a model is served under: its id, or `id@version` for its canary.

        The same object as last time while nothing changed, so that what follows from it can be kept.
        """
        other = registry is not self._registry
        if not other and now - self._made < RENEWED:
            return self._mapping
        if now - self._swept >= _SWEEP:
            self._sweep(now)
        if not other and not self._changed:
            return self._mapping
        self._made = now
        before, self._registry = self._registry, registry
        models = set(itertools.islice(self._changed, AT_ONCE))
        if other:  # and what a model that was changed is served by may be another line of it
            models.update(name for name in self._lines if before is None or _differs(name, before, registry))
            models.update(name for name in self._measured if name not in registry.models)
        for name in models:
            self._changed.pop(name, None)
        renewed = [name for name in models if self._renew(name, registry.models.get(name))]
        if renewed:
            self._mapping = {name: one for by_name in self._measured.values() for name, one in by_name.items()}
        return self._mapping

    def versions(self, model: str, now: float) -> dict[str, Measured]:
        """Every version of one model that was called of late, over all instances that serve it."""
        self._sweep(now)
        lines = self._lines.get(model, {})
        return {
            version: _merged(
                told for line, processes in lines.items() if line.version == version for told, _ in processes.values()
            )
            for version in sorted({line.version for line in lines})
        }

    def _renew(self, name: str, model: Model | None) -> bool:
        """Work out anew what a model and its canary measured; whether that is any different."""
        lines = self._lines.get(name, {})
        found = {
            served: _merged(told for told, _ in lines[line].values())
            for served, line in _served(model)
            if line in lines
        }
        if found == self._measured.get(name, {}):
            return False
        if found:
            self._measured[name] = found
        else:
            del self._measured[name]
        return True

    def _sweep(self, now: float) -> None:
        self._swept = now
        old = [
            (line, process)
            for lines in self._lines.values()
            for line, processes in lines.items()
            for process, (_, heard) in processes.items()
            if now - heard > FORGOTTEN
        ]
        for line, process in old:
            self._forget(line, process)

    def _forget(self, line: Line, process: str) -> None:
        lines = self._lines.get(line.model, {})
        processes = lines.get(line, {})
        if processes.pop(process, None) is None:
            return
        self._changed[line.model] = None
        if not processes:
            del lines[line]
        if not lines:
            del self._lines[line.model]


def _served(model: Model | None) -> Iterator[tuple[str, Line]]:
    """The names a model is served under, and what is counted for each."""
    if model is None:
        return
    yield model.id, Line(model.provider, model.id, model.version)
    if model.canary is not None:
        canary = model.canary
        yield f"{model.id}@{canary.version}", Line(canary.provider, model.id, canary.version)


def _differs(name: str, before: Registry, after: Registry) -> bool:
    return before.models.get(name) is not after.models.get(name)


def _merged(told: Iterable[Told]) -> Measured:
    in_flight, total = 0, Tally()
    for one in told:
        in_flight += one.in_flight
        total.merge(one.tally)
    return total.measured(in_flight)
