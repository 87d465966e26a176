"""Chats over HTTP: what any OpenAI client sends and gets."""

import io
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import messages
import pytest
import upstream as up
from far import serving
from messages import chat_body, register
from trunkline.client import Gateway
from trunkline_events import headers
from upstream import Reply, Request, Upstream

pytest_plugins = ["gateway", "edge_kit"]

CHAT = "/v1/chat/completions"
WORDS = " ".join(f"w{number}" for number in range(30))


def hello(model: str = "echo", prompt: str = "hello there", **more: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": prompt}], **more}


@asynccontextmanager
async def recording(gw: Gateway, reply: Reply) -> AsyncIterator[tuple[list[dict[str, Any]], Upstream]]:
    """The model `m`, whose upstream answers so; and the bodies it was asked with."""
    asked: list[dict[str, Any]] = []

    async def handler(request: Request) -> Reply:
        asked.append(json.loads(request.body))
        return reply

    async with serving(gw, Upstream(handler=handler)) as upstream:
        await gw.models.update(id="m", features=["tools", "vision", "json_schema"])
        yield asked, upstream


async def test_a_chat_is_answered_with_its_receipt_in_the_headers(http: aiohttp.ClientSession) -> None:
    async with http.post(CHAT, json=hello()) as answer:
        assert answer.status == 200
        body = await answer.json()
        assert body["choices"][0]["message"]["content"] == "hello there"
        assert answer.headers["content-type"] == "application/json"
        assert answer.headers["x-trunkline-model"] == "echo"
        assert answer.headers["x-trunkline-provider"] == "scripted"
        assert answer.headers["x-trunkline-attempts"] == "1"
        assert float(answer.headers["x-trunkline-cost-usd"]) > 0
        assert int(answer.headers["x-trunkline-event"]) > 0
        assert answer.headers["x-request-id"]


async def test_a_stream_holds_byte_for_byte_what_the_bus_gives(http: aiohttp.ClientSession, gw: Gateway) -> None:
    body = hello(prompt=WORDS, stream=True, stream_options={"include_usage": True})
    async with http.post(CHAT, json=body, headers={"Idempotency-Key": "once"}) as answer:
        assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert answer.headers["x-request-id"] == "once"
        assert answer.headers["x-trunkline-model"] == "echo"
        heard = await answer.read()
    given = await messages.stream(gw._connection.nats, json.dumps(body).encode(), {headers.REQUEST: "once"})
    events, closing, done = heard.rpartition(b": trunkline ")
    assert events == b"".join(b"data: %b\n\n" % one.data for one in given if one.data)
    receipt, _, rest = done.partition(b"\n\n")
    assert json.loads(receipt)["x-trunkline-event"] == given[-1].fields[headers.EVENT]
    assert rest == b"data: [DONE]\n\n"
    assert closing


async def test_the_same_idempotency_key_gets_the_stored_answer_and_is_not_billed_again(
    http: aiohttp.ClientSession,
) -> None:
    async def once() -> tuple[bytes, str, str | None]:
        fields = {"Idempotency-Key": "k1", "x-trunkline-thread": "t"}
        async with http.post(CHAT, json=hello(), headers=fields) as answer:
            return await answer.read(), answer.headers["x-trunkline-event"], answer.headers.get("x-trunkline-replayed")

    first, second = await once(), await once()
    assert first[:2] == second[:2]
    assert (first[2], second[2]) == (None, "true")


async def test_a_thread_is_named_by_a_header_and_its_budget_refuses_for_good(
    http: aiohttp.ClientSession, gw: Gateway
) -> None:
    await gw.threads.configure(thread_id="poor/1", budget={"limit_usd": "0.000001"})
    fields = {"x-trunkline-thread": "poor/1"}
    async with http.post(CHAT, json=hello(prompt=WORDS, max_tokens=500), headers=fields) as answer:
        assert answer.status == 429
        error = (await answer.json())["error"]
        assert (error["code"], error["type"]) == ("budget_exceeded", "insufficient_quota")
        assert answer.headers["x-should-retry"] == "false"
        assert answer.headers["x-request-id"]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("body", "status", "code", "told"),
    [
        pytest.param(b'{"model": "echo", "messages": [', 400, "invalid_request", "JSON", id="half"),
        pytest.param(b"", 400, "invalid_request", "JSON", id="empty"),
        pytest.param(b"\xff\xfe", 400, "invalid_request", "", id="bytes"),
        pytest.param(b'{"messages": []}', 400, "invalid_request", "", id="no messages"),
        pytest.param(chat_body("none"), 404, "model_not_found", "none", id="no model"),
        pytest.param(chat_body("fails"), 503, "unavailable", "", id="upstream fails"),
    ],
)
async def test_an_error_before_anything_was_said_has_its_status_and_openais_shape(
    http: aiohttp.ClientSession, body: bytes, status: int, code: str, told: str, stream: bool
) -> None:
    if stream and body.endswith(b"}"):
        body = body[:-1] + b', "stream": true, "route": {"attempts": 1}}'
    async with http.post(CHAT, data=body) as answer:
        error = (await answer.json())["error"]
        assert (answer.status, error["code"]) in {(status, code), (502, "provider_error")}
        assert told in error["message"]
        assert {"message", "type", "code", "param"} <= set(error)
        assert answer.headers["x-request-id"]


async def test_a_stream_that_fails_midway_ends_with_an_error_event_and_no_done(
    http: aiohttp.ClientSession, gw: Gateway
) -> None:
    await register(gw, cutting="cut:5")
    async with http.post(CHAT, json=hello("cutting", stream=True)) as answer:
        assert answer.status == 200
        events = [line for line in (await answer.read()).decode().split("\n\n") if line.startswith("data: ")]
    assert len(events) == 6
    assert json.loads(events[-1][6:])["error"]["code"]
    assert "[DONE]" not in events[-1]


async def test_what_openai_knows_goes_upstream_and_comes_back_unchanged(
    http: aiohttp.ClientSession, gw: Gateway
) -> None:
    picture = "data:image/png;base64," + "A" * 300_000
    body = {
        "model": "m",
        "n": 2,
        "logprobs": True,
        "top_logprobs": 2,
        "messages": [
            {
                "role": "user",
                "content": [{"type": "text", "text": "?"}, {"type": "image_url", "image_url": {"url": picture}}],
            }
        ],
        "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}],
        "response_format": {"type": "json_schema", "json_schema": {"name": "s", "schema": {"type": "object"}}},
    }
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    said = {"role": "assistant", "content": None, "reasoning_content": "hm", "tool_calls": [call]}
    log = {"content": [{"token": "a", "logprob": -0.1, "bytes": [97], "top_logprobs": []}]}
    choices = [{"index": n, "message": said, "finish_reason": "tool_calls", "logprobs": log} for n in range(2)]
    whole = {"object": "chat.completion", "choices": choices, "usage": {"prompt_tokens": 7, "completion_tokens": 9}}
    async with recording(gw, up.answer(whole)) as (asked, _), http.post(CHAT, json=body) as answer:
        assert answer.status == 200, await answer.text()
        got = await answer.json()
    assert got["choices"] == choices
    for name in ("n", "logprobs", "top_logprobs", "messages", "tools", "response_format"):
        assert asked[0][name] == body[name]


async def test_a_body_over_the_limit_gets_413(http: aiohttp.ClientSession) -> None:
    async with http.post(CHAT, data=io.BytesIO(b"x" * (9 * 1024 * 1024))) as answer:
        assert answer.status == 413
        assert (await answer.json())["error"]["code"] == "invalid_request"


async def test_embeddings_are_answered_in_openais_shape(http: aiohttp.ClientSession, gw: Gateway) -> None:
    await gw.models.register(id="embed", provider="scripted", upstream="echo", features=["embeddings"])
    async with http.post("/v1/embeddings", json={"model": "embed", "input": ["a", "b"]}) as answer:
        assert answer.status == 200
        body = await answer.json()
        assert [one["index"] for one in body["data"]] == [0, 1]
        assert answer.headers["x-trunkline-model"] == "embed"
