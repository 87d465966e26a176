"""What is Anthropic's own, over both of its transports: its headers, its recorded streams, a real engine's Messages.

What every kind of provider is held to is in test_scenarios.py and its neighbours.
"""

import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from trunkline_actors.adapters import Adapter, Call, Chunk, End
from trunkline_actors.adapters.factory import build
from trunkline_actors.adapters.kinds import Settings
from trunkline_events.failure import FailureClass, UpstreamError
from upstream import SSE, Reply, Upstream, answer

pytest_plugins = ["engine"]

CANARY = "canary-Zq7-secret"
HI = {"role": "user", "content": "hi"}
WHOLE = {"id": "m", "model": "c", "content": [{"type": "text", "text": "hi"}], "stop_reason": "end_turn"}
RECORDED = (
    Path(os.environ.get("TRUNKLINE_TRANSCRIPTS") or Path(__file__).parents[3] / "shared/transcripts") / "anthropic"
)
STREAMS = sorted(RECORDED.glob("*.chunks.txt"))
TOOL = {
    "type": "function",
    "function": {"name": "get_weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}},
}


@pytest.fixture(params=["raw", "sdk"])
def transport(request: pytest.FixtureRequest) -> Any:
    return request.param


@asynccontextmanager
async def adapting(url: str, transport: Any, **settings: Any) -> AsyncIterator[Adapter]:
    given = {"key": CANARY, "local": True, **settings}
    adapter = build("anthropic", Settings(provider="p", base_url=url, transport=transport, **given))
    try:
        yield adapter
    finally:
        await adapter.close()


def call(model: str = "tiny", **fields: Any) -> Call:
    return Call(body=json.dumps({"messages": [HI], **fields}).encode(), model=model, include_usage=True, timeout=20)


async def streamed(adapter: Adapter, asked: Call) -> tuple[list[dict[str, Any]], End]:
    items = [item async for item in adapter.stream(asked)]
    end = items.pop()
    assert isinstance(end, End)
    return [json.loads(item.data) for item in items if isinstance(item, Chunk)], end


def joined(chunks: list[dict[str, Any]], field: str) -> str:
    return "".join(choice["delta"].get(field) or "" for chunk in chunks for choice in chunk["choices"])


async def test_the_key_and_the_version_go_as_anthropics_headers(
    transport: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("API_KEY", "AUTH_TOKEN", "PROFILE", "WEBHOOK_SIGNING_KEY"):
        monkeypatch.setenv(f"ANTHROPIC_{name}", "of-the-environment")
    monkeypatch.setenv("ANTHROPIC_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("ANTHROPIC_CUSTOM_HEADERS", "x-leak: of-the-environment")
    async with Upstream(answer(WHOLE)).serving() as upstream:
        for url in (upstream.url, upstream.url.removesuffix("/v1"), f"{upstream.url}/"):
            async with adapting(url, transport) as adapter:
                await adapter.complete(call())
                await adapter.check()
        async with adapting(upstream.url, transport, headers={"Anthropic-Version": "2026-10-21"}) as adapter:
            await adapter.complete(call())
    assert [request.path for request in upstream.requests] == ["/v1/messages", "/v1/models"] * 3 + ["/v1/messages"]
    *first, last = [request.headers for request in upstream.requests]
    assert {(h["x-api-key"], h["anthropic-version"], h["user-agent"]) for h in first} == {
        (CANARY, "2023-06-01", "trunkline")
    }
    assert last["anthropic-version"] == "2026-10-21"
    assert "authorization" not in last
    assert "of-the-environment" not in str([request.headers for request in upstream.requests])


async def test_a_server_without_keys_is_called_without_one(transport: Any) -> None:
    async with Upstream(answer(WHOLE)).serving() as upstream, adapting(upstream.url, transport, key=None) as adapter:
        await adapter.complete(call())
    assert not {"x-api-key", "authorization"} & set(upstream.requests[0].headers)


async def test_a_spent_rate_limit_says_when_to_come_back(transport: Any) -> None:
    limit = {"anthropic_ratelimit_tokens_remaining": "0", "anthropic_ratelimit_tokens_reset": "2100-01-01T00:00:00Z"}
    error = {"type": "error", "error": {"type": "rate_limit_error", "message": "m"}}
    async with (
        Upstream(answer(error, 429, **limit)).serving() as upstream,
        adapting(upstream.url, transport) as adapter,
    ):
        with pytest.raises(UpstreamError) as caught:
            await adapter.complete(call())
    assert caught.value.failure.kind is FailureClass.RATE_LIMITED
    assert (caught.value.failure.retry_after or 0) > 1e8


async def test_embeddings_are_refused(transport: Any) -> None:
    async with adapting("http://127.0.0.1:9", transport) as adapter:
        with pytest.raises(UpstreamError, match="no embeddings") as caught:
            await adapter.embed(call())
    assert caught.value.failure.kind is FailureClass.INVALID_REQUEST


def test_without_the_extra_only_the_sdk_is_missed_and_it_is_named() -> None:
    code = (
        "import sys; sys.modules['anthropic'] = None\n"
        "from trunkline_actors.adapters.factory import build\n"
        "from trunkline_actors.adapters.kinds import MissingExtra, Settings\n"
        "build('anthropic', Settings(provider='p', key='k'))\n"
        "try: build('anthropic', Settings(provider='p', key='k', transport='sdk'))\n"
        "except MissingExtra as error: print(error)\n"
        "print([name for name in ('httpx2', 'aiohttp', 'pydantic') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    said, loaded = done.stdout.splitlines()
    assert "pip install 'trunkline[anthropic]'" in said
    assert loaded == "[]"


# -- recorded from Anthropic


@pytest.mark.skipif(not STREAMS, reason="no recorded transcripts here: name their folder in TRUNKLINE_TRANSCRIPTS")
@pytest.mark.parametrize("path", STREAMS, ids=lambda path: path.name.partition(".")[0])
async def test_a_recorded_stream_is_read_whole(path: Path, transport: Any) -> None:
    lines = [line for line in path.read_bytes().splitlines() if line.strip()]
    events = [json.loads(line) for line in lines]
    deltas = [event["delta"] for event in events if event["type"] == "content_block_delta"]
    body = [b"event: %s\ndata: %s\n\n" % (e["type"].encode(), line) for e, line in zip(events, lines, strict=True)]
    async with Upstream(Reply(body, 200, SSE)).serving() as upstream, adapting(upstream.url, transport) as adapter:
        chunks, end = await streamed(adapter, call())
    assert joined(chunks, "content") == "".join(delta.get("text", "") for delta in deltas)
    assert joined(chunks, "reasoning_content") == "".join(delta.get("thinking", "") for delta in deltas)
    calls = [p for c in chunks for choice in c["choices"] for p in choice["delta"].get("tool_calls", ())]
    json.loads("".join(part["function"]["arguments"] for part in calls) or "{}")
    signed = [d for c in chunks for choice in c["choices"] for d in choice["delta"].get("reasoning_details", ())]
    assert [d["signature"] for d in signed] == [d["signature"] for d in deltas if d["type"] == "signature_delta"]
    told = next(event["usage"] for event in reversed(events) if event["type"] == "message_delta")
    assert end.usage is not None
    assert (end.usage.input_tokens, end.usage.output_tokens) == (told["input_tokens"], told["output_tokens"])
    reason = next(event["delta"]["stop_reason"] for event in events if event["type"] == "message_delta")
    expected = {"end_turn": "stop", "tool_use": "tool_calls", "refusal": "content_filter"}
    assert end.finish == expected[reason]


# -- llama.cpp


async def test_a_real_engine_answers(engine: str, transport: Any) -> None:
    async with adapting(engine, transport) as adapter:
        await adapter.check()
        whole = json.loads((await adapter.complete(call())).body)
        chunks, end = await streamed(adapter, call())
    text = whole["choices"][0]["message"]["content"].strip()
    assert text == "Hello from a real llama.cpp engine; café ☃ done."
    assert joined(chunks, "content").strip() == text
    assert (end.finish, chunks[-1]["usage"]["prompt_tokens"]) == ("stop", whole["usage"]["prompt_tokens"])


async def test_a_real_engine_thinks(engine: str, transport: Any) -> None:
    asked = call(messages=[{"role": "user", "content": "think"}], reasoning_effort="low")
    async with adapting(engine, transport) as adapter:
        chunks, _ = await streamed(adapter, asked)
    assert joined(chunks, "reasoning_content").strip() == "Let me think about it."
    assert joined(chunks, "content").strip() == "The answer is forty-two."


async def test_a_real_engine_calls_a_tool_and_takes_its_result(engine: str, transport: Any) -> None:
    async with adapting(engine, transport) as adapter:
        said = json.loads((await adapter.complete(call(tools=[TOOL]))).body)["choices"][0]["message"]
        (called,) = said["tool_calls"]
        result = {"role": "tool", "tool_call_id": called["id"], "content": "rain"}
        got = await adapter.complete(call(tools=[TOOL], messages=[HI, said, result]))
    assert json.loads(called["function"]["arguments"]) == {"city": "Paris"}
    assert got.finish in {"stop", "tool_calls"}


async def test_a_real_engine_refuses_a_prompt_that_is_too_long(engine: str, transport: Any) -> None:
    async with adapting(engine, transport) as adapter:
        with pytest.raises(UpstreamError) as caught:
            await adapter.complete(call(messages=[{"role": "user", "content": "word " * 20_000}]))
    assert caught.value.failure.kind is FailureClass.CONTEXT_LENGTH
