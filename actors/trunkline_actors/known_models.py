"""The catalogue: what is known of well-known models, shipped and dated, and entries of one's own on top. Pure.

The shipped list is `known_models.toml` beside this file; one's own is a file of the same shape. Prices are in neither:
`catalogue` has them.
"""

import difflib
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from datetime import date
from functools import lru_cache
from importlib import resources
from typing import Any, Literal

import msgspec
from msgspec import Struct
from trunkline_events.refusal import Refused
from trunkline_events.registry import Provider
from trunkline_projections.models import Registry

from trunkline_actors.registry import RegisterModel, register_model

Size = Literal["tiny", "small", "medium", "large", "frontier"]

_SCORES: Mapping[str, tuple[float, float]] = {
    "tiny": (0.3, 0.9),
    "small": (0.5, 0.8),
    "medium": (0.7, 0.6),
    "large": (0.8, 0.4),
    "frontier": (0.9, 0.2),
}
"""How good models of a size are, and how quick: coarse on purpose. Calls tell the speed better, once there are some."""

OLDEST = 6
"""Half-years of age that count; what is older is not told apart."""
_HALF_YEAR = 0.05
"""What a model scores less for each half-year of its age, in all but speed: others have moved on."""
_WITHOUT = 0.2
"""What a model scores less that can't think in reasoning, and one that can't be held to a schema in precision."""

NEAREST = 3


class BadCatalogue(ValueError):
    """A file is no catalogue. The message says where, what is wrong, and what would be right."""


class Entry(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is known of one model. `upstream` is its name at providers of `kind` (default: its own), `elsewhere` that
    at other kinds. `age` is how many half-years old it was when the list was made, `retires` the day on which its
    provider ends it. `capabilities` follow from `size` and `age` unless they are given.
    """

    name: str
    kind: str
    family: str
    upstream: str | None = None
    aliases: list[str] = []
    elsewhere: dict[str, str] = {}
    size: Size | None = None
    age: int = 0
    capabilities: dict[str, float] | None = None
    features: list[str] = []
    context_window: int | None = None
    max_output: int | None = None
    retires: date | None = None

    def scores(self) -> dict[str, float]:
        """Its capabilities: those given, else by the rule, else none. `context` follows from the window anyway."""
        if self.capabilities is not None:
            return self.capabilities
        if self.size is None:
            return {}
        good, speed = _SCORES[self.size]
        good -= _HALF_YEAR * min(self.age, OLDEST)
        scores = {
            "reasoning": good - (0 if "thinking" in self.features else _WITHOUT),
            "creativity": good,
            "precision": good - (0 if "json_schema" in self.features else _WITHOUT),
            "speed": speed,
        }
        return {name: round(max(score, 0.1), 2) for name, score in scores.items()}

    def described(self) -> dict[str, Any]:
        """The fields of its registration, by name, but for its id, its provider and its upstream."""
        return {
            "capabilities": self.scores(),
            "features": self.features,
            "context_window": self.context_window,
            "max_output": self.max_output,
        }

    def names(self) -> Iterator[str]:
        """Its name and its aliases."""
        yield self.name
        yield from self.aliases


class Catalogue(Struct, frozen=True):
    """Entries in order of their names, found by these or by aliases. `dated` is the day on which the list was so."""

    entries: tuple[Entry, ...]
    dated: date | None = None
    own: frozenset[str] = frozenset()
    """The names of entries that are not the shipped ones."""

    def find(self, name: str) -> Entry | None:
        """The entry of this name, else with this alias."""
        named = (entry for entry in self.entries if entry.name == name)
        known = (entry for entry in self.entries if name in entry.aliases)
        return next(named, None) or next(known, None)

    def nearest(self, name: str) -> list[str]:
        """The names that are most like this one; none where none is much like it."""
        spellings = {spelling.lower(): entry.name for entry in self.entries for spelling in entry.names()}
        wanted = name.lower()
        alike = difflib.get_close_matches(wanted, spellings, n=4 * NEAREST, cutoff=0.6)
        inside = sorted(spelling for spelling in spellings if len(wanted) > 2 and wanted in spelling)
        return list(dict.fromkeys(spellings[spelling] for spelling in [*alike, *inside]))[:NEAREST]

    def completions(self, prefix: str) -> list[str]:
        """The names that begin so, sorted; aliases only where no name does."""
        names = [entry.name for entry in self.entries if entry.name.startswith(prefix)]
        aliases = (alias for entry in self.entries for alias in entry.aliases if alias.startswith(prefix))
        return sorted(names or aliases)

    def with_own(self, other: "Catalogue") -> "Catalogue":
        """This one with another's entries on top: they win, by their names and by their aliases."""
        taken = {name for entry in other.entries for name in entry.names()}
        kept = (_without_aliases(entry, taken) for entry in self.entries if entry.name not in taken)
        own = frozenset(entry.name for entry in other.entries)
        return Catalogue(_sorted([*kept, *other.entries]), self.dated, own)


EMPTY = Catalogue(())


@lru_cache(maxsize=1)
def shipped() -> Catalogue:
    """The list that comes with this package; read when first needed, as its code is."""
    return read(resources.files(__package__).joinpath("known_models.toml").read_text(encoding="utf-8"))


def read(text: str) -> Catalogue:
    """A catalogue from TOML: `dated`, and a table `[[models]]` for each entry. Raises BadCatalogue.

    Whatever is in it could be registered as it stands.
    """
    try:
        given = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise BadCatalogue(f"it is not valid TOML: {error}") from error
    unknown = sorted(set(given) - {"dated", "models"})
    if unknown:
        raise BadCatalogue(
            f"{unknown[0]!r} is unknown; a catalogue has `dated` and a table `[[models]]` for each model"
        )
    tables = given.get("models", [])
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise BadCatalogue("`models` must be tables; write `[[models]]` above each model")
    entries = [_entry(number, table) for number, table in enumerate(tables, 1)]
    _all_different(entries)
    try:
        dated = msgspec.convert(given.get("dated"), date | None)
    except msgspec.ValidationError as error:
        raise BadCatalogue(f"dated: {error}; write a day, like 2026-11-28") from error
    return Catalogue(_sorted(entries), dated)


def _entry(number: int, table: dict[str, Any]) -> Entry:
    place = f"model {number} ({table['name']})" if isinstance(table.get("name"), str) else f"model {number}"
    try:
        entry = msgspec.convert(table, Entry)
    except msgspec.ValidationError as error:
        raise BadCatalogue(f"{place}: {error}") from error
    if problem := _problem(entry):
        raise BadCatalogue(f"{place}: {problem}")
    return entry


def _problem(entry: Entry) -> str | None:
    """Why an entry is none: above all, that what it describes would not be registered."""
    texts = {
        "name": [entry.name],
        "kind": [entry.kind],
        "aliases": entry.aliases,
        "elsewhere": entry.elsewhere.values(),
    }
    for field, values in texts.items():
        if not all(values):
            return f"{field} must not be empty"
    if entry.age < 0:
        return "age must be 0 or more half-years"
    anywhere = Registry(providers={"p": Provider(id="p", kind=entry.kind)})
    decision = register_model(anywhere, RegisterModel(id=entry.name, provider="p", **entry.described()))
    return decision.message if isinstance(decision, Refused) else None


def _all_different(entries: Iterable[Entry]) -> None:
    seen: set[str] = set()
    for entry in entries:
        for name in entry.names():
            if name in seen:
                raise BadCatalogue(f"{name!r} is there twice; names and aliases must differ")
            seen.add(name)


def _without_aliases(entry: Entry, taken: set[str]) -> Entry:
    if taken.isdisjoint(entry.aliases):
        return entry
    return msgspec.structs.replace(entry, aliases=[alias for alias in entry.aliases if alias not in taken])


def _sorted(entries: Iterable[Entry]) -> tuple[Entry, ...]:
    return tuple(sorted(entries, key=lambda entry: entry.name))
