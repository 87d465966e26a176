"""`GET /metrics`, as Prometheus reads it: of all processes, and in agreement with the log."""

import math
from collections import defaultdict
from collections.abc import AsyncIterator

import aiohttp
import pytest
from audit import events
from otlp import collecting, value_of
from prometheus_client.parser import text_string_to_metric_families
from trunkline.client import Gateway
from trunkline.errors import TrunklineError
from trunkline.gateway.edge import Edge
from trunkline.host import Host
from trunkline.telemetry.config import read
from trunkline.telemetry.exporter import Exporter
from trunkline_events.thread import AttemptFailed, RequestRefused, UsageRecorded

pytest_plugins = ["gateway", "edge_kit"]

Samples = dict[str, list[tuple[dict[str, str], float]]]


async def scrape(http: aiohttp.ClientSession, query: str = "") -> Samples:
    """Every sample by name."""
    async with http.get(f"/metrics{query}") as got:
        assert got.status == 200
        assert got.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
        text = await got.text()
    found: Samples = defaultdict(list)
    names = set()
    for family in text_string_to_metric_families(text):
        assert family.name not in names, f"{family.name} comes twice"
        names.add(family.name)
        for sample in family.samples:
            found[sample.name].append((sample.labels, sample.value))
    return found


def total(samples: Samples, name: str, **labels: str) -> float:
    """The sum of a metric over all series with these labels."""
    return math.fsum(value for had, value in samples[name] if labels.items() <= had.items())


@pytest.fixture
async def second(bus_url: str) -> AsyncIterator[Host]:
    """Another process's worth of routers and providers."""
    serving = await Host.start(bus_url, ["router", "provider"])
    yield serving
    await serving.stop()


async def use(gw: Gateway, http: aiohttp.ClientSession) -> None:
    """Chats of all sorts."""
    for number in range(8):
        await gw.chat.create("echo", "hello there", thread=f"t{number % 2}")
        chat = {"model": "tokens", "stream": True, "messages": [{"role": "user", "content": "x"}]}
        async with http.post("/v1/chat/completions", json=chat) as got:
            await got.read()
        with pytest.raises(TrunklineError):
            await gw.chat.create("fails", "x", route={"attempts": 1})


async def test_the_sums_are_those_of_the_log_over_all_processes(
    second: Host, gw: Gateway, http: aiohttp.ClientSession
) -> None:
    await use(gw, http)
    samples = await scrape(http)
    bodies = [event.body for event in await events(gw, "thread")]
    settled = [body for body in bodies if isinstance(body, UsageRecorded)]
    for model in ("echo", "tokens"):
        own = [body for body in settled if body.model == model]
        assert len(own) == 8
        assert total(samples, "trunkline_settlements_total", trunkline_model=model) == 8
        cost = total(samples, "trunkline_cost_usd_total", trunkline_model=model)
        assert round(cost * 1e9) == sum(body.cost_nanos for body in own)
        for direction in ("input", "output"):
            metric = f"gen_ai_client_inference_usage_{direction}_tokens_total"
            tokens = sum(getattr(body.usage, f"{direction}_tokens") for body in own)
            assert total(samples, metric, trunkline_model=model, gen_ai_token_modality="unknown") == tokens
        took = total(samples, "gen_ai_client_inference_duration_seconds_sum", trunkline_model=model)
        assert took == pytest.approx(sum(body.latency_ms for body in own) / 1000)
    firsts = total(samples, "gen_ai_client_inference_time_to_first_chunk_seconds_count")
    assert firsts == sum(body.model == "tokens" for body in settled)
    failures = [body for body in bodies if isinstance(body, AttemptFailed)]
    failed = total(samples, "gen_ai_client_inference_duration_seconds_count", error_type="unavailable")
    assert failed == len(failures) == 8
    assert total(samples, "trunkline_requests_total", trunkline_code="ok") == 16
    assert total(samples, "trunkline_requests_total", trunkline_code="unavailable") == 8
    assert total(samples, "gen_ai_server_request_duration_seconds_count") == 24
    processes = {labels["process"] for labels, _ in samples["trunkline_process_info"]}
    assert len(processes) == 2


async def test_what_a_router_turns_away_at_once_counts_too(gw: Gateway, http: aiohttp.ClientSession) -> None:
    async with http.post("/v1/chat/completions", data=b"no json") as got:
        assert got.status == 400
    samples = await scrape(http)
    assert total(samples, "trunkline_requests_total", trunkline_code="invalid_request") == 1
    route = {"http_route": "/v1/chat/completions", "http_response_status_code": "400"}
    assert total(samples, "http_server_request_duration_seconds_count", **route) == 1
    assert not [body for event in await events(gw, "thread") if isinstance(body := event.body, RequestRefused)]


async def test_buckets_are_cumulative_and_end_in_the_count(gw: Gateway, http: aiohttp.ClientSession) -> None:
    await use(gw, http)
    samples = await scrape(http)
    buckets = [
        value
        for labels, value in samples["gen_ai_client_inference_duration_seconds_bucket"]
        if labels["trunkline_model"] == "echo"
    ]
    assert len(buckets) == 15
    assert buckets == sorted(buckets)
    assert buckets[-1] == 8


async def test_breakers_budgets_and_the_log_are_as_the_gateway_has_them(
    gw: Gateway, http: aiohttp.ClientSession
) -> None:
    await gw.budgets.set(scope="team:research", budget={"limit_usd": "12.5"})
    samples = await scrape(http)
    states = {labels["state"]: value for labels, value in samples["trunkline_circuit_state"]}
    assert states == {"closed": 1, "open": 0, "half-open": 0}
    assert samples["trunkline_budget_limit_usd"] == [({"scope": "team:research"}, 12.5)]
    assert total(samples, "trunkline_budget_left_out") == 0
    assert total(samples, "trunkline_log_end") == (await events(gw))[-1].sequence
    assert total(samples, "trunkline_models", status="enabled") == 4
    assert total(samples, "process_cpu_time_seconds_total") > 0
    assert total(samples, "process_memory_usage_bytes") > 1e6
    assert total(samples, "process_open_file_descriptor_count") > 3


async def test_one_process_can_be_asked_for_itself_alone(
    second: Host, gw: Gateway, http: aiohttp.ClientSession, edge: Edge
) -> None:
    samples = await scrape(http, "?process=self")
    assert {labels["process"] for labels, _ in samples["trunkline_process_info"]} == {edge.runtime.name}


async def test_what_runs_is_in_flight(gw: Gateway, http: aiohttp.ClientSession) -> None:
    async with gw.chat.stream("slow", "x") as stream:
        await anext(aiter(stream))
        samples = await scrape(http)
    assert total(samples, "trunkline_requests_in_flight") == 1
    assert total(samples, "trunkline_calls_in_flight", trunkline_model="slow") == 1


async def test_the_same_goes_to_a_collector(host: Host, gw: Gateway, http: aiohttp.ClientSession) -> None:
    async with collecting() as collector:
        given = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
            "OTEL_EXPORTER_OTLP_HEADERS": "x-tenant=a%20b",
            "OTEL_EXPORTER_OTLP_COMPRESSION": "gzip",
            "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment.name=test",
            "OTEL_SERVICE_NAME": "ours",
        }
        otlp = read(given)
        assert otlp is not None
        exporter = Exporter(otlp, host.runtime)
        exporter.start()
        await use(gw, http)
        await exporter.stop()
        assert len(collector.named("route chat")) == 24
    assert {one["x-tenant"] for one in collector.fields} == {"a b"}
    assert {one["content-encoding"] for one in collector.fields} == {"gzip"}
    resource = collector.metrics[0][0]
    assert (resource["service.name"], resource["deployment.environment.name"]) == ("ours", "test")
    by_name = {metric.name: metric for _, metric in collector.metrics}
    points = by_name["trunkline.cost"].sum.data_points
    costs = [body.cost_nanos for event in await events(gw, "thread") if isinstance(body := event.body, UsageRecorded)]
    assert round(sum(point.as_double for point in points) * 1e9) == sum(costs)
    counted = by_name["gen_ai.client.inference.duration"].histogram.data_points
    labels = [{one.key: value_of(one.value) for one in point.attributes} for point in counted]
    assert {one["gen_ai.provider.name"] for one in labels} == {"scripted"}
    assert {one.get("error.type") for one in labels} == {None, "unavailable"}
    assert "trunkline.circuit.state" in by_name
