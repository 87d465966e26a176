"""The HTTP server of the edge, by its bytes: what may hold up a connection, and how it ends."""

import asyncio
import json

import pytest
from embedded_kit import eventually
from messages import register
from raw_http import get, post, raw
from trunkline.client import Gateway
from trunkline.gateway.edge import Edge, Limits
from trunkline.gateway.server import HttpServer, PortTaken, bound, serving

pytest_plugins = ["gateway", "edge_kit"]

READ_S = 1.0
HELLO = {"model": "echo", "messages": [{"role": "user", "content": "hello"}]}
STREAM = {"model": "slow", "stream": True, "messages": [{"role": "user", "content": "hello"}]}


@pytest.fixture
def edge_limits() -> Limits:
    return Limits(read_s=READ_S)


async def test_requests_on_one_connection_are_answered_in_turn_also_when_sent_at_once(
    edge_url: str, gw: Gateway
) -> None:
    async with raw(edge_url) as client:
        client.write(post(HELLO) + get("/livez") + post({**HELLO, "stream": True}) + get("/livez"))
        first, second, third, fourth = [await client.answer() for _ in range(4)]
        assert first.json["choices"][0]["message"]["content"] == "hello"
        assert second.json == fourth.json == {"status": "ok"}
        assert third.body.endswith(b"data: [DONE]\n\n")
        client.write(get("/livez"))
        assert (await client.answer()).status == 200


async def test_a_client_may_ask_for_the_end_of_the_connection_and_speak_http_1_0(edge_url: str) -> None:
    async with raw(edge_url) as client:
        client.write(get("/livez", connection="close"))
        assert (await client.answer()).headers["connection"] == "close"
        assert await client.ended() == b""
    async with raw(edge_url) as client:
        client.write(b"GET /livez HTTP/1.0\r\n\r\n")
        assert (await client.answer()).json == {"status": "ok"}
        assert await client.ended() == b""


async def test_a_stream_to_http_1_0_ends_with_the_connection(edge_url: str, gw: Gateway) -> None:
    async with raw(edge_url) as client:
        client.write(post({**HELLO, "stream": True}).replace(b"HTTP/1.1", b"HTTP/1.0"))
        status, fields = await client.head()
        assert status == 200
        assert "transfer-encoding" not in fields
        assert (await client.ended()).endswith(b"data: [DONE]\n\n")


async def test_head_has_the_head_of_get_and_options_says_what_may_be(edge_url: str) -> None:
    async with raw(edge_url) as client:
        client.write(get("/livez") + get("/livez", "HEAD") + get("/v1/chat/completions", "OPTIONS") + get("/livez"))
        whole = await client.answer()
        head = await client.answer(body=False)
        assert (head.status, head.headers["content-length"]) == (200, whole.headers["content-length"])
        options = await client.answer()
        assert options.status == 204
        assert options.headers["allow"] == "OPTIONS, POST"
        assert not [name for name in options.headers if name.startswith("access-control")]
        assert (await client.answer()).status == 200


async def test_unknown_paths_and_methods_get_openais_errors(edge_url: str) -> None:
    async with raw(edge_url) as client:
        client.write(get("/nothing") + get("/v1/chat/completions") + post(HELLO, "/livez"))
        missing, wrong, posted = [await client.answer() for _ in range(3)]
        assert (missing.status, missing.json["error"]["code"]) == (404, "not_found")
        assert (wrong.status, wrong.headers["allow"]) == (405, "OPTIONS, POST")
        assert (posted.status, posted.headers["allow"]) == (405, "GET, HEAD, OPTIONS")
        assert missing.headers["x-request-id"] != wrong.headers["x-request-id"]


@pytest.mark.parametrize(
    "garbage",
    [
        pytest.param(b"\x16\x03\x01\x02\x00\x01", id="TLS"),
        pytest.param(b"GET\r\n\r\n", id="no path"),
        pytest.param(b"GET / HTTP/1.1\r\nbroken header\r\n\r\n", id="header"),
        pytest.param(b"POST / HTTP/1.1\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n", id="two lengths"),
        pytest.param(b"POST / HTTP/1.1\r\ncontent-length: -5\r\n\r\n", id="negative length"),
    ],
)
async def test_what_is_no_http_gets_400_and_the_end(edge_url: str, garbage: bytes) -> None:
    async with raw(edge_url) as client:
        client.write(garbage)
        answer = await client.answer()
        assert answer.status == 400
        assert answer.json["error"]["code"] == "invalid_request"
        assert await client.ended() == b""


@pytest.mark.parametrize(
    "head",
    [
        pytest.param(b"GET / HTTP/1.1\r\nx: " + b"y" * 70_000 + b"\r\n\r\n", id="one"),
        pytest.param(b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 300 + b"\r\n", id="many"),
        pytest.param(b"GET /" + b"x" * 70_000 + b" HTTP/1.1\r\n\r\n", id="path"),
        pytest.param(b"GET / HTTP/1.1\r\nx: " + b"y" * 100_000, id="without end"),
    ],
)
async def test_a_head_that_is_too_large_gets_431_and_the_end(edge_url: str, head: bytes) -> None:
    async with raw(edge_url) as client:
        client.write(head)
        assert (await client.answer()).status == 431
        assert await client.ended() == b""


@pytest.mark.parametrize(
    "begun",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\n", id="half a head"),
        pytest.param(b"POST /v1/chat/completions HTTP/1.1\r\ncontent-length: 9\r\n\r\n{", id="half a body"),
    ],
)
async def test_who_sends_too_slowly_gets_408_and_the_end(edge_url: str, begun: bytes) -> None:
    async with raw(edge_url) as client:
        client.write(begun)
        drip = asyncio.create_task(_drip(client.write, begun))
        answer = await client.answer(READ_S + 5)
        assert answer.status == 408
        drip.cancel()
        assert await client.ended() == b""


async def _drip(write: object, begun: bytes) -> None:
    """A byte now and then doesn't help."""
    while begun:
        write(b"x: y\r\n" if begun.endswith(b"\r\n") else b"1")  # type: ignore[operator]
        await asyncio.sleep(0.3)


async def test_a_body_that_is_too_large_gets_413_before_it_is_sent(edge_url: str) -> None:
    async with raw(edge_url) as client:
        client.write(b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 99999999\r\n\r\n")
        answer = await client.answer()
        assert (answer.status, answer.headers["connection"]) == (413, "close")
        assert await client.ended() == b""


async def test_a_chunked_body_that_grows_too_large_gets_413(edge_url: str) -> None:
    async with raw(edge_url) as client:
        client.write(b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n")
        for _ in range(90):
            client.write(b"%x\r\n%b\r\n" % (100_000, b"x" * 100_000))
        answer = await client.answer()
        assert (answer.status, answer.headers["connection"]) == (413, "close")


async def test_a_chunked_body_is_taken_and_who_waits_for_100_gets_it(edge_url: str, gw: Gateway) -> None:
    data = json.dumps(HELLO).encode()
    async with raw(edge_url) as client:
        head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n"
        client.write(head + b"expect: 100-continue\r\n\r\n")
        assert (await client.head())[0] == 100
        for part in (data[:10], data[10:]):
            client.write(b"%x\r\n%b\r\n" % (len(part), part))
        client.write(b"0\r\n\r\n")
        assert (await client.answer()).json["choices"][0]["message"]["content"] == "hello"


async def test_an_upgrade_that_is_not_offered_is_passed_over(edge_url: str) -> None:
    async with raw(edge_url) as client:
        client.write(get("/livez", connection="Upgrade, HTTP2-Settings", upgrade="h2c", http2_settings="AAMAAABk"))
        assert (await client.answer()).json == {"status": "ok"}


@pytest.mark.parametrize("named", ["evil.example", "", "localhost:1", "127.0.0.1/v1/../../x"])
async def test_host_and_forwarded_headers_decide_nothing(edge_url: str, named: str) -> None:
    async with raw(edge_url) as client:
        fields = "x-forwarded-for: 1.2.3.4\r\nx-forwarded-proto: https\r\nx-original-url: /health\r\nforwarded: for=_x"
        client.write(f"GET /livez HTTP/1.1\r\nhost: {named}\r\n{fields}\r\n\r\n".encode())
        assert (await client.answer()).json == {"status": "ok"}


async def test_the_first_chunk_is_out_while_the_rest_is_still_made(edge_url: str, gw: Gateway) -> None:
    await register(gw, stalls="stall:1")
    async with raw(edge_url) as client:
        client.write(post({**STREAM, "model": "stalls"}))
        assert (await client.head())[0] == 200
        assert (await client.chunk()).startswith(b"data: {")


async def test_draining_lets_streams_end_and_takes_nothing_new(edge: Edge, gw: Gateway) -> None:
    with bound("127.0.0.1", 0) as sock:
        drained = Edge(edge.runtime, edge.access, edge.routes.all)
        async with serving(drained, sock, 20) as where, raw(where.url) as idle, raw(where.url) as busy:
            idle.write(get("/livez"))
            await idle.answer()
            busy.write(post({**STREAM, "model": "tokens"}) + post(STREAM))
            assert (await busy.answer()).body.endswith(b"data: [DONE]\n\n")
            await busy.head()
            stopping = asyncio.create_task(_leave(drained))
            assert await idle.ended() == b""
            rest = await busy.ended()
            assert b"data: [DONE]" in rest
            await stopping
        with pytest.raises(ConnectionRefusedError):
            async with raw(where.url):
                pass


async def _leave(edge: Edge) -> None:
    assert edge.server is not None
    await edge.server.stop(20)


async def test_what_does_not_end_in_time_is_cut_and_its_upstream_too(edge: Edge, gw: Gateway) -> None:
    server = HttpServer(Edge(edge.runtime, edge.access, edge.routes.all))
    with bound("127.0.0.1", 0) as sock:
        await server.start(sock)
        async with raw(f"http://127.0.0.1:{sock.getsockname()[1]}") as client:
            client.write(post({**STREAM, "model": "slow"}, x_trunkline_thread="t"))
            await client.head()
            await client.chunk()
            await server.stop(0.1)
            await client.ended()
        assert server.app.in_flight == 0

    async def nothing_open() -> bool:
        return not (await gw.threads.get(thread_id="t"))["open"]

    async with asyncio.timeout(3):
        while not await nothing_open():
            pass


def test_a_taken_port_says_which_flag_changes_it() -> None:
    with bound("127.0.0.1", 0) as sock:
        sock.listen()
        port = sock.getsockname()[1]
        with pytest.raises(PortTaken, match="--http-port"):
            bound("127.0.0.1", port)


async def test_an_idle_connection_is_closed_after_a_while(
    edge: Edge, edge_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trunkline.gateway.protocol.IDLE_S", 0.1)
    async with raw(edge_url) as client:
        client.write(get("/livez"))
        await client.answer()
        assert await client.ended() == b""
    assert edge.server is not None
    server = edge.server
    await eventually(lambda: not server.connections)
