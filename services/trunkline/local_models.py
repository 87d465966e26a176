"""`gw.local_models("ollama-1")`: the models on a provider's own machine, listed, pulled and deleted."""

from collections.abc import AsyncIterator
from types import TracebackType
from typing import Any

import msgspec
from msgspec import Struct
from nats.aio.client import Client
from nats.nuid import NUID
from trunkline_events import headers, subjects

from trunkline import errors
from trunkline.exchange import Exchange, Request

LONGEST = 7 * 86_400.0
"""Seconds that anybody listens to a pull."""


class Progress(Struct, frozen=True, kw_only=True):
    """How far a pull is. `status` is in the provider's own words; sizes are of all files it has named so far."""

    id: str
    model: str
    provider: str
    status: str
    total_bytes: int = 0
    completed_bytes: int = 0


class Pull:
    """A pull: iterate for its progress; afterwards `model` says what is there now, and `event` where that is recorded.

    Leaving early leaves the pull running; `abort_pull` ends it. Asking again joins it.
    """

    def __init__(self, client: Client, request: Request) -> None:
        self._exchange = Exchange(client, request)
        self._request_id = request.request_id
        self._done = False
        self.model: dict[str, Any] | None = None
        self.event: int | None = None

    async def __aenter__(self) -> "Pull":
        await self._exchange.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._exchange.stop()

    def __aiter__(self) -> AsyncIterator[Progress]:
        return self

    async def __anext__(self) -> Progress:
        """The next progress. Raises TrunklineError where the pull fails, is aborted, or can't begin."""
        if self._done:
            raise StopAsyncIteration
        message = await self._exchange.next()
        fields = message.headers or {}
        if headers.ERROR_CODE in fields:
            self._done = True
            raise errors.from_answer(
                fields[headers.ERROR_CODE], fields.get(headers.ERROR, ""), message.data, self._request_id
            )
        if not message.data:
            self._done = True
            self.event = int(fields.get(headers.EVENT, 0)) or None
            raise StopAsyncIteration
        told = msgspec.json.decode(message.data)
        if told["status"] == "success" and "registered" in told:
            self.model = told
        return msgspec.convert(told, Progress)


class LocalModels:
    """The models of one provider instance."""

    def __init__(self, client: Client, ask: Any, provider: str, fields: dict[str, str]) -> None:
        self._nats = client
        self._ask = ask
        self._provider = provider
        self._fields = fields

    async def list(self) -> dict[str, Any]:
        """What there is, what is loaded, as what each is registered, and which pulls go on. Raises TrunklineError."""
        return await self._command("list", {})

    async def delete(self, model: str, *, force: bool = False, reason: str | None = None) -> dict[str, Any]:
        """Delete a model's files, and what is registered with them. Raises TrunklineError."""
        return await self._command("delete", {"model": model, "force": force, "reason": reason})

    async def abort_pull(self, model: str, *, reason: str | None = None) -> dict[str, Any]:
        """End a pull; what came is kept. Raises TrunklineError."""
        return await self._command("abort-pull", {"model": model, "reason": reason})

    def pull(self, model: str, *, name: str | None = None, reason: str | None = None) -> Pull:
        """Fetch a model and register it, as `name` where that is given; or join the pull that goes on."""
        arguments = {"model": model, "as": name, "reason": reason}
        body = msgspec.json.encode({key: value for key, value in arguments.items() if value is not None})
        request = Request(
            subject=self._subject("pull"),
            body=body,
            fields=dict(self._fields),
            request_id=NUID().next().decode(),
            seconds=LONGEST,
            lonely=f"no process serves {self._provider!r}: see `trunkline providers list`, or `trunkline run provider`",
        )
        return Pull(self._nats, request)

    def _subject(self, verb: str) -> str:
        return subjects.provider_endpoint(self._provider, f"models.{verb}")

    async def _command(self, verb: str, arguments: dict[str, Any]) -> dict[str, Any]:
        given = {key: value for key, value in arguments.items() if value is not None}
        reply: dict[str, Any] = await self._ask(self._subject(verb), given, 60.0)
        return reply
