"""However the bytes of a stream are framed, what is heard is the same; cut off, it is a failure and no answer."""

import json
from collections.abc import Callable

import pytest
from scenario_kit import Case, call, every_case, same_answer, streamed
from trunkline_events.failure import Failure
from trunkline_events.usage import Usage
from upstream import Reply
from wires import Called, Said, Stream

SAID = Said(
    thinking=("Hm: ", "Größe?"),
    text=("naïve ☃ ", "👩‍👩‍👧", " done"),
    calls=(Called("call_1", "weather", ('{"city": "Tromsø', ' 🌍"}')), Called("call_2", "now", ("{}",))),
    finish="tool_calls",
    usage=Usage(input_tokens=90, cached_input_tokens=64, output_tokens=40, reasoning_tokens=30),
)

pytestmark = pytest.mark.soak


def said_by(case: Case) -> Said:
    """The richest answer that this kind can give."""
    return Said(
        thinking=SAID.thinking if "thinking" in case.abilities else (),
        text=SAID.text,
        calls=SAID.calls if "tools" in case.abilities else (),
        finish=SAID.finish if "tools" in case.abilities else "stop",
        usage=SAID.usage,
    )


def pieces(body: bytes, size: int) -> list[bytes]:
    return [body[at : at + size] for at in range(0, len(body), size)]


def plain(told: Stream) -> bytes:
    return b"".join(told.events)


def commented(told: Stream) -> bytes:
    """Comments and empty lines between events, where the format has them."""
    noise = b": keep-alive\n\n:\n\n\n" if told.content_type == "text/event-stream" else b"\n"
    return noise + noise.join(told.events) + noise


FRAMINGS: dict[str, Callable[[Stream], bytes]] = {
    "LF": plain,
    "CRLF": lambda told: plain(told).replace(b"\n", b"\r\n"),
    "comments": commented,
    "comments, CRLF": lambda told: commented(told).replace(b"\n", b"\r\n"),
    "no last line end": lambda told: plain(told).rstrip(b"\n"),
}


@pytest.mark.parametrize("framing", FRAMINGS)
@every_case
async def test_framing_changes_nothing(case: Case, framing: str) -> None:
    said = said_by(case)
    told = case.wire.stream(said)
    body = FRAMINGS[framing](told)
    heads = {"content-type": told.content_type}
    ways = [(1, False), (7, True), (1 << 20, True), (1 << 20, False)]
    replies = [Reply(pieces(body, size), headers=heads, chunked=chunked) for size, chunked in ways]
    async with case.calling(*replies) as (adapter, _):
        for _ in replies:
            same_answer(case.wire, said, await streamed(adapter, call()))


@every_case
async def test_a_content_type_may_carry_a_charset(case: Case) -> None:
    said = said_by(case)
    told = case.wire.stream(said)
    reply = Reply(list(told.events), headers={"content-type": f"{told.content_type}; charset=utf-8"})
    async with case.calling(reply) as (adapter, _):
        same_answer(case.wire, said, await streamed(adapter, call()))


@every_case
async def test_a_stream_that_is_cut_is_never_taken_for_a_whole_answer(case: Case) -> None:
    said = said_by(case)
    told = case.wire.stream(said)
    full = "".join(said.thinking), "".join(said.text), json.dumps([c.name for c in said.calls])
    cuts = [(n, inside) for n in range(len(told.events)) for inside in (False, True)]
    replies = [
        Reply(
            [*told.events[:n], *([told.events[n][: len(told.events[n]) // 2]] if inside else [])],
            headers={"content-type": told.content_type},
            after=after,
        )
        for n, inside in cuts
        for after in ("complete", "cut")
    ]
    async with case.calling(*replies) as (adapter, _):
        for n, inside in cuts:
            for cut in (False, True):
                heard = await streamed(adapter, call())
                where = f"after {n} events{' and a half' if inside else ''}, {'cut' if cut else 'well ended'}"
                assert full[0].startswith(heard.thinking), where
                assert full[1].startswith(heard.text), where
                if isinstance(heard.end, Failure):
                    assert n < told.settled or inside or cut, f"{where}: {heard.end}"
                    # Nothing at all may be no stream, and half an event may be malformed.
                    odd = {"internal"} if inside or n == 0 else set()
                    assert heard.failure in {"connection"} | odd, f"{where}: {heard.end}"
                else:
                    assert n >= told.settled, f"{where}: taken for whole"
                    assert (heard.thinking, heard.text, json.dumps([c.name for c in heard.calls])) == full
                    assert heard.finish == said.finish
