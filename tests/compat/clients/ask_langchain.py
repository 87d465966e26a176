"""What LangChain's models make of the edge. Base URL and key are their environment's."""

from typing import Any, Literal

import openai
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from pydantic import BaseModel
from told import tell


class Fact(BaseModel):
    """What a model is to answer."""

    name: Literal["ada", "bob"]
    old: bool


def get_weather(city: str) -> str:
    """The weather in a city."""
    return f"sunny in {city}"


WEATHER = tool(get_weather)


def plain(model: str) -> Any:
    """One answer, over Chat Completions and over Responses."""
    answer = ChatOpenAI(model=model).invoke("hi")
    other = ChatOpenAI(model=model, use_responses_api=True).invoke("hi")
    return {"text": answer.content, "responses": other.text, "usage": answer.usage_metadata}


def stream(model: str) -> Any:
    """The chunks of an answer, added up as LangChain adds them, with the usage that comes last."""
    chunks = list(ChatOpenAI(model=model, stream_usage=True).stream("hi"))
    whole = chunks[0]
    for chunk in chunks[1:]:
        whole = whole + chunk
    return {"count": len(chunks), "text": whole.content, "usage": whole.usage_metadata}


def tools(model: str) -> Any:
    """A call of a tool, plain and added up from a stream, and the answer to what the tool returned."""
    bound = ChatOpenAI(model=model).bind_tools([WEATHER])
    asked = HumanMessage("hi")
    message = bound.invoke([asked])
    chunks = list(bound.stream([asked]))
    streamed = chunks[0]
    for chunk in chunks[1:]:
        streamed = streamed + chunk
    result: ToolMessage = WEATHER.invoke(message.tool_calls[0])
    return {
        "called": [[call["name"], call["args"]] for call in (*message.tool_calls, *streamed.tool_calls)],
        "result": result.content,
        "text": bound.invoke([asked, message, result]).content,
    }


def parse(model: str) -> Any:
    """An answer in the shape of a class: by a schema, and as the call of a tool that the model must make."""
    ways: Any = ("json_schema", "function_calling")
    llm = ChatOpenAI(model=model)
    return [type(llm.with_structured_output(Fact, method=way).invoke("hi")).__name__ for way in ways]


def error(model: str) -> Any:
    """The exception that a request ends in."""
    return _raised(lambda: ChatOpenAI(model=model).invoke("hi"))


def broken(model: str) -> Any:
    """What came of a stream, and the exception that it ended in."""
    heard = ""

    def listen() -> None:
        nonlocal heard
        for chunk in ChatOpenAI(model=model).stream("hi"):
            heard += str(chunk.content)

    return {**_raised(listen), "heard": heard}


def _raised(do: Any) -> dict[str, Any]:
    try:
        do()
    except openai.APIError as raised:
        return {"raised": [kind.__name__ for kind in type(raised).__mro__], "type": raised.type}
    return {"raised": []}


tell(plain, stream, tools, parse, error, broken)
