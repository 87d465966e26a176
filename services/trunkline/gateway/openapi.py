"""The OpenAPI document, 3.1, made from the routes: what isn't served is not in it, and what is in it is served."""

import inspect
from collections.abc import Iterable
from typing import Any

import msgspec
from msgspec import Struct

from trunkline.gateway.commands import lists_of
from trunkline.gateway.routes import Route

VERSION = "3.1.0"
_REF = "#/components/schemas/{name}"
_STREAM = "text/event-stream"
_METHODS = ("GET", "PUT", "POST", "DELETE", "PATCH")


class Failure(Struct, frozen=True, kw_only=True):
    """What went wrong, and what to do. `code` is for programs; `retryable`: the same again may go well."""

    message: str
    type: str
    code: str
    param: str | None
    request_id: str | None
    retryable: bool
    metadata: dict[str, Any]


class OpenAIError(Struct, frozen=True, kw_only=True):
    """An error as OpenAI's clients read it."""

    error: Failure


class AnthropicFailure(Struct, frozen=True, kw_only=True):
    """What went wrong."""

    type: str
    message: str


class AnthropicError(Struct, frozen=True, kw_only=True):
    """An error as Anthropic's clients read it."""

    type: str
    error: AnthropicFailure


_ERRORS = {"openai": OpenAIError, "anthropic": AnthropicError}

ACCESS = {
    "open": "Open to anybody.",
    "chat": "For API keys with the scope `chat`.",
    "read": "For API keys with the scope `read` or `admin`.",
    "admin": "For API keys with the scope `admin`.",
}


def document(routes: Iterable[Route], version: str) -> dict[str, Any]:
    """The whole document of these routes, of a gateway of this version."""
    routes = list(routes)
    types = list(_types(routes))
    schemas, components = msgspec.json.schema_components(types, schema_hook=anything, ref_template=_REF)
    known = dict(zip(map(id, types), schemas, strict=True))
    paths: dict[str, Any] = {}
    for route in sorted(routes, key=lambda one: (one.path, _METHODS.index(one.method))):
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, known, components)
    return {
        "openapi": VERSION,
        "info": {
            "title": "Trunkline",
            "version": version,
            "description": (
                "An LLM gateway whose every decision is an event. Any OpenAI client works by changing its base URL. "
                "Parts of a path are percent-encoded, slashes too, but where a path ends in an id that may hold them."
            ),
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "tags": [{"name": tag} for tag in dict.fromkeys(route.tag for route in routes)],
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {
                "key": {"type": "http", "scheme": "bearer", "description": "An API key, `tl-` and 43 characters."}
            },
        },
    }


def anything(kind: Any) -> dict[str, Any]:
    """The schema of what may be any JSON: `object`, to Python."""
    if kind is object:
        return {"description": "any JSON"}
    raise NotImplementedError(kind)


def _is_type(kind: Any) -> bool:
    return kind is not None and not isinstance(kind, dict | tuple)


def _types(routes: Iterable[Route]) -> Iterable[Any]:
    """All types that routes name, each once."""
    found: dict[int, Any] = {}
    for route in routes:
        takes = route.takes if isinstance(route.takes, tuple) else (route.takes,)
        for kind in (*takes, route.gives, _ERRORS[route.dialect]):
            if _is_type(kind):
                found[id(kind)] = kind
    return found.values()


Known = dict[int, dict[str, Any]]


def _operation(route: Route, known: Known, components: dict[str, Any]) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": operation_id(route),
        "summary": route.summary,
        "description": _description(route),
        "tags": [route.tag],
        "security": [] if route.access == "open" else [{"key": []}],
        "responses": _responses(route, known),
    }
    if parameters := [*_path_parameters(route), *_query_parameters(route), *_headers(route)]:
        operation["parameters"] = parameters
    if route.takes is not None:
        schema = _schema(route.takes, known)
        operation["requestBody"] = {"content": {"application/json": {"schema": schema}}}
        if _must_be_given(schema, components):
            operation["requestBody"]["required"] = True
    return operation


def operation_id(route: Route) -> str:
    """A name that no other operation has, such as `post_api_models_id_enable`."""
    words = (part.strip("{}").replace("-", "_").replace(".", "_") for part in route.path.split("/") if part)
    return "_".join([route.method.lower(), *words])


def _description(route: Route) -> str:
    about = inspect.getdoc(route.asks) if route.asks is not None else None
    return " ".join(filter(None, (about, ACCESS[route.access])))


def _schema(kind: Any, known: Known) -> dict[str, Any]:
    if isinstance(kind, tuple):
        return {"anyOf": [_schema(one, known) for one in kind]}
    return kind if isinstance(kind, dict) else known[id(kind)]


def _must_be_given(schema: dict[str, Any], components: dict[str, Any]) -> bool:
    """Whether no body at all would make no sense: then it has fields that must be there."""
    if "anyOf" in schema:
        return all(_must_be_given(one, components) for one in schema["anyOf"])
    return bool(_resolved(schema, components).get("required"))


def _resolved(schema: dict[str, Any], components: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = components[schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema
    return found


def _path_parameters(route: Route) -> Iterable[dict[str, Any]]:
    for part in route.path.split("/"):
        if part.startswith("{"):
            schema = {"type": "string", "minLength": 1}
            yield {"name": part[1:-1], "in": "path", "required": True, "schema": schema}


def _query_parameters(route: Route) -> Iterable[dict[str, Any]]:
    for name, description in route.query.items():
        yield {"name": name, "in": "query", "description": description, "schema": {"type": "string"}}
    if route.asks is None:
        return
    lists = lists_of(route.asks)
    (_,), described = msgspec.json.schema_components([route.asks])
    for name, schema in described[route.asks.__name__]["properties"].items():
        about = _not_null(schema)
        parameter = {"name": name, "in": "query", "schema": about}
        if description := about.pop("description", None) or schema.get("description"):
            parameter["description"] = description
        if name in lists:
            parameter |= {"style": "form", "explode": False}
        yield parameter


def _not_null(schema: dict[str, Any]) -> dict[str, Any]:
    """A field of a query is there or it isn't: it is never null."""
    kinds = [one for one in schema.get("anyOf", ()) if one != {"type": "null"}]
    about = {name: value for name, value in schema.items() if name != "anyOf"}
    if kinds:
        about |= kinds[0] if len(kinds) == 1 else {"anyOf": kinds}
    if "enum" in about:
        about["enum"] = [one for one in about["enum"] if one is not None]
    if about.get("default", "") is None:
        del about["default"]
    return about


def _headers(route: Route) -> Iterable[dict[str, Any]]:
    if route.streams and route.method == "GET":
        yield {
            "name": "Last-Event-ID",
            "in": "header",
            "description": "for a stream: go on after the event with this `id`",
            "schema": {"type": "integer", "minimum": 0},
        }


def _responses(route: Route, known: Known) -> dict[str, Any]:
    content: dict[str, Any] = {}
    anyhow = {} if route.media == "application/json" else {"type": "string"}
    content[route.media] = {"schema": anyhow if route.gives is None else _schema(route.gives, known)}
    if route.streams:
        content[_STREAM] = {"schema": {"type": "string", "description": "server-sent events"}}
    error = {"application/json": {"schema": known[id(_ERRORS[route.dialect])]}}
    told = {str(route.status): {"description": "done", "content": content}}
    if route.access != "open":
        told["401"] = {"description": "no API key came, or none that holds", "content": error}
        told["403"] = {"description": "the API key may not do this", "content": error}
    told["4XX"] = {"description": "the request can't be met as it is; the message says why", "content": error}
    told["5XX"] = {"description": "not now; the message says what to do", "content": error}
    return told
