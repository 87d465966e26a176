"""Whatever is sent, it is answered with what is wrong with it, and nobody falls over or writes where it must not."""

import asyncio
import time
from typing import Any

import msgspec
import nats as nats_py
import pytest
from audit import events
from messages import Got, ask, calling, chat_body
from nats.aio.client import Client
from trunkline.client import Gateway
from trunkline.embedded import EmbeddedServer
from trunkline.host import Host
from trunkline_actors.dispatch import Dispatch, Join, Pulse, pack
from trunkline_actors.pricing import FREE
from trunkline_events import headers, subjects
from trunkline_events.thread import Books

pytest_plugins = ["gateway"]

LOG_SUBJECT = "trunkline.log.model.x"
SUBJECTS = [
    subjects.CHAT,
    subjects.EMBEDDINGS,
    subjects.ABORT,
    subjects.JOIN,
    *(f"trunkline.models.{verb}" for verb in ("register", "update", "enable", "disable", "retire", "remove")),
    *(f"trunkline.models.{verb}" for verb in ("get", "list")),
    *(f"trunkline.providers.{verb}" for verb in ("register", "update", "remove", "get", "list", "check")),
    *(f"trunkline.threads.{verb}" for verb in ("configure", "get", "list")),
    *(f"trunkline.provider.scripted.{name}" for name in ("chat", "embeddings", "ready", "check")),
    *(f"$SRV.{verb}" for verb in ("PING", "INFO", "STATS")),
    "$SRV.PING.trunkline-router",
]


@pytest.fixture
def nats(gw: Gateway) -> Client:
    return gw._connection.nats


def chat(**changes: Any) -> bytes:
    return msgspec.json.encode({"model": "echo", "messages": [{"role": "user", "content": "hi"}], **changes})


BAD_CHATS: dict[str, tuple[bytes, int, str]] = {
    "empty": (b"", 400, "invalid_request"),
    "not json": (b"hello", 400, "invalid_request"),
    "cut off": (chat()[:-5], 400, "invalid_request"),
    "two documents": (chat() * 2, 400, "invalid_request"),
    "not utf-8": (b'{"model":"\xff\xfe","messages":[]}', 400, "invalid_request"),
    "a byte order mark": (b"\xef\xbb\xbf" + chat(), 400, "invalid_request"),
    "a lone surrogate": (b'{"model":"\\ud800","messages":[{"role":"user"}]}', 400, "invalid_request"),
    "null": (b"null", 400, "invalid_request"),
    "a list": (b"[]", 400, "invalid_request"),
    "a number": (b"1e999", 400, "invalid_request"),
    "nested 10,000 deep": (b'{"model":' + b"[" * 10_000, 400, "invalid_request"),
    "nested where it is skipped": (
        b'{"x":' + b"[" * 10_000 + b"]" * 10_000 + b"," + chat()[1:],
        400,
        "invalid_request",
    ),
    "no model": (b'{"messages":[{"role":"user","content":"x"}]}', 400, "invalid_request"),
    "a model that is a number": (chat(model=7), 400, "invalid_request"),
    "an empty model": (chat(model=""), 400, "invalid_request"),
    "a model with a newline": (chat(model="a\nb"), 400, "invalid_request"),
    "a model of 5,000 bytes": (chat(model="m" * 5000), 400, "invalid_request"),
    "an unknown model": (chat(model="nope"), 404, "model_not_found"),
    "no messages": (b'{"model":"echo"}', 400, "invalid_request"),
    "an empty conversation": (chat(messages=[]), 400, "invalid_request"),
    "messages that are text": (chat(messages="hi"), 400, "invalid_request"),
    "a message that is text": (chat(messages=["hi"]), 400, "invalid_request"),
    "a message without a role": (chat(messages=[{"content": "x"}]), 400, "invalid_request"),
    "stream that is text": (chat(stream="yes"), 400, "invalid_request"),
    "max_tokens 0": (chat(max_tokens=0), 400, "invalid_request"),
    "max_tokens below 0": (chat(max_tokens=-1), 400, "invalid_request"),
    "max_tokens huge": (chat(max_tokens=10**30), 400, "invalid_request"),
    "max_tokens NaN": (chat()[:-1] + b',"max_tokens":NaN}', 400, "invalid_request"),
    "n 0": (chat(n=0), 400, "invalid_request"),
    "n 10,000": (chat(n=10_000), 400, "invalid_request"),
    "a route that is a list": (chat(route=[]), 400, "invalid_request"),
    "an unknown wish": (chat(route={"cheapest": True}), 400, "invalid_request"),
    "no attempts": (chat(route={"attempts": 0}), 400, "invalid_request"),
    "a million attempts": (chat(route={"attempts": 10**6}), 400, "invalid_request"),
    "no time": (chat(route={"deadline_ms": 0}), 400, "invalid_request"),
    "a cost in words": (chat(route={"max_cost_usd": "much"}), 400, "invalid_request"),
    "a cost below 0": (chat(route={"max_cost_usd": "-1"}), 400, "invalid_request"),
    "a cost of NaN": (chat(route={"max_cost_usd": "NaN"}), 400, "invalid_request"),
    "thread -": (chat(metadata={"thread_id": "-"}), 400, "invalid_request"),
    "an empty thread": (chat(metadata={"thread_id": ""}), 400, "invalid_request"),
    "a thread of 5,000 bytes": (chat(metadata={"thread_id": "t" * 5000}), 400, "invalid_request"),
    "tools nobody has": (chat(tools=[{"type": "function"}]), 503, "no_route"),
}


@pytest.mark.parametrize("name", BAD_CHATS)
async def test_a_bad_chat_is_told_what_is_wrong_and_leaves_no_trace(gw: Gateway, nats: Client, name: str) -> None:
    body, status, code = BAD_CHATS[name]
    got = await ask(nats, body, within=5)
    assert (got.fields[headers.ERROR_CODE], got.error["code"]) == (str(status), code)
    assert got.error["message"]
    assert len(got.data) < 2000, "an error must not throw a large body back"
    assert await events(gw, "thread") == []


BAD_HEADERS = {
    "a thread of 5,000 bytes": {headers.THREAD: "t" * 5000},
    "thread -": {headers.THREAD: "-"},
    "a thread with a control character": {headers.THREAD: "a%00b"},
    "a thread with a line separator": {headers.THREAD: headers.encode_value("a\u2028b")},
    "a request of 5,000 bytes": {headers.REQUEST: "r" * 5000},
    "a request with a newline": {headers.REQUEST: "a%0Ab"},
}


@pytest.mark.parametrize("name", BAD_HEADERS)
async def test_a_bad_id_is_refused_and_the_connection_stays_open(nats: Client, name: str) -> None:
    got = await ask(nats, chat(), BAD_HEADERS[name], within=5)
    assert got.fields[headers.ERROR_CODE] == "400"
    assert (await ask(nats, chat(), within=5)).json["object"] == "chat.completion"


async def test_unknown_headers_change_nothing(nats: Client) -> None:
    fields = {"X-Whatever": "y" * 1000, "Trunkline-Nonsense": "1", "Nats-Msg-Id": "x", "Status": "503"}
    assert (await ask(nats, chat(), fields)).json["object"] == "chat.completion"


async def test_an_expectation_in_the_callers_headers_never_reaches_the_log(gw: Gateway, nats: Client) -> None:
    await ask(nats, chat(), {headers.EXPECTED_LAST: "999", "Nats-Rollup": "all", headers.THREAD: "t"})
    assert len(await events(gw, "thread", aggregate="t")) == 2


async def test_a_huge_trace_that_is_none_is_not_kept_and_hurts_nobody(gw: Gateway, nats: Client) -> None:
    body = chat_body("echo")
    inbox = nats.new_inbox()
    heard = await nats.subscribe(inbox)
    head = b"NATS/1.0\r\ntraceparent: " + b"\xff" * 3_000_000 + b"\r\n\r\n"
    await nats._send_command(f"HPUB {subjects.CHAT} {inbox} {len(head)} {len(head) + len(body)}\r\n".encode() + head)
    await nats._send_command(body + b"\r\n")
    await nats.flush()
    assert msgspec.json.decode((await heard.next_msg(timeout=10)).data)["choices"]
    log = await gw.log()
    assert {event.traceparent for event in [one async for one in log.read()]} == {None}


async def test_no_enabled_model_is_no_route(gw: Gateway, nats: Client) -> None:
    for model in (await gw.models.list())["models"]:
        await gw.models.disable(id=model["id"])
    assert (await ask(nats, chat())).error["code"] == "no_route"
    got = await ask(nats, chat(model="auto"))
    assert got.error["code"] == "no_route"
    assert got.error["metadata"]["reasons"] == {"disabled": 4}


async def test_the_largest_body_the_bus_carries_is_answered(nats: Client) -> None:
    largest = nats.max_payload
    empty = len(chat_body("echo", ""))
    for size in (largest - 4096, largest - 200_000, 1_000_000):
        got = await ask(nats, chat_body("echo", "x" * (size - empty)), within=20)
        assert got.fields.get(headers.ERROR_CODE, "200") in {"200", "400", "500"}
    assert (await ask(nats, chat())).json["object"] == "chat.completion"


async def test_a_body_over_the_servers_limit_is_refused_by_the_server_and_hurts_nobody_else(
    gw: Gateway, bus_url: str
) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", int(bus_url.rpartition(":")[2]))
    await reader.readline()
    writer.write(b'CONNECT {"verbose":false}\r\nPUB trunkline.chat _INBOX.x %d\r\n' % (9 * 1024 * 1024))
    async with asyncio.timeout(5):
        assert b"Maximum Payload Violation" in await reader.read(-1)
    writer.close()
    assert (await gw.chat.create("echo", "hi")).text == "hi"


# --- replies


async def last_sequence(gw: Gateway) -> int:
    return await (await gw.log()).end()


async def test_no_endpoint_writes_to_a_reply_subject_that_is_no_inbox(
    gw: Gateway, nats: Client, host: Host, bus_url: str
) -> None:
    before, dropped = await last_sequence(gw), host.runtime.bus.dropped
    replies = [LOG_SUBJECT, "trunkline.events.model.x", "trunkline.chat", "$JS.API.STREAM.DELETE.TRUNKLINE", "_INBOX"]
    for subject in SUBJECTS:
        for reply in replies:
            for body in (b"", chat(), b'{"id":"x","request_id":"x","thread_id":"x"}'):
                await nats.publish(subject, body, reply=reply)
    await gw.chat.create("echo", "when this is answered, all of that was looked at", thread="t")
    assert await last_sequence(gw) == before + 2
    assert host.runtime.bus.dropped >= dropped + len(SUBJECTS) * len(replies) * 3


async def test_a_message_without_a_reply_subject_is_dropped(gw: Gateway, nats: Client, host: Host) -> None:
    before, dropped = await last_sequence(gw), host.runtime.bus.dropped
    await nats.publish(subjects.CHAT, chat())
    await nats.publish("trunkline.models.disable", b'{"id":"echo"}')
    assert (await gw.chat.create("echo", "hi")).text == "hi"
    assert host.runtime.bus.dropped == dropped + 2
    assert await last_sequence(gw) == before + 2


def dispatch(listener: str, reply_to: str = "a-1") -> bytes:
    return pack(
        Dispatch(
            request_id="a",
            attempt_id=reply_to,
            attempt=1,
            attempts=1,
            thread="-",
            books=Books(),
            books_seq=0,
            operation="chat",
            model="echo",
            upstream="echo",
            rate=FREE,
            reserve_nanos=0,
            input_bound=1,
            stream=False,
            decided_at=time.time(),
            deadline=9e9,
            listeners=[listener],
        ),
        chat(),
    )


async def test_a_provider_sends_no_answer_to_a_listener_that_is_no_inbox(gw: Gateway, nats: Client, host: Host) -> None:
    before, dropped = await last_sequence(gw), host.runtime.bus.dropped
    subject = subjects.provider_endpoint("scripted", "chat")
    got = await ask(nats, dispatch(LOG_SUBJECT), {headers.REPLY: LOG_SUBJECT}, subject)
    assert got.json["status"] == "ended"
    assert host.runtime.bus.dropped == dropped + 1
    assert await last_sequence(gw) == before, "an attempt that is not open has no ending either"


async def test_a_join_can_not_make_us_write_to_the_log(gw: Gateway, nats: Client, host: Host) -> None:
    async with calling(nats, chat_body("slow", stream=True), {headers.REQUEST: "r", headers.THREAD: "t"}) as call:
        await call.next()
        scope = next(iter(host.runtime.open)).rpartition("-")[0]
        before, dropped = await last_sequence(gw), host.runtime.bus.dropped
        await nats.publish(subjects.JOIN, msgspec.json.encode(Join(scope, LOG_SUBJECT)), reply=nats.new_inbox())
        await gw.chat.abort("r")
        await call.rest()
    assert await last_sequence(gw) == before + 1
    assert host.runtime.bus.dropped == dropped + 2  # the router's and the provider's


async def test_a_pulse_can_not_make_a_keeper_write_to_the_log(gw: Gateway, nats: Client) -> None:
    pulse = Pulse(process="liar", roles=[], attempts=[], answered=[], position=2**62, waiting={"x-1": LOG_SUBJECT})
    before = await last_sequence(gw)
    await nats.publish(subjects.PULSE, msgspec.json.encode(pulse))
    await gw.models.disable(id="echo")
    assert await last_sequence(gw) == before + 1


async def test_a_caller_that_is_gone_before_the_answer_disturbs_nobody(gw: Gateway, server: EmbeddedServer) -> None:
    gone = await nats_py.connect(server.url)
    for number in range(20):
        await gone.publish(subjects.CHAT, chat_body("tokens", stream=bool(number % 2)), reply=gone.new_inbox())
    await gone.flush()
    await gone.close()
    async with asyncio.timeout(5):
        while len(await events(gw, "thread")) < 40:  # noqa: ASYNC110 - twenty requests, two events each
            await asyncio.sleep(0.02)
    assert (await gw.chat.create("echo", "hi")).text == "hi"


async def test_commands_name_the_field_that_is_wrong(nats: Client) -> None:
    table: list[tuple[str, dict[str, Any], str, str | None]] = [
        ("trunkline.models.register", {"id": 5, "provider": "scripted"}, "400", "id"),
        ("trunkline.models.register", {"id": "-", "provider": "scripted"}, "400", "id"),
        ("trunkline.models.register", {"id": "x" * 200, "provider": "scripted"}, "400", "id"),
        ("trunkline.models.get", {"id": "nope"}, "404", "id"),
        ("trunkline.models.list", {"limit": 0}, "400", "limit"),
        ("trunkline.providers.register", {"id": "a\tb", "kind": "scripted"}, "400", "id"),
        ("trunkline.providers.get", {"id": "nope"}, "404", "id"),
        ("trunkline.threads.configure", {"thread_id": "-"}, "400", "thread_id"),
        ("trunkline.threads.configure", {"thread_id": "t", "budget": {"limit_usd": "x"}}, "400", "budget.limit_usd"),
        ("trunkline.threads.get", {"thread_id": "never"}, "404", "thread_id"),
    ]
    for subject, arguments, status, param in table:
        got: Got = await ask(nats, msgspec.json.encode(arguments), subject=subject, within=5)
        assert (got.fields[headers.ERROR_CODE], got.error["param"]) == (status, param), (subject, arguments)
