"""`/v1/responses`: OpenAI's Responses API, for its clients. Nothing is kept: every request brings all of its input."""

from trunkline.gateway import chat
from trunkline.gateway.edge import Edge, Principal
from trunkline.gateway.http import HttpRequest
from trunkline.gateway.reading import target_of
from trunkline.gateway.responses_answer import Responses
from trunkline.gateway.responses_request import chat_request, read_responses
from trunkline.gateway.routes import Route


async def responses(edge: Edge, request: HttpRequest, who: Principal) -> None:
    """One response, plain or streamed."""
    asked = read_responses(await request.body())
    body = chat_request(asked, target_of(edge.state.registry, asked.model))
    await chat.answer(edge, request, who, body, Responses(asked))


_TAKES = {
    "description": "A request of OpenAI's Responses API",
    "type": "object",
    "required": ["model", "input"],
    "properties": {
        "model": {"type": "string"},
        "input": {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "object"}}]},
        "stream": {"type": ["boolean", "null"]},
    },
}
_GIVES = {
    "description": "A response of OpenAI's Responses API",
    "type": "object",
    "required": ["id", "object", "status", "model", "output", "usage"],
}

ROUTES = [
    Route(
        method="POST",
        path="/v1/responses",
        handler=responses,
        access="chat",
        summary="Answer a chat in the dialect of OpenAI's Responses, whole or as a stream",
        tag="OpenAI",
        takes=_TAKES,
        gives=_GIVES,
        streams=True,
    ),
]
