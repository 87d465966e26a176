"""What a gateway with an empty registry begins with, and says so."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trunkline
from trunkline import bootstrap
from trunkline.client import Gateway
from trunkline.embedded import EmbeddedServer
from trunkline.host import ROLES, Host


@asynccontextmanager
async def fresh(folder: Path) -> AsyncIterator[Gateway]:
    """A client of a gateway in which nothing is registered."""
    async with EmbeddedServer(store=folder, port=0, durability="process") as server:
        host = await Host.start(server.url, ROLES)
        async with trunkline.connect(server.url) as gateway:
            yield gateway
        await host.stop()


async def names(gateway: Gateway, provider: str) -> list[str]:
    return [model["id"] for model in (await gateway.models.list(provider=provider))["models"]]


async def test_a_scripted_provider_is_always_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setattr(bootstrap, "OLLAMA", "http://127.0.0.1:9")
    async with fresh(tmp_path) as gateway:
        said = await bootstrap.first_models(gateway)
        assert [line.partition(":")[0] for line in said] == ["scripted"]
        assert await names(gateway, "scripted") == ["echo", "hello", "slow"]


async def test_openai_is_taken_up_where_its_key_is_set_and_the_key_is_not_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-canary")
    async with fresh(tmp_path) as gateway:
        said = await bootstrap.first_models(gateway)
        assert any(line.startswith("openai:") for line in said)
        models = (await gateway.models.list(provider="openai"))["models"]
        assert {"gpt-6-luna", "text-embedding-3-small"} <= {model["id"] for model in models}
        assert all(model["context_window"] and model["features"] for model in models)
        provider = (await gateway.providers.get(id="openai"))["provider"]
        assert provider["secret"] == "env:OPENAI_API_KEY"
        log = await gateway.log()
        assert not [event async for event in log.read() if "sk-canary" in repr(event)]


async def test_an_ollama_server_is_taken_up_with_the_models_it_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await reader.readuntil(b"\r\n\r\n")
        assert request.startswith(b"GET /api/tags ")
        body = json.dumps({"models": [{"name": "llama3.2"}, {"name": "ours:8b"}]}).encode()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%b" % (len(body), body))
        await writer.drain()
        writer.close()

    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    monkeypatch.setattr(bootstrap, "OLLAMA", f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    async with server, fresh(tmp_path) as gateway:
        said = await bootstrap.first_models(gateway)
        assert any(line.startswith("ollama: 2 models") for line in said)
        known, unknown = (await gateway.models.list(provider="ollama"))["models"]
        assert (known["id"], known["upstream"], known["context_window"]) == ("llama3.2", "llama3.2", 131_072)
        assert (unknown["id"], unknown["upstream"], unknown["features"]) == ("ours:8b", "ours:8b", ["tools"])


async def test_a_registry_that_holds_something_is_left_alone(tmp_path: Path) -> None:
    async with fresh(tmp_path) as gateway:
        await gateway.providers.register(id="mine", kind="scripted")
        assert await bootstrap.first_models(gateway) == []
        assert (await gateway.models.list())["models"] == []
