"""Fault shapes from the field, against a real upstream: what the caller got, what was recorded, what was billed."""

import re
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from audit import check_books, history, kinds
from faulty import Answer, chats, failing, register, streamed, token
from messages import Got, ask, chat_body, stream
from msgspec import Struct, field
from nats.aio.client import Client
from trunkline.client import Gateway
from trunkline_events import headers
from trunkline_events.envelope import RecordedEvent
from trunkline_events.refusal import CODES
from trunkline_events.thread import AttemptFailed, RouteDecided, UsageRecorded
from upstream import HANG_UP, Reply, answer, free_port

pytest_plugins = ["gateway"]

DOCUMENT = Path(__file__).parent.parent.parent / "docs" / "failures.md"
HTML = Reply([b"<!doctype html><p>Sign in to the Wi-Fi"], 200, {"content-type": "text/html"})
SILENCE_S = 0.5


class Shape(Struct, frozen=True, kw_only=True):
    """One fault. `reply` None: nobody listens. `chunks` are those the caller gets before it shows.

    `failure` is its class, `status` the HTTP status that is recorded with it, `code` what the caller is told,
    `retried` whether the same upstream is asked again, where there is no other.
    """

    reply: Reply | None
    failure: str
    code: str
    chunks: int = 0
    status: int | None = None
    retried: bool = True
    retry_after: float | None = None
    provider: dict[str, Any] = field(default_factory=dict)


def cut_answer(after: Any) -> Reply:
    """Half of a plain answer."""
    return Reply([b'{"id": "1", "object": "chat.completion", "choices": [{"ind'], after=after)


EITHER = {
    "connection refused": Shape(reply=None, failure="connection", code="provider_error"),
    "connection reset": Shape(reply=HANG_UP, failure="connection", code="provider_error"),
    "429 with Retry-After": Shape(
        reply=answer({"error": {"message": "slow down"}}, 429, retry_after="0.3"),
        failure="rate_limited",
        code="rate_limited",
        status=429,
        retry_after=0.3,
    ),
    "500": Shape(reply=answer({"error": {}}, 500), failure="unavailable", code="unavailable", status=500),
    "529": Shape(reply=answer({"error": {}}, 529), failure="overloaded", code="unavailable", status=529),
    "HTML with status 200": Shape(reply=HTML, failure="internal", code="provider_error", status=200, retried=False),
}
STREAMED = EITHER | {
    "an empty stream": Shape(reply=streamed(), failure="internal", code="provider_error", status=200, retried=False),
    "a malformed line": Shape(
        reply=streamed(*[token()] * 20, b"data: {garbage\n\n", token("", "stop"), b"data: [DONE]\n\n"),
        failure="internal",
        code="provider_error",
        chunks=20,
    ),
    "a malformed line, the first": Shape(
        reply=streamed(b"data: {garbage\n\n", token("", "stop")),
        failure="internal",
        code="provider_error",
        status=200,
        retried=False,
    ),
    "silence": Shape(
        reply=streamed(*[token()] * 20, after="stall"),
        failure="timeout",
        code="timeout",
        chunks=20,
        provider={"stall_timeout_s": SILENCE_S},
    ),
    "cut": Shape(reply=streamed(*[token()] * 40, after="cut"), failure="connection", code="provider_error", chunks=40),
    "an end without an end": Shape(
        reply=streamed(*[token()] * 40), failure="connection", code="provider_error", chunks=40
    ),
}
PLAIN = EITHER | {
    "an empty answer": Shape(reply=Reply([]), failure="internal", code="provider_error", status=200, retried=False),
    "silence": Shape(
        reply=cut_answer("stall"), failure="timeout", code="timeout", provider={"timeout_s": 2 * SILENCE_S}
    ),
    "cut": Shape(reply=cut_answer("cut"), failure="connection", code="provider_error"),
}
EARLY = [(name, True) for name, shape in STREAMED.items() if not shape.chunks] + [(name, False) for name in PLAIN]
LATE = [name for name, shape in STREAMED.items() if shape.chunks]


class Case:
    """One shape before a gateway. `calls` is how many chats its upstream was asked so far."""

    def __init__(self, gw: Gateway, shape: Shape, is_streamed: bool) -> None:
        self.gw, self.shape, self._streamed = gw, shape, is_streamed
        self._stack = AsyncExitStack()
        self._upstream: Any = None

    async def __aenter__(self) -> "Case":
        reply = self.shape.reply
        url = f"http://127.0.0.1:{free_port()}/v1"
        if reply is not None:
            same: Answer = lambda _count: reply  # noqa: E731
            self._upstream = await self._stack.enter_async_context(failing(same))
            url = self._upstream.url
        await register(self.gw, url, **self.shape.provider)
        return self

    async def __aexit__(self, *_details: object) -> None:
        await self._stack.aclose()

    @property
    def calls(self) -> int | None:
        return self._upstream and chats(self._upstream)

    async def ask(self, thread: str, **route: Any) -> list[Got]:
        """All messages that the caller gets."""
        nats: Client = self.gw._connection.nats
        body = chat_body("m", stream=self._streamed, max_tokens=1000, route={"attempts": 2, **route})
        fields = {headers.THREAD: thread}
        return await stream(nats, body, fields) if self._streamed else [await ask(nats, body, fields)]


def check_told(got: Got, shape: Shape) -> None:
    code = CODES[shape.code]
    assert (got.error["code"], got.fields[headers.ERROR_CODE]) == (shape.code, str(code.status))
    assert (got.error["type"], got.error["retryable"]) == (code.type, True)
    assert got.error["metadata"]["failure"] == shape.failure


def failures(recorded: list[RecordedEvent]) -> list[tuple[str, int | None]]:
    return [(one.body.failure, one.body.status) for one in recorded if isinstance(one.body, AttemptFailed)]


@pytest.mark.parametrize(("name", "is_streamed"), EARLY)
async def test_a_fault_before_the_first_chunk_is_told_recorded_and_costs_nothing(
    gw: Gateway, name: str, is_streamed: bool
) -> None:
    shape = (STREAMED if is_streamed else PLAIN)[name]
    async with Case(gw, shape, is_streamed) as case:
        messages = await case.ask("t")
        attempts = 2 if shape.retried else 1
        assert case.calls in (None, attempts)
    check_told(messages[0], shape)
    metadata = messages[0].error["metadata"]
    assert (metadata["tried"], metadata.get("retry_after")) == (["m"] * attempts, shape.retry_after)
    assert messages[0].fields[headers.ATTEMPTS] == str(attempts)
    assert [message.data for message in messages[1:]] == ([b""] if is_streamed else [])
    recorded = await history(gw, "t")
    assert kinds(recorded) == ["route-decided", "attempt-failed"] * attempts
    assert failures(recorded) == [(shape.failure, shape.status)] * attempts
    check_books(recorded)
    books = await gw.threads.get(thread_id="t")
    assert (books["settled_usd"], books["reserved_usd"], books["open"]) == ("0", "0", [])


@pytest.mark.parametrize(("name", "is_streamed"), EARLY)
async def test_a_fault_before_the_first_chunk_is_not_seen_where_another_candidate_serves(
    gw: Gateway, name: str, is_streamed: bool
) -> None:
    shape = (STREAMED if is_streamed else PLAIN)[name]
    async with Case(gw, shape, is_streamed) as case:
        messages = await case.ask("t", fallbacks=["echo"])
        assert case.calls in (None, 1)
    receipt = messages[-1].fields
    assert headers.ERROR_CODE not in messages[0].fields
    assert (receipt[headers.MODEL], receipt[headers.ATTEMPTS], receipt[headers.FINISH]) == ("echo", "2", "stop")
    recorded = await history(gw, "t")
    assert kinds(recorded) == ["route-decided", "attempt-failed", "route-decided", "usage-recorded"]
    assert failures(recorded) == [(shape.failure, shape.status)]
    settled = recorded[-1].body
    assert isinstance(settled, UsageRecorded)
    assert (settled.model, settled.settled_nanos) == ("echo", settled.cost_nanos), "the failed attempt costs nothing"
    assert (settled.partial, settled.estimated) == (False, False)
    check_books(recorded)


@pytest.mark.parametrize("fallbacks", [[], ["echo"]], ids=["alone", "with another candidate"])
@pytest.mark.parametrize("name", LATE)
async def test_a_fault_after_the_first_chunk_ends_the_stream_and_what_came_is_settled(
    gw: Gateway, name: str, fallbacks: list[str]
) -> None:
    shape = STREAMED[name]
    async with Case(gw, shape, is_streamed=True) as case:
        *chunks, told, end = await case.ask("t", fallbacks=fallbacks)
        assert case.calls == 1, "an answer never silently changes its model"
    assert [chunk.fields[headers.SEQ] for chunk in chunks] == [str(n + 1) for n in range(shape.chunks)]
    check_told(told, shape)
    assert (end.data, end.fields[headers.SEQ]) == (b"", str(shape.chunks + 1))
    recorded = await history(gw, "t")
    assert kinds(recorded) == ["route-decided", "usage-recorded"]
    decided, settled = [event.body for event in recorded]
    assert isinstance(decided, RouteDecided)
    assert isinstance(settled, UsageRecorded)
    assert (settled.finish, settled.partial, settled.estimated) == ("error", True, True)
    given, sent = settled.usage.input_tokens, settled.usage.output_tokens
    assert (given, sent) == (decided.input_bound, shape.chunks * len("word ")), "no more tokens than bytes"
    assert settled.cost_nanos == given * 1_000 + sent * 4_000 <= decided.reserve_nanos
    assert (end.fields[headers.EVENT], end.fields[headers.FINISH]) == (str(recorded[-1].sequence), "error")
    check_books(recorded)


def documented() -> dict[str, tuple[str, ...]]:
    """The rows of the document's table, by fault."""
    rows = re.findall(r"^\| (.+) \|$", DOCUMENT.read_text(encoding="utf-8"), re.MULTILINE)
    cells = [[cell.strip().strip("`") for cell in row.split(" | ")] for row in rows]
    return {fault: tuple(rest) for fault, *rest in cells}


@pytest.mark.parametrize("table", [STREAMED, PLAIN], ids=["streamed", "plain"])
def test_the_document_says_the_same(table: dict[str, Shape]) -> None:
    rows = documented()
    for name, shape in table.items():
        when = "plain" if table is PLAIN else "streamed"
        row = rows.get(name) or rows[f"{name}, {when}"]
        status = CODES[shape.code].status
        goes_on = "ends" if shape.chunks else "another, then again" if shape.retried else "another"
        assert row[:3] == (shape.failure, f"{shape.code}` {status}", goes_on), name
