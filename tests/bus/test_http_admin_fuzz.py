"""Schemathesis over the OpenAPI document: whatever is sent, nothing crashes, breaks its schema or lets in strangers."""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import hypothesis
import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from raw_http import raw
from schemathesis.checks import CHECKS
from schemathesis.core.result import Ok
from schemathesis.generation import GenerationMode
from trunkline.client import Gateway
from trunkline.gateway import openapi
from trunkline.gateway.access import Access
from trunkline.gateway.edge import Edge
from trunkline.gateway.paths import ROUTES
from trunkline.gateway.routes import Route
from trunkline.gateway.server import bound, serving
from trunkline.host import Host

pytest_plugins = ["gateway", "edge_kit"]
pytestmark = pytest.mark.soak

SCHEMA = schemathesis.openapi.from_dict(openapi.document(ROUTES, "0"))
NO_ACCIDENT = {"no_route", "provider_error", "timeout"}
"""Codes of refusals whose status is above 499 and that a healthy gateway may give."""
CONFORMS: list[Any] = [
    CHECKS.get_one(name)
    for name in ("status_code_conformance", "content_type_conformance", "response_schema_conformance")
]

SHORT = 4
"""Requests an operation, of either kind."""

Case = schemathesis.Case[Any]
Operation = schemathesis.schemas.APIOperation[Any, Any, Any, Any]
Tell = Callable[[Case], None]


def operations() -> Iterator[Operation]:
    """All that is documented."""
    for found in SCHEMA.get_all_operations():
        assert isinstance(found, Ok)
        yield found.ok()


KNOWN = {
    **dict.fromkeys(("GET /api/models/{id}", "PATCH /api/models/{id}", "GET /api/models/{id}/metrics"), "echo"),
    **{f"POST /api/models/{{id}}/{verb}": "spare" for verb in ("enable", "disable", "deploy", "promote")},
    **{f"{method} /api/threads/{{id}}": "t1" for method in ("GET", "PATCH")},
    **{f"{method} /api/budgets/{{scope}}": "team:red" for method in ("GET", "PUT")},
    **{f"GET /api/circuits/{{id}}{more}": "scripted" for more in ("", "/history")},
    "POST /api/circuits/{id}/reset": "scripted",
    "PUT /api/threads/{id}/budget": "t1",
    "GET /api/providers/{id}": "scripted",
    "PATCH /api/providers/{id}": "unused",
    "GET /api/providers/{id}/health": "scripted",
    "GET /api/audit/explain/{request}": "r1",
    "GET /plugins/{name}": "scripted",
    "GET /v1/models/{id}": "echo",
    "DELETE /api/models/{id}": "spare",
    "POST /api/models/{id}/retire": "spare",
    "DELETE /api/providers/{id}": "unused",
}
"""For paths that name something: what there is of it. What ends something comes last."""


def fuzz(operation: Operation, examples: int, tell: Tell, named: dict[str, str] | None = None) -> None:
    """Send so many requests to an operation as documented, and so many that are not."""
    for mode in GenerationMode:
        cases = operation.as_strategy(generation_mode=mode, path_parameters=named)

        @settings(max_examples=examples, deadline=None, database=None, suppress_health_check=list(HealthCheck))
        @given(case=cases)
        def run(case: Case) -> None:
            tell(case)

        with contextlib.suppress(hypothesis.errors.Unsatisfiable):  # it takes nothing that could be wrong
            run()


def sound(url: str) -> Tell:
    """The check that an answer is no accident, and as documented."""
    session = requests.Session()

    def tell(case: Case) -> None:
        answer = case.call(base_url=url, session=session, timeout=30)
        if answer.status_code >= 500:
            assert answer.json()["error"]["code"] in NO_ACCIDENT, answer.text
        case.validate_response(answer, checks=CONFORMS)

    return tell


def shut(url: str, opened: set[str], key: str | None) -> Tell:
    """The check that nothing but what is open to anybody lets a stranger in."""
    session = requests.Session()
    fields = {} if key is None else {"authorization": f"Bearer {key}"}

    def tell(case: Case) -> None:
        answer = case.call(base_url=url, session=session, headers=fields, timeout=30)
        if case.operation.label not in opened:
            assert answer.status_code == 401, answer.text

    return tell


async def all_of(examples: int, tell: Tell) -> None:
    """Every operation with whatever names, then those that name something with what there is."""
    found = {operation.label: operation for operation in operations()}
    assert set(KNOWN) <= set(found)
    for operation in found.values():
        await asyncio.to_thread(fuzz, operation, examples, tell)
    for label, name in KNOWN.items():
        part = label.partition("{")[2].partition("}")[0]
        await asyncio.to_thread(fuzz, found[label], examples, tell, {part: name})


@pytest.fixture
async def url(edge: Edge, gw: Gateway) -> str:
    """An edge of a gateway that has one of everything, and whose models all answer."""
    for model in ("fails", "slow"):
        await gw.models.remove(id=model)
    await gw.providers.register(id="unused", kind="scripted", local=True)
    await gw.models.register(id="spare", provider="scripted", upstream="echo")
    await gw.threads.configure(thread_id="t1", budget={"limit_usd": "1"})
    await gw.budgets.set(scope="team:red", budget={"limit_usd": "1"})
    await gw.chat.create(model="echo", messages=[{"role": "user", "content": "hi"}], thread="t1", request_id="r1")
    return edge.url


@pytest.fixture
async def guarded(host: Host) -> AsyncIterator[str]:
    """An edge that asks for keys."""
    edge = Edge(host.runtime, Access(lambda: host.runtime.door), ROUTES)
    with bound("127.0.0.1", 0) as sock:
        async with serving(edge, sock, 5.0):
            yield edge.url


@pytest.mark.soak
async def test_nothing_that_is_sent_is_an_accident(url: str) -> None:
    await all_of(SHORT, sound(url))


@pytest.mark.soak
async def test_nothing_of_very_much_that_is_sent_is_an_accident(url: str) -> None:
    await all_of(200, sound(url))


@pytest.mark.soak
@pytest.mark.parametrize("key", [None, "tl-" + "x" * 43])
async def test_nothing_that_is_sent_lets_a_stranger_in(guarded: str, gw: Gateway, key: str | None) -> None:
    opened = {f"{route.method} {route.path}" for route in ROUTES if route.access == "open"}
    await all_of(2, shut(guarded, opened, key))


TOKEN = st.text("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_", min_size=1, max_size=20)
VALUE = st.binary(max_size=60).map(lambda value: re.sub(rb"[\r\n\0]", b"", value))
HOST = st.sampled_from([b"admin.internal", b"127.0.0.1", b"evil.example/api", b"a@b", b"[::1]:99999", b""]) | VALUE
TRUSTED = (
    "x-forwarded-for",
    "x-forwarded-host",
    "x-original-url",
    "x-rewrite-url",
    "x-http-method-override",
    "forwarded",
)
NAMES = TOKEN | st.sampled_from(TRUSTED)
ROUTE = st.sampled_from([route for route in ROUTES if route.access != "open" and route.method == "GET"])


async def test_no_header_and_no_host_lets_a_stranger_in(guarded: str) -> None:
    async def answered(head: bytes) -> bytes:
        async with raw(guarded) as connection:
            connection.write(head)
            async with asyncio.timeout(15):
                return await connection.reader.readline()

    async def tell(head: bytes) -> None:
        line = await answered(head)
        status = int(line.split(b" ")[1])
        assert 400 <= status < 500, (head, line)

    loop = asyncio.get_running_loop()

    @settings(max_examples=150, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(route=ROUTE, host=HOST, fields=st.lists(st.tuples(NAMES, VALUE), max_size=6), scheme=VALUE)
    def run(route: Route, host: bytes, fields: list[tuple[str, bytes]], scheme: bytes) -> None:
        lines = [f"GET {route.path} HTTP/1.1".encode(), b"host: " + host, b"authorization: " + scheme]
        lines += [name.encode() + b": " + value for name, value in fields]
        head = b"\r\n".join([*lines, b"connection: close"]) + b"\r\n\r\n"
        asyncio.run_coroutine_threadsafe(tell(head), loop).result()

    await asyncio.to_thread(run)
