"""The raw way of bytes, whatever wire format they carry: what is kept alive, what is cut, what is tried once more."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from trunkline_actors.adapters import raw_http
from trunkline_actors.adapters.raw_http import RawHttp
from trunkline_events.failure import Failure, FailureClass, UpstreamError
from upstream import HANG_UP, SSE, Reply, Upstream, answer

NDJSON = {"content-type": "application/x-ndjson"}


@asynccontextmanager
async def calling(*replies: Reply, **options: Any) -> AsyncIterator[tuple[RawHttp, Upstream]]:
    async with Upstream(*replies).serving() as upstream:
        http = RawHttp(upstream.url, **{"local": True} | options)
        try:
            yield http, upstream
        finally:
            await http.close()


def soon(seconds: float = 5) -> float:
    return asyncio.get_running_loop().time() + seconds


async def streamed(http: RawHttp, seconds: float = 5) -> bytes:
    async with http.opened("/chat", b"{}", soon(seconds)) as source:
        return b"".join([piece async for piece in source])


async def failure_of(http: RawHttp, *, stream: bool = False) -> Failure:
    with pytest.raises(UpstreamError) as caught:
        await (streamed(http) if stream else http.fetch("/chat", b"{}", 5))
    return caught.value.failure


async def test_a_request_has_the_method_its_body_implies_or_the_one_that_is_named() -> None:
    async with calling(answer({}), headers={"x-team": "a"}) as (http, upstream):
        await http.fetch("/a?b=c", None, 5)
        await http.fetch("/a", b"{}", 5)
        await http.fetch("/a", b'{"model":"m"}', 5, method="DELETE")
    assert [(r.method, r.path, r.body) for r in upstream.requests] == [
        ("GET", "/v1/a?b=c", b""),
        ("POST", "/v1/a", b"{}"),
        ("DELETE", "/v1/a", b'{"model":"m"}'),
    ]
    assert {r.headers["x-team"] for r in upstream.requests} == {"a"}


async def test_a_path_cannot_lead_to_another_host() -> None:
    async with calling(answer({})) as (http, upstream):
        with pytest.raises(UpstreamError):
            await http.fetch("@127.0.0.1:9/x", None, 5)
    assert not upstream.requests


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
async def test_only_a_reused_connection_that_was_dead_is_opened_again(method: str) -> None:
    body = None if method == "GET" else b"{}"
    async with calling(HANG_UP, answer({}), HANG_UP, answer({}), HANG_UP) as (http, upstream):
        with pytest.raises(UpstreamError):
            await http.fetch("/a", body, 5, method=method)
        for _ in range(2):
            await http.fetch("/a", body, 5, method=method)
        with pytest.raises(UpstreamError):
            await http.fetch("/a", body, 5, method=method)
    assert [request.connection for request in upstream.requests] == [1, 2, 2, 3, 3, 4]


async def test_what_began_to_be_answered_is_not_asked_again() -> None:
    """A reused connection gives half a head and dies: the request was read, and may have been served."""
    asked = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        while await reader.readuntil(b"\r\n\r\n"):
            asked += 1
            if asked == 2:
                writer.write(b"HTTP/1.1 200 O")
                await writer.drain()
                break
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        http = RawHttp(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", local=True)
        assert await http.fetch("/a", None, 5) == b"{}"
        assert (await failure_of(http)).kind is FailureClass.CONNECTION
        await http.close()
    assert asked == 2


async def test_a_large_body_arrives_whole_and_again_where_the_connection_was_dead() -> None:
    body = b"x" * 3_000_000
    async with calling(answer({}), HANG_UP, answer({})) as (http, upstream):
        await http.fetch("/a", b"{}", 5)
        await http.fetch("/a", body, 5)
    assert [request.body == body for request in upstream.requests] == [False, True, True]


@pytest.mark.parametrize("headers", [SSE, NDJSON, {}, {"content-type": "text/plain"}])
async def test_a_stream_is_given_as_it_comes_whatever_it_calls_itself(headers: dict[str, str]) -> None:
    async with calling(Reply([b"a", b"\xff", b"b"], 200, headers)) as (http, upstream):
        for _ in range(2):
            assert await streamed(http) == b"a\xffb"
    assert {request.connection for request in upstream.requests} == {1}


@pytest.mark.parametrize("kind", ["text/html; charset=utf-8", "application/json", "Application/JSON"])
async def test_a_page_or_a_document_is_no_stream(kind: str) -> None:
    async with calling(Reply([b"<p>"], 200, {"content-type": kind})) as (http, _):
        assert (await failure_of(http, stream=True)).kind is FailureClass.INTERNAL


@pytest.mark.parametrize("after", ["complete", "stall"])
async def test_who_breaks_off_without_an_error_keeps_the_connection_if_the_end_is_near(after: Any) -> None:
    async with calling(Reply([b"a", b"b"], 200, SSE, after), answer({})) as (http, upstream):
        async with http.opened("/chat", b"{}", soon()) as source:
            await anext(source)
        await http.fetch("/a", b"{}", 5)
    assert [request.connection for request in upstream.requests] == [1, 1 if after == "complete" else 2]


async def test_an_error_within_a_stream_cuts_it_at_once() -> None:
    async with calling(Reply([b"a"], 200, SSE, "stall")) as (http, upstream):

        async def fail() -> None:
            async with http.opened("/chat", b"{}", soon()) as source:
                await anext(source)
                raise RuntimeError

        with pytest.raises(RuntimeError):
            await fail()
        async with asyncio.timeout(1):
            await upstream.left.wait()


async def test_the_deadline_of_a_stream_ends_a_wait_for_more() -> None:
    async with calling(Reply([b"a"], 200, SSE, "stall")) as (http, upstream):
        with pytest.raises(UpstreamError) as caught:
            await streamed(http, 0.1)
        assert caught.value.failure.kind is FailureClass.TIMEOUT
        await upstream.left.wait()


async def test_an_answer_without_end_is_not_kept_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(raw_http, "BODY_LIMIT", 1000)
    async with calling(Reply([b"x" * 600] * 3)) as (http, _):
        failure = await failure_of(http)
    assert (failure.kind, failure.message) == (FailureClass.INTERNAL, "upstream sent more than 1000 bytes")


async def test_an_error_answer_without_end_is_still_that_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(raw_http, "ERROR_LIMIT", 1000)
    async with calling(Reply([b"x" * 600] * 3, 503)) as (http, _):
        for stream in (False, True):
            assert (await failure_of(http, stream=stream)).kind is FailureClass.UNAVAILABLE


async def test_a_wire_format_says_what_its_errors_mean() -> None:
    def meaning(status: int | None, headers: Any, body: bytes) -> Failure:
        return Failure(kind=FailureClass.OVERLOADED, message=f"{headers['X-Why']} {body.decode()}", status=status)

    async with calling(answer({"error": 1}, 418, x_why="tea"), failure_of=meaning) as (http, _):
        failure = await failure_of(http)
    assert (failure.kind, failure.message, failure.status) == (FailureClass.OVERLOADED, 'tea {"error": 1}', 418)


async def test_a_session_that_is_being_made_is_closed_too() -> None:
    async with calling(answer({})) as (http, upstream):
        asking = asyncio.create_task(http.fetch("/a", b"{}", 5))
        await asyncio.sleep(0)
        await http.close()
        with pytest.raises(UpstreamError) as caught:
            await asking
        assert caught.value.failure.kind is FailureClass.CONNECTION
    assert not upstream.requests
