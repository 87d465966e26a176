"""A chat over the bus, message by message and event by event, on a real server."""

import asyncio
import time
from collections.abc import AsyncIterator

import pytest
from audit import check_books, events, history, kinds, open_attempts
from messages import Got, ask, calling, chat_body, register, stream
from nats.aio.client import Client, Msg
from trunkline import errors
from trunkline.client import Gateway
from trunkline.host import Host
from trunkline_events import headers, subjects
from trunkline_events.thread import Aborted, AttemptFailed, RouteDecided, UsageRecorded

pytest_plugins = ["gateway"]

RECEIPT = {
    headers.REQUEST,
    headers.MODEL,
    headers.PROVIDER,
    headers.ATTEMPTS,
    headers.COST,
    headers.EVENT,
    headers.FINISH,
}
ERROR = {"message", "type", "code", "param", "op", "request_id", "retryable", "metadata"}


@pytest.fixture
def nats(gw: Gateway) -> Client:
    return gw._connection.nats


@pytest.fixture
async def second(gw: Gateway, bus_url: str) -> AsyncIterator[Host]:
    """Another process's worth of routers and providers, as far as the bus can tell."""
    host = await Host.start(bus_url, ("router", "provider"))
    yield host
    await host.stop()


# --- the happy path


async def test_both_events_are_in_the_log_before_the_caller_sees_the_answer(gw: Gateway, nats: Client) -> None:
    log = await gw.log()
    for streamed in (False, True):
        async with calling(nats, chat_body("echo", stream=streamed), {headers.THREAD: f"t-{streamed}"}) as call:
            last = (await call.rest())[-1] if streamed else await call.next()
            settled = await log.get(int(last.fields[headers.EVENT]))
        assert settled is not None
        assert isinstance(settled.body, UsageRecorded)
        assert settled.body.request_id == last.fields[headers.REQUEST]
        assert kinds(await history(gw, f"t-{streamed}")) == ["route-decided", "usage-recorded"]


async def test_events_are_heard_live_once_stored_with_their_sequence(gw: Gateway, nats: Client) -> None:
    heard: list[Msg] = []

    async def hear(message: Msg) -> None:
        heard.append(message)

    await nats.subscribe("trunkline.events.thread.>", cb=hear)
    answer = await gw.chat.create("echo", "hello", thread="a/b c")
    await nats.flush()
    assert [message.subject for message in heard] == ["trunkline.events.thread.a=2Fb=20c"] * 2
    assert [message.headers[headers.TYPE] for message in heard] == [
        "thread.route-decided.v1",
        "thread.usage-recorded.v1",
    ]
    assert int(heard[1].headers["Nats-Sequence"]) == answer.receipt.event


async def test_a_plain_answer_is_one_message_with_the_receipt_and_nothing_else(nats: Client) -> None:
    answer = await ask(nats, chat_body("echo", "one two three"), {headers.REQUEST: "r-1", headers.THREAD: "t"})
    assert set(answer.fields) == RECEIPT
    assert answer.fields[headers.REQUEST] == "r-1"
    assert answer.fields[headers.MODEL] == "echo"
    assert answer.fields[headers.PROVIDER] == "scripted"
    assert answer.fields[headers.ATTEMPTS] == "1"
    assert answer.fields[headers.FINISH] == "stop"
    assert answer.fields[headers.COST] == "0.000015"  # 3 tokens in at $1, 3 out at $4 a million
    assert answer.json["object"] == "chat.completion"
    assert answer.json["choices"][0]["message"]["content"] == "one two three"


async def test_a_stream_is_numbered_and_its_end_is_an_empty_message_with_the_next_number(nats: Client) -> None:
    messages = await stream(nats, chat_body("tokens", stream=True))
    *chunks, end = messages
    assert [message.fields[headers.SEQ] for message in chunks] == [str(n) for n in range(1, len(chunks) + 1)]
    assert chunks[0].fields[headers.MODEL] == "tokens", "the first says who answers"
    assert set(chunks[1].fields) == {headers.SEQ}
    assert {message.json["object"] for message in chunks} == {"chat.completion.chunk"}
    assert end.data == b""
    assert set(end.fields) == RECEIPT | {headers.SEQ, headers.USAGE}
    assert end.fields[headers.SEQ] == str(len(chunks) + 1)
    usage = Got(end.fields[headers.USAGE].encode(), {}).json
    assert usage == {"input_tokens": 1, "cached_input_tokens": 0, "output_tokens": 20, "reasoning_tokens": 0}


@pytest.mark.parametrize("wanted", [True, False])
async def test_a_usage_chunk_comes_exactly_where_it_was_asked_for(nats: Client, wanted: bool) -> None:
    body = chat_body("tokens", stream=True, stream_options={"include_usage": wanted})
    *chunks, end = await stream(nats, body)
    with_usage = [chunk.json for chunk in chunks if chunk.json.get("usage")]
    assert len(with_usage) == wanted
    assert all(chunk["choices"] == [] for chunk in with_usage)
    assert end.fields[headers.USAGE] != "null"


async def test_ids_of_any_script_survive_the_headers(nats: Client, gw: Gateway) -> None:
    fields = {headers.REQUEST: headers.encode_value("größe 100%41"), headers.THREAD: headers.encode_value("нить/1")}
    answer = await ask(nats, chat_body("echo"), fields)
    assert headers.decode_value(answer.fields[headers.REQUEST]) == "größe 100%41"
    assert kinds(await history(gw, "нить/1")) == ["route-decided", "usage-recorded"]


async def test_a_thread_may_be_named_in_the_body_and_the_header_wins(gw: Gateway, nats: Client) -> None:
    body = chat_body("echo", metadata={"thread_id": "from-body"})
    await ask(nats, body)
    await ask(nats, body, {headers.THREAD: "from-header"})
    assert len(await history(gw, "from-body")) == len(await history(gw, "from-header")) == 2


async def test_embeddings_are_answered_settled_and_recorded_the_same_way(gw: Gateway) -> None:
    await gw.models.register(
        id="embed", provider="scripted", upstream="echo", features=["embeddings"], price={"input": "1", "output": "0"}
    )
    answer = await gw.embeddings.create("embed", ["one two", "three"], thread="e", request_id="e-1")
    assert [len(entry["embedding"]) for entry in answer.data["data"]] == [8, 8]
    assert (answer.receipt.model, answer.cost) == ("embed", "0.000003")
    assert kinds(await history(gw, "e")) == ["route-decided", "usage-recorded"]
    assert (await gw.embeddings.create("embed", ["one two", "three"], thread="e", request_id="e-1")).receipt.replayed
    with pytest.raises(errors.NoRoute):
        await gw.embeddings.create("echo", "a model that embeds nothing")


# --- failed attempts


async def test_a_failed_first_choice_falls_through_to_the_second(gw: Gateway) -> None:
    answer = await gw.chat.create("fails", "hi", thread="t", route={"fallbacks": ["echo"]})
    assert (answer.receipt.model, answer.receipt.attempts) == ("echo", 2)
    recorded = await history(gw, "t")
    assert kinds(recorded) == ["route-decided", "attempt-failed", "route-decided", "usage-recorded"]
    first, failed, decided, settled = [event.body for event in recorded]
    assert isinstance(first, RouteDecided)
    assert [(one.model, one.reason) for one in first.candidates] == [("fails", "asked for"), ("echo", "fallback")]
    assert isinstance(failed, AttemptFailed)
    assert (failed.model, failed.failure, failed.attempt) == ("fails", "unavailable", 1)
    assert isinstance(decided, RouteDecided)
    assert (decided.model, decided.attempt, decided.tried) == ("echo", 2, ["fails"])
    assert isinstance(settled, UsageRecorded)
    check_books(recorded)


async def test_the_attempt_budget_is_kept(gw: Gateway) -> None:
    await register(gw, f2="fail:overloaded", f3="fail:rate_limited:7", f4="fail:unavailable")
    with pytest.raises(errors.RateLimited) as caught:
        await gw.chat.create("fails", "hi", thread="t", route={"fallbacks": ["f2", "f3", "f4", "echo"]})
    assert caught.value.metadata["tried"] == ["fails", "f2", "f3"]
    assert caught.value.metadata["retry_after"] == 7
    assert kinds(await history(gw, "t")) == ["route-decided", "attempt-failed"] * 3


async def test_what_every_candidate_would_refuse_is_not_tried_again(gw: Gateway) -> None:
    await register(gw, filtered="fail:content_filter")
    with pytest.raises(errors.ContentFiltered):
        await gw.chat.create("filtered", "hi", thread="t", route={"fallbacks": ["echo"]})
    assert kinds(await history(gw, "t")) == ["route-decided", "attempt-failed"]


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_stalled_upstream_ends_in_a_timeout_by_the_deadline(gw: Gateway, nats: Client, streamed: bool) -> None:
    await register(gw, stall="stall")
    began = time.monotonic()
    body = chat_body("stall", stream=streamed, route={"deadline_ms": 300})
    async with calling(nats, body, {headers.THREAD: "t"}) as call:
        answer = await call.next()
        assert time.monotonic() - began < 0.3 + 5
        if streamed:
            assert (await call.next()).data == b""
    assert (answer.error["code"], answer.fields[headers.ERROR_CODE]) == ("timeout", "504")
    assert open_attempts(await history(gw, "t")) == set()


async def test_a_cut_stream_says_so_and_what_came_is_settled(gw: Gateway, nats: Client) -> None:
    await register(gw, {"input": "1.00", "output": "4.00"}, cut="cut:3")
    messages = await stream(nats, chat_body("cut", stream=True), {headers.THREAD: "t"})
    *chunks, broken, end = messages
    assert [message.fields[headers.SEQ] for message in chunks] == ["1", "2", "3"]
    assert broken.fields[headers.ERROR_CODE] == "502"
    assert broken.fields[headers.ERROR]
    assert broken.error["code"] == "provider_error"
    assert end.data == b""
    assert end.fields[headers.SEQ] == "4"
    settled = (await history(gw, "t"))[-1]
    assert isinstance(settled.body, UsageRecorded)
    assert (settled.body.partial, settled.body.estimated, settled.body.finish) == (True, True, "error")
    assert settled.body.cost_nanos > 0
    assert int(end.fields[headers.EVENT]) == settled.sequence
    check_books(await events(gw))


async def test_our_client_gives_the_chunks_of_a_cut_stream_then_raises(gw: Gateway) -> None:
    await register(gw, cut="cut:3")
    async with gw.chat.stream("cut", "hi") as answer:
        for _ in range(3):
            await anext(answer)
        with pytest.raises(errors.ProviderError, match="broke off"):
            await anext(answer)
    assert answer.receipt is not None


async def test_an_error_has_both_headers_and_the_whole_body(gw: Gateway, nats: Client) -> None:
    answer = await ask(nats, chat_body("nope"), {headers.REQUEST: "r-404"})
    assert answer.fields[headers.ERROR_CODE] == "404"
    assert "nope" in answer.fields[headers.ERROR]
    assert set(answer.error) == ERROR
    assert answer.error["code"] == "model_not_found"
    assert (answer.error["op"], answer.error["request_id"], answer.error["param"]) == ("chat", "r-404", "model")
    assert answer.error["retryable"] is False
    assert await history(gw) == []


async def test_a_provider_without_a_process_is_noticed_at_once(gw: Gateway, bus_url: str, host: Host) -> None:
    await gw.models.register(id="elsewhere", provider="scripted", upstream="echo")
    assert host._fleet is not None
    await host._fleet.stop(5)
    began = time.monotonic()
    with pytest.raises(errors.Unavailable):
        await gw.chat.create("elsewhere", "hi", thread="t", route={"attempts": 1})
    assert time.monotonic() - began < 1.5
    assert kinds(await history(gw, "t")) == ["route-decided", "attempt-failed"]


# --- the registry, on any process


async def test_a_disabled_model_is_routed_to_by_no_process_once_the_command_is_answered(
    gw: Gateway, second: Host
) -> None:
    for _ in range(10):
        await gw.models.enable(id="echo")
        assert {(await gw.chat.create("echo", "hi")).receipt.model for _ in range(4)} == {"echo"}
        await gw.models.disable(id="echo")
        refused = await asyncio.gather(*(gw.chat.create("echo", "hi") for _ in range(8)), return_exceptions=True)
        assert {type(error) for error in refused} == {errors.NoRoute}


# --- aborts and callers that went away


async def abort_of(gw: Gateway, thread: str) -> Aborted:
    """How a thread's attempt was cut, when it has been."""
    async with asyncio.timeout(5):
        async for event in gw.events("thread", id=thread, since=0):
            if isinstance(event.body, Aborted):
                return event.body
    raise AssertionError("events end never")


async def test_an_aborted_stream_is_cut_told_and_settled(gw: Gateway, nats: Client) -> None:
    fields = {headers.REQUEST: "long", headers.THREAD: "t"}
    async with calling(nats, chat_body("slow", stream=True), fields) as call:
        await call.next()
        await gw.chat.abort("long")
        messages = await call.rest()
    *_, told, end = messages
    assert (told.error["code"], told.fields[headers.ERROR_CODE]) == ("aborted", "499")
    assert end.fields[headers.FINISH] == "aborted"
    recorded = await history(gw, "t")
    assert kinds(recorded) == ["route-decided", "aborted"]
    assert isinstance(recorded[-1].body, Aborted)
    assert (recorded[-1].body.finish, recorded[-1].body.partial) == ("aborted", True)
    check_books(recorded)
    books = await gw.threads.get(thread_id="t")
    assert (books["open"], books["reserved_usd"]) == ([], "0")


async def test_a_plain_request_can_be_aborted_too(gw: Gateway) -> None:
    await register(gw, stall="stall")
    running = asyncio.create_task(gw.chat.create("stall", "hi", request_id="r", thread="t"))
    async for event in gw.events("thread", id="t", since=0):
        assert isinstance(event.body, RouteDecided)
        break
    await gw.chat.abort("r")
    with pytest.raises(errors.Aborted):
        await running
    assert kinds(await history(gw, "t")) == ["route-decided", "aborted"]


async def test_an_unknown_request_is_not_found_to_abort(gw: Gateway, second: Host) -> None:
    began = time.monotonic()
    with pytest.raises(errors.NotFound):
        await gw.chat.abort("never-heard-of")
    assert time.monotonic() - began < 2


async def test_a_caller_that_went_away_is_noticed_and_its_call_cut(gw: Gateway, nats: Client) -> None:
    await register(gw, endless="tokens:1000@50")
    async with calling(nats, chat_body("endless", stream=True), {headers.THREAD: "t"}) as call:
        await call.next()
    left = time.monotonic()
    aborted = await abort_of(gw, "t")
    assert time.monotonic() - left < 2.5
    assert aborted.finish == "abandoned"
    assert aborted.usage.output_tokens > 0


async def test_leaving_a_stream_of_our_client_aborts_it(gw: Gateway) -> None:
    async with gw.chat.stream("slow", "hi", thread="t") as answer:
        await anext(answer)
    assert (await abort_of(gw, "t")).finish == "aborted"


async def test_no_thread_is_an_aggregate_of_its_own(gw: Gateway) -> None:
    await asyncio.gather(*(gw.chat.create("echo", "hi") for _ in range(20)))
    recorded = await history(gw, subjects.NO_THREAD)
    assert len(recorded) == 40
    check_books(recorded)
