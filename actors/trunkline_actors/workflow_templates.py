"""Texts with variables in braces, and what names in them and in conditions mean: `{draft}`, `{doc.title}`, `{list[0]}`.

The syntax is that of Python's format strings, of which nothing but names is taken: no conversions, no formats, no
attributes of objects. `{{` stands for a brace.
"""

import re
import string
from collections.abc import Iterator, Mapping
from typing import Any, assert_never

import msgspec

from trunkline_actors.workflow_model import Condition

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
_PART = re.compile(r"\.([^.\[\]{}]+)|\[(\d+)\]|\[([^\[\]{}]+)\]")


class BadTemplate(ValueError):
    """A text can't be read as a template; says why. Double the braces that are meant as such."""


class NoValue(LookupError):
    """A variable has no such part: says which, and what there is."""


def names_in(template: str) -> Iterator[str]:
    """The variables a template names, as written: `doc.title`. Raises BadTemplate."""
    for _, name in _parts(template):
        if name is not None:
            root_of(name)
            yield name


def _parts(template: str) -> Iterator[tuple[str, str | None]]:
    """Texts, each with the name that follows it, if any. Raises BadTemplate."""
    try:
        parts = list(string.Formatter().parse(template))
    except ValueError as error:
        raise BadTemplate(f"{error}; write {{{{ and }}}} for braces that are meant as such") from error
    for text, name, spec, conversion in parts:
        if spec or conversion:
            raise BadTemplate(f"{{{name}}} has a format or a conversion; only names are taken: {{{name}}}")
        yield text, name


def root_of(name: str) -> str:
    """The variable that `doc.title` or `list[0]` is a part of. Raises BadTemplate."""
    found = _NAME.match(name)
    if found is None:
        raise BadTemplate(f"{{{name}}} names no variable; write {{{{ and }}}} for braces that are meant as such")
    rest = name[found.end() :]
    if "".join(part.group(0) for part in _PART.finditer(rest)) != rest:
        raise BadTemplate(f"{{{name}}} is no name of a variable, or of a part of one like doc.title or list[0]")
    return found.group(0)


def value_of(name: str, variables: Mapping[str, Any]) -> Any:
    """What a name stands for. Raises NoValue; BadTemplate."""
    root = root_of(name)
    if root not in variables:
        raise NoValue(f"there is no variable {root!r}; there are {', '.join(sorted(variables)) or 'none'}")
    value, passed = variables[root], root
    for part in _PART.finditer(name[len(root) :]):
        key, index, quoted = part.groups()
        try:
            value = (
                value[int(index)] if index is not None and isinstance(value, list) else value[key or index or quoted]
            )
        except (KeyError, IndexError, TypeError, ValueError):  # the last: more digits than Python reads as a number
            raise NoValue(f"{passed!r} has no part {part.group(0)!r}; it is {_shown(value)}") from None
        passed += part.group(0)
    return value


def render(template: str, variables: Mapping[str, Any]) -> str:
    """The text with its variables filled in: texts as they are, anything else as JSON. Raises BadTemplate, NoValue."""
    out: list[str] = []
    for text, name in _parts(template):
        out.append(text)
        if name is not None:
            value = value_of(name, variables)
            out.append(value if isinstance(value, str) else msgspec.json.encode(value).decode())
    return "".join(out)


def holds(condition: Condition, variables: Mapping[str, Any]) -> bool:
    """Whether a condition is so. What can't be compared is not so. Raises NoValue."""
    value, other = value_of(condition.value, variables), condition.to
    try:
        match condition.is_:
            case "true":
                return bool(value)
            case "false":
                return not value
            case "equal":
                return bool(value == other)
            case "not equal":
                return bool(value != other)
            case "above":
                return bool(value > other)
            case "below":
                return bool(value < other)
            case "at least":
                return bool(value >= other)
            case "at most":
                return bool(value <= other)
            case "in":
                return bool(value in other)
            case "not in":
                return bool(value not in other)
            case _:  # pragma: no cover
                assert_never(condition.is_)
    except TypeError:
        return False


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return f"an object with {', '.join(map(repr, value)) or 'nothing in it'}"
    if isinstance(value, list):
        return f"a list of {len(value)}"
    return {str: "a text", bool: "true or false", type(None): "null"}.get(type(value), "a number")
