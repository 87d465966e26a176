"""What Anthropic's own client for Python makes of the edge. Base URL and key are its environment's."""

from typing import Any, Literal

import anthropic
from anthropic import Anthropic, beta_tool
from pydantic import BaseModel
from told import tell

ASKED: Any = {"max_tokens": 500, "messages": [{"role": "user", "content": "hi"}]}
WEATHER: Any = {
    "name": "get_weather",
    "description": "The weather in a city",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}


class Fact(BaseModel):
    """What a model is to answer."""

    name: Literal["ada", "bob"]
    old: bool


def text_of(message: Any) -> str:
    """The text of all blocks."""
    return "".join(block.text for block in message.content if block.type == "text")


def plain(model: str) -> Any:
    """One answer."""
    message = Anthropic().messages.create(model=model, **ASKED)
    return {
        "text": text_of(message),
        "stop": message.stop_reason,
        "usage": message.usage.model_dump(),
        "request_id": message._request_id,
    }


def stream(model: str) -> Any:
    """The events of an answer, and what the client's own helper adds them up to."""
    client = Anthropic()
    events: list[Any] = list(client.messages.create(model=model, stream=True, **ASKED))
    with client.messages.stream(model=model, **ASKED) as helper:
        pieces = list(helper.text_stream)
        final = helper.get_final_message()
    return {
        "kinds": list(dict.fromkeys(event.type for event in events)),
        "text": "".join(event.delta.text for event in events if event.type == "content_block_delta"),
        "usage": next(event.usage.model_dump() for event in events if event.type == "message_delta"),
        "pieces": "".join(pieces),
        "final": text_of(final),
        "final_usage": final.usage.model_dump(),
    }


def tools(model: str) -> Any:
    """A call of a tool, plain and added up from a stream, and the answer to its result."""
    client = Anthropic()
    options: Any = {"model": model, "tools": [WEATHER], **ASKED}
    message: Any = client.messages.create(**options)
    with client.messages.stream(**options) as helper:
        streamed: Any = helper.get_final_message()
    called, added = (next(b for b in one.content if b.type == "tool_use") for one in (message, streamed))
    turns: Any = [
        *ASKED["messages"],
        {"role": "assistant", "content": message.content},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": called.id, "content": "sunny"}]},
    ]
    return {
        "called": [called.name, called.input],
        "streamed": [added.name, added.input],
        "stop": streamed.stop_reason,
        "text": text_of(client.messages.create(**{**options, "messages": turns})),
    }


def runs(model: str) -> Any:
    """The client's own loop: it calls the function by itself and asks again with what that returned."""
    cities: list[str] = []

    @beta_tool
    def get_weather(city: str) -> str:
        """The weather in a city."""
        cities.append(city)
        return "sunny"

    final = Anthropic().beta.messages.tool_runner(model=model, tools=[get_weather], **ASKED).until_done()
    return {"cities": cities, "text": text_of(final)}


def thinks(model: str) -> Any:
    """The kinds of blocks of an answer that was thought about."""
    asked: Any = {"max_tokens": 2000, "messages": [{"role": "user", "content": "think"}]}
    message = Anthropic().messages.create(model=model, thinking={"type": "enabled", "budget_tokens": 1024}, **asked)
    return [block.type for block in message.content]


def parse(model: str) -> Any:
    """An answer in the shape of a class."""
    parsed: Any = Anthropic().messages.parse(model=model, output_format=Fact, **ASKED).parsed_output
    return type(parsed).__name__


def error(model: str, body: str = "") -> Any:
    """The exception that a request ends in. `body` is what is wrong with it."""
    wrong: Any = {**ASKED, "messages": 3} if body else ASKED
    return _raised(lambda: Anthropic().messages.create(model=model, **wrong))


def broken(model: str) -> Any:
    """What came of a stream, and the exception that it ended in."""
    heard = ""

    def listen() -> None:
        nonlocal heard
        with Anthropic().messages.stream(model=model, **ASKED) as helper:
            for piece in helper.text_stream:
                heard += piece

    return {**_raised(listen), "heard": heard}


def retried(model: str) -> Any:
    """An answer, and how often the client had to ask again for it."""
    raw = Anthropic().messages.with_raw_response.create(model=model, **ASKED)
    return {"text": text_of(raw.parse()), "retries": raw.retries_taken}


def hurried(model: str) -> Any:
    """Ask until the key's limit is reached: what was asked before, and how often the client asked again."""
    client = Anthropic()
    for number in range(200):
        raw = client.messages.with_raw_response.create(model=model, **ASKED)
        if raw.retries_taken:
            return {"asked": number, "retries": raw.retries_taken, "text": text_of(raw.parse())}
    return {"asked": 200, "retries": 0}


def _raised(do: Any) -> dict[str, Any]:
    try:
        do()
    except anthropic.APIError as raised:
        body: Any = raised.body
        return {
            "raised": type(raised).__name__,
            "kind": body["error"]["type"] if isinstance(body, dict) and "error" in body else None,
            "message": raised.message,
            "request_id": getattr(raised, "request_id", None),
        }
    return {"raised": None}


tell(plain, stream, tools, runs, thinks, parse, error, broken, retried, hurried)
