"""A client of the API that believes nothing: every answer must be as the OpenAPI document says, and no more."""

import json
from typing import Any
from urllib.parse import quote

import aiohttp
import jsonschema
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012
from trunkline.gateway import openapi
from trunkline.gateway.paths import ROUTES
from trunkline.gateway.routes import Routes

_ROUTES = Routes(ROUTES)
DOCUMENT = openapi.document(ROUTES, "0")


def closed(value: Any) -> Any:
    """A schema that allows no fields but those it names."""
    if isinstance(value, list):
        return [closed(one) for one in value]
    if not isinstance(value, dict):
        return value
    found = {name: closed(one) for name, one in value.items()}
    if isinstance(found.get("properties"), dict) and found.get("type") == "object":
        found.setdefault("additionalProperties", False)
    return found


_STRICT = Resource.from_contents(closed(DOCUMENT), default_specification=DRAFT202012)
_REGISTRY: Registry[Any] = Registry().with_resource("urn:api", _STRICT)


def problems(method: str, template: str, status: int, body: Any) -> list[str]:
    """What of an answer is not as documented."""
    operation = DOCUMENT["paths"][template][method.lower()]
    responses = operation["responses"]
    key = str(status) if str(status) in responses else f"{status // 100}XX"
    if key not in responses:
        return [f"status {status} is not documented"]
    pointer = "/".join(
        part.replace("~", "~0").replace("/", "~1")
        for part in ("paths", template, method.lower(), "responses", key, "content", "application/json", "schema")
    )
    schema = {"$ref": f"urn:api#/{quote(pointer, safe='/~{}')}"}
    validator = jsonschema.Draft202012Validator(schema, registry=_REGISTRY)
    return [f"{list(error.absolute_path)}: {error.message}" for error in validator.iter_errors(body)]


class Api:
    """One client. `asked` gathers the routes that were called with success: (method, path with its names)."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session
        self.asked: set[tuple[str, str]] = set()

    async def __call__(
        self, method: str, path: str, body: Any = None, *, status: int = 200, **query: str | int
    ) -> dict[str, Any]:
        """Send a request and read its JSON answer, which must have this status."""
        data = None if body is None else json.dumps(body)
        async with self._session.request(
            method, path, data=data, params={name: str(value) for name, value in query.items()}
        ) as answer:
            text = await answer.text()
            assert answer.status == status, text
            read: dict[str, Any] = json.loads(text)
            found, _ = _ROUTES.find(answer.url.raw_path)
            assert found, f"{path} leads nowhere"
            template = found[method].path
            assert problems(method, template, status, read) == []
            if status < 300:
                self.asked.add((method, template))
            return read
