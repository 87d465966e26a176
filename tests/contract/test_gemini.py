"""What is Gemini's alone, over real sockets: where its key goes, its errors, its transcripts, and an SDK left out.

What it shares with every kind is held by test_scenarios.py and its neighbours.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Literal

import pytest
from scenario_kit import CANARY, CASES, Case, ask, call, streamed
from trunkline_actors.adapters import Answer
from trunkline_actors.adapters.factory import build
from trunkline_actors.adapters.kinds import Settings
from trunkline_events.failure import Failure, FailureClass
from trunkline_events.usage import Usage
from upstream import SSE, Reply, Upstream, answer, events

ours = pytest.mark.parametrize("case", [case for case in CASES if case.wire.kind == "gemini"], ids=str)
both = pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
ROOT = Path(__file__).parent.parent.parent
TRANSCRIPTS = Path(os.environ.get("TRUNKLINE_TRANSCRIPTS", ROOT.parent / "shared" / "transcripts")) / "google"
recorded = pytest.mark.skipif(not TRANSCRIPTS.is_dir(), reason="needs the recorded transcripts")
TEXT = {"candidates": [{"content": {"parts": [{"text": "hi"}], "role": "model"}, "finishReason": "STOP"}]}


@ours
async def test_the_key_goes_in_a_header_and_in_no_url(case: Case) -> None:
    replies = (answer(TEXT), events(TEXT, done=False), answer({"models": []}), answer({"embeddings": []}))
    async with case.calling(*replies, headers={"x-team": "a"}) as (adapter, upstream):
        await adapter.complete(call())
        await streamed(adapter, call())
        await adapter.check()
        await adapter.embed(call(input="a"))
    assert {request.headers["x-goog-api-key"] for request in upstream.requests} == {CANARY}
    assert {request.headers["x-team"] for request in upstream.requests} == {"a"}
    assert [request.path for request in upstream.requests] == [
        "/v1beta/models/theirs:generateContent",
        "/v1beta/models/theirs:streamGenerateContent?alt=sse",
        "/v1beta/models?pageSize=1",
        "/v1beta/models/theirs:batchEmbedContents",
    ]


@ours
async def test_nothing_of_the_environment_is_sent_or_obeyed(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GEMINI_API_KEY", "GOOGLE_API_KEY", "GOOGLE_CLOUD_PROJECT", "GOOGLE_CLOUD_LOCATION"):
        monkeypatch.setenv(name, "of-the-environment")
    monkeypatch.setenv("GOOGLE_GENAI_USE_VERTEXAI", "true")
    monkeypatch.setenv("GOOGLE_GEMINI_BASE_URL", "http://127.0.0.1:9")
    async with case.calling(answer(TEXT), key=None) as (adapter, upstream):
        assert isinstance(await adapter.complete(call()), Answer)
    (request,) = upstream.requests
    assert request.path == "/v1beta/models/theirs:generateContent"
    assert "of-the-environment" not in str(request.headers)


@pytest.mark.parametrize("transport", ["raw", "sdk"])
@pytest.mark.parametrize("given", ["", "/", "/v1beta", "/v1beta/", "/v1", "/proxy/v1beta"])
async def test_an_address_may_name_the_version_of_the_api(given: str, transport: Literal["raw", "sdk"]) -> None:
    async with Upstream(answer(TEXT)).serving() as upstream:
        url = upstream.url.removesuffix("/v1") + given
        adapter = build("gemini", Settings(provider="p", key=CANARY, base_url=url, local=True, transport=transport))
        await adapter.complete(call())
        await adapter.close()
    version = given.strip("/") or "v1beta"
    assert upstream.requests[0].path == f"/{version}/models/theirs:generateContent"


def refusal(status: int, name: str, *details: dict[str, str], code: int | None = None) -> Any:
    error = {"code": code or status, "message": f"no, {CANARY}", "status": name, "details": details}
    return {"error": error}


RETRY = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "34.4s"}
BAD_KEY = {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID"}


@both
@pytest.mark.parametrize(
    ("status", "body", "kind", "retry_after"),
    [
        (429, refusal(429, "RESOURCE_EXHAUSTED", RETRY), FailureClass.RATE_LIMITED, 34.4),
        (400, [refusal(400, "INVALID_ARGUMENT", BAD_KEY)], FailureClass.AUTH, None),
        (400, refusal(400, "INVALID_ARGUMENT"), FailureClass.INVALID_REQUEST, None),
        (413, refusal(413, "INVALID_ARGUMENT"), FailureClass.CONTEXT_LENGTH, None),
        (400, refusal(400, "FAILED_PRECONDITION"), FailureClass.AUTH, None),
        (403, refusal(403, "PERMISSION_DENIED"), FailureClass.AUTH, None),
    ],
)
@ours
async def test_an_error_tells_its_class_and_how_long_to_wait(
    case: Case, status: int, body: object, kind: FailureClass, retry_after: float | None, stream: bool
) -> None:
    async with case.calling(answer(body, status)) as (adapter, upstream):
        heard = await ask(adapter, call(), stream=stream)
    assert isinstance(heard.end, Failure)
    assert (heard.end.kind, heard.end.retry_after, heard.end.status) == (kind, retry_after, status)
    assert CANARY not in heard.end.message
    assert len(upstream.requests) == 1


@both
@ours
async def test_a_blocked_prompt_fails_as_filtered(case: Case, stream: bool) -> None:
    blocked = {"promptFeedback": {"blockReason": "SAFETY"}, "usageMetadata": {"promptTokenCount": 3}}
    reply = events(blocked, done=False) if stream else answer(blocked)
    async with case.calling(reply) as (adapter, _):
        assert (await ask(adapter, call(), stream=stream)).failure is FailureClass.CONTENT_FILTER


@ours
async def test_an_upstream_that_lingers_after_the_last_finish_reason_delays_nobody(case: Case) -> None:
    usage = {"usageMetadata": {"promptTokenCount": 3, "candidatesTokenCount": 1}}
    async with case.calling(events(TEXT | usage, done=False, after="stall")) as (adapter, upstream):
        heard = await streamed(adapter, call(timeout=5))
        assert heard.finish == "stop"
        await upstream.left.wait()


@ours
async def test_a_signature_makes_the_whole_way_and_back(case: Case) -> None:
    signature = "Eo0HCooHAb4+9vut/w=="
    part = {"functionCall": {"name": "f", "args": {"a": 1.5}}, "thoughtSignature": signature}
    calling = {"candidates": [{"content": {"parts": [part], "role": "model"}, "finishReason": "STOP"}]}
    async with case.calling(answer(calling), answer(TEXT)) as (adapter, upstream):
        message = json.loads((await adapter.complete(call())).body)["choices"][0]["message"]
        (made,) = message["tool_calls"]
        assert made["extra_content"] == {"google": {"thought_signature": signature}}
        result = {"role": "tool", "tool_call_id": made["id"], "content": "ok"}
        await adapter.complete(call(messages=[{"role": "user", "content": "hi"}, message, result]))
    said = json.loads(upstream.requests[1].body)["contents"]
    sent = said[1]["parts"][0].get("thoughtSignature") or said[1]["parts"][0]["thought_signature"]
    assert sent.replace("-", "+").replace("_", "/") == signature  # Google's types use base64's other alphabet
    assert said[1]["parts"][0]["functionCall"]["id"] == made["id"]
    assert json.dumps(said[2]).count(made["id"]) == 1


# -- recorded answers of Google's


def framed(name: str, end: bytes = b"\r\n") -> bytes:
    lines = (TRANSCRIPTS / name).read_bytes().splitlines()
    return b"".join(b"data: " + line + end + end for line in lines if line)


@recorded
@pytest.mark.parametrize("size", [1, 7, 1 << 20])
@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
@ours
async def test_a_recorded_stream_is_the_same_in_every_framing(case: Case, end: bytes, size: int) -> None:
    body = framed("reasoning.chunks.txt", end)
    async with case.calling(Reply([body[at : at + size] for at in range(0, len(body), size)], 200, SSE)) as (
        adapter,
        _,
    ):
        heard = await streamed(adapter, call(include_usage=True))
    assert heard.text.startswith('There are **3** "r"s in strawberry.')
    assert heard.finish == "stop"
    assert heard.usage == Usage(input_tokens=9, output_tokens=29 + 256, reasoning_tokens=256)
    assert any("extra_content" in choice["delta"] for chunk in heard.chunks for choice in chunk["choices"])


@recorded
@ours
async def test_a_recorded_call_of_a_tool_is_heard_with_its_signature(case: Case) -> None:
    async with case.calling(Reply([framed("tool-call.chunks.txt")], 200, SSE)) as (adapter, _):
        heard = await streamed(adapter, call())
    (made,) = heard.calls
    assert (made.name, json.loads(made.arguments[0])) == ("weather", {"location": "San Francisco"})
    assert heard.finish == "tool_calls"
    recorded_part = json.loads((TRANSCRIPTS / "tool-call.chunks.txt").read_text().splitlines()[0])
    signature = recorded_part["candidates"][0]["content"]["parts"][0]["thoughtSignature"]
    (delta,) = [one for chunk in heard.chunks for one in chunk["choices"][0]["delta"].get("tool_calls", ())]
    assert delta["extra_content"] == {"google": {"thought_signature": signature}}


@recorded
@ours
async def test_a_recorded_stream_cut_anywhere_is_no_answer(case: Case) -> None:
    body = framed("text.chunks.txt", b"\n")
    last = body.rindex(b"data: ")
    cuts = [last // 2, last, last + 40, len(body) - 3]
    async with case.calling(*(Reply([body[:cut]], 200, SSE) for cut in cuts)) as (adapter, _):
        for _ in cuts:
            assert (await streamed(adapter, call())).failure is FailureClass.CONNECTION


@recorded
@both
@ours
async def test_the_recorded_rate_limit_says_when_to_come_back(case: Case, stream: bool) -> None:
    body = json.loads((TRANSCRIPTS / "429-retry-info.json").read_text())
    async with case.calling(answer(body, 429)) as (adapter, _):
        heard = await ask(adapter, call(), stream=stream)
    assert isinstance(heard.end, Failure)
    assert (heard.end.kind, heard.end.retry_after) == (FailureClass.RATE_LIMITED, 34.4)


# -- the SDK


def python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def test_building_imports_no_sdk() -> None:
    code = (
        "import sys; from trunkline_actors.adapters.factory import build;"
        "from trunkline_actors.adapters.kinds import Settings;"
        "[build('gemini', Settings(provider='p', key='k', transport=t)) for t in ('raw', 'sdk')];"
        "print([name for name in ('google.genai', 'aiohttp', 'httpx2', 'pydantic') if name in sys.modules])"
    )
    assert python(code) == "[]"


@pytest.mark.parametrize("missing", ["google", "google.genai"])
def test_without_the_extra_the_error_names_it_and_our_own_path_works(missing: str) -> None:
    code = f"""
import importlib.util, sys
from trunkline_actors.adapters.factory import build
from trunkline_actors.adapters.kinds import MissingExtra, Settings

class Without:
    def find_spec(self, name, path=None, target=None):
        if name == {missing!r} or name.startswith({missing!r} + "."):
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Without())
build("gemini", Settings(provider="p"))
try:
    build("gemini", Settings(provider="p", transport="sdk"))
except MissingExtra as error:
    print(error)
"""
    assert "pip install 'trunkline[gemini]'" in python(code)


@both
async def test_a_request_that_googles_types_refuse_is_never_sent(stream: bool) -> None:
    async with Upstream(answer(TEXT)).serving() as upstream:
        adapter = build("gemini", Settings(provider="p", base_url=upstream.url, local=True, transport="sdk"))
        heard = await ask(adapter, call(temperature="hot"), stream=stream)
        await adapter.close()
    assert heard.failure is FailureClass.INVALID_REQUEST
    assert isinstance(heard.end, Failure)
    assert "temperature" in heard.end.message
    assert not upstream.requests
