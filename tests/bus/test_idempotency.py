"""The same request id again: never a second call upstream, never a second bill, whoever is asked and when."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from audit import check_books, events, history, kinds
from messages import ask, calling, chat_body, register, stream
from nats.aio.client import Client
from trunkline import errors
from trunkline.client import Gateway
from trunkline.host import Host
from trunkline_events import headers
from trunkline_events.thread import RouteDecided
from upstream import Upstream, answer

pytest_plugins = ["gateway"]

WHOLE = {
    "id": "c1",
    "object": "chat.completion",
    "created": 1,
    "model": "m",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "once"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
}


@pytest.fixture
def nats(gw: Gateway) -> Client:
    return gw._connection.nats


@pytest.fixture
async def second(gw: Gateway, bus_url: str) -> AsyncIterator[Host]:
    """A second router and provider: half of all requests go there."""
    host = await Host.start(bus_url, ("router", "provider"))
    yield host
    await host.stop()


async def decisions(gw: Gateway, thread: str) -> int:
    return sum(isinstance(event.body, RouteDecided) for event in await history(gw, thread))


async def test_a_repeat_gets_the_stored_answer_marked_as_such(gw: Gateway) -> None:
    first = await gw.chat.create("echo", "hello", request_id="r", thread="t")
    again = await gw.chat.create("echo", "hello", request_id="r", thread="t")
    assert again.data == first.data
    assert again.receipt.replayed
    assert (again.receipt.event, again.receipt.cost) == (first.receipt.event, first.receipt.cost)
    assert kinds(await history(gw, "t")) == ["route-decided", "usage-recorded"]


async def test_many_repeats_at_once_of_what_was_answered_are_all_answered(gw: Gateway, second: Host) -> None:
    await gw.chat.create("echo", "hello", request_id="r")
    again = await asyncio.gather(*(gw.chat.create("echo", "hello", request_id="r") for _ in range(20)))
    assert all(one.receipt.replayed for one in again)


async def test_a_stream_is_replayed_chunk_by_chunk(nats: Client) -> None:
    body, fields = chat_body("tokens", stream=True), {headers.REQUEST: "r"}
    first = await stream(nats, body, fields)
    again = await stream(nats, body, fields)
    assert [message.data for message in again] == [message.data for message in first]
    numbers = [message.fields[headers.SEQ] for message in again]
    assert numbers == [message.fields[headers.SEQ] for message in first]
    assert again[-1].fields == {**first[-1].fields, headers.REPLAYED: "true"}


async def test_the_upstream_is_called_once_however_often_the_id_comes(gw: Gateway, second: Host) -> None:
    async with Upstream(answer(WHOLE)).serving() as upstream:
        await gw.providers.register(id="far", kind="openai-compatible", base_url=upstream.url, local=True)
        await gw.models.register(id="m", provider="far", upstream="m", price={"input": "1", "output": "1"})
        many = await asyncio.gather(*(gw.chat.create("m", "hi", request_id="r", thread="t") for _ in range(10)))
        late = await gw.chat.create("m", "hi", request_id="r", thread="t")
        assert {one.text for one in (*many, late)} == {"once"}
        assert len({one.receipt.event for one in (*many, late)}) == 1
        assert late.receipt.replayed
        assert len(upstream.requests) == 1
    assert await decisions(gw, "t") == 1
    check_books(await events(gw))


async def test_ten_at_once_all_get_the_whole_stream(gw: Gateway, nats: Client, second: Host) -> None:
    await register(gw, {"input": "1", "output": "1"}, paced="tokens:10@50")
    body, fields = chat_body("paced", stream=True), {headers.REQUEST: "r", headers.THREAD: "t"}
    answers = await asyncio.gather(*(stream(nats, body, fields) for _ in range(10)))
    texts = {tuple(message.data for message in messages) for messages in answers}
    assert len(texts) == 1
    assert {messages[-1].fields[headers.EVENT] for messages in answers} == {answers[0][-1].fields[headers.EVENT]}
    assert kinds(await history(gw, "t")) == ["route-decided", "usage-recorded"]


async def test_a_repeat_on_another_process_is_answered_from_what_was_kept(
    gw: Gateway, host: Host, bus_url: str
) -> None:
    first = await gw.chat.create("echo", "hello", request_id="r", thread="t")
    for supervised in host._routers:
        await supervised.stop(5)
    other = await Host.start(bus_url, ("router",))
    try:
        again = await gw.chat.create("echo", "hello", request_id="r", thread="t")
    finally:
        await other.stop()
    assert again.receipt.replayed
    assert again.data == first.data


async def test_ids_are_scoped_to_the_thread_and_the_key(gw: Gateway, nats: Client) -> None:
    body = chat_body("echo")
    for fields in ({headers.THREAD: "a"}, {headers.THREAD: "b"}, {}, {headers.KEY: "tl-k"}):
        got = await ask(nats, body, {headers.REQUEST: "r", **fields})
        assert headers.REPLAYED not in got.fields
    assert len(await events(gw, "thread")) == 8


async def test_an_id_whose_run_failed_may_run_again(gw: Gateway) -> None:
    for _ in range(2):
        with pytest.raises(errors.Unavailable):
            await gw.chat.create("fails", "hi", request_id="r", thread="t", route={"attempts": 1})
    done = await gw.chat.create("fails", "hi", request_id="r", thread="t", route={"fallbacks": ["echo"]})
    assert (done.text, done.receipt.replayed) == ("hi", False)
    recorded = await history(gw, "t")
    assert kinds(recorded) == ["route-decided", "attempt-failed"] * 3 + ["route-decided", "usage-recorded"]
    check_books(recorded)


async def test_an_id_refused_for_want_of_money_may_run_when_there_is_some(gw: Gateway) -> None:
    await gw.threads.configure(thread_id="t", budget={"limit_usd": "0.000001"})
    for _ in range(2):
        with pytest.raises(errors.BudgetExceeded):
            await gw.chat.create("echo", "hi", request_id="r", thread="t")
    await gw.threads.configure(thread_id="t", budget={"limit_usd": "1"})
    assert (await gw.chat.create("echo", "hi", request_id="r", thread="t")).text == "hi"


async def test_an_answer_too_large_to_keep_is_a_conflict_with_the_receipt(gw: Gateway) -> None:
    await register(gw, {"input": "1", "output": "1"}, huge="tokens:60000")
    first = await gw.chat.create("huge", "hi", request_id="r", thread="t")
    with pytest.raises(errors.Conflict) as caught:
        await gw.chat.create("huge", "hi", request_id="r", thread="t")
    assert caught.value.status == 409
    assert caught.value.retryable is False
    assert caught.value.metadata["trunkline-event"] == str(first.receipt.event)
    assert caught.value.metadata["trunkline-cost-usd"] == first.receipt.cost
    assert await decisions(gw, "t") == 1


async def test_an_aborted_id_does_not_run_again(gw: Gateway, nats: Client) -> None:
    fields = {headers.REQUEST: "r", headers.THREAD: "t"}
    async with calling(nats, chat_body("slow", stream=True), fields) as call:
        await call.next()
        await gw.chat.abort("r")
        await call.rest()
    with pytest.raises(errors.Conflict):
        await gw.chat.create("slow", "hi", request_id="r", thread="t")
    assert await decisions(gw, "t") == 1


async def test_one_that_joins_late_gets_the_stream_from_its_start(gw: Gateway, nats: Client, second: Host) -> None:
    await register(gw, paced="tokens:20@50")
    body, fields = chat_body("paced", stream=True), {headers.REQUEST: "r"}
    async with calling(nats, body, fields) as early:
        for _ in range(5):
            await early.next()
        late = await stream(nats, body, fields)
        rest = await early.rest()
    assert [message.fields[headers.SEQ] for message in late] == [str(n) for n in range(1, len(late) + 1)]
    assert late[5:] == rest or late[-1].fields == rest[-1].fields
    assert [message.data for message in late][-len(rest) :] == [message.data for message in rest]
