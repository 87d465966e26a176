"""An OpenAI-wire upstream at its worst, over real sockets, and a real engine behind one."""

import asyncio
import json
import subprocess
import sys
import urllib.request
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest
from trunkline_actors.adapters import Call, Chunk, End
from trunkline_actors.adapters.factory import NoBaseUrl, UnknownKind, build, kinds
from trunkline_actors.adapters.kinds import Settings
from trunkline_actors.adapters.openai_compatible import OpenAICompatible
from trunkline_events.failure import Failure, FailureClass, UpstreamError
from upstream import HANG_UP, SILENCE, SSE, Reply, Upstream, answer, events

pytest_plugins = ["engine"]

CANARY = "canary-Zq7-secret"
PROMPT = "my-prompt-is-private"
CALL = Call(body=json.dumps({"messages": [{"role": "user", "content": PROMPT}]}).encode(), model="m", timeout=10)
SHORT = Call(body=CALL.body, model="m", timeout=0.2)
WHOLE = {"id": "1", "object": "chat.completion", "choices": [{"message": {"content": "hi"}, "finish_reason": "stop"}]}
HTML = Reply([b"<!doctype html><p>Sign in"], 200, {"content-type": "text/html"})


def chunk(text: str, finish: str | None = None) -> dict[str, Any]:
    return {"id": "1", "choices": [{"index": 0, "delta": {"content": text}, "finish_reason": finish}]}


STREAM = events(chunk("a"), chunk("b", "stop"))


Calling = Callable[..., AbstractAsyncContextManager[tuple[OpenAICompatible, Upstream]]]


@pytest.fixture(params=["raw", "sdk"])
def calling(request: pytest.FixtureRequest) -> Calling:
    """An adapter and the server it calls, which answers with each of the replies, the last for ever."""

    @asynccontextmanager
    async def opened(*replies: Reply, **options: Any) -> AsyncIterator[tuple[OpenAICompatible, Upstream]]:
        async with Upstream(*replies).serving() as upstream:
            adapter = OpenAICompatible(upstream.url, **{"transport": request.param, "local": True} | options)
            try:
                yield adapter, upstream
            finally:
                await adapter.close()

    return opened


async def streamed(adapter: OpenAICompatible, call: Call = CALL) -> tuple[list[Chunk], End | Failure]:
    chunks: list[Chunk] = []
    try:
        async for item in adapter.stream(call):
            if isinstance(item, End):
                return chunks, item
            chunks.append(item)
    except UpstreamError as error:
        return chunks, error.failure
    raise AssertionError("a stream without an end")


async def failure_of(adapter: OpenAICompatible, call: Call = CALL) -> Failure:
    with pytest.raises(UpstreamError) as caught:
        await adapter.complete(call)
    assert caught.value.__cause__ is not None or caught.value.failure.status is not None
    return caught.value.failure


async def test_what_is_sent_is_the_callers_request_under_our_credential(calling: Calling) -> None:
    async with calling(answer(WHOLE), api_key=CANARY, headers={"x-team": "a"}) as (adapter, upstream):
        await adapter.complete(CALL)
    (request,) = upstream.requests
    assert (request.method, request.path) == ("POST", "/v1/chat/completions")
    assert (request.headers["authorization"], request.headers["x-team"]) == (f"Bearer {CANARY}", "a")
    assert request.headers["content-type"] == "application/json"
    assert json.loads(request.body) == {"messages": [{"role": "user", "content": PROMPT}], "model": "m"}


async def test_nothing_of_the_environment_is_sent(calling: Calling, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("API_KEY", "ADMIN_KEY", "ORG_ID", "PROJECT_ID", "WEBHOOK_SECRET"):
        monkeypatch.setenv(f"OPENAI_{name}", CANARY)
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", f"x-leak: {CANARY}\nauthorization: Bearer {CANARY}")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    async with calling(answer(WHOLE)) as (adapter, upstream):
        await adapter.complete(CALL)
        await adapter.check()
    assert [request.path for request in upstream.requests] == ["/v1/chat/completions", "/v1/models"]
    assert CANARY not in str([request.headers for request in upstream.requests])


def test_importing_and_building_adapters_does_not_import_the_sdk() -> None:
    code = (
        "import sys; from trunkline_actors.adapters.factory import build;"
        "from trunkline_actors.adapters.kinds import Settings; build('openai', Settings(provider='p', key='k'));"
        "print([name for name in ('openai', 'httpx2', 'pydantic') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("reply", "kind", "retry_after"),
    [
        (answer({"error": {"message": "no", "code": "invalid_api_key"}}, 401), FailureClass.AUTH, None),
        (answer({"error": {"message": "slow"}}, 429, retry_after="7"), FailureClass.RATE_LIMITED, 7.0),
        (answer({"error": {"code": "context_length_exceeded"}}, 400), FailureClass.CONTEXT_LENGTH, None),
        (answer({"error": {"code": "content_filter"}}, 400), FailureClass.CONTENT_FILTER, None),
        (answer({"error": "gone"}, 404), FailureClass.MODEL_NOT_FOUND, None),
        (Reply([b"<html>bad gateway"], 502, {"content-type": "text/html"}), FailureClass.UNAVAILABLE, None),
        (answer({}, 307, location="http://127.0.0.1:9/v1"), FailureClass.INTERNAL, None),
        (Reply([b'{"err'], 500, after="cut"), FailureClass.CONNECTION, None),
        (Reply([b"not gzip"], 200, {"content-encoding": "gzip"}), FailureClass.INTERNAL, None),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_an_error_answer_is_a_typed_failure(
    calling: Calling, reply: Reply, kind: FailureClass, retry_after: float | None, stream: bool
) -> None:
    async with calling(reply) as (adapter, upstream):
        failure = (await streamed(adapter))[1] if stream else await failure_of(adapter)
    assert isinstance(failure, Failure)
    assert (failure.kind, failure.retry_after) == (kind, retry_after)
    assert len(upstream.requests) == 1  # neither the SDK nor we try again


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (HTML, FailureClass.INTERNAL),
        (answer({"error": {"code": "rate_limit_exceeded", "message": "slow"}}), FailureClass.RATE_LIMITED),
        (answer({"choices": None}), FailureClass.INTERNAL),
        (Reply([b'{"choi'], 200, after="cut"), FailureClass.CONNECTION),
        (Reply([b'{"choi']), FailureClass.INTERNAL),
    ],
)
async def test_an_odd_answer_with_status_200_is_a_failure(calling: Calling, reply: Reply, kind: FailureClass) -> None:
    async with calling(reply) as (adapter, _):
        assert (await failure_of(adapter)).kind is kind
        with pytest.raises(UpstreamError) as caught:
            await adapter.embed(CALL)
        assert caught.value.failure.kind is kind


@pytest.mark.parametrize(
    ("reply", "given", "kind"),
    [
        (HTML, 0, FailureClass.INTERNAL),
        (answer(WHOLE), 0, FailureClass.INTERNAL),
        (answer({"error": {"code": 503}}), 0, FailureClass.UNAVAILABLE),
        (Reply([b"just text"], 200, {"content-type": "text/plain"}), 0, FailureClass.INTERNAL),
        (Reply([], 200, SSE), 0, FailureClass.INTERNAL),
        (events(chunk("a"), done=False), 1, FailureClass.CONNECTION),
        (events(chunk("a"), done=False, after="cut"), 1, FailureClass.CONNECTION),
        (Reply([b"data: " + json.dumps(chunk("a")).encode()[:20]], 200, SSE, "cut"), 0, FailureClass.CONNECTION),
        (events(chunk("a"), b"{garbage", chunk("b")), 1, FailureClass.INTERNAL),
        (events(chunk("a"), {"error": {"code": "502", "message": "m"}}), 1, FailureClass.UNAVAILABLE),
        (events(chunk("a"), {"choices": None}), 1, FailureClass.INTERNAL),
    ],
)
async def test_a_broken_stream_fails_after_the_chunks_it_gave(
    calling: Calling, reply: Reply, given: int, kind: FailureClass
) -> None:
    async with calling(reply) as (adapter, _):
        chunks, failure = await streamed(adapter)
    assert isinstance(failure, Failure)
    assert (len(chunks), failure.kind) == (given, kind)


@pytest.mark.parametrize("reply", [SILENCE, Reply([b"{"], after="stall")])
async def test_a_whole_answer_has_a_deadline(calling: Calling, reply: Reply) -> None:
    async with calling(reply) as (adapter, _):
        assert (await failure_of(adapter, SHORT)).kind is FailureClass.TIMEOUT


async def test_each_wait_on_the_network_has_a_limit_too(calling: Calling) -> None:
    async with calling(SILENCE, timeout=0.1) as (adapter, _):
        assert (await failure_of(adapter)).kind is FailureClass.TIMEOUT


async def test_a_deadline_does_not_touch_what_the_consumer_does(calling: Calling) -> None:
    async with calling(answer({}), events(chunk("a"), done=False, after="stall")) as (adapter, _):
        await adapter.check()  # so that the client is made before the clock starts
        stream = adapter.stream(Call(body=CALL.body, model="m", timeout=0.5))
        deadline = asyncio.get_running_loop().time() + 0.5
        await anext(stream)
        while asyncio.get_running_loop().time() < deadline:  # noqa: ASYNC110 - time is what this is about
            await asyncio.sleep(0.05)
        with pytest.raises(UpstreamError) as caught:
            await anext(stream)
        assert caught.value.failure.kind is FailureClass.TIMEOUT


@pytest.mark.parametrize("stream", [False, True])
async def test_a_kept_alive_connection_found_dead_is_opened_again_once(calling: Calling, stream: bool) -> None:
    good = STREAM if stream else answer(WHOLE)
    async with calling(good, HANG_UP, good) as (adapter, upstream):
        for _ in range(2):
            await (streamed(adapter) if stream else adapter.complete(CALL))
    assert [request.connection for request in upstream.requests] == [1, 1, 2]


async def test_a_connection_that_dies_twice_is_a_failure(calling: Calling) -> None:
    async with calling(answer(WHOLE), HANG_UP) as (adapter, upstream):
        await adapter.complete(CALL)
        assert (await failure_of(adapter)).kind is FailureClass.CONNECTION
    assert [request.connection for request in upstream.requests] == [1, 1, 2]


async def test_a_fresh_connection_that_dies_is_not_tried_again(calling: Calling) -> None:
    async with calling(HANG_UP) as (adapter, upstream):
        assert (await failure_of(adapter)).kind is FailureClass.CONNECTION
    assert len(upstream.requests) == 1


async def test_a_reused_connection_that_dies_while_answering_is_not_tried_again(calling: Calling) -> None:
    async with calling(answer(WHOLE), Reply([b"{"], after="cut")) as (adapter, upstream):
        await adapter.complete(CALL)
        assert (await failure_of(adapter)).kind is FailureClass.CONNECTION
    assert len(upstream.requests) == 2


async def test_a_finished_stream_gives_its_connection_back(calling: Calling) -> None:
    async with calling(STREAM) as (adapter, upstream):
        for _ in range(3):
            await streamed(adapter)
    assert {request.connection for request in upstream.requests} == {1}


async def test_an_upstream_that_lingers_after_done_delays_nobody_for_long(calling: Calling) -> None:
    async with calling(events(chunk("a", "stop"), after="stall")) as (adapter, upstream):
        async with asyncio.timeout(5):
            assert isinstance((await streamed(adapter))[1], End)
            await upstream.left.wait()


@pytest.mark.parametrize("how", ["aclose", "cancel"])
async def test_leaving_a_stream_cuts_the_upstream_call(calling: Calling, how: str) -> None:
    async with calling(events(chunk("a"), done=False, after="stall")) as (adapter, upstream):
        stream = adapter.stream(CALL)
        await anext(stream)
        async with asyncio.timeout(1):
            if how == "aclose":
                await stream.aclose()
            else:
                waiting = asyncio.create_task(anext(stream))
                await asyncio.sleep(0.01)
                waiting.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await waiting
            await upstream.left.wait()


async def test_cancelling_a_whole_answer_cuts_the_upstream_call(calling: Calling) -> None:
    async with calling(SILENCE) as (adapter, upstream):
        waiting = asyncio.create_task(adapter.complete(CALL))
        await upstream.asked.wait()
        waiting.cancel()
        async with asyncio.timeout(1):
            await upstream.left.wait()


@pytest.mark.parametrize(
    "reply",
    [
        answer({"error": {"message": f"Incorrect API key provided: {CANARY}", "code": CANARY}}, status)
        for status in (400, 401, 422, 429, 500)
    ]
    + [HTML, HANG_UP, events({"error": {"message": CANARY, "type": "invalid_request_error", "code": CANARY}})],
)
async def test_no_message_shows_the_key_or_a_header(calling: Calling, reply: Reply) -> None:
    async with calling(reply, api_key=CANARY, headers={"x-secret": f"{CANARY}-2"}) as (adapter, _):
        for failure in (await failure_of(adapter), (await streamed(adapter))[1]):
            assert isinstance(failure, Failure)
            assert CANARY not in failure.message
            assert PROMPT not in failure.message


async def test_an_impossible_header_is_a_failure_that_does_not_show_it(calling: Calling) -> None:
    async with calling(answer(WHOLE), api_key=f"{CANARY}\n") as (adapter, _):
        assert CANARY not in (await failure_of(adapter)).message


async def test_a_check_needs_json(calling: Calling) -> None:
    async with calling(HTML) as (adapter, _):
        with pytest.raises(UpstreamError, match="no list of models"):
            await adapter.check()


def test_an_unknown_kind_is_told_the_known_ones() -> None:
    with pytest.raises(UnknownKind, match=r"'azure'.*scripted"):
        build("azure", Settings(provider="p"))


def test_a_compatible_upstream_needs_an_address() -> None:
    with pytest.raises(NoBaseUrl, match="base_url"):
        build("openai-compatible", Settings(provider="p"))


@pytest.mark.parametrize("kind", ["deepseek", "openai", "openai-compatible", "openrouter"])
def test_each_kind_that_speaks_this_wire_is_built(kind: str) -> None:
    assert kind in kinds()
    assert isinstance(build(kind, Settings(provider="p", base_url="http://127.0.0.1:9")), OpenAICompatible)


def busy_slots(engine: str) -> list[bool]:
    with urllib.request.urlopen(f"{engine}/slots") as slots:
        return [slot["is_processing"] for slot in json.load(slots)]


async def test_leaving_a_stream_stops_the_engine_behind_it(engine: str) -> None:
    adapter = OpenAICompatible(f"{engine}/v1", local=True)
    call = Call(body=b'{"messages": [{"role": "user", "content": "long"}]}', model="tiny", timeout=30)
    stream = adapter.stream(call)
    await anext(stream)
    assert any(await asyncio.to_thread(busy_slots, engine))
    await stream.aclose()
    async with asyncio.timeout(3):
        while any(await asyncio.to_thread(busy_slots, engine)):  # noqa: ASYNC110 - it tells nobody when it stops
            await asyncio.sleep(0.02)
    await adapter.close()
