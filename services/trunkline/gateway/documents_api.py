"""The documents of the API over HTTP, made once for each set of routes."""

import asyncio
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import msgspec

from trunkline import __version__
from trunkline.gateway import asyncapi, openapi
from trunkline.gateway.access import Principal
from trunkline.gateway.http import HttpRequest
from trunkline.gateway.routes import Route, Routes

if TYPE_CHECKING:
    from trunkline.gateway.edge import Edge

YAML = "application/yaml"

_openapi: WeakKeyDictionary[Routes, bytes] = WeakKeyDictionary()
_asyncapi: WeakKeyDictionary[Routes, bytes] = WeakKeyDictionary()


async def openapi_json(edge: "Edge", request: HttpRequest, principal: Principal) -> None:
    """The OpenAPI document."""
    made = _openapi.get(edge.routes)
    if made is None:
        made = _openapi[edge.routes] = await asyncio.to_thread(_openapi_of, edge.routes)
    await request.reply(200, made)


async def asyncapi_yaml(edge: "Edge", request: HttpRequest, principal: Principal) -> None:
    """The AsyncAPI document."""
    made = _asyncapi.get(edge.routes)
    if made is None:
        made = _asyncapi[edge.routes] = await asyncio.to_thread(_asyncapi_now)
    await request.reply(200, made, kind=YAML)


# They take a tenth of a second: not in the way of what else this process does.
def _openapi_of(routes: Routes) -> bytes:
    return msgspec.json.encode(openapi.document(routes.all, __version__))


def _asyncapi_now() -> bytes:
    return msgspec.yaml.encode(asyncapi.document(__version__))


ROUTES = [
    Route(
        method="GET",
        path="/openapi.json",
        handler=openapi_json,
        access="open",
        summary="This document",
        tag="Operations",
        gives={"type": "object", "required": ["openapi", "info", "paths"]},
    ),
    Route(
        method="GET",
        path="/asyncapi.yaml",
        handler=asyncapi_yaml,
        access="open",
        summary="What is on the bus: commands, chats and events",
        tag="Operations",
        gives={"type": "object", "required": ["asyncapi", "info", "channels"]},
        media=YAML,
    ),
]
