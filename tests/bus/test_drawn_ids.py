"""Ids that were drawn for one request need no claim: asked again, it is joined, answered from memory, or run anew."""

import time
from collections.abc import AsyncIterator

import pytest
from audit import check_books, history, kinds
from far import WHOLE, WORD, serving, then_silent
from messages import Got, ask, calling, chat_body, stream
from nats.aio.client import Client
from trunkline.client import Gateway
from trunkline.host import Host
from trunkline_actors import answers, recent
from trunkline_events import headers
from trunkline_events.subjects import CHAT, REQUESTS_BUCKET
from upstream import Upstream, answer

pytest_plugins = ["gateway"]


@pytest.fixture
def nats(gw: Gateway) -> Client:
    return gw._connection.nats


@pytest.fixture
async def second(gw: Gateway, bus_url: str) -> AsyncIterator[Host]:
    """A second router and provider: half of all requests go there."""
    host = await Host.start(bus_url, ("router", "provider"))
    yield host
    await host.stop()


def drawn(request_id: str, *, again: bool = False, seconds_ago: float = 0.0) -> dict[str, str]:
    fields = {headers.REQUEST: request_id, headers.DRAWN: f"{time.time() - seconds_ago:.3f}", headers.THREAD: "t"}
    return headers.again(fields) if again else fields


async def claims(nats: Client) -> int:
    return int((await nats.jetstream().stream_info(f"KV_{REQUESTS_BUCKET}")).state.messages)


async def test_a_client_that_names_no_id_writes_no_claim_and_one_that_does_writes_one(
    gw: Gateway, nats: Client
) -> None:
    await gw.chat.create("echo", "hello")
    async with gw.chat.stream("tokens", "hello") as answered:
        assert [chunk async for chunk in answered]
    assert await claims(nats) == 0
    await gw.chat.create("echo", "hello", request_id="chosen")
    assert await claims(nats) == 1


@pytest.mark.parametrize("streamed", [False, True])
async def test_asked_again_after_its_end_it_has_the_answer_from_memory(
    nats: Client, gw: Gateway, second: Host, *, streamed: bool
) -> None:
    body = chat_body("tokens", stream=streamed)

    async def said(fields: dict[str, str]) -> list[Got]:
        return await stream(nats, body, fields) if streamed else [await ask(nats, body, fields)]

    first, again = await said(drawn("r")), await said(drawn("r", again=True))
    assert [one.data for one in again] == [one.data for one in first]
    assert again[-1].fields == {**first[-1].fields, headers.REPLAYED: "true"}
    assert kinds(await history(gw, "t")) == ["route-decided", "usage-recorded"]


async def test_asked_again_while_it_runs_elsewhere_it_is_joined(nats: Client, gw: Gateway, second: Host) -> None:
    async with serving(gw, Upstream(then_silent(WORD))) as upstream:
        body = chat_body("m", stream=True)
        async with calling(nats, body, drawn("r")) as one:
            await one.next()
            for _ in range(6):  # whichever router is asked
                async with calling(nats, body, drawn("r", again=True)) as other:
                    assert (await other.next()).fields[headers.SEQ] == "1"
        assert len(upstream.requests) == 1


async def test_what_failed_is_tried_anew_when_it_is_asked_again(nats: Client, gw: Gateway) -> None:
    failed = answer({"error": {"message": "busy"}}, 400)
    async with serving(gw, Upstream(failed, answer(WHOLE))) as upstream:
        assert (await ask(nats, chat_body("m"), drawn("r"))).error["code"] == "invalid_request"
        assert (await ask(nats, chat_body("m"), drawn("r", again=True))).json["usage"] == WHOLE["usage"]
        assert len(upstream.requests) == 2
    events = await history(gw, "t")
    assert kinds(events) == ["route-decided", "attempt-failed", "route-decided", "usage-recorded"]
    check_books(events)


async def test_an_answer_that_is_remembered_no_more_is_not_paid_for_twice(
    nats: Client, gw: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recent, "KEPT_S", 0.0)
    await ask(nats, chat_body("echo"), drawn("r"))
    told = (await ask(nats, chat_body("echo"), drawn("r", again=True))).error
    assert (told["code"], told["retryable"]) == ("conflict", False)
    assert "was not kept" in told["message"]
    assert kinds(await history(gw, "t")) == ["route-decided", "usage-recorded"]


async def test_a_stream_that_was_too_large_to_remember_is_told_with_its_receipt(
    nats: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answers, "MAX_ANSWER", 10)
    body = chat_body("tokens", stream=True)
    first = await stream(nats, body, drawn("r"))
    told, end = await stream(nats, body, drawn("r", again=True))
    assert told.error["code"] == "conflict"
    assert told.error["metadata"]["trunkline-event"] == first[-1].fields[headers.EVENT]
    assert not end.data


async def test_sent_twice_at_once_it_runs_once(nats: Client, gw: Gateway, second: Host) -> None:
    async with serving(gw, Upstream(answer(WHOLE))) as upstream:
        fields = drawn("r")
        async with calling(nats, chat_body("m"), fields) as one:
            for _ in range(5):
                await nats.publish(CHAT, chat_body("m"), reply=one.inbox, headers=fields)
            assert (await one.next()).json["usage"] == WHOLE["usage"]
        assert len(upstream.requests) == 1
    check_books(await history(gw, "t"))


@pytest.mark.parametrize("ago", [3_600.0, -3_600.0])
async def test_one_drawn_long_ago_or_by_a_clock_that_is_wrong_is_claimed(nats: Client, gw: Gateway, ago: float) -> None:
    await ask(nats, chat_body("echo"), drawn("r", seconds_ago=ago))
    assert await claims(nats) == 1


async def test_a_time_that_is_none_is_as_if_the_id_was_chosen(nats: Client) -> None:
    await ask(nats, chat_body("echo"), {headers.REQUEST: "r", headers.DRAWN: "yesterday"})
    assert await claims(nats) == 1
