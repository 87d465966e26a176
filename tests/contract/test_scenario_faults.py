"""How every kind of provider fails, over each of its transports: each fault is one typed failure, and nothing is tried
again but a kept-alive connection that was dead.
"""

import asyncio
import json
from collections.abc import AsyncGenerator, Callable

import pytest
from msgspec import structs
from scenario_kit import (
    CANARY,
    Case,
    Heard,
    ask,
    call,
    each,
    every_case,
    reply,
    same_answer,
    streamed,
)
from trunkline_actors.adapters import Chunk
from trunkline_events.failure import Failure, FailureClass, UpstreamError
from upstream import HANG_UP, SILENCE, Reply, Request, Upstream, answer, free_port
from wires import Said

both = pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
SAID = Said(text=("Hello", " from", " afar."))
HTML = Reply([b"<!doctype html><p>Sign in"], 200, {"content-type": "text/html"})
NO_REQUESTS = [b"[]", b"{", b"", b'"hi"', b"\xff", b'{"messages": 3}', b'{"messages": [3]}']
PROMPT = "my-prompt-is-private"


def _breaks_off(kind: FailureClass) -> Callable[[Case], bool]:
    return lambda case: case.wire.failing(kind) is not None


async def failing(case: Case, told: Reply, *, stream: bool) -> tuple[Heard, int]:
    """What was heard of a fault, and how many requests it took."""
    async with case.calling(told) as (adapter, upstream):
        request = call(messages=[{"role": "user", "content": PROMPT}])
        heard = await ask(adapter, request, stream=stream)
    assert isinstance(heard.end, Failure), "no failure"
    assert CANARY not in heard.end.message
    assert PROMPT not in heard.end.message
    return heard, len(upstream.requests)


@both
@every_case
async def test_a_refusal_is_a_failure_of_its_class_and_is_not_tried_again(case: Case, stream: bool) -> None:
    refusals = {kind: case.wire.refusing(kind, retry_after=7) for kind in FailureClass}
    known = {kind: told for kind, told in refusals.items() if told is not None}
    async with case.calling(*known.values()) as (adapter, upstream):
        heard = [(await ask(adapter, call(), stream=stream)).end for _ in known]
    failures = [(end.kind, end.status, end.retry_after) for end in heard if isinstance(end, Failure)]
    assert failures == [(kind, told.status, 7.0) for kind, told in known.items()]
    assert len(upstream.requests) == len(known)


@both
@every_case
async def test_no_failure_shows_the_key_or_the_prompt(case: Case, stream: bool) -> None:
    for kind in (FailureClass.AUTH, FailureClass.INVALID_REQUEST, FailureClass.UNAVAILABLE):
        told = case.wire.refusing(kind)
        assert told is not None
        said = b"".join(told.body).decode()
        leaky = structs.replace(told, body=[said.replace("says no", f"says no to {CANARY}").encode()])
        await failing(case, leaky, stream=stream)


@every_case
async def test_every_kind_tells_at_least_these_apart(case: Case) -> None:
    for kind in ("rate_limited", "auth", "invalid_request", "model_not_found", "unavailable"):
        assert case.wire.refusing(FailureClass(kind)) is not None


@both
@every_case
async def test_a_proxy_that_answers_with_a_page_fails_by_its_status(case: Case, stream: bool) -> None:
    kinds = {400: "invalid_request", 401: "auth", 404: "model_not_found", 429: "rate_limited"}
    kinds |= {500: "unavailable", 502: "unavailable", 503: "unavailable", 504: "timeout", 529: "overloaded"}
    pages = [Reply([b"<html>Sorry</html>"], status, {"content-type": "text/html"}) for status in kinds]
    async with case.calling(*pages) as (adapter, _):
        heard = {status: (await ask(adapter, call(), stream=stream)).failure.value for status in kinds}
    assert heard == kinds


@both
@every_case
async def test_a_redirect_is_not_followed(case: Case, stream: bool) -> None:
    async with Upstream(reply(case.wire, SAID, stream=stream)).serving() as other:
        away = answer({}, 307, location=f"{other.url}/chat/completions")
        heard, requests = await failing(case, away, stream=stream)
    assert (heard.failure, requests, other.requests) == ("internal", 1, [])


@both
@every_case
async def test_an_error_under_200_is_read_as_the_error_it_is(case: Case, stream: bool) -> None:
    told = case.wire.refusing(FailureClass.RATE_LIMITED)
    assert told is not None
    heard, requests = await failing(case, structs.replace(told, status=200), stream=stream)
    # Without a status nothing may be left to tell it by; an SDK may show nothing of a body that it doesn't know.
    named = case.wire.failing(FailureClass.RATE_LIMITED) is not None
    kinds = {"rate_limited"} if named else {"unavailable", "internal"}
    assert heard.failure in (kinds | {"internal"} if case.transport == "sdk" else kinds)
    assert requests == 1


ODD = {
    "a page": (HTML, "internal"),
    "nothing": (Reply([]), "internal"),
    "half an answer, well ended": (Reply([b'{"cho']), "internal"),
    "half an answer, cut": (Reply([b'{"cho'], after="cut"), "connection"),
    "another object": (answer({"hello": "world"}), "internal"),
    "a list": (answer([1, 2]), "internal"),
    "no gzip though it says so": (Reply([b"no gzip"], headers={"content-encoding": "gzip"}), "internal"),
}


@both
@pytest.mark.parametrize("name", ODD)
@every_case
async def test_an_odd_answer_under_200_is_a_failure(case: Case, name: str, stream: bool) -> None:
    told, kind = ODD[name]
    if stream and told.headers == Reply([]).headers:
        # As a stream it must at least claim to be one to be read as one.
        told = structs.replace(told, headers={"content-type": case.wire.stream(SAID).content_type})
        kind = "connection" if name == "half an answer, cut" else "internal"
    assert (await failing(case, told, stream=stream))[0].failure == kind


@both
@every_case
async def test_a_connection_that_cannot_be_made_is_a_connection_failure(case: Case, stream: bool) -> None:
    adapter = case.adapter(f"http://127.0.0.1:{free_port()}/v1")
    assert (await ask(adapter, call(), stream=stream)).failure == "connection"
    await adapter.close()


@both
@every_case
async def test_a_fresh_connection_that_dies_is_not_tried_again(case: Case, stream: bool) -> None:
    heard, requests = await failing(case, HANG_UP, stream=stream)
    assert (heard.failure, requests) == ("connection", 1)


@both
@every_case
async def test_a_kept_alive_connection_found_dead_is_opened_again_once(case: Case, stream: bool) -> None:
    good = reply(case.wire, SAID, stream=stream)
    async with case.calling(good, HANG_UP, good, HANG_UP) as (adapter, upstream):
        for _ in range(2):
            same_answer(case.wire, SAID, await ask(adapter, call(), stream=stream))
        assert (await ask(adapter, call(), stream=stream)).failure == "connection"
    assert [request.connection for request in upstream.requests] == [1, 1, 2, 2, 3]


# -- waiting


@both
@every_case
async def test_silence_ends_at_the_calls_deadline_and_the_server_sees_it(case: Case, stream: bool) -> None:
    async with case.calling(reply(case.wire, SAID, stream=stream), SILENCE) as (adapter, upstream):
        await ask(adapter, call(), stream=stream)  # the first call may take long: an SDK is imported for it
        assert (await ask(adapter, call(timeout=0.2), stream=stream)).failure == "timeout"
        async with asyncio.timeout(1):
            await upstream.left.wait()


@both
@every_case
async def test_silence_ends_after_the_longest_wait_on_the_network(case: Case, stream: bool) -> None:
    async with case.calling(SILENCE, timeout_s=0.1) as (adapter, _):
        assert (await ask(adapter, call(), stream=stream)).failure == "timeout"


@every_case
async def test_a_stream_that_falls_silent_gives_what_it_had_and_then_times_out(case: Case) -> None:
    told = case.wire.stream(SAID)
    stalled = Reply(list(told.events[: told.settled - 1]), headers={"content-type": told.content_type}, after="stall")
    async with case.calling(case.wire.whole(SAID), stalled) as (adapter, _):
        await ask(adapter, call(), stream=False)  # the first call may take long: an SDK is imported for it
        heard = await streamed(adapter, call(timeout=0.3))
    assert (heard.text, heard.failure) == ("Hello from afar.", "timeout")


@pytest.mark.parametrize("how", ["aclose", "cancel"])
@every_case
async def test_leaving_a_stream_ends_it_at_the_server_and_leaves_the_adapter_usable(case: Case, how: str) -> None:
    told = case.wire.stream(SAID)
    endless = Reply(list(told.events[: told.settled - 1]), headers={"content-type": told.content_type}, after="stall")
    async with case.calling(endless, case.wire.whole(SAID)) as (adapter, upstream):
        stream = adapter.stream(call())
        assert isinstance(await anext(stream), Chunk)
        async with asyncio.timeout(1):
            if how == "aclose":
                await stream.aclose()
            else:
                waiting = asyncio.create_task(_exhaust(stream))
                await asyncio.sleep(0)
                waiting.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await waiting
            await upstream.left.wait()
        same_answer(case.wire, SAID, await ask(adapter, call(), stream=False))


async def _exhaust(stream: AsyncGenerator[object, None]) -> None:
    async for _ in stream:
        pass


@every_case
async def test_cancelling_a_whole_answer_ends_it_at_the_server(case: Case) -> None:
    async with case.calling(SILENCE) as (adapter, upstream):
        waiting = asyncio.create_task(adapter.complete(call()))
        await upstream.asked.wait()
        waiting.cancel()
        async with asyncio.timeout(1):
            await upstream.left.wait()
        with pytest.raises(asyncio.CancelledError):
            await waiting


@both
@every_case
async def test_closing_an_adapter_ends_the_calls_under_way_and_refuses_later_ones(case: Case, stream: bool) -> None:
    async with case.calling(SILENCE) as (adapter, upstream):
        waiting = asyncio.create_task(ask(adapter, call(), stream=stream))
        await upstream.asked.wait()
        await adapter.close()
        assert (await waiting).failure == "connection"
        assert (await ask(adapter, call(), stream=stream)).failure == "connection"
        with pytest.raises(UpstreamError):
            await adapter.check()
    assert len(upstream.requests) == 1


# -- faults inside a stream


@every_case
async def test_a_malformed_event_fails_after_what_came_before_it(case: Case) -> None:
    told = case.wire.stream(SAID)
    events = [*told.events[: told.settled - 1], case.wire.malformed, *told.events[told.settled - 1 :]]
    heard, _ = await failing(case, Reply(events, headers={"content-type": told.content_type}), stream=True)
    assert (heard.text, heard.failure) == ("Hello from afar.", "internal")


@each("kind", {kind: _breaks_off(kind) for kind in FailureClass})
async def test_an_error_inside_a_stream_is_a_failure_of_its_class(case: Case, kind: FailureClass) -> None:
    told, error = case.wire.stream(SAID), case.wire.failing(kind)
    assert error is not None
    for before in (0, told.settled - 1):
        events = [*told.events[:before], error]
        heard, _ = await failing(case, Reply(events, headers={"content-type": told.content_type}), stream=True)
        assert (heard.text, heard.failure) == ("Hello from afar." if before else "", kind)


@both
@every_case
async def test_a_body_that_is_no_chat_request_is_refused_or_left_to_the_server(case: Case, stream: bool) -> None:
    async def strict(request: Request) -> Reply:
        messages = json.loads(request.body).get("messages")
        valid = isinstance(messages, list) and all(isinstance(message, dict) for message in messages)
        refused = case.wire.refusing(FailureClass.INVALID_REQUEST)
        assert refused is not None
        return reply(case.wire, SAID, stream=stream) if valid else refused

    async with case.calling(handler=strict) as (adapter, _):
        for body in NO_REQUESTS:
            heard = await ask(adapter, structs.replace(call(), body=body), stream=stream)
            assert heard.failure == "invalid_request", body


@every_case
async def test_many_calls_run_at_once(case: Case) -> None:
    async with case.calling(reply(case.wire, SAID, stream=True)) as (adapter, upstream):
        for heard in await asyncio.gather(*(streamed(adapter, call()) for _ in range(8))):
            same_answer(case.wire, SAID, heard)
    assert len(upstream.requests) == 8
