"""The registry and routing over HTTP: what operators and their scripts do, each answer held to the OpenAPI document."""

import aiohttp
import pytest
from api_kit import Api
from trunkline.client import Gateway

pytest_plugins = ["gateway", "edge_kit"]

LLAMA = {
    "id": "meta/llama-3.1",
    "provider": "scripted",
    "upstream": "echo",
    "capabilities": {"reasoning": 0.9},
    "features": ["tools"],
    "tags": ["open"],
}
LLAMA_PATH = "/api/models/meta%2Fllama-3.1"


@pytest.fixture
def api(http: aiohttp.ClientSession) -> Api:
    """A client that checks every answer against the document."""
    return Api(http)


async def test_a_model_goes_through_its_whole_life(api: Api) -> None:
    registered = await api("POST", "/api/models/register", LLAMA, status=201)
    assert registered["id"] == LLAMA["id"]
    assert registered["model"]["upstream"] == "echo"
    await api("POST", "/api/models/register", LLAMA, status=409)
    assert (await api("GET", LLAMA_PATH))["model"]["tags"] == ["open"]
    changed = await api("PATCH", LLAMA_PATH, {"tags": ["a", "b"], "reason": "sorting"})
    assert changed["model"]["tags"] == ["a", "b"]
    deployed = await api("POST", f"{LLAMA_PATH}/deploy", {"version": "2", "upstream": "tokens:5", "weight": 0.25})
    assert deployed["model"]["canary"]["weight"] == 0.25
    assert (await api("POST", f"{LLAMA_PATH}/promote"))["model"]["version"] == "2"
    await api("POST", f"{LLAMA_PATH}/disable", {"reason": "too dear"})
    assert (await api("POST", f"{LLAMA_PATH}/disable"))["changed"] is False
    await api("POST", f"{LLAMA_PATH}/enable")
    retired = await api("POST", f"{LLAMA_PATH}/retire", {"drain_s": 0})
    assert retired["running"] == 0
    await api("DELETE", LLAMA_PATH, reason="cleaning")
    assert (await api("GET", LLAMA_PATH, status=404))["error"]["code"] == "model_not_found"


async def test_a_reason_reaches_the_log(api: Api, gw: Gateway) -> None:
    await api("POST", "/api/models/echo/disable", {"reason": "too dear"})
    log = await gw.log()
    last = await log.last("model", "echo")
    assert last is not None
    assert getattr(last.body, "reason", None) == "too dear"


async def test_models_that_a_thread_names_are_removed_by_force_alone(api: Api) -> None:
    await api("PATCH", "/api/threads/t1", {"model": "echo"})
    refused = await api("DELETE", "/api/models/echo", status=409)
    assert refused["error"]["code"] == "conflict"
    await api("DELETE", "/api/models/echo", force="true")


async def test_models_are_listed_by_the_page_and_by_filters(api: Api) -> None:
    page = await api("GET", "/api/models", limit=2)
    assert [one["id"] for one in page["models"]] == ["echo", "fails"]
    rest = await api("GET", "/api/models", after=page["after"])
    assert [one["id"] for one in rest["models"]] == ["slow", "tokens"]
    await api("POST", "/api/models/slow/disable")
    off = await api("GET", "/api/models", status_="x", status=400)
    assert off["error"]["param"] == "status_"
    found = await api("GET", "/api/models?status=disabled")
    assert [one["id"] for one in found["models"]] == ["slow"]


async def test_models_are_discovered_by_what_they_can_do(api: Api) -> None:
    await api("POST", "/api/models/register", LLAMA, status=201)
    found = await api("GET", "/api/models/discover", capability="reasoning", features="tools", tags="open")
    assert [one["model"]["id"] for one in found["models"]] == [LLAMA["id"]]
    assert (await api("GET", "/api/models/discover", capability="reasoning", min_score="0.95"))["count"] == 0
    unknown = await api("GET", "/api/models/discover", features="telepathy", status=400)
    assert "telepathy" in unknown["error"]["message"]
    known = await api("GET", "/api/models/catalogue", kind="anthropic", limit=3)
    assert len(known["models"]) == 3


async def test_the_health_of_models_says_why_one_can_not_be_used(api: Api, gw: Gateway) -> None:
    await api("POST", "/api/models/slow/disable")
    await gw.chat.create(model="echo", messages=[{"role": "user", "content": "hi"}])
    told = {one["id"]: one for one in (await api("GET", "/api/models/health"))["models"]}
    assert told["echo"]["usable"]
    assert told["echo"]["serving"]
    assert told["echo"]["circuit"] == "closed"
    assert not told["slow"]["usable"]
    assert told["slow"]["serving"]


async def test_metrics_of_a_model_are_by_the_minute(api: Api) -> None:
    told = await api("GET", "/api/models/echo/metrics", step_s=120)
    assert told["step_s"] == 120
    wrong = await api("GET", "/api/models/echo/metrics", since="yesterday", status=400)
    assert wrong["error"]["param"] == "since"
    await api("GET", "/api/models/nobody/metrics", status=404)


async def test_a_provider_goes_through_its_whole_life(api: Api) -> None:
    told = await api("POST", "/api/providers/register", {"id": "p/2", "kind": "scripted", "local": True}, status=201)
    assert told["serving"] is True
    await api("POST", "/api/providers/register", {"id": "p/2", "kind": "scripted"}, status=409)
    assert (await api("GET", "/api/providers/p%2F2"))["provider"]["local"] is True
    assert (await api("PATCH", "/api/providers/p%2F2", {"timeout_s": 5}))["provider"]["timeout_s"] == 5
    assert (await api("GET", "/api/providers/p%2F2/health"))["reachable"] is True
    health = await api("GET", "/api/providers/health")
    assert {one["id"]: one["serving"] for one in health["providers"]} == {"p/2": True, "scripted": True}
    assert len((await api("GET", "/api/providers", limit=1))["providers"]) == 1
    await api("DELETE", "/api/providers/p%2F2")
    await api("GET", "/api/providers/p%2F2", status=404)
    await api("DELETE", "/api/providers/scripted", status=409)


async def test_a_recommendation_tells_whom_a_request_would_be_sent_to(api: Api) -> None:
    await api("POST", "/api/models/register", LLAMA, status=201)
    told = await api("GET", "/api/routing/recommend", capabilities="reasoning", input_tokens=10, optimize="quality")
    assert told["model"] == LLAMA["id"]
    avoided = await api("GET", "/api/routing/recommend", model="echo", prefer="tokens", avoid="slow", local_only="true")
    assert avoided["model"] == "echo"
    nobody = await api("GET", "/api/routing/recommend", capabilities="telepathy", status=503)
    assert nobody["error"]["code"] == "no_route"


async def test_decisions_are_listed(api: Api, gw: Gateway) -> None:
    for _ in range(2):
        await gw.chat.create(model="echo", messages=[{"role": "user", "content": "hi"}], thread="t1")
    told = await api("GET", "/api/routing/logs", limit=1)
    (one,) = told["decisions"]
    assert one["model"] == "echo"
    assert one["thread_id"] == "t1"
    earlier = await api("GET", "/api/routing/logs", limit=1, before=told["before"])
    assert earlier["decisions"][0]["seq"] < one["seq"]


async def test_a_policy_is_published_compared_and_rolled_back(api: Api) -> None:
    assert (await api("GET", "/api/routing/policy"))["version"] == 0
    rule = {"name": "all", "use": ["echo"]}
    assert (await api("POST", "/api/routing/policy/validate", {"policy": {"rules": [rule]}}))["valid"]
    published = await api("PUT", "/api/routing/policy", {"policy": {"rules": [rule]}, "base": 0, "reason": "one"})
    assert published["version"] == 1
    stale = await api("PUT", "/api/routing/policy", {"policy": {}, "base": 0}, status=409)
    assert stale["error"]["code"] == "conflict"
    broken = await api("PUT", "/api/routing/policy", {"policy": {"rules": [{"use": ["echo"]}]}}, status=400)
    assert broken["error"]["metadata"]["problems"]
    second = await api("PUT", "/api/routing/policy", {"policy": {"rules": []}})
    assert second["version"] == 2
    assert (await api("GET", "/api/routing/policy?version=1"))["policy"]["rules"][0]["name"] == "all"
    difference = await api("GET", "/api/routing/policy/diff?from=1&to=2")
    assert [one["name"] for one in difference["diff"]["removed"]] == ["all"]
    assert (await api("POST", "/api/routing/policy/rollback", {"to": 1}))["version"] == 3
    history = await api("GET", "/api/routing/policy/history", limit=2)
    assert [one["version"] for one in history["versions"]] == [3, 2]
    forced = await api("POST", "/api/routing/override", {"model": "tokens", "for_s": 60})
    assert forced["override"]["model"] == "tokens"
    assert (await api("POST", "/api/routing/override", {"model": None}))["override"] is None


async def test_what_makes_no_sense_is_told_with_where(api: Api, http: aiohttp.ClientSession) -> None:
    async with http.post("/api/models/register", data=b'{"id": "x", ') as answer:
        assert answer.status == 400
        assert "JSON" in (await answer.json())["error"]["message"]
    listed = await api("POST", "/api/models/register", [1], status=400)
    assert "object" in listed["error"]["message"]
    other = await api("PATCH", "/api/models/echo", {"id": "tokens"}, status=400)
    assert other["error"]["param"] == "id"
    number = await api("GET", "/api/models", limit="many", status=400)
    assert number["error"]["param"] == "limit"
    field = await api("GET", "/api/models", colour="red", status=400)
    assert "capability" in field["error"]["message"]
    async with http.put("/api/models/echo") as answer:
        assert answer.status == 405
        assert set(answer.headers["allow"].split(", ")) >= {"GET", "PATCH", "DELETE"}
