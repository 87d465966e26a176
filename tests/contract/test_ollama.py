"""Ollama's adapter over real HTTP: its addresses, its models, what must not leave, on both transports."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Literal

import pytest
from ollama_kit import SIZE, FakeOllama
from trunkline_actors.adapters import Call, ollama
from trunkline_actors.adapters.factory import build, kind_of
from trunkline_actors.adapters.kinds import Settings
from trunkline_actors.adapters.ollama import Ollama
from trunkline_events.failure import FailureClass, UpstreamError
from upstream import Reply, Request, Upstream, answer

Way = Literal["raw", "sdk"]
both_ways = pytest.mark.parametrize("way", ["raw", "sdk"])
HI = Call(body=b'{"messages": [{"role": "user", "content": "hi"}]}', model="m", timeout=10)
DONE = {"message": {"role": "assistant", "content": "ok"}, "done": True}


@asynccontextmanager
async def calling(url: str, way: Way, **more: object) -> AsyncIterator[Ollama]:
    settings = {"provider": "p", "base_url": url, "local": True, "transport": way, **more}
    adapter = build("ollama", Settings(**settings))  # type: ignore[arg-type]
    assert isinstance(adapter, Ollama)
    try:
        yield adapter
    finally:
        await adapter.close()


async def test_its_address_may_end_in_v1_or_not() -> None:
    async with Upstream(answer({"models": []})).serving() as upstream:
        origin = upstream.url.removesuffix("/v1")
        for url in (origin, f"{origin}/", f"{origin}/v1", f"{origin}/v1/", f"{origin}/api"):
            async with calling(url, "raw") as adapter:
                await adapter.check()
        assert {request.path for request in upstream.requests} == {"/api/tags"}


@both_ways
async def test_its_models_are_pulled_listed_described_and_deleted(way: Way) -> None:
    async with FakeOllama("mistral", paced=False).serving() as server, calling(server.url, way) as adapter:
        async with aclosing(adapter.pull("llama3.2")) as pull:
            told = [step async for step in pull]
        assert (told[-1].status, told[-1].completed_bytes) == ("success", SIZE)
        first, second = await adapter.local_models()
        assert (first.model, first.loaded) == ("llama3.2:latest", False)
        assert (second.model, second.loaded, second.quantization) == ("mistral:latest", True, "Q4_K_M")
        described = await adapter.describe("llama3.2")
        assert (described.context_window, described.features) == (131072, ["json_schema", "thinking", "tools"])
        await adapter.delete("llama3.2")
        assert [one.model for one in await adapter.local_models()] == ["mistral:latest"]
        for trouble in (adapter.delete("llama3.2"), adapter.describe("llama3.2")):
            with pytest.raises(UpstreamError) as caught:
                await trouble
            assert caught.value.failure.kind is FailureClass.MODEL_NOT_FOUND


@both_ways
async def test_leaving_a_pull_ends_it(way: Way) -> None:
    async with FakeOllama().serving() as server, calling(server.url, way) as adapter:
        pull = adapter.pull("llama3.2")
        await anext(pull)
        await pull.aclose()
        async with asyncio.timeout(5):
            await server.left.acquire()


@both_ways
@pytest.mark.parametrize("said", [b"\n", b"{}\n"])
async def test_a_pull_that_says_nothing_for_long_ends(way: Way, said: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    async def nothing() -> AsyncIterator[bytes]:
        while True:
            yield said
            await asyncio.sleep(0.01)

    monkeypatch.setattr(ollama, "SILENCE_SECONDS", 0.2)
    reply = Reply(headers={"content-type": "application/x-ndjson"}, pieces=nothing())
    async with Upstream(reply).serving() as upstream, calling(upstream.url, way) as adapter:
        with pytest.raises(UpstreamError) as caught:
            async for _ in adapter.pull("m"):
                pass
    assert caught.value.failure.kind is FailureClass.TIMEOUT


@pytest.mark.parametrize("local", [True, False])
@both_ways
@pytest.mark.parametrize("host", ["[::1", "a" * 70, "a..b", "h:port"])
async def test_a_host_that_is_none_is_a_typed_failure(host: str, way: Way, local: bool) -> None:
    async with calling(f"http://{host}/v1", way, local=local) as adapter:
        with pytest.raises(UpstreamError):
            await adapter.complete(HI)


@both_ways
async def test_a_private_address_is_not_even_connected_to(way: Way) -> None:
    met = 0

    async def meet(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal met
        met += 1
        writer.close()

    async with await asyncio.start_server(meet, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with calling(f"http://localhost:{port}", way, local=False) as adapter:
            with pytest.raises(UpstreamError, match="--local"):
                await adapter.complete(HI)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        await reader.read()
        writer.close()
    assert met == 1


@both_ways
async def test_no_key_of_the_environment_is_sent(way: Way, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OLLAMA_API_KEY", "canary-Zq7-secret")
    monkeypatch.setenv("OLLAMA_HOST", "http://127.0.0.1:9")
    async with Upstream(answer(DONE)).serving() as upstream:
        async with calling(upstream.url, way) as adapter:
            await adapter.complete(HI)
        async with calling(upstream.url, way, key="ours") as adapter:
            await adapter.complete(HI)
        assert [one.headers.get("authorization") for one in upstream.requests] == [None, "Bearer ours"]


@both_ways
async def test_a_private_address_is_refused_unless_the_provider_is_local(way: Way) -> None:
    async with Upstream(answer(DONE)).serving() as upstream, calling(upstream.url, way, local=False) as adapter:
        with pytest.raises(UpstreamError, match="--local"):
            await adapter.complete(HI)
        assert upstream.requests == []


async def test_the_raw_path_keeps_what_the_package_drops_of_a_schema() -> None:
    deep = {"type": "object", "properties": {"a": {"type": "object", "properties": {"b": {"type": "string"}}}}}
    body = {
        **json.loads(HI.body),
        "tools": [{"type": "function", "function": {"name": "f", "parameters": deep}}],
    }
    async with Upstream(answer(DONE)).serving() as upstream, calling(upstream.url, "raw") as adapter:
        await adapter.complete(Call(body=json.dumps(body).encode(), model="m"))
        assert json.loads(upstream.requests[0].body)["tools"][0]["function"]["parameters"] == deep


@both_ways
async def test_vectors_are_as_openais_client_asks_for_them(way: Way) -> None:
    async def serve(_request: Request) -> Reply:
        return answer({"embeddings": [[1.0, -0.5]], "prompt_eval_count": 2})

    async with Upstream(handler=serve).serving() as upstream, calling(upstream.url, way) as adapter:
        call = Call(body=b'{"input": ["a"], "encoding_format": "base64"}', model="m")
        told = json.loads((await adapter.embed(call)).body)
    assert told["data"][0]["embedding"] == "AACAPwAAAL8="


def test_it_says_that_it_manages_models() -> None:
    assert "management" in kind_of("ollama").abilities
    assert "image_urls" not in kind_of("ollama").abilities
