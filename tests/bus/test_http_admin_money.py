"""Threads, budgets, breakers, the audit and plugins over HTTP, each answer held to the OpenAPI document."""

import aiohttp
import pytest
from api_kit import Api
from trunkline.client import Gateway
from trunkline.errors import TrunklineError

pytest_plugins = ["gateway", "edge_kit"]

HELLO = [{"role": "user", "content": "hello"}]


@pytest.fixture
def api(http: aiohttp.ClientSession) -> Api:
    """A client that checks every answer against the document."""
    return Api(http)


async def test_a_threads_budget_is_set_and_its_books_are_shown(api: Api, gw: Gateway) -> None:
    await api("GET", "/api/threads/a%2Fb", status=404)
    told = await api("PUT", "/api/threads/a%2Fb/budget", {"limit_usd": "1.50", "window": "day", "reason": "trial"})
    assert told["thread_id"] == "a/b"
    assert told["limit_usd"] == "1.5"
    await api("PATCH", "/api/threads/a%2Fb", {"model": "echo", "parameters": {"temperature": 0.5}})
    await gw.chat.create(model="auto", messages=HELLO, thread="a/b")
    books = await api("GET", "/api/threads/a%2Fb")
    assert books["tokens"]["output_tokens"] > 0
    assert books["model"] == "echo"
    assert books["window"] == "day"
    assert [one["thread_id"] for one in (await api("GET", "/api/threads"))["threads"]] == ["a/b"]
    wrong = await api("PUT", "/api/threads/a%2Fb/budget", {"limit_usd": "lots"}, status=400)
    assert "lots" in wrong["error"]["message"]
    await api("PUT", "/api/threads/a%2Fb/budget", {"limit": "2"}, status=400)


async def test_budgets_above_threads_are_set_and_listed(api: Api) -> None:
    await api("GET", "/api/budgets/gateway", status=404)
    told = await api("PUT", "/api/budgets/team:red", {"budget": {"limit_usd": "5", "window": "month"}})
    assert told["scope"] == "team:red"
    assert (await api("GET", "/api/budgets/team:red"))["limit_usd"] == "5"
    assert [one["scope"] for one in (await api("GET", "/api/budgets"))["budgets"]] == ["team:red"]
    await api("PUT", "/api/budgets/nonsense", {"budget": {}}, status=400)


async def test_a_breaker_is_shown_and_reset(api: Api, gw: Gateway) -> None:
    await api("PATCH", "/api/providers/scripted", {"breaker_failures": 1})
    with pytest.raises(TrunklineError):
        await gw.chat.create(model="fails", messages=HELLO)
    assert (await api("GET", "/api/circuits?state=open"))["circuits"][0]["provider"] == "scripted"
    assert (await api("GET", "/api/circuits/scripted"))["state"] == "open"
    health = (await api("GET", "/api/models/health"))["models"][0]
    assert health["circuit"] == "open"
    assert not health["usable"]
    assert (await api("POST", "/api/circuits/scripted/reset", {"reason": "mended"}))["state"] == "closed"
    assert (await api("POST", "/api/circuits/scripted/reset"))["changed"] is False
    history = (await api("GET", "/api/circuits/scripted/history", limit=1))["events"]
    assert history[0]["type"] == "circuit.reset.v1"
    await api("GET", "/api/circuits/nobody", status=404)


async def test_a_request_is_explained(api: Api, gw: Gateway) -> None:
    answer = await gw.chat.create(model="echo", messages=HELLO, thread="t1")
    path = f"/api/audit/explain/{answer.receipt.request_id}"
    told = await api("GET", path, thread="t1", since="2026-01-01T00:00:00Z")
    (attempt,) = told["attempts"]
    assert attempt["model"] == "echo"
    assert attempt["again"] == []
    assert any(one["chosen"] for one in attempt["candidates"])
    with pytest.raises(TrunklineError):
        await gw.chat.create(model="fails", messages=HELLO, request_id="r/2")
    assert (await api("GET", "/api/audit/explain/r%2F2"))["attempts"][0]["ended"]["failure"] == "unavailable"
    await api("GET", "/api/audit/explain/nobody", status=404)
    await api("GET", "/api/audit/explain/nobody", since="soon", status=400)


async def test_the_state_is_told_as_it_was(api: Api, gw: Gateway) -> None:
    before = (await gw.models.list())["seq"]
    await api("POST", "/api/models/echo/disable")
    await gw.threads.configure(thread_id="t1", budget={"limit_usd": "1"})
    then = await api("GET", "/api/audit/state", at=before)
    assert {one["id"]: one["status"] for one in then["models"]}["echo"] == "enabled"
    now = await api("GET", "/api/audit/state", thread="t1")
    assert {one["id"]: one["status"] for one in now["models"]}["echo"] == "disabled"
    assert now["threads"][0]["limit_usd"] == "1"
    await api("GET", "/api/audit/state", at=0, status=400)
    await api("GET", "/api/audit/state", at="9" * 17, status=404)
    await api("GET", "/api/audit/state", at="9" * 40, status=400)
    await api("GET", "/api/audit/state", at="tomorrow", status=400)


async def test_plugins_and_their_numbers_are_shown(api: Api, gw: Gateway) -> None:
    await gw.chat.create(model="echo", messages=HELLO)
    listed = await api("GET", "/plugins", status_=1, status=400)
    assert listed["error"]["param"] == "status_"
    ready = await api("GET", "/plugins?status=ready")
    assert [one["name"] for one in ready["plugins"]] == ["scripted"]
    assert (await api("GET", "/plugins/scripted"))["plugin"]["providers"] == ["scripted"]
    await api("GET", "/plugins/nothing", status=404)
    numbers = {one["name"]: one for one in (await api("GET", "/plugins/metrics"))["plugins"]}
    assert numbers["scripted"]["providers"] == 1
    assert numbers["openai"]["calls"] == 0
    assert numbers["openai"]["success"] is None
