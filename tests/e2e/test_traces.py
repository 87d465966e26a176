"""One trace for each request, over an edge, a router and a provider in processes of their own."""

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import trunkline
from audit import history
from faulty import failing, whole, whole_stream
from messages import ask, chat_body
from otlp import Collector, Seen, collecting
from processes import Role, running, until
from trunkline.client import Gateway
from trunkline_events import headers
from trunkline_events.connection import Connection
from upstream import Upstream, answer

pytest_plugins = ["gateway"]
pytestmark = pytest.mark.soak

PROMPT = "a-secret-prompt"
TRACE, CALLER = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
CHAT: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": PROMPT}]}
SERVER, CLIENT = 2, 3


class Setting:
    """A gateway of three processes and its collector."""

    def __init__(self, gw: Gateway, http: aiohttp.ClientSession, collector: Collector, roles: list[Role]) -> None:
        self.gw, self.http, self.collector, self.roles = gw, http, collector, roles

    async def chat(self, fields: dict[str, str] | None = None, **more: Any) -> int:
        """Ask over HTTP; the status."""
        async with self.http.post("/v1/chat/completions", json=CHAT | more, headers=fields or {}) as got:
            await got.read()
            return got.status

    async def trace(self, last: str, count: int) -> list[Seen]:
        """The spans of the one trace there is, once so many have come, one of this name among them."""
        await self.collector.until(lambda seen: len(seen.spans) >= count and bool(seen.named(last)))
        assert len({one.trace for one in self.collector.spans}) == 1
        assert len(self.collector.spans) == count
        return self.collector.spans


@asynccontextmanager
async def three(
    bus_url: str, folder: Path, endpoint: str, collector: Collector, **environ: str
) -> AsyncIterator[Setting]:
    """An edge, a router and a provider, each a process, that export to `endpoint` every few milliseconds."""
    told = {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "OTEL_BSP_SCHEDULE_DELAY": "20", "TRUNKLINE_HTTP_PORT": "0"}
    kinds = (("gateway",), ("registry", "router", "keeper"), ("provider",))
    roles = [Role(bus_url, folder, kind[0], *kind, environ={**told, **environ}) for kind in kinds]
    async with running(*roles), trunkline.connect(bus_url) as gw:
        url = json.loads((folder / "gateway.ready").read_text())["http"]
        key = (await gw.keys.issue(id="test", scopes=["chat", "read"]))["key"]
        async with aiohttp.ClientSession(base_url=url, headers={"authorization": f"Bearer {key}"}) as http:
            yield Setting(gw, http, collector, roles)


@pytest.fixture
async def setting(bus_url: str, tmp_path: Path) -> AsyncIterator[Setting]:
    """The same with a collector of ours that takes everything."""
    async with collecting() as collector, three(bus_url, tmp_path, collector.url, collector) as made:
        yield made


async def register(gw: Gateway, url: str, name: str, **more: Any) -> None:
    """A provider and a model of this name."""
    settings = {"local": True, "breaker_failures": 100, **more}
    await gw.providers.register(id=name, kind="openai-compatible", base_url=url, **settings)
    await gw.models.register(id=name, provider=name, upstream=f"{name}-large", price={"input": "1", "output": "4"})


def asked_for(upstream: Upstream) -> dict[str, str]:
    """The headers of the one chat that this upstream was asked."""
    [request] = [one for one in upstream.requests if one.method == "POST"]
    return request.headers


async def test_a_request_is_one_trace_over_http_nats_and_the_upstream(setting: Setting) -> None:
    async with failing(lambda _: whole()) as upstream:
        await register(setting.gw, upstream.url, "m")
        assert await setting.chat({"traceparent": f"00-{TRACE}-{CALLER}-01", "x-trunkline-thread": "t"}) == 200
        spans = await setting.trace("chat m-large", 3)
        sent = asked_for(upstream)["traceparent"]
    by_name = {one.name: one for one in spans}
    http, route = by_name["POST /v1/chat/completions"], by_name["route chat"]
    call, [(event, decided, said)] = by_name["chat m-large"], route.events
    assert (http.trace, http.parent) == (TRACE, CALLER)
    assert [route.parent, call.parent] == [http.span, route.span]
    assert sent == f"00-{TRACE}-{call.span}-01"
    assert [http.kind, route.kind, call.kind] == [SERVER, SERVER, CLIENT]
    assert http.start <= route.start <= decided <= call.start <= call.end <= route.end <= http.end
    assert (event, said["trunkline.attempt"], said["trunkline.model"]) == ("decided", 1, "m")
    assert route.start <= decided - said["trunkline.decide_s"] * 1e9 + 1_000
    assert 0 < call.attributes["trunkline.settle_s"] <= (http.end - call.end) / 1e9
    assert len({one.resource["service.instance.id"] for one in (http, route, call)}) == 3
    assert {one.resource["service.name"] for one in spans} == {"trunkline"}
    assert not any(one.failed for one in spans)


async def test_an_attempt_says_what_the_conventions_ask_for_and_nothing_of_the_prompt(setting: Setting) -> None:
    async with failing(lambda _: whole_stream()) as upstream:
        await register(setting.gw, upstream.url, "m")
        assert await setting.chat({"x-trunkline-thread": "t"}, stream=True, max_tokens=100) == 200
        spans = await setting.trace("chat m-large", 3)
    [call] = setting.collector.named("chat m-large")
    said = call.attributes
    assert said["gen_ai.operation.name"] == "chat"
    assert said["gen_ai.provider.name"] == "openai-compatible"
    assert (said["gen_ai.request.model"], said["trunkline.model"]) == ("m-large", "m")
    assert (said["gen_ai.request.stream"], said["gen_ai.request.max_tokens"]) == (True, 100)
    assert said["gen_ai.response.finish_reasons"] == ["stop"]
    assert said["gen_ai.usage.input_tokens"] > 0
    assert said["gen_ai.usage.output_tokens"] > 0
    assert 0 < said["gen_ai.response.time_to_first_chunk"] <= (call.end - call.start) / 1e9 + 0.001
    [route] = setting.collector.named("route chat")
    assert route.parent == setting.collector.named("POST /v1/chat/completions")[0].span
    assert route.attributes["gen_ai.conversation.id"] == "t"
    assert PROMPT not in repr(spans)
    assert "tl-" not in repr(spans)


async def test_a_second_candidate_is_a_second_attempt_in_the_same_trace(setting: Setting) -> None:
    async with failing(lambda _: answer({}, 500)) as broken, failing(lambda _: whole()) as good:
        await register(setting.gw, broken.url, "m")
        await register(setting.gw, good.url, "other")
        assert await setting.chat(route={"fallbacks": ["other"], "attempts": 2}) == 200
        await setting.trace("chat other-large", 4)
    [route] = setting.collector.named("route chat")
    [first], [second] = setting.collector.named("chat m-large"), setting.collector.named("chat other-large")
    assert first.parent == second.parent == route.span
    assert (first.failed, second.failed, route.failed) == (True, False, False)
    assert first.attributes["error.type"] == "unavailable"
    assert first.attributes["http.response.status_code"] == 500
    assert [one.attributes["trunkline.attempt"] for one in (first, second)] == [1, 2]
    assert route.attributes["trunkline.attempts"] == 2
    assert [said["trunkline.attempt"] for _, _, said in route.events] == [1, 2]
    assert len({one.span for one in setting.collector.spans}) == 4


async def test_what_comes_to_nothing_has_the_status_of_an_error(setting: Setting) -> None:
    async with failing(lambda _: answer({}, 500)) as broken:
        await register(setting.gw, broken.url, "m")
        assert await setting.chat(route={"attempts": 1}) == 503
        await setting.trace("route chat", 3)
    [http], [route] = setting.collector.named("POST /v1/chat/completions"), setting.collector.named("route chat")
    assert http.failed
    assert http.attributes["http.response.status_code"] == 503
    assert route.failed
    assert route.attributes["error.type"] == "unavailable"


async def test_a_caller_on_the_bus_gets_a_trace_too(setting: Setting, bus_url: str) -> None:
    async with failing(lambda _: whole()) as upstream:
        await register(setting.gw, upstream.url, "m")
        connection = await Connection.open(bus_url, name="caller")
        assert headers.EVENT in (await ask(connection.nats, chat_body("m"))).fields
        await connection.close()
        spans = await setting.trace("route chat", 2)
    [root] = [one for one in spans if not one.parent]
    assert root.name == "route chat"


async def test_a_caller_that_records_nothing_is_not_recorded(setting: Setting) -> None:
    async with failing(lambda _: whole()) as upstream:
        await register(setting.gw, upstream.url, "m")
        assert await setting.chat({"traceparent": f"00-{TRACE}-{CALLER}-00"}) == 200
        assert await setting.chat({"traceparent": f"00-{TRACE[::-1]}-{CALLER}-01"}) == 200
        await setting.collector.until(lambda seen: len(seen.spans) >= 3)
    assert {one.trace for one in setting.collector.spans} == {TRACE[::-1]}
    recorded = [event.traceparent for event in await history(setting.gw)]
    assert [one for one in recorded if one and TRACE in one] == [f"00-{TRACE}-{CALLER}-00"] * 2


async def test_no_provider_is_told_the_trace_where_that_is_switched_off(bus_url: str, tmp_path: Path) -> None:
    quiet = {"TRUNKLINE_TRACE_UPSTREAM": "none"}
    async with (
        collecting() as collector,
        three(bus_url, tmp_path, collector.url, collector, **quiet) as made,
        failing(lambda _: whole()) as upstream,
    ):
        await register(made.gw, upstream.url, "m")
        assert await made.chat() == 200
        await made.trace("chat m-large", 3)
        assert "traceparent" not in asked_for(upstream)


async def collector_process() -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        str(Path(__file__).parent.parent / "otlp.py"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )


async def test_a_collector_that_stands_still_or_is_gone_delays_nobody(bus_url: str, tmp_path: Path) -> None:
    """With room for few spans, so that it runs out; what is dropped is counted, and the end does not wait either."""
    process = await collector_process()
    assert process.stdout is not None
    url = (await process.stdout.readline()).decode().strip()
    process.send_signal(signal.SIGSTOP)
    try:
        small = {"OTEL_BSP_MAX_QUEUE_SIZE": "8"}
        async with three(bus_url, tmp_path, url, Collector(), **small) as made, failing(lambda _: whole()) as upstream:
            await register(made.gw, upstream.url, "m")
            async with asyncio.timeout(8):  # the exporter's own patience is ten seconds for each message
                assert [await made.chat() for _ in range(30)] == [200] * 30
            process.kill()
            assert await made.chat() == 200
            async with made.http.get("/metrics") as got:
                page = await got.text()
            dropped = [line for line in page.splitlines() if line.startswith("trunkline_telemetry_spans_total{")]
            assert any('state="dropped"' in line and not line.endswith(" 0") for line in dropped), dropped
            async with asyncio.timeout(10):
                assert await asyncio.gather(*(role.ended_gently() for role in made.roles)) == [0, 0, 0]
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def test_a_process_that_exports_nothing_loads_nothing_for_it(bus_url: str, tmp_path: Path) -> None:
    """It serves as it would with telemetry left out, OpenTelemetry's packages included."""
    script = """
import asyncio, sys
from trunkline.cli import main
from trunkline_actors import router

asked = router.RouterActor._carry
async def carry(*args):
    await asked(*args)
    unwanted = {"opentelemetry", "google.protobuf", "trunkline.telemetry.exporter"}
    print("loaded", sorted(unwanted & sys.modules.keys()), flush=True)

router.RouterActor._carry = carry
sys.argv = ["trunkline", "run", "registry", "router", "provider", "keeper", "gateway", "--ready-file", sys.argv[1]]
sys.exit(main.main())
"""
    ready = tmp_path / "ready"
    environ = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    environ |= {"TRUNKLINE_NATS": bus_url, "TRUNKLINE_HTTP_PORT": "0"}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", script, str(ready)), stdout=asyncio.subprocess.PIPE, env=environ
    )
    try:
        await until(ready.exists)
        async with trunkline.connect(bus_url) as gw, failing(lambda _: whole()) as upstream:
            await register(gw, upstream.url, "m")
            await gw.chat.create("m", "hello")
        assert process.stdout is not None
        assert await process.stdout.readline() == b"loaded []\n"
    finally:
        process.kill()
        await process.wait()
