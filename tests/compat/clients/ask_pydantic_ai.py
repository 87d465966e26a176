"""What agents of pydantic-ai make of the edge. Base URL and key are their environment's."""

import asyncio
from typing import Any, Literal

from pydantic import BaseModel
from pydantic_ai import Agent, NativeOutput
from pydantic_ai.exceptions import AgentRunError
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from told import tell


class Fact(BaseModel):
    """What a model is to answer."""

    name: Literal["ada", "bob"]
    old: bool


def plain(model: str) -> Any:
    """One answer, over Chat Completions and over Responses."""
    run = Agent(OpenAIChatModel(model)).run_sync("hi")
    other = Agent(OpenAIResponsesModel(model)).run_sync("hi")
    return {"text": run.output, "responses": other.output, "tokens": run.usage.output_tokens}


def stream(model: str) -> Any:
    """The pieces of an answer, and what was counted at its end."""

    async def listen() -> Any:
        async with Agent(OpenAIChatModel(model)).run_stream("hi") as run:
            pieces = [piece async for piece in run.stream_text(delta=True, debounce_by=None)]
        return {"pieces": pieces, "tokens": run.usage.output_tokens}

    return asyncio.run(listen())


def tools(model: str) -> Any:
    """An agent that calls a function by itself, and answers to what it returned."""
    cities: list[str] = []

    def get_weather(city: str) -> str:
        """The weather in a city."""
        cities.append(city)
        return "sunny"

    run = Agent(OpenAIChatModel(model), tools=[get_weather]).run_sync("hi")
    return {"cities": cities, "text": run.output, "requests": run.usage.requests}


def parse(model: str) -> Any:
    """An answer in the shape of a class: by the model's own schemas, and as the call of a tool that it must make."""
    kinds: Any = (NativeOutput(Fact), Fact)
    return [type(Agent(OpenAIChatModel(model), output_type=kind).run_sync("hi").output).__name__ for kind in kinds]


def thinks(model: str) -> Any:
    """The kinds of parts of an answer that was thought about, over Chat Completions and over Responses."""
    agents = (Agent(OpenAIChatModel(model)), Agent(OpenAIResponsesModel(model)))
    return [[part.part_kind for part in agent.run_sync("think").response.parts] for agent in agents]


def error(model: str) -> Any:
    """The exception that a run ends in."""
    return _raised(lambda: Agent(OpenAIChatModel(model)).run_sync("hi"))


def broken(model: str) -> Any:
    """What came of a stream, and the exception that it ended in."""
    heard = ""

    async def listen() -> None:
        nonlocal heard
        async with Agent(OpenAIChatModel(model)).run_stream("hi") as run:
            async for piece in run.stream_text(delta=True, debounce_by=None):
                heard += piece

    return {**_raised(lambda: asyncio.run(listen())), "heard": heard}


def _raised(do: Any) -> dict[str, Any]:
    try:
        do()
    except AgentRunError as raised:
        kinds = [kind.__name__ for kind in type(raised).__mro__]
        return {"raised": kinds, "status": getattr(raised, "status_code", None), "message": str(raised)}
    return {"raised": []}


tell(plain, stream, tools, parse, thinks, error, broken)
