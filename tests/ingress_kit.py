"""Streams of chat chunks for the tests of other dialects: drawn at random, and the events they come to."""

import json
from typing import Any

import msgspec
from hypothesis import strategies as st
from msgspec import Struct

Event = dict[str, Any]


class Call(Struct, frozen=True):
    """A call of a tool, its arguments in pieces."""

    id: str
    name: str
    pieces: tuple[str, ...]

    @property
    def text(self) -> str:
        return "".join(self.pieces)


def _cut(text: str, places: list[int]) -> tuple[str, ...]:
    at = sorted({place % (len(text) + 1) for place in places})
    return tuple(text[a:b] for a, b in zip([0, *at], [*at, len(text)], strict=True))


_VALUES = st.recursive(
    st.text(max_size=5) | st.integers(-9, 9), lambda inner: st.lists(inner, max_size=3), max_leaves=5
)
_ARGUMENTS = st.dictionaries(st.text(max_size=4), _VALUES, max_size=3).map(json.dumps)

PIECES = st.lists(
    st.tuples(st.sampled_from(["content", "reasoning_content"]), st.text(min_size=1, max_size=6)), max_size=8
)
"""What is said and thought, in the order it comes."""

CALLS = st.lists(st.tuples(_ARGUMENTS, st.lists(st.integers(0, 60), max_size=4)), max_size=4).map(
    lambda drawn: [Call(f"call-{at}", f"tool{at}", _cut(text, places)) for at, (text, places) in enumerate(drawn)]
)
"""Calls of tools."""


def chunk(delta: dict[str, Any], finish: str | None = None) -> bytes:
    """One chunk of a stream."""
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return msgspec.json.encode({"id": "chatcmpl-1", "created": 5, "model": "m", "choices": [choice]})


def chunks_of(pieces: list[tuple[str, str]], calls: list[Call], data: st.DataObject) -> list[bytes]:
    """The chunks of an answer, the pieces of its texts and calls mixed as `data` draws; each keeps its own order."""
    sources: list[list[dict[str, Any]]] = [[{name: text} for name, text in pieces]]
    for at, call in enumerate(calls):
        first = {"index": at, "id": call.id, "function": {"name": call.name, "arguments": ""}}
        rest = [{"index": at, "function": {"arguments": piece}} for piece in call.pieces]
        sources.append([{"tool_calls": [one]} for one in (first, *rest)])
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}]
    while sources := [source for source in sources if source]:
        deltas.append(sources[data.draw(st.integers(0, len(sources) - 1))].pop(0))
    return [*(chunk(delta) for delta in deltas), chunk({}, "tool_calls" if calls else "stop")]


def events(out: bytes) -> list[Event]:
    """The events in these bytes; each says its type twice."""
    found = []
    for block in out.decode().split("\n\n"):
        if not block or block.startswith(":"):
            continue
        name, _, data = block.partition("\n")
        event = json.loads(data.removeprefix("data: "))
        assert name == f"event: {event['type']}"
        found.append(event)
    return found
