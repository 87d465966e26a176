"""Whether a document has the fields and the types it should have: every place where it hasn't, not only the first.

Types are msgspec's, as far as documents need them: objects, lists, text, numbers, true or false, words out of some.
Pure.
"""

import difflib
import json
import math
import re
from collections.abc import Callable, Iterable
from typing import Any

import msgspec
from msgspec import Struct, inspect

_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
_LONGEST_SHOWN = 60
MOST_SUGGESTIONS = 10
_LARGEST = 10**15
"""Far below what a float can't tell from its neighbour."""


class Problem(Struct, frozen=True):
    """What is wrong, and where: a path such as `rules[2].use[0]`."""

    path: str
    message: str

    def __str__(self) -> str:
        return f"{self.path}: {self.message}"


def problems_of(document: object, kind: type[Any], name: str) -> tuple[list[Problem], Any]:
    """Everything about a document that keeps it from being of this kind, and what there is of it without that.

    `name` is the path of the whole. Where there are no problems, the second is all of it; else it is what else can be
    looked at: what is wrong is left out, and texts that must be there stand for themselves.
    """
    found: list[Problem] = []
    rest = _walk(document, inspect.type_info(kind), "", found)
    return [problem if problem.path else Problem(name, problem.message) for problem in found], msgspec.convert(
        rest, kind
    )


def mistyped(error: msgspec.ValidationError) -> tuple[str, str]:
    """What msgspec says is wrong, and where: a path to go behind that of the whole, such as `.use[0]`; of that, ""."""
    message, _, place = str(error).partition(" - at `$")
    return message, place.removesuffix("`")


def shown(value: object) -> str:
    """A value as JSON writes it, cut where it is long."""
    text = json.dumps(value, ensure_ascii=False, default=repr)
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}…"


def at(path: str, key: str | int) -> str:
    """The path of what is inside, by its name or its place."""
    if isinstance(key, int):
        return f"{path}[{key}]"
    if not _PLAIN.fullmatch(key):
        return f"{path}[{shown(key)}]"
    return f"{path}.{key}" if path else key


def suggestion(name: str, known: Iterable[str]) -> str:
    """`; did you mean "…"?`, where something known is much like it; else nothing."""
    if len(name) > _LONGEST_SHOWN:
        return ""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {shown(close[0])}?" if close else ""


class Vocabulary:
    """Names that are known. What is like an unknown one is looked for a few times only: among many, that takes long."""

    def __init__(self, known: Iterable[str]) -> None:
        self._known = frozenset(known)
        self._suggested = 0

    def __contains__(self, name: str) -> bool:
        return name in self._known

    def suggestion(self, name: str) -> str:
        """As `suggestion` gives it."""
        self._suggested += 1
        return suggestion(name, self._known) if self._suggested <= MOST_SUGGESTIONS else ""


_NOTHING = object()
"""What is left of a value that is all wrong."""


def _walk(value: object, kind: inspect.Type, path: str, found: list[Problem]) -> object:
    """Collect what is wrong; what can be used of the value."""
    match kind:
        case inspect.StructType():
            return _object(value, kind, path, found)
        case inspect.ListType(item_type=item) if isinstance(value, list):
            items = [_walk(one, item, at(path, place), found) for place, one in enumerate(value)]
            return _NOTHING if _NOTHING in items else items
        case inspect.DictType(value_type=inner) if isinstance(value, dict):
            entries = {key: _walk(one, inner, at(path, key), found) for key, one in value.items()}
            return {key: one for key, one in entries.items() if one is not _NOTHING}
        case inspect.UnionType(types=types) if fitting := [one for one in types if _wanted(one)[1](value)]:
            return _walk(value, fitting[0], path, found)
    problem = _problem(value, kind)
    if problem is None:
        return value
    found.append(Problem(path, problem))
    return _NOTHING


def _problem(value: object, kind: inspect.Type) -> str | None:
    """Why this can't be a value of a kind that has no parts, or not one of the parts it would have."""
    match kind:
        case inspect.UnionType(types=types):
            return _not_any(value, [one for one in types if not isinstance(one, inspect.NoneType)])
        case inspect.LiteralType(values=values):
            if any(value == one and type(value) is type(one) for one in values):
                return None
            like = suggestion(value, [str(one) for one in values]) if isinstance(value, str) else ""
            return f"{_not_any(value, [kind])}{like}"
        case inspect.FloatType() if isinstance(value, int | float) and abs(value) > _LARGEST:
            return "is too large a number to be of use; take a smaller one"
        case _:
            return None if _wanted(kind)[1](value) else _not_any(value, [kind])


def _object(value: object, kind: inspect.StructType, path: str, found: list[Problem]) -> dict[str, object]:
    if not isinstance(value, dict):
        found.append(Problem(path, _not_any(value, [kind])))
    given = value if isinstance(value, dict) else {}
    fields = {field.encode_name: field for field in kind.fields}
    result: dict[str, object] = {}
    for key, one in given.items():
        if key in fields:
            result[key] = _walk(one, fields[key].type, at(path, key), found)
        else:
            told = suggestion(key, fields) or f"; there are {', '.join(sorted(fields))}"
            found.append(Problem(at(path, key), f"there is no such field{told}"))
    for name, field in fields.items():
        if field.required and result.get(name, _NOTHING) is _NOTHING:
            result[name] = at(path, name)
            if given is value and name not in given:
                found.append(Problem(at(path, name), "must be given"))
    return {key: one for key, one in result.items() if one is not _NOTHING}


def _not_any(value: object, kinds: list[inspect.Type]) -> str:
    """What was wanted and what it is, and how to write it where that is easily got wrong."""
    words = " or ".join(_wanted(one)[0] for one in kinds)
    hint = ""
    if isinstance(kinds[0], inspect.StrType) and isinstance(value, int | float):
        hint = f'; write it in quotes: "{_plain_number(value)}"'
    elif isinstance(value, str) and any(isinstance(one, inspect.ListType) for one in kinds):
        hint = f"; write it as a list: [{shown(value)}]"
    return f"must be {words}, not {shown(value)}{hint}"


def _plain_number(value: float) -> str:
    return "true" if value is True else "false" if value is False else str(value)


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and not _is_nan(value)


def _is_nan(value: float) -> bool:
    return isinstance(value, float) and math.isnan(value)


def _wanted(kind: inspect.Type) -> tuple[str, Callable[[object], bool]]:
    """A kind of value in words, and whether a value is of it as far as JSON tells kinds apart."""
    match kind:
        case inspect.StructType() | inspect.DictType():
            return "an object", lambda value: isinstance(value, dict)
        case inspect.ListType():
            return "a list", lambda value: isinstance(value, list)
        case inspect.StrType():
            return "text", _is_text
        case inspect.BoolType():
            return "true or false", lambda value: isinstance(value, bool)
        case inspect.IntType():
            return "a whole number", lambda value: isinstance(value, int) and not isinstance(value, bool)
        case inspect.FloatType():
            return "a number", _is_number
        case inspect.NoneType():
            return "null", lambda value: value is None
        case inspect.LiteralType(values=values):
            return "one of " + ", ".join(sorted(map(shown, values))), lambda value: value is not None
        case _:  # pragma: no cover - a field of a type that no document has yet
            raise msgspec.ValidationError(f"documents have no {kind}")
