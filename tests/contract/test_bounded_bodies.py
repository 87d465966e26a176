"""Bodies that would fill the memory or hold up everybody else: without end, or packed so that little holds a lot.

Every kind of provider over each of its transports reads only so much of a body, and none that it would have to unpack.
"""

import gzip
from collections.abc import AsyncIterator

import pytest
from msgspec import structs
from scenario_kit import Case, ask, call, every_case, reply
from trunkline_actors.adapters import gemini_client, ollama_sdk, raw_http, sdk_http
from trunkline_events.failure import Failure, FailureClass
from upstream import Reply
from wires import Said

both = pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
SAID = Said(text=("Hello", " from", " afar."))


def packed(told: Reply) -> Reply:
    body = gzip.compress(b"".join(told.body))
    return structs.replace(told, body=[body], headers={**told.headers, "content-encoding": "gzip"})


@both
@every_case
async def test_an_error_without_end_is_read_to_a_limit_and_is_still_that_error(case: Case, stream: bool) -> None:
    async def without_end() -> AsyncIterator[bytes]:
        while True:
            yield b"x" * 100_000

    told = Reply(status=503, pieces=without_end())
    async with case.calling(told) as (adapter, upstream):
        failure = (await ask(adapter, call(timeout=30), stream=stream)).end
        await upstream.left.wait()
    assert isinstance(failure, Failure)
    assert (failure.kind, failure.status) == (FailureClass.UNAVAILABLE, 503)


@every_case
async def test_a_document_without_end_is_no_stream(case: Case) -> None:
    async def without_end() -> AsyncIterator[bytes]:
        while True:
            yield b'{"x": [' + b"1," * 50_000

    async with case.calling(Reply(pieces=without_end())) as (adapter, _):
        assert (await ask(adapter, call(timeout=30), stream=True)).failure is FailureClass.INTERNAL


@every_case
async def test_a_whole_answer_is_read_to_a_limit(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (raw_http, sdk_http, gemini_client, ollama_sdk):
        monkeypatch.setattr(module, "BODY_LIMIT", 1000)
    async with case.calling(Reply([b" " * 600] * 3)) as (adapter, _):
        failure = (await ask(adapter, call(), stream=False)).end
    assert isinstance(failure, Failure)
    assert (failure.kind, failure.message) == (FailureClass.INTERNAL, "upstream sent more than 1000 bytes")


@both
@every_case
async def test_a_packed_answer_is_refused_since_nobody_asked_for_it(case: Case, stream: bool) -> None:
    async with case.calling(packed(reply(case.wire, SAID, stream=stream))) as (adapter, upstream):
        failure = (await ask(adapter, call(), stream=stream)).end
    assert isinstance(failure, Failure)
    told = (FailureClass.INTERNAL, "upstream sent an encoding nobody asked for")
    assert (failure.kind, failure.message) == told
    assert upstream.requests[0].headers["accept-encoding"] == "identity"


@both
@every_case
async def test_a_packed_error_is_known_by_its_status_and_not_unpacked(case: Case, stream: bool) -> None:
    told = case.wire.refusing(FailureClass.INVALID_REQUEST)
    assert told is not None
    replies = (told, packed(told), structs.replace(told, body=[]))
    async with case.calling(*replies) as (adapter, _):
        clear, unread, empty = [(await ask(adapter, call(), stream=stream)).end for _ in replies]
    assert isinstance(clear, Failure)
    assert isinstance(unread, Failure)
    assert (clear.kind, clear.status) == (unread.kind, unread.status)
    assert unread == empty
