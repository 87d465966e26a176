"""What failed is tried again after a wait, by what a real upstream saw of it, and by what callers hear meanwhile."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from audit import check_books, events, history, kinds
from faulty import PRICE, chats, failing, register, whole, whole_stream
from messages import ask, calling, chat_body
from nats.aio.client import Client
from trunkline import errors
from trunkline.client import Gateway
from trunkline.host import Host
from trunkline_actors.router import RouterActor
from trunkline_events import headers
from trunkline_events.subjects import PARKED_STREAM
from trunkline_events.thread import AttemptFailed, RouteDecided, UsageRecorded
from upstream import HANG_UP, Reply, Upstream, answer

pytest_plugins = ["gateway"]

LONG_S = 30
"""Seconds that no test waits."""


@pytest.fixture
def nats(gw: Gateway) -> Client:
    return gw._connection.nats


@pytest.fixture
async def second(bus_url: str, host: Host) -> AsyncIterator[Host]:
    """Another process with a router."""
    serving = await Host.start(bus_url, ("router",))
    yield serving
    await serving.stop()


def slow_down(seconds: float) -> Reply:
    return answer({"error": {}}, 429, retry_after=str(seconds))


async def until_failed(gateway: Gateway, thread: str) -> None:
    """Return when an attempt of this thread has failed."""
    async with asyncio.timeout(5):
        async for event in gateway.events("thread", id=thread, since=0):
            if isinstance(event.body, AttemptFailed):
                return


async def until_resting(host: Host) -> None:
    """Return when a request waits in this process before it is tried again."""
    router = host._routers[0].actor
    assert isinstance(router, RouterActor)
    async with asyncio.timeout(5):
        while not router._resting._resting:  # noqa: ASYNC110 - it tells nobody
            await asyncio.sleep(0.005)


async def test_a_retry_after_is_honoured_and_then_the_same_upstream_serves(gw: Gateway) -> None:
    times: list[float] = []

    def reply(count: int) -> Reply:
        times.append(asyncio.get_running_loop().time())
        return slow_down(0.6) if count == 1 else whole()

    async with failing(reply) as upstream:
        await register(gw, upstream.url)
        done = await gw.chat.create("m", "hi", thread="t")
        assert chats(upstream) == 2
    assert (done.text, done.receipt.attempts) == ("fine", 2)
    assert times[1] - times[0] >= 0.6
    recorded = await history(gw, "t")
    assert kinds(recorded) == ["route-decided", "attempt-failed", "route-decided", "usage-recorded"]
    again = recorded[2].body
    assert isinstance(again, RouteDecided)
    assert (again.tried, again.basis.failures, again.basis.rested) == (["m"], ["rate_limited"], 1)
    check_books(recorded)


async def test_waits_grow_and_retries_and_fallbacks_together_stay_within_the_attempts(gw: Gateway) -> None:
    async with failing(lambda _: answer({}, 500)) as one, failing(lambda _: answer({}, 529)) as two:
        await register(gw, one.url, "one", "m1")
        await register(gw, two.url, "two", "m2")
        with pytest.raises(errors.Unavailable) as caught:
            await gw.chat.create("m1", "hi", thread="t", route={"attempts": 5, "fallbacks": ["m2"]})
        assert (chats(one), chats(two)) == (3, 2)
    assert caught.value.metadata["tried"] == ["m1", "m2", "m1", "m2", "m1"]
    times = [event.body.now for event in await history(gw, "t") if isinstance(event.body, RouteDecided)]
    assert times[2] - times[1] >= 0.125
    assert times[4] - times[3] >= 0.25


async def test_a_retry_after_beyond_the_deadline_is_told_at_once(gw: Gateway) -> None:
    async with failing(lambda _: slow_down(LONG_S)) as upstream:
        await register(gw, upstream.url)
        async with asyncio.timeout(LONG_S / 3):
            with pytest.raises(errors.RateLimited) as caught:
                await gw.chat.create("m", "hi", route={"deadline_ms": LONG_S * 500})
        assert chats(upstream) == 1
    assert LONG_S - 5 < caught.value.metadata["retry_after"] <= LONG_S


async def test_what_can_not_pass_is_asked_once(gw: Gateway) -> None:
    async with failing(lambda _: answer({"error": {"code": "invalid_api_key"}}, 401)) as upstream:
        await register(gw, upstream.url)
        with pytest.raises(errors.ProviderError):
            await gw.chat.create("m", "hi")
        assert chats(upstream) == 1


@pytest.mark.parametrize("says", ["stop", "fallback"])
async def test_what_was_filtered_goes_to_another_provider_where_the_policy_says_so(gw: Gateway, says: str) -> None:
    await gw.policy.publish(policy={"defaults": {"on_content_filter": says}})
    async with failing(lambda _: answer({"error": {"code": "content_filter"}}, 400)) as upstream:
        await register(gw, upstream.url)
        await gw.models.register(id="sister", provider="up", price=PRICE)
        asked = gw.chat.create("m", "hi", route={"fallbacks": ["sister", "echo"]})
        if says == "stop":
            with pytest.raises(errors.ContentFiltered):
                await asked
        else:
            assert (await asked).receipt.model == "echo"
        assert chats(upstream) == 1


async def test_what_is_too_long_goes_to_a_model_with_a_longer_window(gw: Gateway) -> None:
    async with failing(lambda _: answer({"error": {"code": "context_length_exceeded"}}, 400)) as upstream:
        await register(gw, upstream.url)
        for name, window in {"m": 1_000, "as-short": 1_000, "longer": 2_000}.items():
            provider = "scripted" if name == "longer" else "up"
            change = gw.models.update if name == "m" else gw.models.register
            await change(id=name, provider=provider, upstream="echo", context_window=window, price=PRICE)
        done = await gw.chat.create("m", "hi", route={"fallbacks": ["as-short", "longer"]})
        assert (done.receipt.model, chats(upstream)) == ("longer", 1)


async def test_a_refused_key_is_not_shown_again_to_the_same_provider(gw: Gateway) -> None:
    async with failing(lambda _: answer({"error": {"code": "invalid_api_key"}}, 401)) as upstream:
        await register(gw, upstream.url)
        await gw.models.register(id="sister", provider="up", price=PRICE)
        done = await gw.chat.create("m", "hi", route={"fallbacks": ["sister", "echo"]})
        assert (done.receipt.model, chats(upstream)) == ("echo", 1)


@pytest.mark.parametrize("streamed", [False, True])
async def test_an_abort_during_the_wait_is_answered_at_once(
    gw: Gateway, nats: Client, host: Host, streamed: bool
) -> None:
    async with failing(lambda _: slow_down(LONG_S)) as upstream:
        await register(gw, upstream.url)
        fields = {headers.THREAD: "t", headers.REQUEST: "r"}
        async with calling(nats, chat_body("m", stream=streamed), fields) as call:
            await until_resting(host)
            await gw.chat.abort("r")
            assert (await call.next(within=LONG_S / 3)).error["code"] == "aborted"
            if streamed:
                assert (await call.next()).data == b""
        assert chats(upstream) == 1
    assert kinds(await history(gw, "t")) == ["route-decided", "attempt-failed"]


async def test_a_process_that_stops_answers_those_who_wait(gw: Gateway, nats: Client, bus_url: str, host: Host) -> None:
    for router in host._routers:  # so that it is the other one that gets it
        await router.stop(5)
    leaving = await Host.start(bus_url, ("router",))
    async with failing(lambda _: slow_down(LONG_S)) as upstream:
        await register(gw, upstream.url)
        async with calling(nats, chat_body("m"), {headers.THREAD: "t"}) as call:
            await until_resting(leaving)
            stopping = asyncio.create_task(leaving.stop())
            told = await call.next(within=LONG_S / 3)
            await stopping
    assert (told.error["code"], told.error["retryable"]) == ("stopping", True)


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_repeat_joins_a_request_that_waits(gw: Gateway, nats: Client, second: Host, streamed: bool) -> None:
    """On whichever router it lands: several repeats find both."""
    good = whole_stream() if streamed else whole()
    async with failing(lambda count: slow_down(1.5) if count == 1 else good) as upstream:
        await register(gw, upstream.url)
        fields, body = {headers.THREAD: "t", headers.REQUEST: "r"}, chat_body("m", stream=streamed)
        async with calling(nats, body, fields) as first:
            await until_failed(gw, "t")
            async with calling(nats, body, fields) as other, calling(nats, body, fields) as third:
                answers = [await call.rest() if streamed else [await call.next()] for call in (first, other, third)]
        assert chats(upstream) == 2
    assert answers[0] == answers[1] == answers[2]
    assert kinds(await history(gw, "t")) == ["route-decided", "attempt-failed", "route-decided", "usage-recorded"]


async def test_a_request_may_be_parked_between_its_attempts_and_is_then_tried_again(
    gw: Gateway, nats: Client, second: Host
) -> None:
    """Somebody else takes the money while it waits for the upstream; once there is some, it knows what it had tried."""
    release = asyncio.Event()

    async def held() -> AsyncIterator[bytes]:
        await release.wait()
        yield whole("held").body[0]

    # Not 429: with that nobody is served until the time is over.
    later = answer({"error": {}}, 503, retry_after="0.6")
    replies = {1: later, 2: Reply(pieces=held()), 3: answer({}, 500), 4: whole("at last")}
    async with failing(lambda count: replies[count]) as upstream:
        await register(gw, upstream.url)
        await gw.threads.configure(thread_id="t", budget={"limit_usd": "0.005"})
        body = chat_body("m", max_tokens=1000, route={"attempts": 3})
        waiting = asyncio.create_task(ask(nats, body, {headers.THREAD: "t", headers.REQUEST: "waits"}))
        await until_failed(gw, "t")
        holding = asyncio.create_task(ask(nats, body, {headers.THREAD: "t", headers.REQUEST: "holds"}))
        async with asyncio.timeout(10):
            while not (await nats.jetstream().stream_info(PARKED_STREAM)).state.last_seq:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        release.set()
        assert (await holding).json["choices"][0]["message"]["content"] == "held"
        done = await waiting
        assert chats(upstream) == 4
    assert done.json["choices"][0]["message"]["content"] == "at last"
    assert done.fields[headers.ATTEMPTS] == "3"
    decided = [
        event.body
        for event in await history(gw, "t")
        if isinstance(event.body, RouteDecided) and event.body.request_id == "waits"
    ]
    assert [(one.attempt, one.tried, one.basis.failures, one.basis.rested) for one in decided] == [
        (1, [], [], 0),
        (2, ["m"], ["unavailable"], 1),
        (3, ["m", "m"], ["unavailable", "unavailable"], 2),
    ]
    check_books(await events(gw))


async def test_an_attempt_that_called_nobody_leaves_the_next_candidate_its_call(gw: Gateway) -> None:
    """A provider at its limit; the only upstream call that the request may make is the other's."""
    async with failing(lambda _: whole()) as upstream:
        await register(gw, upstream.url)
        await gw.providers.register(id="narrow", kind="scripted", local=True, max_concurrency=1, queue_timeout_s=0)
        await gw.models.register(id="busy", provider="narrow", upstream="stall", price=PRICE)
        blocking = asyncio.create_task(gw.chat.create("busy", "hi", thread="b", request_id="blocks"))
        async for event in gw.events("thread", id="b", since=0):
            assert isinstance(event.body, RouteDecided)
            break
        done = await gw.chat.create("busy", "hi", thread="t", route={"attempts": 1, "fallbacks": ["m"]})
        await gw.chat.abort("blocks")
        with pytest.raises(errors.Aborted):
            await blocking
    assert (done.receipt.model, done.receipt.attempts) == ("m", 2)
    failed, settled = [event.body for event in await history(gw, "t")][1::2]
    assert isinstance(failed, AttemptFailed)
    assert failed.failure == "overloaded"
    assert isinstance(settled, UsageRecorded)


# -- kept-alive connections, over the whole way


def connections(upstream: Upstream) -> list[int]:
    return [request.connection for request in upstream.requests if request.method == "POST"]


async def test_a_dead_kept_alive_connection_is_opened_again_once_within_one_attempt(gw: Gateway) -> None:
    async with failing(lambda count: HANG_UP if count == 2 else whole()) as upstream:
        await register(gw, upstream.url)
        for _ in range(2):
            done = await gw.chat.create("m", "hi", thread="t")
            assert done.receipt.attempts == 1
        first, same, fresh = connections(upstream)
    assert first == same != fresh
    assert kinds(await history(gw, "t")) == ["route-decided", "usage-recorded"] * 2


async def test_a_connection_that_dies_twice_is_a_failed_attempt_and_the_next_is_on_a_fresh_one(gw: Gateway) -> None:
    async with failing(lambda count: HANG_UP if count in {2, 3} else whole()) as upstream:
        await register(gw, upstream.url)
        await gw.chat.create("m", "hi", thread="t")
        done = await gw.chat.create("m", "hi", thread="t")
        assert len(set(connections(upstream))) == 3
        assert chats(upstream) == 4
    assert done.receipt.attempts == 2
    assert kinds(await history(gw, "t"))[2:] == ["route-decided", "attempt-failed", "route-decided", "usage-recorded"]


async def test_a_connection_that_dies_after_a_byte_was_answered_is_not_opened_again(gw: Gateway) -> None:
    cut = Reply([b"{"], after="cut")
    async with failing(lambda count: cut if count == 2 else whole()) as upstream:
        await register(gw, upstream.url)
        await gw.chat.create("m", "hi")
        with pytest.raises(errors.ProviderError):
            await gw.chat.create("m", "hi", route={"attempts": 1})
        assert chats(upstream) == 2
