"""The documents of the API are valid, whole and true: what is served is in them, and nothing else."""

import gzip
import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator
from trunkline.gateway import asyncapi, openapi
from trunkline.gateway.paths import ROUTES
from trunkline_events import subjects
from trunkline_events.codec import CODEC

OPENAPI = openapi.document(ROUTES, "1.2.3")
ASYNCAPI = asyncapi.document("1.2.3")
OFFICIAL = Path(__file__).parent.parent / "schemas" / "asyncapi-3.0.0.json.gz"
"""As published by the AsyncAPI Initiative (asyncapi/spec-json-schemas, Apache-2.0), without its `$id`s."""

OPERATIONS = {
    (method.upper(), path): operation
    for path, operations in OPENAPI["paths"].items()
    for method, operation in operations.items()
}


def test_the_openapi_document_is_valid() -> None:
    assert [error.message for error in OpenAPIV31SpecValidator(OPENAPI).iter_errors()] == []


def test_the_asyncapi_document_is_valid() -> None:
    official = json.loads(gzip.decompress(OFFICIAL.read_bytes()))
    assert [error.message for error in jsonschema.Draft7Validator(official).iter_errors(ASYNCAPI)] == []


def test_every_route_is_documented_and_every_documented_path_is_a_route() -> None:
    assert set(OPERATIONS) == {(route.method, route.path) for route in ROUTES}


def test_no_two_operations_share_a_name() -> None:
    names = [operation["operationId"] for operation in OPERATIONS.values()]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("route", ROUTES, ids=openapi.operation_id)
def test_an_operation_says_who_may_and_what_comes(route: Any) -> None:
    operation = OPERATIONS[route.method, route.path]
    assert operation["security"] == ([] if route.access == "open" else [{"key": []}])
    assert openapi.ACCESS[route.access] in operation["description"]
    assert {str(route.status), "4XX", "5XX"} <= set(operation["responses"])
    named = {part[1:-1] for part in route.path.split("/") if part.startswith("{")}
    parameters = operation.get("parameters", [])
    assert {one["name"] for one in parameters if one["in"] == "path"} == named
    for parameter in parameters:
        assert parameter["in"] != "query" or "null" not in json.dumps(parameter["schema"]), parameter


def test_the_answers_of_the_api_have_schemas() -> None:
    bare = [
        key
        for key, operation in OPERATIONS.items()
        if key[1].startswith(("/api", "/plugins"))
        for status, response in operation["responses"].items()
        if not response["content"]["application/json"]["schema"]
    ]
    assert bare == []


def test_every_event_is_in_the_asyncapi_document_with_its_meaning() -> None:
    messages = ASYNCAPI["components"]["messages"]
    for name, kind in CODEC.types.items():
        assert messages[name]["summary"].split()[:3] == (kind.__doc__ or "").split()[:3]
        category = name.partition(".")[0]
        assert name in ASYNCAPI["channels"][f"events.{category}"]["messages"]


def test_every_category_has_a_channel_at_its_subject() -> None:
    for category in subjects.CATEGORIES:
        assert ASYNCAPI["channels"][f"events.{category}"]["address"] == f"trunkline.events.{category}.{{id}}"


def test_every_reference_of_the_documents_leads_somewhere() -> None:
    for document in (OPENAPI, ASYNCAPI):
        for reference in references(document):
            place: Any = document
            for part in reference.removeprefix("#/").split("/"):
                place = place[part]


def references(value: Any) -> list[str]:
    """All `$ref`s in a document."""
    if isinstance(value, dict):
        own = [value["$ref"]] if isinstance(value.get("$ref"), str) else []
        return own + [one for part in value.values() for one in references(part)]
    return [one for part in value for one in references(part)] if isinstance(value, list) else []
