"""Recorded answers of real providers, replayed over raw sockets in many framings. The recordings are not ours to ship.

They are looked for in `TRUNKLINE_TRANSCRIPTS`, or in `shared/transcripts` beside this repository: a folder for each
provider, with the `data:` payloads of a stream line by line in `*.chunks.txt` and whole answers in `*.json`. Without
them these tests are skipped. What is expected is read off the recordings here, by a few lines for each format.
"""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from msgspec import Struct
from scenario_kit import CASES, Case, Heard, ask, call, streamed
from trunkline_events.failure import Failure
from trunkline_events.usage import Usage
from upstream import SSE, Reply

FOLDER = Path(os.environ.get("TRUNKLINE_TRANSCRIPTS") or Path(__file__).parents[3] / "shared/transcripts")
KINDS = {
    "openai": "openai",
    "deepseek": "deepseek",
    "groq": "openai-compatible",
    "xai": "openai-compatible",
    "anthropic": "anthropic",
    "google": "gemini",
}
FINISHES = {
    "end_turn": "stop",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
    "STOP": "stop",
}
TOOLS = [
    {"type": "function", "function": {"name": name, "parameters": {"type": "object"}}} for name in ("weather", "json")
]


class Recorded(Struct):
    """What a recording says, and at which of its events the answer is said to be over."""

    text: str = ""
    thinking: str = ""
    arguments: str = ""
    finish: str = ""
    over: int = 0
    usage: Usage = Usage()


def read_openai(events: list[dict[str, Any]]) -> Recorded:
    found = Recorded()
    for at, event in enumerate(events):
        for choice in event["choices"]:
            said = choice.get("delta") or choice.get("message") or {}
            found.text += said.get("content") or ""
            found.thinking += said.get("reasoning_content") or said.get("reasoning") or ""
            for tool in said.get("tool_calls") or ():
                found.arguments += tool["function"].get("arguments") or ""
            if choice.get("finish_reason"):
                found.finish, found.over = choice["finish_reason"], at
        if usage := event.get("usage"):
            # What is no prompt was generated, however it is split up.
            cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0
            thought = (usage.get("completion_tokens_details") or {}).get("reasoning_tokens") or 0
            found.usage = Usage(
                input_tokens=usage["prompt_tokens"],
                cached_input_tokens=cached,
                output_tokens=usage["total_tokens"] - usage["prompt_tokens"],
                reasoning_tokens=thought,
            )
    return found


def read_anthropic(events: list[dict[str, Any]]) -> Recorded:
    found, counts = Recorded(), dict[str, int]()
    for at, event in enumerate(events):
        said = event.get("delta") or {}
        for block in event.get("content") or ():  # of a whole answer
            said = said | {"text": said.get("text", "") + block.get("text", "")}
        found.text += said.get("text") or ""
        found.thinking += said.get("thinking") or ""
        found.arguments += said.get("partial_json") or ""
        if reason := said.get("stop_reason") or event.get("stop_reason"):
            found.finish, found.over = FINISHES[reason], at
        usage = event.get("usage") or event.get("message", {}).get("usage") or {}
        counts |= {name: count for name, count in usage.items() if isinstance(count, int)}
    cached = counts.get("cache_read_input_tokens", 0)
    found.usage = Usage(
        input_tokens=counts["input_tokens"] + cached + counts.get("cache_creation_input_tokens", 0),
        cached_input_tokens=cached,
        output_tokens=counts["output_tokens"],
    )
    return found


def read_google(events: list[dict[str, Any]]) -> Recorded:
    found = Recorded()
    for at, event in enumerate(events):
        for candidate in event["candidates"]:
            for part in candidate.get("content", {}).get("parts") or ():
                if part.get("thought"):
                    found.thinking += part["text"]
                else:
                    found.text += part.get("text") or ""
                if tool := part.get("functionCall"):
                    found.arguments += json.dumps(tool.get("args", {}))
            if candidate.get("finishReason"):
                found.finish, found.over = FINISHES[candidate["finishReason"]], at
        counts = event["usageMetadata"]
        thought = counts.get("thoughtsTokenCount", 0)
        found.usage = Usage(
            input_tokens=counts["promptTokenCount"],
            cached_input_tokens=counts.get("cachedContentTokenCount", 0),
            output_tokens=counts.get("candidatesTokenCount", 0) + thought,
            reasoning_tokens=thought,
        )
    if found.arguments:
        found.finish = "tool_calls"
    return found


READERS = {"anthropic": read_anthropic, "google": read_google}
STREAMS = [path for path in sorted(FOLDER.glob("*/*.chunks.txt")) if not path.name.startswith("responses-")]
ANSWERS = [path for path in sorted(FOLDER.glob("*/*.json")) if "error" not in path.name and "embed" not in path.name]
ANSWERS = [path for path in ANSWERS if "429" not in path.name]


def played(paths: list[Path]) -> pytest.MarkDecorator:
    """Each of the recordings, over each transport of the kind that speaks as it does."""
    rows = [
        pytest.param(path, case, id=f"{path.parent.name}/{path.name.split('.')[0]}-{case}")
        for path in paths
        for case in CASES
        if case.wire.kind == KINDS[path.parent.name]
    ]
    absent = pytest.param(
        None, None, marks=pytest.mark.skip(f"no recordings in TRUNKLINE_TRANSCRIPTS or {FOLDER.name}")
    )
    return pytest.mark.parametrize(("path", "case"), rows or [absent])


def lines(path: Path) -> list[str]:
    return [line for line in path.read_text(encoding="utf-8").splitlines() if line]


def framed(path: Path) -> list[bytes]:
    """The events as the provider frames them, LF. Providers of the OpenAI format end with [DONE]."""
    payloads = lines(path)
    if path.parent.name == "anthropic":
        return [f"event: {json.loads(line)['type']}\ndata: {line}\n\n".encode() for line in payloads]
    done = [] if path.parent.name == "google" else ["[DONE]"]
    return [f"data: {line}\n\n".encode() for line in [*payloads, *done]]


def recorded(path: Path) -> Recorded:
    events = [json.loads(line) for line in lines(path)] if path.suffix == ".txt" else [json.loads(path.read_bytes())]
    return READERS.get(path.parent.name, read_openai)(events)


def same(heard: Heard, wanted: Recorded) -> None:
    assert (heard.text, heard.thinking) == (wanted.text, wanted.thinking)
    given, meant = "".join(c.arguments[0] for c in heard.calls), wanted.arguments or "{}" * len(heard.calls)
    assert given.replace(" ", "") == meant.replace(" ", "")
    assert heard.finish == wanted.finish
    assert heard.usage == wanted.usage


@played(STREAMS)
async def test_a_recorded_stream_is_heard_the_same_in_every_framing(path: Path, case: Case) -> None:
    events = framed(path)
    body = b"".join(events)
    commented = b": ping\n\n" + b":\n\n".join(events)
    small = len(body) < 8_000  # byte by byte takes its time
    replies = [
        Reply([framing[at : at + size] for at in range(0, len(framing), size)], headers=SSE, chunked=chunked)
        for framing in (body, body.replace(b"\n", b"\r\n"), commented, body.removesuffix(b"data: [DONE]\n\n"))
        for size, chunked in ((1 if small else 61, False), (7 if small else 997, True), (len(body), False))
    ]
    async with case.calling(*replies) as (adapter, _):
        for _ in replies:
            same(await streamed(adapter, call(tools=TOOLS)), recorded(path))


@played(STREAMS)
async def test_a_recorded_stream_cut_anywhere_is_no_whole_answer(path: Path, case: Case) -> None:
    events, whole = framed(path), recorded(path)
    stops = [n for n in range(len(events)) if len(events) < 40 or n % 23 == 0 or n >= whole.over - 1]
    cuts = [(n, inside) for n in stops for inside in (0, len(events[n]) // 2)]
    replies = [
        Reply([b"".join(events[:n]), events[n][:inside] or b"\n"], headers=SSE, after=after, chunked=after == "cut")
        for n, inside in cuts
        for after in ("complete", "cut")
    ]
    async with case.calling(*replies) as (adapter, _):
        for n, _ in cuts:
            for _ in ("complete", "cut"):
                heard = await streamed(adapter, call(tools=TOOLS))
                assert whole.text.startswith(heard.text)
                assert whole.thinking.startswith(heard.thinking)
                if not isinstance(heard.end, Failure):
                    assert n > whole.over, f"cut after {n} events and taken for whole"
                    assert (heard.text, heard.thinking, heard.finish) == (whole.text, whole.thinking, whole.finish)


@played(ANSWERS)
async def test_a_recorded_whole_answer_is_understood(path: Path, case: Case) -> None:
    async with case.calling(Reply([path.read_bytes()])) as (adapter, _):
        same(await ask(adapter, call(tools=TOOLS), stream=False), recorded(path))


@played(sorted(FOLDER.glob("*/*embedding.json")))
async def test_recorded_embeddings_are_understood(path: Path, case: Case) -> None:
    async with case.calling(Reply([path.read_bytes()])) as (adapter, _):
        got = await adapter.embed(call(input="x"))
    said = json.loads(path.read_bytes())
    assert json.loads(got.body)["data"] == said["data"]
    assert got.usage == Usage(input_tokens=said["usage"]["prompt_tokens"])


@played(sorted(FOLDER.glob("*/*error.json")))
async def test_a_recorded_refusal_names_the_parameter(path: Path, case: Case) -> None:
    async with case.calling(Reply([path.read_bytes()], 400)) as (adapter, _):
        end = (await ask(adapter, call(), stream=True)).end
    assert isinstance(end, Failure)
    assert end.kind == "invalid_request"
    assert "max_completion_tokens" in end.message


@played(sorted(FOLDER.glob("*/429-retry-info.json")))
async def test_a_recorded_rate_limit_tells_how_long_to_wait(path: Path, case: Case) -> None:
    async with case.calling(Reply([path.read_bytes()], 429)) as (adapter, _):
        end = (await ask(adapter, call(), stream=True)).end
    assert isinstance(end, Failure)
    delay = next(d["retryDelay"] for d in json.loads(path.read_bytes())["error"]["details"] if "retryDelay" in d)
    assert (end.kind, end.retry_after) == ("rate_limited", float(delay.removesuffix("s")))
