"""The very same request again: its answer from the cache, at no cost, as an event, and only where that is wanted."""

import asyncio
import json
import time
from typing import Any

import aiohttp
import nats.js.errors
import pytest
import upstream as up
from audit import check_books, history, kinds
from far import serving
from messages import Got, ask, chat_body, stream
from nats.aio.client import Client
from trunkline import errors, explain
from trunkline.client import Gateway
from trunkline.host import Host
from trunkline_actors.answer_store import AWAY
from trunkline_events import headers
from trunkline_events.subjects import CACHE_BUCKET
from trunkline_events.thread import AnswerReused
from upstream import Reply, Request, Upstream

pytest_plugins = ["gateway", "edge_kit"]

CACHED = {"cache_s": 60}


@pytest.fixture
def nats_(gw: Gateway) -> Client:
    return gw._connection.nats


def counting(*replies: Reply) -> Upstream:
    """An upstream that says how many times it was asked, unless told what to say."""
    said = list(replies)
    asked = 0

    async def handler(_request: Request) -> Reply:
        nonlocal asked
        asked += 1
        if said:
            return said.pop(0)
        message = {"role": "assistant", "content": f"answer {asked}"}
        usage = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        return up.answer({"id": "c", "object": "chat.completion", "model": "m", "choices": [choice], "usage": usage})

    return Upstream(handler=handler)


async def test_the_very_same_request_gets_the_answer_again_at_no_cost_and_as_an_event(gw: Gateway) -> None:
    first = await gw.chat.create("echo", "hello", thread="t", route=CACHED)
    again = await gw.chat.create("echo", "hello", thread="t", route=CACHED)
    assert again.data == first.data
    assert (first.receipt.cached, again.receipt.cached) == (False, True)
    assert (again.receipt.cost, again.receipt.attempts) == ("0", 0)
    assert (again.receipt.model, again.receipt.provider, again.receipt.finish) == ("echo", "scripted", "stop")
    events = await history(gw, "t")
    assert kinds(events) == ["route-decided", "usage-recorded", "answer-reused"]
    reused = events[-1].body
    assert isinstance(reused, AnswerReused)
    assert again.receipt.event == events[-1].sequence
    assert (reused.origin, reused.model, reused.request_id) == (
        first.receipt.event,
        "echo",
        again.receipt.request_id,
    )
    assert reused.saved_nanos > 0
    check_books(events)


async def test_without_a_wish_nothing_is_kept_and_nothing_is_said_of_a_cache(gw: Gateway, nats_: Client) -> None:
    for _ in range(2):
        said = await ask(nats_, chat_body("echo"))
        assert headers.CACHE not in said.fields
    with pytest.raises(nats.js.errors.NotFoundError):
        await nats_.jetstream().stream_info(f"KV_{CACHE_BUCKET}")


async def test_a_stream_comes_again_chunk_by_chunk_with_its_receipt(nats_: Client) -> None:
    body = chat_body("tokens", stream=True, route=CACHED, stream_options={"include_usage": True})
    first, again = await stream(nats_, body), await stream(nats_, body)
    assert [one.data for one in again] == [one.data for one in first]
    assert [one.fields[headers.SEQ] for one in again] == [one.fields[headers.SEQ] for one in first]
    assert (first[0].fields[headers.CACHE], again[0].fields[headers.CACHE]) == ("miss", "hit")
    assert again[0].fields[headers.MODEL] == "tokens"
    for name in (headers.USAGE, headers.FINISH):
        assert again[-1].fields[name] == first[-1].fields[name]
    assert again[-1].fields[headers.COST] == "0"


async def test_embeddings_are_given_again_too(gw: Gateway) -> None:
    await gw.models.update(id="echo", features=["embeddings"])
    first = await gw.embeddings.create("echo", "hello", route=CACHED)
    again = await gw.embeddings.create("echo", "hello", route=CACHED)
    assert again.data == first.data
    assert again.receipt.cached


async def test_an_answer_is_asked_for_anew_once_it_is_older_than_it_may_be(gw: Gateway, host: Host) -> None:
    async with serving(gw, counting()):
        first = await gw.chat.create("m", "hi", route={"cache_s": 60})
        now = host.runtime.clock()
        host.runtime.clock = lambda: now + 30
        assert (await gw.chat.create("m", "hi", route={"cache_s": 31})).text == first.text
        assert (await gw.chat.create("m", "hi", route={"cache_s": 29})).text == "answer 2"


async def test_the_bucket_forgets_an_answer_when_its_time_is_over(gw: Gateway, nats_: Client) -> None:
    await gw.chat.create("echo", "hello", route={"cache_s": 1})
    js = nats_.jetstream()
    async with asyncio.timeout(15):
        while (await js.stream_info(f"KV_{CACHE_BUCKET}")).state.messages:  # noqa: ASYNC110 - the server's own clock
            await asyncio.sleep(0.1)


async def test_a_key_that_caches_does_so_for_itself_alone(gw: Gateway, nats_: Client) -> None:
    one, other = [(await gw.keys.issue(name=name, cache_s=60))["key"] for name in ("one", "other")]
    assert (await gw.keys.list())["keys"][0]["cache_s"] == 60

    async def said(key: str, **more: Any) -> str | None:
        got: Got = await ask(nats_, chat_body("echo", **more), {headers.KEY: key})
        return got.fields.get(headers.CACHE)

    assert [await said(one), await said(one), await said(other), await said(other)] == ["miss", "hit", "miss", "hit"]
    assert await said(one, route={"cache_s": 0}) is None, "a request may want an answer of its own"


async def test_a_policy_caches_for_the_requests_of_its_rule_and_another_policy_begins_anew(gw: Gateway) -> None:
    rule = {"name": "faq", "when": {"thread": "faq-*"}, "cache_s": 60}
    await gw.policy.publish(policy={"rules": [rule]})
    async with serving(gw, counting()):
        texts = [(await gw.chat.create("m", "hi", thread=thread)).text for thread in ("faq-1", "faq-2", "other")]
        assert texts == ["answer 1", "answer 1", "answer 2"]
        await gw.policy.publish(policy={"rules": [rule, {"name": "more"}]})
        assert (await gw.chat.create("m", "hi", thread="faq-1")).text == "answer 3"


async def test_what_one_rule_lets_be_said_is_not_said_under_another(gw: Gateway) -> None:
    rules = [{"name": name, "when": {"thread": f"{name}-*"}, "use": [name]} for name in ("echo", "tokens")]
    await gw.policy.publish(policy={"rules": rules})
    for thread in ("echo-1", "tokens-1", "echo-2", "tokens-2"):
        answer = await gw.chat.create("auto", "hello", thread=thread, route=CACHED)
        assert (answer.receipt.model, answer.receipt.cached) == (thread.partition("-")[0], thread.endswith("2"))


async def test_an_answer_cut_short_for_want_of_money_is_for_nobody_else(gw: Gateway) -> None:
    async def handler(request: Request) -> Reply:
        cut = "max_tokens" in json.loads(request.body)
        message = {"role": "assistant", "content": "half" if cut else "the whole"}
        choice = {"index": 0, "message": message, "finish_reason": "length" if cut else "stop"}
        return up.answer({"id": "c", "object": "chat.completion", "model": "m", "choices": [choice]})

    async with serving(gw, Upstream(handler=handler)):
        await gw.threads.configure(thread_id="poor", budget={"limit_usd": "0.001"})
        assert (await gw.chat.create("m", "hi", thread="poor", route=CACHED)).text == "half"
        assert (await gw.chat.create("m", "hi", thread="rich", route=CACHED)).text == "the whole"
        hits = [
            (await gw.chat.create("m", "hi", thread="rich", max_tokens=3, route=CACHED)).receipt.cached
            for _ in range(2)
        ]
        assert hits == [False, True], "as short as was asked for is as good the next time"


async def test_a_thread_with_settings_of_its_own_shares_no_answer(gw: Gateway) -> None:
    async with serving(gw, counting()) as upstream:
        await gw.threads.configure(thread_id="warm", parameters={"temperature": 1.5}, preferences=CACHED)
        for thread, text in (("warm", 1), ("warm", 1), ("plain", 2), ("plain", 2)):
            route = CACHED if thread == "plain" else None
            assert (await gw.chat.create("m", "hi", thread=thread, route=route)).text == f"answer {text}"
        await gw.threads.configure(thread_id="warm", parameters={"temperature": 0.5}, preferences=CACHED)
        assert (await gw.chat.create("m", "hi", thread="warm")).text == "answer 3"
        sent = [json.loads(one.body).get("temperature") for one in upstream.requests]
        assert sent == [1.5, None, 0.5]


async def test_no_answer_of_a_model_that_was_disabled_or_deployed_anew_is_given(gw: Gateway) -> None:
    async with serving(gw, counting()):
        await gw.chat.create("m", "hi", route=CACHED)
        await gw.models.disable(id="m")
        with pytest.raises(errors.TrunklineError, match="disabled"):
            await gw.chat.create("m", "hi", route=CACHED)
        await gw.models.enable(id="m")
        assert (await gw.chat.create("m", "hi", route=CACHED)).receipt.cached
        await gw.models.deploy(id="m", version="2", upstream="m2")
        assert (await gw.chat.create("m", "hi", route=CACHED)).text == "answer 2"


async def test_what_failed_was_cut_or_filtered_is_not_kept(gw: Gateway) -> None:
    def said(finish: str) -> Reply:
        choice = {"index": 0, "message": {"role": "assistant", "content": "no"}, "finish_reason": finish}
        return up.answer({"id": "c", "object": "chat.completion", "model": "m", "choices": [choice]})

    chunk = {"id": "c", "object": "chat.completion.chunk", "choices": [{"index": 0, "delta": {"content": "a"}}]}
    replies = [
        said("content_filter"),
        up.answer({"error": {"message": "no"}}, 400),
        up.events(chunk, done=False, after="cut"),
    ]
    async with serving(gw, counting(*replies)):
        filtered = await gw.chat.create("m", "hi", route=CACHED)
        assert filtered.receipt.finish == "content_filter"
        with pytest.raises(errors.TrunklineError):
            await gw.chat.create("m", "hi", route=CACHED)
        async with gw.chat.stream("m", "hi", route=CACHED) as cut:
            with pytest.raises(errors.TrunklineError):
                [chunk async for chunk in cut]
        assert not (await gw.chat.create("m", "hi", route=CACHED)).receipt.cached


async def test_a_budget_that_is_spent_keeps_nobody_from_what_costs_nothing(gw: Gateway) -> None:
    first = await gw.chat.create("echo", "hello", thread="paid", route=CACHED)
    await gw.threads.configure(thread_id="poor", budget={"limit_usd": "0"})
    with pytest.raises(errors.TrunklineError, match="budget"):
        await gw.chat.create("echo", "hello", thread="poor")
    again = await gw.chat.create("echo", "hello", thread="poor", route=CACHED)
    assert (again.text, again.receipt.cost) == (first.text, "0")
    check_books(await history(gw, "poor"))


async def test_an_id_that_was_answered_from_the_cache_is_answered_so_again(gw: Gateway) -> None:
    await gw.chat.create("echo", "hello", route=CACHED)
    once = await gw.chat.create("echo", "hello", request_id="r", thread="t", route=CACHED)
    twice = await gw.chat.create("echo", "hello", request_id="r", thread="t", route=CACHED)
    assert (twice.data, twice.receipt.event, twice.receipt.replayed) == (once.data, once.receipt.event, True)
    assert kinds(await history(gw, "t")) == ["answer-reused"]


async def test_a_cache_that_was_deleted_or_holds_nonsense_is_a_miss_and_is_made_anew(
    gw: Gateway, nats_: Client, host: Host
) -> None:
    async with serving(gw, counting()):
        await gw.chat.create("m", "hi", route=CACHED)
        js = nats_.jetstream()
        bucket = await js.key_value(CACHE_BUCKET)
        kept = (await js.stream_info(f"KV_{CACHE_BUCKET}", subjects_filter=">")).state.subjects
        (subject,) = kept or {}
        await bucket.put(subject.removeprefix(f"$KV.{CACHE_BUCKET}."), b"nonsense")
        assert (await gw.chat.create("m", "hi", route=CACHED)).text == "answer 2"
        await js.delete_stream(f"KV_{CACHE_BUCKET}")
        assert (await gw.chat.create("m", "hi", route=CACHED)).text == "answer 3"
        host.runtime.clock = lambda: time.time() + AWAY + 1
        texts = [(await gw.chat.create("m", "hi", route=CACHED)).text for _ in range(2)]
        assert texts == ["answer 4", "answer 4"]


async def test_who_asks_why_is_told_that_it_was_the_cache(gw: Gateway) -> None:
    first = await gw.chat.create("echo", "hello", route=CACHED)
    again = await gw.chat.create("echo", "hello", route=CACHED)
    told = await explain.explain(await gw.log(), again.receipt.request_id)
    assert (told["attempts"], told["cost_usd"]) == ([], "0")
    assert told["reused"]["origin"] == first.receipt.event
    assert told["reused"]["saved_usd"] == first.receipt.cost
    assert (await explain.explain(await gw.log(), first.receipt.request_id))["reused"] is None


async def test_over_http_a_header_tells_a_hit_and_metrics_count_it(http: aiohttp.ClientSession) -> None:
    body = {"model": "echo", "messages": [{"role": "user", "content": "hi"}], "route": CACHED}
    told = []
    for _ in range(2):
        async with http.post("/v1/chat/completions", json=body) as answer:
            told.append((answer.headers["x-trunkline-cache"], float(answer.headers["x-trunkline-cost-usd"]) > 0))
    assert told == [("miss", True), ("hit", False)]
    async with http.post("/v1/chat/completions", json={**body, "stream": True}) as answer:
        whole = await answer.read()
    async with http.post("/v1/chat/completions", json={**body, "stream": True}) as answer:
        assert answer.headers["x-trunkline-cache"] == "hit"
        assert (await answer.read()).partition(b": trunkline")[0] == whole.partition(b": trunkline")[0]
    async with http.get("/metrics") as answer:
        text = await answer.text()
    hits = [line for line in text.splitlines() if line.startswith("trunkline_cache_lookups") and '"hit"' in line]
    assert [line.rpartition(" ")[2] for line in hits] == ["2"]


@pytest.mark.parametrize("seconds", [-1, 7 * 86_400 + 1])
async def test_a_time_that_makes_no_sense_is_refused_with_its_place(gw: Gateway, seconds: float) -> None:
    with pytest.raises(errors.InvalidRequest, match=r"route\.cache_s must be from 0 to 604,800 seconds"):
        await gw.chat.create("echo", "hi", route={"cache_s": seconds})
    with pytest.raises(errors.InvalidRequest, match="cache_s must be from 0"):
        await gw.keys.issue(name="k", cache_s=seconds)
    problems = (await gw.policy.validate(policy={"defaults": {"cache_s": seconds}}))["problems"]
    assert problems[0]["path"] == "defaults.cache_s"
