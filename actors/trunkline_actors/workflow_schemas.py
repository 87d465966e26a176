"""JSON Schemas of workflows: of their inputs, and of what models are to answer. Pure: nothing is ever fetched."""

from collections.abc import Iterator, Mapping
from typing import Any

import jsonschema
from jsonschema.exceptions import SchemaError
from jsonschema.validators import SPECIFICATIONS
from referencing.exceptions import Unresolvable
from referencing.jsonschema import DRAFT202012

from trunkline_actors.shapes import Problem, at

_REFERENCES = ("$ref", "$dynamicRef")


def validator(schema: Mapping[str, Any]) -> Any:
    """What tells whether values fit. A reference to another document is not followed: left alone, it would be fetched
    from wherever whoever wrote the schema likes.
    """
    return jsonschema.Draft202012Validator(schema, registry=SPECIFICATIONS)


def schema_problems(schema: dict[str, Any], path: str) -> list[Problem]:
    """Why nothing could be checked against this."""
    try:
        jsonschema.Draft202012Validator.check_schema(schema)
        return list(_lost(schema, path))
    except SchemaError as error:
        place = path
        for part in error.absolute_path:
            place = at(place, part)
        return [Problem(place, f"is no JSON Schema: {error.message[:300]}")]
    except RecursionError:
        return [Problem(path, "is nested too deep to be checked; write its parts under $defs")]


def _lost(schema: dict[str, Any], path: str) -> Iterator[Problem]:
    root = DRAFT202012.create_resource(schema)
    base = root.id() or ""
    resolver = SPECIFICATIONS.with_resource(base, root).resolver(base)
    for place, reference in _references(schema, path):
        try:
            resolver.lookup(reference)
        except Unresolvable:
            message = f"{reference!r} is not in this schema; write what it stands for under $defs: #/$defs/name"
            yield Problem(place, message)


def _references(schema: object, path: str) -> Iterator[tuple[str, str]]:
    entries: list[tuple[str | int, object]] = []
    if isinstance(schema, dict):
        entries = [(key, value) for key, value in schema.items() if key not in ("const", "enum", "default", "examples")]
    elif isinstance(schema, list):
        entries = list(enumerate(schema))
    for key, value in entries:
        if key in _REFERENCES and isinstance(value, str):
            yield at(path, key), value
        else:
            yield from _references(value, at(path, key))


def fields_of(schema: Mapping[str, Any] | None) -> set[str] | None:
    """The fields that an object of this schema may have; None: any."""
    properties = _pointed_at(schema).get("properties")
    return set(properties) if isinstance(properties, Mapping) else None


def required_of(schema: Mapping[str, Any] | None) -> list[str]:
    """The fields that an object of this schema must have."""
    required = _pointed_at(schema).get("required")
    return [name for name in required if isinstance(name, str)] if isinstance(required, list) else []


def _pointed_at(schema: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """The schema itself, or the definition within it that all of it refers to, as msgspec writes structs."""
    if schema is None or "properties" in schema or "$ref" not in schema:
        return schema or {}
    definitions = schema.get("$defs")
    name = str(schema["$ref"]).rpartition("/")[2]
    found = definitions.get(name) if isinstance(definitions, Mapping) else None
    return found if isinstance(found, Mapping) else {}
