"""Every path of the edge. Each module of handlers lists its own; this puts them together."""

from trunkline.gateway import chat, health, models
from trunkline.gateway.routes import Route

OPENAI = [
    Route(
        method="POST",
        path="/v1/chat/completions",
        handler=chat.completions,
        access="chat",
        summary="Answer a chat, whole or as a stream",
        tag="OpenAI",
        streams=True,
    ),
    Route(
        method="POST",
        path="/v1/embeddings",
        handler=chat.embeddings,
        access="chat",
        summary="Embed texts",
        tag="OpenAI",
    ),
]

ROUTES = [*OPENAI, *models.ROUTES, *health.ROUTES]
