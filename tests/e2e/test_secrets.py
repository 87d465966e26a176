"""Two canaries: a provider's key, that only the upstream may see, and a prompt, that neither log may hold."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trunkline
from audit import events
from messages import Got, ask, calling, chat_body
from nats.js.errors import NotFoundError
from processes import Role, running
from trunkline.client import Gateway
from trunkline.embedded import EmbeddedServer
from trunkline_events import headers
from trunkline_events.subjects import LEASES_BUCKET, SNAPSHOTS_BUCKET
from upstream import Reply, Request, Upstream, answer
from upstream import events as sse

KEY = "sk-canary-5c1f0a9d7e3b4286"
CALLER_KEY = "tl-canary-2b7d9e1f4a6c8035"
PROMPT = "canary-prompt-the-purple-otter-sings-at-noon"
ANSWER = "canary-answer-nine-brass-kettles"
CHOICES = [{"index": 0, "message": {"role": "assistant", "content": ANSWER}, "finish_reason": "stop"}]
WHOLE = {"id": "c", "object": "chat.completion", "created": 1, "model": "m", "choices": CHOICES}
CHUNK = {
    "id": "c",
    "object": "chat.completion.chunk",
    "created": 1,
    "model": "m",
    "choices": [{"index": 0, "delta": {"role": "assistant", "content": ANSWER}}],
}
ERRORS = {
    "unauthorized": answer(
        {"error": {"message": f"Incorrect API key provided: {KEY}", "code": "invalid_api_key"}}, 401
    ),
    "bare-key": answer({"error": f"bad credentials {KEY}"}, 401),
    "broken": answer({"error": {"message": f"while reading {PROMPT}: Authorization: Bearer {KEY}"}}, 500),
    "malformed": Reply([b'{"choices": [{"message": {"content": "' + PROMPT.encode() + KEY.encode()], 200),
    "html": Reply([f"<html>{KEY} {PROMPT}</html>".encode()], 502, {"content-type": "text/html"}),
    "rejected": answer({"error": {"message": f"the key {KEY} may not", "type": "invalid_request_error"}}, 400),
    "in-stream": sse(CHUNK, {"error": {"message": f"{KEY} choked on {PROMPT}", "code": 500}}, done=False),
    "cut-stream": sse(CHUNK, done=False, after="cut"),
}


async def misbehave(request: Request) -> Reply:
    """What the model's name asks for."""
    if request.path.endswith("/models"):
        return answer({"error": {"message": f"no models for {KEY}"}}, 401)
    body = json.loads(request.body)
    if reply := ERRORS.get(body["model"]):
        return Reply(list(reply.body), reply.status, reply.headers, reply.after)
    return sse(CHUNK) if body.get("stream") else answer(WHOLE)


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    async with Upstream(handler=misbehave).serving() as serving:
        yield serving


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[EmbeddedServer]:
    async with EmbeddedServer(store=tmp_path / "nats", port=0, durability="process") as running_server:
        yield running_server


@pytest.fixture
async def processes(server: EmbeddedServer, tmp_path: Path) -> AsyncIterator[list[Role]]:
    """Every role, with the key in the environment of the one that needs it."""
    roles = [
        Role(server.url, tmp_path, "core", "registry", "router", "keeper"),
        Role(server.url, tmp_path, "provider", "provider", environ={"CANARY_KEY": KEY}),
    ]
    async with running(*roles):
        yield roles


@pytest.fixture
async def gw(processes: list[Role], server: EmbeddedServer, upstream: Upstream) -> AsyncIterator[Gateway]:
    async with trunkline.connect(server.url, key=CALLER_KEY) as gateway:
        await gateway.providers.register(
            id="far",
            kind="openai-compatible",
            base_url=upstream.url,
            secret="env:CANARY_KEY",
            local=True,
            breaker_failures=1_000,
        )
        for name in ("good", *ERRORS):
            await gateway.models.register(id=name, provider="far", upstream=name, price={"input": "1", "output": "1"})
        yield gateway


async def converse(gw: Gateway) -> list[Got]:
    """Every model, plain and streamed, in a thread; all messages of all answers."""
    nats = gw._connection.nats
    fields = {headers.THREAD: "t", headers.KEY: CALLER_KEY, "Authorization": f"Bearer {CALLER_KEY}"}
    heard: list[Got] = []
    for name in ("good", *ERRORS):
        heard.append(await ask(nats, chat_body(name, PROMPT), fields))
        async with calling(nats, chat_body(name, PROMPT, stream=True), fields) as call:
            heard += await call.rest()
    return heard


async def stored(gw: Gateway, stream: str) -> bytes:
    """Every byte of a stream, headers and all."""
    js = gw._connection.nats.jetstream()
    info = await js.stream_info(stream)
    found = []
    for seq in range(max(1, info.state.first_seq), info.state.last_seq + 1):
        with contextlib.suppress(NotFoundError):  # a bucket keeps the last of each key
            found.append(await js.get_msg(stream, seq=seq))
    return b"\n".join(
        b"\n".join([message.subject.encode(), repr(message.headers).encode(), message.data or b""]) for message in found
    )


async def test_a_key_goes_upstream_and_nowhere_else_and_a_prompt_into_no_log(
    gw: Gateway, processes: list[Role], upstream: Upstream, tmp_path: Path
) -> None:
    heard = await converse(gw)
    checked = await gw.providers.check(id="far")
    listed = [await gw.providers.list(), await gw.providers.get(id="far"), await gw.models.list()]
    # The key went where it belongs, in the one header.
    assert len(upstream.requests) >= 2 * (1 + len(ERRORS))
    for request in upstream.requests:
        assert request.headers["authorization"] == f"Bearer {KEY}"
        assert KEY not in str({**request.headers, "authorization": ""}) + request.path + request.body.decode()
    # Every call came to something that was told, without the key.
    answered = [got for got in heard if headers.ERROR_CODE not in got.fields and got.data]
    refused = [got for got in heard if headers.ERROR_CODE in got.fields]
    assert any(ANSWER in got.data.decode() for got in answered)
    assert len(refused) >= 2 * (len(ERRORS) - 2)
    for got in refused:
        assert KEY not in got.data.decode() + str(got.fields)
        assert CALLER_KEY not in got.data.decode() + str(got.fields)
        assert PROMPT not in got.data.decode() + str(got.fields)
    assert KEY not in str([checked, *listed])
    # Neither into the log nor into what is folded from it.
    for stream in ("TRUNKLINE", f"KV_{SNAPSHOTS_BUCKET}", f"KV_{LEASES_BUCKET}"):
        held = await stored(gw, stream)
        for canary in (KEY, CALLER_KEY, PROMPT, ANSWER):
            assert canary.encode() not in held, f"{canary} is in {stream}"
    assert len(await events(gw, "thread")) >= 2 * len(upstream.requests) - 2
    # Nor into what the processes said, at debug level, their last words included.
    for role in processes:
        role.process.terminate()
    assert await asyncio.gather(*(role.ended() for role in processes)) == [0, 0]
    for file in [role.log for role in processes] + [*(tmp_path / "nats").glob("*.log")]:
        text = file.read_text()
        assert text
        for canary in (KEY, CALLER_KEY, PROMPT, ANSWER):
            assert canary not in text, f"{canary} is in {file.name}"
