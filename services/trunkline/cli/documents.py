"""Policies as files: YAML or JSON in, YAML out. What YAML makes of a text by accident is told, not sent."""

import math
import sys
from pathlib import Path
from typing import Any

import msgspec

from trunkline.cli.failures import UsageError

STDIN = "-"
_DEEPEST = 20


def read_document(name: str) -> Any:
    """What is in a file, or on stdin for `-`: JSON where it begins with a brace, else YAML. Raises UsageError.

    What is returned holds nothing that JSON has no word for.
    """
    try:
        text = sys.stdin.buffer.read() if name == STDIN else Path(name).read_bytes()
    except FileNotFoundError:
        raise UsageError(f"there is no file {name}; name one, or - for stdin") from None
    document = _parsed(text, name)
    if problem := _not_json(document, "", 0):
        raise UsageError(f"{_called(name)}: {problem}")
    return document


def as_yaml(document: Any) -> str:
    """A document as YAML that `read_document` reads as the same; no line end at its end."""
    import yaml

    text: str = yaml.safe_dump(document, sort_keys=False, allow_unicode=True, default_flow_style=False, width=110)
    return text.rstrip("\n")


def _parsed(text: bytes, name: str) -> Any:
    if text.lstrip().startswith(b"{"):
        try:
            return msgspec.json.decode(text)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            pass  # YAML may begin with a brace too
    import yaml

    class Loader(yaml.SafeLoader):
        """As the safe loader, but a name that is given twice is an error, not the latter of the two."""

        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
            seen: set[str] = set()
            for key, _ in node.value:
                if key.value in seen and key.tag != "tag:yaml.org,2002:merge":
                    raise yaml.MarkedYAMLError(problem=f"{key.value!r} is given twice", problem_mark=key.start_mark)
                seen.add(key.value)
            return super().construct_mapping(node, deep)

    try:
        return yaml.load(text, Loader)  # noqa: S506 - a safe loader, see above
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise UsageError(f"{_called(name)}: {where}{error.problem or error.context}") from error
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise UsageError(f"{_called(name)} is neither YAML nor JSON: {error}") from error


def _called(name: str) -> str:
    return "stdin" if name == STDIN else name


def _not_json(value: object, path: str, depth: int) -> str | None:
    """Where and why this can't be JSON, and what to write instead."""
    where = f"{path.removeprefix('.') or 'the document'}: "
    if depth > _DEEPEST:
        return f"{where}no policy is nested so deep"
    match value:
        case dict():
            for key, inner in value.items():
                if not isinstance(key, str):
                    return f'{where}{key!r} is no name; write it in quotes: "{key}"'
                if problem := _not_json(inner, f"{path}.{key}", depth + 1):
                    return problem
        case list():
            for place, inner in enumerate(value):
                if problem := _not_json(inner, f"{path}[{place}]", depth + 1):
                    return problem
        case float() if not math.isfinite(value):
            return f"{where}{value} is no number of use here"
        case int() if abs(value) >= 2**63:
            return f"{where}{value} is too large a number"
        case str() | int() | float() | None:
            return None
        case _:
            return f'{where}YAML takes this for a {type(value).__name__}; write it in quotes: "{value}"'
    return None
