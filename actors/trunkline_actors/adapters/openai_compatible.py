"""Any upstream that speaks OpenAI's Chat Completions and Embeddings, over one of two ways to reach it.

`raw` is our own HTTP path, which is what makes a gateway fast; `sdk` is the `openai` package, slower and not ours. Both
are held to the same scenarios, so that each checks the other. Bodies and streams pass as bytes, through `wire`.
"""

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Literal

from trunkline_events.failure import FailureClass
from trunkline_events.registry import RESPONSES

from trunkline_actors.adapters import Answer, Call, Chunk, End, faults, wire
from trunkline_actors.adapters.dialect import PLAIN, Dialect
from trunkline_actors.adapters.raw_http import RawHttp
from trunkline_actors.adapters.responses import ResponsesReader, read_response
from trunkline_actors.adapters.responses_request import responses_body
from trunkline_actors.adapters.sdk_http import SdkHttp
from trunkline_actors.adapters.transport import Transport


class OpenAICompatible:
    """One upstream at `base_url` (with its `/v1`), under one credential.

    `headers` go with every request and win over our own. `timeout` is in seconds, for each wait on the network and for
    `check`; each call brings its own total. `local`: private addresses may be called. `dialect` is what sets an
    upstream apart; where that has the Responses API, models whose names begin with `responses/` are called over it.
    Cheap to construct: what carries the calls is imported and made at the first of them.
    """

    def __init__(
        self,
        base_url: str,
        *,
        api_key: str | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float = 60.0,
        local: bool = False,
        transport: Literal["raw", "sdk"] = "raw",
        dialect: Dialect = PLAIN,
    ) -> None:
        self._timeout = timeout
        self._dialect = dialect
        self._secrets = faults.secrets_of(api_key, *(headers or {}).values())
        self._transport = _transport(
            transport, base_url, api_key, headers or {}, timeout, local=local, secrets=self._secrets
        )

    async def complete(self, call: Call) -> Answer:
        """Answer a chat request as a whole. Raises UpstreamError."""
        if self._over_responses(call):
            answered = await self._transport.fetch("/responses", responses_body(call, stream=False), call.timeout)
            return read_response(answered, secrets=self._secrets)
        body = wire.chat_body(call, stream=False, dialect=self._dialect)
        answered = await self._transport.fetch("/chat/completions", body, call.timeout)
        return wire.read_completion(answered, secrets=self._secrets, dialect=self._dialect)

    async def embed(self, call: Call) -> Answer:
        """Answer an embeddings request. Raises UpstreamError."""
        if not self._dialect.embeddings:
            raise faults.upstream_error(FailureClass.INVALID_REQUEST, "this kind of provider has no embeddings")
        answered = await self._transport.fetch("/embeddings", wire.embeddings_body(call), call.timeout)
        return wire.read_embeddings(answered, secrets=self._secrets)

    async def check(self) -> None:
        """Return if the dialect's `check_path` is answered with JSON. Raises UpstreamError."""
        body = await self._transport.fetch(self._dialect.check_path, None, self._timeout)
        if not body.lstrip().startswith((b"{", b"[")):
            raise faults.upstream_error(FailureClass.INTERNAL, "upstream sent no list of models", 200)

    async def stream(self, call: Call) -> AsyncGenerator[Chunk | End, None]:
        """Answer a chat request chunk by chunk, then one End. Raises UpstreamError, also after chunks were given."""
        reader: wire.StreamReader | ResponsesReader
        if self._over_responses(call):
            path, body = "/responses", responses_body(call, stream=True)
            reader = ResponsesReader(include_usage=call.include_usage, secrets=self._secrets)
        else:
            path, body = "/chat/completions", wire.chat_body(call, stream=True, dialect=self._dialect)
            reader = wire.StreamReader(include_usage=call.include_usage, secrets=self._secrets, dialect=self._dialect)
        deadline = asyncio.get_running_loop().time() + call.timeout
        async with (
            self._transport.opened(path, body, deadline) as source,
            aclosing(source),
        ):
            async for data in source:
                for chunk in reader.feed(data):
                    yield chunk
                if reader.done:
                    break
            else:
                for chunk in reader.finish():
                    yield chunk
            end = reader.end()
        yield end

    def _over_responses(self, call: Call) -> bool:
        return self._dialect.responses and call.model.startswith(RESPONSES)

    async def close(self) -> None:
        """Release connections. Calls under way end in UpstreamError."""
        await self._transport.close()


def _transport(
    kind: Literal["raw", "sdk"],
    base_url: str,
    api_key: str | None,
    headers: Mapping[str, str],
    timeout: float,
    *,
    local: bool,
    secrets: tuple[str, ...],
) -> Transport:
    if kind == "sdk":
        return SdkHttp(base_url, api_key=api_key, headers=headers, timeout=timeout, local=local, secrets=secrets)
    named = {name.lower() for name in headers}
    credential = {"Authorization": f"Bearer {api_key}"} if api_key and "authorization" not in named else {}
    return RawHttp(base_url, headers={**credential, **headers}, timeout=timeout, local=local, secrets=secrets)
