"""Every path of the edge. Each module of handlers lists its own; this puts them together."""

from trunkline.gateway import (
    audit_api,
    chat,
    documents_api,
    events_api,
    health,
    messages,
    metrics_api,
    models,
    money_api,
    openai_shapes,
    plugins_api,
    registry_api,
    responses,
    routing_api,
)
from trunkline.gateway.routes import Route

OPENAI = [
    Route(
        method="POST",
        path="/v1/chat/completions",
        handler=chat.completions,
        access="chat",
        summary="Answer a chat, whole or as a stream",
        tag="OpenAI",
        takes=openai_shapes.ChatRequest,
        gives=openai_shapes.CHAT_COMPLETION,
        streams=True,
    ),
    Route(
        method="POST",
        path="/v1/embeddings",
        handler=chat.embeddings,
        access="chat",
        summary="Embed texts",
        tag="OpenAI",
        takes=openai_shapes.EmbeddingsRequest,
        gives=openai_shapes.EMBEDDINGS,
    ),
]

ROUTES = [*OPENAI, *messages.ROUTES, *responses.ROUTES, *models.ROUTES, *health.ROUTES, *metrics_api.ROUTES]
ROUTES += [*registry_api.ROUTES, *routing_api.ROUTES, *money_api.ROUTES]
ROUTES += [*events_api.ROUTES, *audit_api.ROUTES, *plugins_api.ROUTES, *documents_api.ROUTES]
