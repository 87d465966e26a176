"""The log over HTTP: pages, and live streams that resume without a gap, that nobody slow holds up, and that end."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from api_kit import Api
from trunkline.client import Gateway
from trunkline.gateway import events_api
from trunkline.gateway.edge import Edge

pytest_plugins = ["gateway", "edge_kit"]

STREAM = {"accept": "text/event-stream"}


@pytest.fixture
def api(http: aiohttp.ClientSession) -> Api:
    """A client that checks every answer against the document."""
    return Api(http)


class Live:
    """A stream of events: `next` gives the next one as (id, data), `block` the next block whatever it is."""

    def __init__(self, answer: aiohttp.ClientResponse) -> None:
        self.answer = answer

    async def block(self) -> list[str]:
        """The lines of a block; nothing at the end."""
        lines: list[str] = []
        async for raw in self.answer.content:
            line = raw.decode().rstrip("\n")
            if not line:
                return lines
            lines.append(line)
        return lines

    async def next(self) -> tuple[int, dict[str, Any]]:
        """The next event."""
        while lines := await self.block():
            fields = dict(line.split(": ", 1) for line in lines if not line.startswith(":"))
            if "data" in fields:
                return int(fields["id"]), json.loads(fields["data"])
        raise AssertionError("the stream ended")


@asynccontextmanager
async def live(http: aiohttp.ClientSession, query: str = "", last: int | None = None) -> AsyncIterator[Live]:
    """An open stream that has begun."""
    fields = STREAM if last is None else {**STREAM, "last-event-id": str(last)}
    async with http.get(f"/api/events{query}", headers=fields) as answer:
        assert answer.status == 200
        assert answer.content_type == "text/event-stream"
        stream = Live(answer)
        assert (await stream.block())[0].startswith(":")
        yield stream


async def test_pages_hold_every_event_once_and_in_order(api: Api) -> None:
    found: list[int] = []
    after: int | None = 0
    while after is not None:
        page = await api("GET", "/api/events", limit=2, after=after)
        assert len(page["events"]) <= 2
        found += [one["seq"] for one in page["events"]]
        after = page["after"]
    assert found == list(range(1, page["seq"] + 1))


async def test_pages_are_narrowed_by_category_id_type_and_time(api: Api) -> None:
    began = time.time()
    await api("POST", "/api/models/echo/disable")
    models = await api("GET", "/api/events", category="model,provider", id="echo")
    assert [one["type"] for one in models["events"]] == ["model.registered.v1", "model.disabled.v1"]
    exact = await api("GET", "/api/events", type="model.disabled.v1")
    assert [one["id"] for one in exact["events"]] == ["echo"]
    unversioned = await api("GET", "/api/events", type="model.disabled")
    assert unversioned["events"] == exact["events"]
    since = await api("GET", "/api/events", since=f"{began:.6f}")
    assert [one["type"] for one in since["events"]] == ["model.disabled.v1"]
    await api("GET", "/api/events", category="weather", status=400)
    await api("GET", "/api/events", since="soon", status=400)
    await api("GET", "/api/events?id=", status=400)
    await api("GET", "/api/events", after=2**63, status=400)


async def test_a_page_that_looked_at_enough_says_where_to_go_on(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events_api, "SCANNED", 2)
    page = await api("GET", "/api/events", type="model.disabled")
    assert page["events"] == []
    assert page["after"] == 2


async def test_events_come_as_they_happen(http: aiohttp.ClientSession, gw: Gateway) -> None:
    async with live(http, "?category=model") as stream:
        reply = await gw.models.disable(id="echo")
        sequence, event = await stream.next()
    assert sequence == reply["seq"] == event["seq"]
    assert event["type"] == "model.disabled.v1"
    assert event["data"]["id"] == "echo"


async def test_a_stream_resumes_after_the_last_event_without_a_gap(http: aiohttp.ClientSession, gw: Gateway) -> None:
    async with live(http, "?after=0") as stream:
        seen = [(await stream.next())[0] for _ in range(3)]
    await gw.models.disable(id="echo")
    async with live(http, "?after=0", last=seen[-1]) as stream:
        end = (await gw.models.enable(id="echo"))["seq"]
        while seen[-1] != end:
            seen.append((await stream.next())[0])
    assert seen == list(range(1, end + 1))


async def test_a_last_event_id_that_is_none_is_refused(http: aiohttp.ClientSession) -> None:
    async with http.get("/api/events", headers={**STREAM, "last-event-id": "1e3"}) as answer:
        assert answer.status == 400
        assert (await answer.json())["error"]["param"] == "Last-Event-ID"


async def test_a_quiet_stream_is_kept_alive_and_moves_on_past_what_it_leaves_out(
    http: aiohttp.ClientSession, gw: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events_api, "KEEP_ALIVE", 0.05)
    async with live(http, "?type=model.retired") as stream:
        assert (await stream.block())[0].startswith(":")
        passed = (await gw.models.disable(id="echo"))["seq"]
        while (lines := await stream.block()) and len(lines) == 1:
            pass
        assert lines[1] == f"id: {passed}"


async def test_a_reader_that_does_not_read_gets_everything_later_and_holds_up_nobody(
    http: aiohttp.ClientSession, gw: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events_api, "AHEAD", 2)
    async with live(http, "?after=0") as slow, live(http, "?after=0") as quick:
        for _ in range(20):
            await gw.models.disable(id="echo")
            end = (await gw.models.enable(id="echo"))["seq"]
        assert [(await quick.next())[0] for _ in range(end)] == list(range(1, end + 1))
        assert [(await slow.next())[0] for _ in range(end)] == list(range(1, end + 1))


async def test_a_stream_ends_cleanly_when_the_process_drains(http: aiohttp.ClientSession, edge: Edge) -> None:
    async with live(http) as stream:
        edge.drains.set()
        assert await asyncio.wait_for(stream.answer.content.read(), 5) == b""


async def test_a_client_that_goes_leaves_nothing_behind(http: aiohttp.ClientSession, edge: Edge) -> None:
    async with live(http):
        assert edge.in_flight == 1
    async with asyncio.timeout(5):
        while edge.in_flight:  # noqa: ASYNC110 - the condition is what is awaited
            await asyncio.sleep(0.01)
