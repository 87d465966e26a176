"""`/v1/models`: the models a chat may ask for, in OpenAI's shapes."""

import asyncio

from msgspec import Struct
from trunkline_actors.keys import may_use
from trunkline_events.log import LogError
from trunkline_events.registry import Model

from trunkline import errors
from trunkline.gateway.edge import Edge, Principal
from trunkline.gateway.http import HttpRequest
from trunkline.gateway.routes import Route


class ModelObject(Struct, frozen=True, kw_only=True):
    """A model as OpenAI's clients know it. `created` is the Unix time at which it came to be as it is."""

    id: str
    object: str = "model"
    created: int = 0
    owned_by: str


class ModelList(Struct, frozen=True, kw_only=True):
    """All of them."""

    object: str = "list"
    data: list[ModelObject]


async def listed(edge: Edge, request: HttpRequest, who: Principal) -> None:
    """Every enabled model that the key may use."""
    models = edge.state.registry.models
    found = await asyncio.gather(*(_object(edge, models[name]) for name in sorted(models) if _seen(models[name], who)))
    await request.json(ModelList(data=list(found)))


async def one(edge: Edge, request: HttpRequest, who: Principal) -> None:
    """One model by its id."""
    name = request.params["id"]
    model = edge.state.registry.models.get(name)
    if model is None or not _seen(model, who):
        raise errors.ModelNotFound(
            f"the model {name!r} does not exist or is not enabled; GET /v1/models lists those that are",
            code="model_not_found",
            status=404,
            param="model",
        )
    await request.json(await _object(edge, model))


def _seen(model: Model, who: Principal) -> bool:
    return model.status == "enabled" and may_use(who.models, model.id)


async def _object(edge: Edge, model: Model) -> ModelObject:
    sequence = edge.state.registry.model_seq.get(model.id, 0)
    created = edge.known_times.get(sequence)
    if created is None:
        try:
            event = await edge.runtime.log.get(sequence)
            created = int(event.time) if event else 0
        except LogError:
            return ModelObject(id=model.id, owned_by=model.provider)
        edge.known_times[sequence] = created
    return ModelObject(id=model.id, created=created, owned_by=model.provider)


ROUTES = [
    Route(
        method="GET",
        path="/v1/models",
        handler=listed,
        access="chat",
        summary="List the models that are enabled",
        tag="OpenAI",
        gives=ModelList,
    ),
    Route(
        method="GET",
        path="/v1/models/{id}",
        handler=one,
        access="chat",
        summary="One model; its id may hold slashes, encoded or not",
        tag="OpenAI",
        gives=ModelObject,
        rest=True,
    ),
]
