"""Where requests go: never to an address that nobody allowed, however it is written or looked up, and nowhere else."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Literal

import pytest
from trunkline_actors.adapters import Call
from trunkline_actors.adapters.openai_compatible import OpenAICompatible
from trunkline_events.failure import Failure, FailureClass, UpstreamError
from upstream import Reply, Request, Upstream, answer, free_port

Way = Literal["raw", "sdk"]
CALL = Call(body=b'{"messages": []}', model="m", timeout=10)
WHOLE = {"id": "1", "object": "chat.completion", "choices": [{"message": {"content": "hi"}, "finish_reason": "stop"}]}
KEY = "canary-Zq7-secret"

# 93.184.216.34 stands for the public internet: it is handed to sockets by nobody here.
PUBLIC = "93.184.216.34"


@pytest.fixture(params=["raw", "sdk"])
def way(request: pytest.FixtureRequest) -> Way:
    found: Way = request.param
    return found


async def failure_at(url: str, way: Way, *, stream: bool = False, **options: Any) -> Failure:
    adapter = OpenAICompatible(url, transport=way, api_key=KEY, **options)
    try:
        if stream:
            async for _ in adapter.stream(CALL):
                pass
        else:
            await adapter.complete(CALL)
    except UpstreamError as error:
        return error.failure
    finally:
        await adapter.close()
    raise AssertionError("it was called")


def refused(failure: Failure) -> bool:
    return failure.kind is FailureClass.INTERNAL and failure.message.endswith("register it with --local")


@asynccontextmanager
async def listening() -> AsyncIterator[tuple[Upstream, int]]:
    async with Upstream(answer(WHOLE)).serving() as upstream:
        yield upstream, int(upstream.url.rsplit(":", 1)[1].removesuffix("/v1"))


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "0x7f.0.0.1", "0x7f.1", "[::ffff:127.0.0.1]", "0.0.0.0"])
async def test_a_private_address_is_refused_in_every_form(host: str, way: Way, stream: bool) -> None:
    async with listening() as (upstream, port):
        assert refused(await failure_at(f"http://{host}:{port}/v1", way, stream=stream))
    assert not upstream.requests


@pytest.mark.parametrize("host", ["10.0.0.1", "169.254.169.254", "[fe80::1]", "[fd00:ec2::254]", "224.0.0.1", "[::]"])
async def test_such_an_address_is_not_even_connected_to(host: str, way: Way) -> None:
    async with asyncio.timeout(4):  # less than a connection that nobody answers may take
        assert refused(await failure_at(f"http://{host}:{free_port()}/v1", way))


@pytest.mark.parametrize("host", ["2130706433", "127.1", "0177.0.0.1", "[fe80::1%25lo]"])
async def test_an_address_that_urls_may_not_hold_is_not_called_either(host: str, way: Way) -> None:
    async with listening() as (upstream, port):
        # The SDK takes an address with a scope for a name, which nobody knows.
        assert (await failure_at(f"http://{host}:{port}/v1", way)).kind in {"internal", "connection"}
    assert not upstream.requests


async def test_a_provider_marked_local_may_be_at_any_address(way: Way) -> None:
    async with listening() as (upstream, _):
        adapter = OpenAICompatible(upstream.url, transport=way, local=True)
        await adapter.complete(CALL)
        await adapter.close()
    assert len(upstream.requests) == 1


Lookup = Callable[[str], list[str]]


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> dict[str, Lookup]:
    """Name servers: what each name is looked up as, asked anew each time."""
    known: dict[str, Lookup] = {}
    real = socket.getaddrinfo

    def look_up(host: Any, port: Any, *args: Any, **options: Any) -> Any:
        name = host.decode() if isinstance(host, bytes) else host
        if name not in known:
            return real(host, port, *args, **options)
        return [
            (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (address, int(port or 0)))
            for address in known[name](name)
        ]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    return known


async def test_a_name_that_changes_its_meaning_between_check_and_connection_leads_nowhere(
    names: dict[str, Lookup], way: Way
) -> None:
    asked: list[str] = []

    def rebinding(name: str) -> list[str]:
        asked.append(name)
        return [PUBLIC] if not len(asked) % 2 else ["127.0.0.1"]

    names["rebind.example"] = rebinding
    async with listening() as (upstream, port):
        for _ in range(4):
            failure = await failure_at(f"http://rebind.example:{port}/v1", way, timeout=0.2)
            assert failure.kind in {FailureClass.INTERNAL, FailureClass.CONNECTION, FailureClass.TIMEOUT}
    assert asked
    assert not upstream.requests


async def test_a_name_with_a_private_address_beside_a_public_one_is_called_at_the_public_one_only(
    names: dict[str, Lookup], way: Way
) -> None:
    names["both.example"] = lambda _: [PUBLIC, "127.0.0.1"]
    async with listening() as (upstream, port):
        assert not refused(await failure_at(f"http://both.example:{port}/v1", way, timeout=0.3))
    assert not upstream.requests


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("stream", [False, True])
async def test_a_redirect_is_a_failure_and_nothing_goes_to_where_it_points(status: int, stream: bool, way: Way) -> None:
    async with Upstream(answer(WHOLE)).serving() as elsewhere:
        moved = answer({}, status, location=f"{elsewhere.url}/chat/completions")
        async with Upstream(moved).serving() as upstream:
            failure = await failure_at(upstream.url, way, stream=stream, local=True)
        assert (failure.kind, failure.status) == (FailureClass.INTERNAL, status)
        assert not elsewhere.requests
        assert len(upstream.requests) == 1


async def test_cookies_are_neither_kept_nor_sent(way: Way) -> None:
    async with Upstream(answer(WHOLE, set_cookie="session=abc; Path=/")).serving() as upstream:
        adapter = OpenAICompatible(upstream.url, transport=way, local=True)
        await adapter.complete(CALL)
        await adapter.complete(CALL)
        await adapter.close()
    assert [request.headers.get("cookie") for request in upstream.requests] == [None, None]


async def test_a_proxy_of_the_environment_is_asked_and_sees_what_a_proxy_sees(
    monkeypatch: pytest.MonkeyPatch, way: Way
) -> None:
    async def proxying(request: Request) -> Reply:
        return answer(WHOLE)

    async with Upstream(handler=proxying).serving() as proxy:
        monkeypatch.setenv("http_proxy", proxy.url.removesuffix("/v1"))
        monkeypatch.setenv("no_proxy", "")
        adapter = OpenAICompatible("http://api.example/v1", transport=way)
        await adapter.complete(CALL)
        await adapter.close()
        assert refused(await failure_at("http://127.0.0.1:9/v1", way))
        assert refused(await failure_at("http://0x7f.1:9/v1", way))
    assert [request.path for request in proxy.requests] == ["http://api.example/v1/chat/completions"]
