"""How the scenarios of tests/wires are played: each kind of provider, over each of its transports, against a server
that speaks its wire format. What came back is read as an OpenAI client reads it, by OpenAI's own models.
"""

import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Literal

import pytest
from msgspec import Struct
from trunkline_actors.adapters import Adapter, Answer, Call, Chunk, End
from trunkline_actors.adapters.factory import build, kind_of, kinds
from trunkline_actors.adapters.kinds import Ability, Settings
from trunkline_events.failure import Failure, FailureClass, UpstreamError
from trunkline_events.usage import Usage
from upstream import Handler, Reply, Upstream
from wires import Called, Said, Seen, Wire, wires

CANARY = "canary-Zq7-secret"
WIRES = wires()
NETWORKED = tuple(kind for kind in kinds() if kind_of(kind).networked)


class Case(Struct, frozen=True):
    """A kind over one of its transports."""

    wire: Wire
    transport: Literal["raw", "sdk"]
    abilities: frozenset[Ability]

    def __str__(self) -> str:
        return f"{self.wire.kind}-{self.transport}"

    def adapter(self, url: str, **settings: Any) -> Adapter:
        """`url` as Upstream has it, with /v1."""
        known: dict[str, Any] = {
            "provider": "p",
            "key": CANARY,
            "local": True,
            "transport": self.transport,
            "timeout_s": 10.0,
        }
        known["base_url"] = self.wire.base_url(url.removesuffix("/v1"))
        return build(self.wire.kind, Settings(**(known | settings)))

    @asynccontextmanager
    async def calling(
        self, *replies: Reply, handler: Handler | None = None, **settings: Any
    ) -> AsyncIterator[tuple[Adapter, Upstream]]:
        """An adapter and the server it calls, which answers with each of `replies`, the last for ever."""
        async with Upstream(*replies, handler=handler).serving() as upstream:
            adapter = self.adapter(upstream.url, **settings)
            try:
                yield adapter, upstream
            finally:
                await adapter.close()


CASES = [
    Case(WIRES[kind], transport, kind_of(kind).abilities)
    for kind in NETWORKED
    if kind in WIRES
    for transport in WIRES[kind].transports
]
every_case = pytest.mark.parametrize("case", CASES, ids=str)


def able(*abilities: Ability) -> pytest.MarkDecorator:
    """Each case that has all these abilities."""
    return pytest.mark.parametrize("case", [case for case in CASES if case.abilities.issuperset(abilities)], ids=str)


def unable(ability: Ability) -> pytest.MarkDecorator:
    """Each case without this ability: what it must do instead has a test of its own."""
    return pytest.mark.parametrize("case", [case for case in CASES if ability not in case.abilities], ids=str)


def each(name: str, table: Mapping[str, Callable[[Case], bool]]) -> pytest.MarkDecorator:
    """Each case with each key of `table` that may be asked of it."""
    rows = [pytest.param(case, key, id=f"{case}-{key}") for key, fits in table.items() for case in CASES if fits(case)]
    return pytest.mark.parametrize(("case", name), rows)


class Heard(Struct, kw_only=True):
    """One answer as a client has it in the end, whole or streamed. `end` is a Failure where it broke off."""

    text: str
    thinking: str
    calls: tuple[Called, ...]
    end: Answer | End | Failure
    usage: Usage | None = None
    size: int = 0
    """The bytes of text that the chunks of a stream say they hold."""
    chunks: list[dict[str, Any]] = []

    @property
    def finish(self) -> str:
        assert not isinstance(self.end, Failure), self.end
        return self.end.finish

    @property
    def failure(self) -> FailureClass:
        assert isinstance(self.end, Failure), "no failure"
        return self.end.kind


def call(*, timeout: float = 10, include_usage: bool = False, limit: int | None = None, **fields: object) -> Call:
    """A request: for embeddings with an `input`, else a chat, whose `messages` are one "hi" where none are given."""
    messages = {} if "input" in fields else {"messages": [{"role": "user", "content": "hi"}]}
    body = {"model": "ours", **messages, **fields}
    return Call(
        body=json.dumps(body).encode(),
        model="theirs",
        max_tokens=limit,
        timeout=timeout,
        include_usage=include_usage,
    )


async def whole(adapter: Adapter, request: Call) -> Heard:
    """Ask for the whole answer, and hold it to OpenAI's own model of one."""
    from openai.types.chat import ChatCompletion

    try:
        answer = await adapter.complete(request)
    except UpstreamError as error:
        return Heard(text="", thinking="", calls=(), end=error.failure)
    body = json.loads(answer.body)
    # Clients take any tier; their models list those of OpenAI.
    ChatCompletion.model_validate({**body, "service_tier": None}, strict=False)
    (choice,) = body["choices"]
    message = choice["message"]
    assert choice["finish_reason"] == answer.finish
    calls = [
        Called(c["id"], c["function"]["name"], (c["function"]["arguments"],)) for c in message.get("tool_calls") or ()
    ]
    return Heard(
        text=message.get("content") or "",
        thinking=message.get("reasoning_content") or "",
        calls=tuple(calls),
        end=answer,
        usage=answer.usage,
    )


async def streamed(adapter: Adapter, request: Call) -> Heard:
    """Ask for a stream and put it together as clients do; each chunk is held to OpenAI's own model of one."""
    from openai.types.chat import ChatCompletionChunk

    end: End | Failure | None = None
    chunks, size = [], 0
    try:
        async for item in adapter.stream(request):
            assert end is None, "something came after the end"
            if isinstance(item, End):
                end = item
            else:
                assert isinstance(item, Chunk)
                chunks.append(json.loads(item.data))
                size += item.text_bytes
    except UpstreamError as error:
        end = error.failure
    assert end is not None, "a stream without an end"
    text, thinking, calls, finish = "", "", dict[int, list[str]](), None
    for chunk in chunks:
        ChatCompletionChunk.model_validate({**chunk, "service_tier": None}, strict=False)
        for choice in chunk["choices"]:
            delta = choice["delta"]
            text += delta.get("content") or ""
            thinking += delta.get("reasoning_content") or ""
            finish = choice.get("finish_reason") or finish
            for part in delta.get("tool_calls") or ():
                _add(calls, part)
    assert isinstance(end, Failure) or finish is None or end.finish == finish
    made = tuple(Called(call_id, name, (arguments,)) for _, (call_id, name, arguments) in sorted(calls.items()))
    usage = None if isinstance(end, Failure) else end.usage
    return Heard(text=text, thinking=thinking, calls=made, end=end, usage=usage, size=size, chunks=chunks)


def _add(calls: dict[int, list[str]], part: Mapping[str, Any]) -> None:
    function = part.get("function") or {}
    if part["index"] not in calls:
        calls[part["index"]] = [part["id"], function["name"], function.get("arguments") or ""]
    else:
        assert part.get("id") in {None, calls[part["index"]][0]}
        calls[part["index"]][2] += function.get("arguments") or ""


async def ask(adapter: Adapter, request: Call, *, stream: bool) -> Heard:
    return await (streamed(adapter, request) if stream else whole(adapter, request))


def reply(wire: Wire, said: Said, *, stream: bool) -> Reply:
    """The answer of the server, streamed or not."""
    return replay(wire, said) if stream else wire.whole(said)


def replay(wire: Wire, said: Said) -> Reply:
    told = wire.stream(said)
    return Reply(list(told.events), 200, {"content-type": told.content_type})


def expected_usage(wire: Wire, said: Said) -> Usage | None:
    """What can be known of the usage, by what the wire counts."""
    if said.usage is None:
        return None
    return Usage(
        input_tokens=said.usage.input_tokens,
        cached_input_tokens=said.usage.cached_input_tokens if "cached" in wire.counts else 0,
        output_tokens=said.usage.output_tokens,
        reasoning_tokens=said.usage.reasoning_tokens if "reasoning" in wire.counts else 0,
    )


def same_answer(wire: Wire, said: Said, heard: Heard) -> None:
    """Assert that what was heard is what was said, ids of calls included where the wire has them."""
    assert (heard.text, heard.thinking) == ("".join(said.text), "".join(said.thinking))
    assert [c.name for c in heard.calls] == [c.name for c in said.calls]
    assert [json.loads(c.arguments[0]) for c in heard.calls] == [json.loads("".join(c.arguments)) for c in said.calls]
    ids = [c.id for c in heard.calls]
    assert ids == [c.id for c in said.calls] if wire.call_ids else all(ids) and len(set(ids)) == len(ids)
    assert heard.finish == said.finish
    assert heard.usage == expected_usage(wire, said)
    if heard.chunks:
        assert heard.size >= len((heard.text + heard.thinking).encode())
        assert heard.size == len((heard.text + heard.thinking + "".join(c.arguments[0] for c in heard.calls)).encode())


async def sent(case: Case, request: Call, *, stream: bool = False) -> Seen | Failure:
    """What the server understood of a request, or why the adapter refused to send it."""
    async with case.calling(reply(case.wire, Said(text=("ok",)), stream=stream)) as (adapter, upstream):
        heard = await ask(adapter, request, stream=stream)
    if isinstance(heard.end, Failure):
        assert not upstream.requests, heard.end
        return heard.end
    (only,) = upstream.requests
    return case.wire.seen(only)
