"""`/v1/messages`: Anthropic's Messages API, for its clients."""

from trunkline.errors import NotFound
from trunkline.gateway import chat
from trunkline.gateway.edge import Edge, Principal
from trunkline.gateway.http import HttpRequest
from trunkline.gateway.messages_answer import Messages
from trunkline.gateway.messages_request import chat_request, read_messages
from trunkline.gateway.reading import target_of
from trunkline.gateway.routes import Route


async def messages(edge: Edge, request: HttpRequest, who: Principal) -> None:
    """One message, plain or streamed."""
    asked = read_messages(await request.body())
    body = chat_request(asked, target_of(edge.state.registry, asked.model))
    await chat.answer(edge, request, who, body, Messages())


async def count_tokens(_edge: Edge, _request: HttpRequest, _who: Principal) -> None:
    """Refused: every provider counts in its own way."""
    raise NotFound(
        "tokens aren't counted here before they are used; read `usage` of an answer", code="not_found", status=404
    )


_TAKES = {
    "description": "A request of Anthropic's Messages API, version 2023-06-01",
    "type": "object",
    "required": ["model", "max_tokens", "messages"],
    "properties": {
        "model": {"type": "string"},
        "max_tokens": {"type": "integer"},
        "messages": {"type": "array", "items": {"type": "object"}},
        "stream": {"type": ["boolean", "null"]},
    },
}
_GIVES = {
    "description": "A message of Anthropic's Messages API",
    "type": "object",
    "required": ["id", "type", "role", "content", "model", "stop_reason", "usage"],
}

ROUTES = [
    Route(
        method="POST",
        path="/v1/messages",
        handler=messages,
        access="chat",
        summary="Answer a chat in Anthropic's dialect, whole or as a stream",
        tag="Anthropic",
        takes=_TAKES,
        gives=_GIVES,
        streams=True,
        dialect="anthropic",
    ),
    Route(
        method="POST",
        path="/v1/messages/count_tokens",
        handler=count_tokens,
        access="chat",
        summary="Refused: tokens aren't counted beforehand",
        tag="Anthropic",
        dialect="anthropic",
    ),
]
