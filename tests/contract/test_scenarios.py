"""What every kind of provider carries, over each of its transports: requests up, answers down, in its own wire format.

How a kind's server is played: tests/wires. How it fails: test_scenario_faults.py. How its bytes come: test_framings.py.
"""

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from scenario_kit import (
    CASES,
    NETWORKED,
    WIRES,
    Case,
    able,
    ask,
    call,
    each,
    every_case,
    expected_usage,
    reply,
    same_answer,
    sent,
    streamed,
    unable,
)
from trunkline_actors.adapters.kinds import Ability
from trunkline_events.failure import Failure, FailureClass, UpstreamError
from trunkline_events.usage import Usage
from wires import Called, Image, Said, Seen, Tool, Turn

WEATHER = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOLS = [{"type": "function", "function": {"name": "weather", "description": "Ask the sky.", "parameters": WEATHER}}]
OSLO = Called("call_1", "weather", ('{"ci', 'ty": "Os', 'lo"}'))
ROME = Called("call_2", "weather", ('{"city": "Rome"}',))
PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
URL = "https://example.com/cat.png"
both = pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])

SAID: dict[str, tuple[Said, set[Ability]]] = {
    "text": (Said(text=("Hello", " from", " afar.")), set()),
    "no usage": (Said(text=("Hello",), usage=None), set()),
    "thinking": (Said(thinking=("Let me", " see."), text=("It is", " 4.")), {"thinking"}),
    "thinking and a tool": (Said(thinking=("Hm.",), calls=(OSLO,), finish="tool_calls"), {"thinking", "tools"}),
    "a tool": (Said(calls=(OSLO,), finish="tool_calls"), {"tools"}),
    "a tool without arguments": (Said(calls=(Called("call_1", "now", ("{}",)),), finish="tool_calls"), {"tools"}),
    "text and parallel tools": (Said(text=("I look.",), calls=(OSLO, ROME), finish="tool_calls"), {"tools"}),
    "cached and reasoning tokens": (
        Said(text=("4",), usage=Usage(input_tokens=90, cached_input_tokens=64, output_tokens=40, reasoning_tokens=30)),
        set(),
    ),
    "the limit": (Said(text=("Hello", " fro"), finish="length"), set()),
    "the content filter": (Said(text=("Hel",), finish="content_filter"), set()),
    "unicode": (Said(text=("Grüße, ", "世界 🌍", " e\u0301 👩‍👩‍👧 \u2028 \x85 \u0000", "\r\n\tend")), set()),
    "a megabyte": (Said(text=("é" * 500_000,)), set()),
    "many pieces": (Said(text=tuple(f"{n} " for n in range(500))), set()),
}


def _says(said: Said, needed: set[Ability]) -> Callable[[Case], bool]:
    return lambda case: case.abilities.issuperset(needed) and said.finish in case.wire.finishes


def test_every_kind_that_calls_a_server_has_its_wire_here() -> None:
    assert set(NETWORKED) <= set(WIRES)
    assert {case.wire.kind for case in CASES} == set(NETWORKED)


def test_the_table_of_the_documentation_says_what_each_kind_can_do() -> None:
    page = (Path(__file__).parents[2] / "docs/providers.md").read_text(encoding="utf-8")
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in page.split("\n\n")[2].splitlines()[2:]]
    shown: list[Ability] = ["tools", "vision", "image_urls", "json_schema", "thinking", "embeddings", "management"]
    yes = {True: "yes", False: "–"}
    assert {row[0].strip("`"): row[1:] for row in rows} == {
        case.wire.kind: [yes[ability in case.abilities] for ability in shown]
        + [yes[count in case.wire.counts] for count in ("cached", "reasoning")]
        + ["upstream's" if case.wire.call_ids else "ours"]
        for case in CASES
    }


@both
@each("name", {name: _says(*row) for name, row in SAID.items()})
async def test_what_the_upstream_says_is_what_the_caller_hears(case: Case, name: str, stream: bool) -> None:
    said = SAID[name][0]
    async with case.calling(reply(case.wire, said, stream=stream)) as (adapter, upstream):
        heard = await ask(adapter, call(tools=TOOLS) if said.calls else call(), stream=stream)
    same_answer(case.wire, said, heard)
    (request,) = upstream.requests
    assert case.wire.seen(request).stream is stream


@every_case
async def test_the_usage_chunk_comes_last_and_only_to_who_asked(case: Case) -> None:
    said = SAID["cached and reasoning tokens"][0]
    async with case.calling(reply(case.wire, said, stream=True)) as (adapter, _):
        silent = await streamed(adapter, call())
        *chunks, last = (await streamed(adapter, call(include_usage=True))).chunks
    assert all(chunk["choices"] for chunk in [*silent.chunks, *chunks])
    usage, known = last["usage"], expected_usage(case.wire, said)
    assert known is not None
    assert last["choices"] == []
    assert (usage["prompt_tokens"], usage["completion_tokens"], usage["total_tokens"]) == (90, 40, 130)
    cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens", usage.get("prompt_cache_hit_tokens"))
    assert (cached or 0) == known.cached_input_tokens


# -- what is sent: fields of the caller's request, what the server is to understand, and what the kind needs for it

USER = {"role": "user", "content": "hi"}
HI = Turn(role="user", text="hi")
CALLED = [
    {"id": c.id, "type": "function", "function": {"name": c.name, "arguments": "".join(c.arguments)}}
    for c in (OSLO, ROME)
]
ASKED: dict[str, tuple[dict[str, Any], dict[str, Any], set[Ability]]] = {
    "a question": ({"messages": [USER]}, {"turns": (HI,)}, set()),
    "a system prompt": (
        {"messages": [{"role": "system", "content": "Be brief."}, USER]},
        {"system": "Be brief.", "turns": (HI,)},
        set(),
    ),
    "several turns": (
        {"messages": [USER, {"role": "assistant", "content": "Hello 🌍"}, {"role": "user", "content": "and?"}]},
        {"turns": (HI, Turn(role="assistant", text="Hello 🌍"), Turn(role="user", text="and?"))},
        set(),
    ),
    "text in parts": (
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "h"}, {"type": "text", "text": "i"}]}]},
        {"turns": (HI,)},
        set(),
    ),
    "parameters": (
        {"temperature": 0.5, "stop": ["END", "STOP"], "max_tokens": 9},
        {"turns": (HI,), "temperature": 0.5, "stop": ("END", "STOP"), "max_tokens": 64},
        set(),
    ),
    "one stop": ({"stop": "END"}, {"turns": (HI,), "stop": ("END",)}, set()),
    "tools": (
        {"tools": TOOLS, "tool_choice": "auto"},
        {"turns": (HI,), "tools": (Tool("weather", "Ask the sky.", WEATHER),)},
        {"tools"},
    ),
    "results of parallel tools": (
        {
            "tools": TOOLS,
            "messages": [
                USER,
                {"role": "assistant", "content": None, "tool_calls": CALLED},
                {"role": "tool", "tool_call_id": "call_1", "content": "rain"},
                {"role": "tool", "tool_call_id": "call_2", "content": '{"sun": true}'},
            ],
        },
        {
            "turns": (
                HI,
                Turn(role="assistant", calls=(OSLO, ROME)),
                Turn(role="tool", call_id="call_1", name="weather", text="rain"),
                Turn(role="tool", call_id="call_2", name="weather", text='{"sun": true}'),
            ),
            "tools": (Tool("weather", "Ask the sky.", WEATHER),),
        },
        {"tools"},
    ),
    "an image as bytes": (
        {
            "messages": [
                {
                    "role": "user",
                    "content": [
                        {"type": "text", "text": "what?"},
                        {
                            "type": "image_url",
                            "image_url": {"url": f"data:image/png;base64,{base64.b64encode(PNG).decode()}"},
                        },
                    ],
                }
            ]
        },
        {"turns": (Turn(role="user", text="what?", images=(Image(data=PNG, type="image/png"),)),)},
        {"vision"},
    ),
    "an image by its address": (
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": URL}}]}]},
        {"turns": (Turn(role="user", images=(Image(url=URL),)),)},
        {"vision", "image_urls"},
    ),
    "a JSON schema": (
        {"response_format": {"type": "json_schema", "json_schema": {"name": "w", "schema": WEATHER}}},
        {"turns": (HI,), "schema": WEATHER},
        {"json_schema"},
    ),
    "our own fields": (
        {"route": {"attempts": 1}, "metadata": {"thread_id": "t"}, "stream": True},
        {"turns": (HI,)},
        set(),
    ),
}
REFUSED: dict[str, Ability] = {
    "tools": "tools",
    "an image as bytes": "vision",
    "an image by its address": "image_urls",
    "a JSON schema": "json_schema",
}
FIELDS = {"tools": "tools", "vision": "image", "image_urls": "image_url", "json_schema": "response_format"}
LIMIT = 64
"""What the router allows; it replaces the caller's limit."""


def _carries(needed: set[Ability]) -> Callable[[Case], bool]:
    return lambda case: case.abilities.issuperset(needed)


def _lacks(ability: Ability) -> Callable[[Case], bool]:
    return lambda case: ability not in case.abilities


@both
@each("name", {name: _carries(row[2]) for name, row in ASKED.items()})
async def test_the_server_understands_what_the_caller_asked(case: Case, name: str, stream: bool) -> None:
    fields, understood, _ = ASKED[name]
    seen = await sent(case, call(limit=LIMIT, **fields), stream=stream)
    assert isinstance(seen, Seen), seen
    wanted = Seen(**{"model": "theirs", "stream": stream, "max_tokens": LIMIT, **understood})
    for name in Seen.__struct_fields__:
        if name != "turns":
            assert getattr(seen, name) == getattr(wanted, name)
    assert [_comparable(turn, case) for turn in seen.turns] == [_comparable(turn, case) for turn in wanted.turns]


def _comparable(turn: Turn, case: Case) -> tuple[object, ...]:
    calls = [(c.id if case.wire.call_ids else "", c.name, json.loads("".join(c.arguments))) for c in turn.calls]
    images = [image if image.type else Image(image.data, image.url) for image in turn.images]
    # The call that a result belongs to is told by its id, its name or both, as the wire has it.
    belongs = turn.call_id if case.wire.call_ids else turn.name
    return turn.role, turn.text, [(i.data, i.url) for i in images], calls, belongs if turn.role == "tool" else None


@each("name", {name: _lacks(ability) for name, ability in REFUSED.items()})
async def test_what_a_kind_cannot_carry_is_refused_by_name_and_never_sent(case: Case, name: str) -> None:
    for stream in (False, True):
        refused = await sent(case, call(**ASKED[name][0]), stream=stream)
        assert isinstance(refused, Failure)
        assert refused.kind is FailureClass.INVALID_REQUEST
        assert FIELDS[REFUSED[name]] in refused.message


@pytest.mark.parametrize("form", ["{}", "file://{}", "file:{}"])
@every_case
async def test_a_file_of_this_machine_is_never_read_for_an_image(case: Case, form: str, tmp_path: Path) -> None:
    private = tmp_path / "private.png"
    private.write_bytes(PNG)
    image = {"type": "image_url", "image_url": {"url": form.format(private)}}
    request = call(messages=[{"role": "user", "content": [image]}])
    async with case.calling(reply(case.wire, Said(text=("ok",)), stream=False)) as (adapter, upstream):
        await ask(adapter, request, stream=False)
    for request_sent in upstream.requests:
        assert base64.b64encode(PNG)[:40] not in request_sent.body


# -- embeddings and checks


@pytest.mark.parametrize("inputs", ["one", ["one", "två 🌍"]])
@able("embeddings")
async def test_embeddings_are_as_many_as_inputs_in_their_order(case: Case, inputs: str | list[str]) -> None:
    texts = (inputs,) if isinstance(inputs, str) else tuple(inputs)
    vectors = [[float(at), 0.25, -1.5] for at, _ in enumerate(texts)]
    async with case.calling(case.wire.embeddings(vectors, input_tokens=7)) as (adapter, upstream):
        got = await adapter.embed(call(input=inputs))
    understood = case.wire.seen_embedding(upstream.requests[0])
    body = json.loads(got.body)
    assert (understood.model, understood.inputs) == ("theirs", texts)
    assert body["object"] == "list"
    assert [(item["index"], item["embedding"]) for item in body["data"]] == list(enumerate(vectors))
    assert got.usage is None or got.usage == Usage(input_tokens=7)


@unable("embeddings")
async def test_embeddings_are_refused_where_a_kind_has_none(case: Case) -> None:
    async with case.calling(reply(case.wire, Said(text=("ok",)), stream=False)) as (adapter, upstream):
        with pytest.raises(UpstreamError) as caught:
            await adapter.embed(call(input="x"))
    assert caught.value.failure.kind is FailureClass.INVALID_REQUEST
    assert "embeddings" in caught.value.failure.message
    assert not upstream.requests


@every_case
async def test_a_check_spends_nothing_and_passes_where_the_upstream_is_there(case: Case) -> None:
    async with case.calling(case.wire.checked()) as (adapter, upstream):
        await adapter.check()
    assert {request.method for request in upstream.requests} == {"GET"}
