"""An Ollama of our own, over real HTTP: models that can be listed, shown, pulled step by step, and deleted."""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from upstream import Handler, Reply, Request, Upstream, answer
from wires.ollama import NDJSON

SIZE = 4_000_000_000
LAYER = "sha256:6a0746a1ec1a"


class _Server(Upstream):
    """One that tells of each client that left before the end of its answer."""

    def __init__(self, handler: Handler) -> None:
        super().__init__(handler=handler)
        self.gone = asyncio.Semaphore(0)

    async def _answer(self, reply: Reply, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        try:
            return await super()._answer(reply, reader, writer)
        except ConnectionError:
            self.gone.release()
            raise


class FakeOllama:
    """The server. A pull goes on at `step`, or ends by itself where `paced` is false; `pulls` counts those begun."""

    def __init__(self, *models: str, paced: bool = True) -> None:
        self.models = {f"{name}:latest" if ":" not in name else name: "0" for name in models}
        self.pulls: list[str] = []
        self.completed: dict[str, int] = {}
        self.paced = paced
        self._steps = asyncio.Queue[int]()
        self._server = _Server(self._answer)
        self.left = self._server.gone
        """Released once for each pull that its client left."""
        self.capabilities = ["completion", "tools", "thinking"]

    @property
    def url(self) -> str:
        return self._server.url.removesuffix("/v1")

    @asynccontextmanager
    async def serving(self) -> AsyncIterator["FakeOllama"]:
        async with self._server.serving():
            yield self

    def step(self, completed: int = SIZE) -> None:
        """Let the pull that runs come so far."""
        self._steps.put_nowait(completed)

    def requests(self, path: str) -> list[Any]:
        return [json.loads(one.body) for one in self._server.requests if one.path == path]

    async def _answer(self, request: Request) -> Reply:
        body = json.loads(request.body) if request.body else {}
        name = body.get("model", "")
        full = name if ":" in name else f"{name}:latest"
        match request.method, request.path:
            case "GET", "/api/tags":
                return answer({"models": [self._listed(one) for one in self.models]})
            case "GET", "/api/ps":
                return answer({"models": [{**self._listed(one), "size_vram": 1} for one in list(self.models)[:1]]})
            case "POST", "/api/show":
                if full not in self.models:
                    return answer({"error": f'model "{name}" not found'}, 404)
                return answer({"model_info": {"llama.context_length": 131072}, "capabilities": self.capabilities})
            case "POST", "/api/pull":
                self.pulls.append(full)
                return Reply(headers={"content-type": NDJSON}, pieces=self._pieces(full))
            case "DELETE", "/api/delete":
                if self.models.pop(full, None) is None:
                    return answer({"error": f"model '{name}' not found"}, 404)
                return Reply([])
            case "POST", "/api/chat":
                message = {"role": "assistant", "content": "Hello."}
                return answer({"message": message, "done": True, "prompt_eval_count": 3, "eval_count": 2})
        return answer({"error": "no such path"}, 404)

    def _listed(self, name: str) -> dict[str, Any]:
        digest = hashlib.sha256(f"{name}{self.models[name]}".encode()).hexdigest()
        details = {"family": "llama", "parameter_size": "3.2B", "quantization_level": "Q4_K_M"}
        return {"name": name, "model": name, "size": SIZE, "digest": digest, "details": details}

    async def _pieces(self, name: str) -> AsyncIterator[bytes]:
        yield _line(status="pulling manifest")
        if name.startswith("nowhere"):
            yield _line(error="pull model manifest: file does not exist")
            return
        done = self.completed.get(name, 0)
        while done < SIZE:
            yield _line(status="pulling 6a0746a1ec1a", digest=LAYER, total=SIZE, completed=done)
            try:
                async with asyncio.timeout(0.05):  # it says how far it is again and again, so it sees who left
                    done = await self._steps.get() if self.paced else SIZE
            except TimeoutError:
                continue
            self.completed[name] = done
        yield _line(status="pulling 6a0746a1ec1a", digest=LAYER, total=SIZE, completed=SIZE)
        yield _line(status="verifying sha256 digest")
        self.models[name] = str(int(self.models.get(name, "0")) + 1)
        yield _line(status="success")


def _line(**fields: object) -> bytes:
    return json.dumps(fields).encode() + b"\n"
