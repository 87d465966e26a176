"""What OpenAI's own client for Python makes of the edge. Base URL and key are its environment's."""

from typing import Any, Literal

import openai
from openai import OpenAI
from pydantic import BaseModel
from told import tell

HELLO: Any = [{"role": "user", "content": "hi"}]
WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather in a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


class Fact(BaseModel):
    """What a model is to answer."""

    name: Literal["ada", "bob"]
    old: bool


def plain(model: str) -> Any:
    """One answer, and who answers."""
    client = OpenAI()
    whole = client.chat.completions.create(model=model, messages=HELLO)
    return {
        "text": whole.choices[0].message.content,
        "finish": whole.choices[0].finish_reason,
        "usage": whole.usage and whole.usage.model_dump(),
        "request_id": whole._request_id,
        "models": [one.id for one in client.models.list()],
        "model": client.models.retrieve(model).id,
    }


def stream(model: str) -> Any:
    """All chunks of an answer, and what the client's own helper adds them up to."""
    client = OpenAI()
    options: Any = {"model": model, "messages": HELLO, "stream_options": {"include_usage": True}}
    chunks = list(client.chat.completions.create(stream=True, **options))
    with client.chat.completions.stream(**options) as helper:
        final = helper.get_final_completion()
    usage = chunks[-1].usage
    return {
        "text": "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices),
        "usage": usage and usage.model_dump(),
        "final": final.choices[0].message.content,
        "final_usage": final.usage and final.usage.model_dump(),
    }


def tools(model: str) -> Any:
    """A call of a tool, plain and added up from a stream, and the answer to what the tool said."""
    client = OpenAI()
    options: Any = {"model": model, "tools": [WEATHER]}
    message = client.chat.completions.create(messages=HELLO, **options).choices[0].message
    with client.chat.completions.stream(messages=HELLO, **options) as helper:
        streamed = helper.get_final_completion().choices[0]
    calls: Any = message.tool_calls
    answered: Any = [*HELLO, message, {"role": "tool", "tool_call_id": calls[0].id, "content": "sunny"}]
    added: Any = streamed.message.tool_calls
    return {
        "called": [calls[0].function.name, calls[0].function.arguments],
        "streamed": [added[0].function.name, added[0].function.arguments],
        "finish": streamed.finish_reason,
        "text": client.chat.completions.create(messages=answered, **options).choices[0].message.content,
    }


def parse(model: str) -> Any:
    """An answer in the shape of a class, plain and streamed."""
    client = OpenAI()
    parsed = client.chat.completions.parse(model=model, messages=HELLO, response_format=Fact).choices[0].message.parsed
    with client.chat.completions.stream(model=model, messages=HELLO, response_format=Fact) as helper:
        streamed = helper.get_final_completion().choices[0].message.parsed
    return [one and type(one).__name__ for one in (parsed, streamed)]


def error(model: str, body: str = "") -> Any:
    """The exception that a request ends in. `body` is what is wrong with it."""
    wrong: Any = {"messages": 3} if body else {"messages": HELLO}
    return _raised(lambda: OpenAI().chat.completions.create(model=model, **wrong))


def broken(model: str) -> Any:
    """What came of a stream, and the exception that it ended in."""
    heard = ""

    def listen() -> None:
        nonlocal heard
        for chunk in OpenAI().chat.completions.create(model=model, messages=HELLO, stream=True):
            heard += chunk.choices[0].delta.content or ""

    return {**_raised(listen), "heard": heard}


def retried(model: str) -> Any:
    """An answer, and how often the client had to ask again for it."""
    raw = OpenAI().chat.completions.with_raw_response.create(model=model, messages=HELLO)
    return {"text": raw.parse().choices[0].message.content, "retries": raw.retries_taken}


def hurried(model: str) -> Any:
    """Ask until the key's limit is reached: what was asked before, and how often the client asked again."""
    client = OpenAI()
    for number in range(200):
        raw = client.chat.completions.with_raw_response.create(model=model, messages=HELLO)
        if raw.retries_taken:
            return {"asked": number, "retries": raw.retries_taken, "text": raw.parse().choices[0].message.content}
    return {"asked": 200, "retries": 0}


def embeddings(model: str) -> Any:
    """The lengths of two vectors, which this client asks for in base64 by itself."""
    made = OpenAI().embeddings.create(model=model, input=["one", "two"], dimensions=5)
    return {"lengths": [len(one.embedding) for one in made.data], "tokens": made.usage.total_tokens}


def responses(model: str) -> Any:
    """The Responses API: plain, streamed, a tool and its result, a class, an error."""
    client = OpenAI()
    options: Any = {"model": model, "input": "hi", "store": False}
    tool: Any = {"type": "function", "strict": False, **WEATHER["function"]}
    whole = client.responses.create(**options)
    events = list(client.responses.create(stream=True, **options))
    ended: Any = events[-1]
    called: Any = next(
        item for item in client.responses.create(tools=[tool], **options).output if item.type == "function_call"
    )
    result = {"type": "function_call_output", "call_id": called.call_id, "output": "sunny"}
    turns: Any = [{"role": "user", "content": "hi"}, called, result]
    return {
        "text": whole.output_text,
        "usage": whole.usage and whole.usage.model_dump(),
        "streamed": "".join(event.delta for event in events if event.type == "response.output_text.delta"),
        "last": ended.type,
        "streamed_usage": ended.response.usage.model_dump(),
        "called": [called.name, called.arguments],
        "answered": client.responses.create(**{**options, "input": turns, "tools": [tool]}).output_text,
        "parsed": [
            type(one.output_parsed).__name__
            for one in (client.responses.parse(text_format=Fact, **options), _helped(client, **options))
        ],
        "error": _raised(lambda: client.responses.create(model="none", input="hi")),
    }


def _helped(client: OpenAI, **options: Any) -> Any:
    with client.responses.stream(text_format=Fact, **options) as helper:
        return helper.get_final_response()


def broken_responses(model: str) -> Any:
    """The exception that a stream of the Responses API ends in."""
    return _raised(lambda: list(OpenAI().responses.create(model=model, input="hi", stream=True)))


def _raised(do: Any) -> dict[str, Any]:
    try:
        do()
    except openai.APIError as raised:
        told = {"raised": type(raised).__name__, "code": raised.code, "type": raised.type, "message": raised.message}
        return told | {"request_id": getattr(raised, "request_id", None)}
    return {"raised": None}


tell(plain, stream, tools, parse, error, broken, retried, hurried, embeddings, responses, broken_responses)
