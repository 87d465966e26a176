"""Commands over the bus: what a repeat, a name in use and a provider that changes under load come to."""

import asyncio
import json

import pytest
from messages import calling, chat_body
from nats.aio.client import Client
from trunkline import errors
from trunkline.client import Gateway
from trunkline_events import headers

pytest_plugins = ["gateway"]


@pytest.fixture
def nats(gw: Gateway) -> Client:
    return gw._connection.nats


async def command(nats: Client, subject: str, request: str, **arguments: object) -> dict[str, object]:
    message = await nats.request(
        subject, json.dumps(arguments).encode(), timeout=10, headers={headers.REQUEST: request}
    )
    reply: dict[str, object] = json.loads(message.data)
    return reply


async def test_one_request_id_on_two_commands_does_both(gw: Gateway, nats: Client) -> None:
    for name in ("m1", "m2"):
        reply = await command(nats, "trunkline.models.register", "same", id=name, provider="scripted", upstream="echo")
        assert reply["id"] == name
        assert (await gw.models.get(id=name))["model"]["id"] == name
    for thread, limit in (("a", "1"), ("b", "2")):
        reply = await command(
            nats, "trunkline.threads.configure", "same", thread_id=thread, budget={"limit_usd": limit}
        )
        assert reply["limit_usd"] == limit
        assert (await gw.threads.get(thread_id=thread))["limit_usd"] == limit


async def test_the_same_command_again_under_its_id_is_done_once(gw: Gateway, nats: Client) -> None:
    first = await command(nats, "trunkline.threads.configure", "once", thread_id="t", budget={"limit_usd": "1"})
    again = await command(nats, "trunkline.threads.configure", "once", thread_id="t", budget={"limit_usd": "1"})
    assert again["seq"] == first["seq"]


async def test_auto_can_not_be_the_id_of_a_model(gw: Gateway) -> None:
    with pytest.raises(errors.InvalidRequest, match="auto"):
        await gw.models.register(id="auto", provider="scripted", upstream="echo")


async def test_a_model_and_the_removal_of_its_provider_are_decided_one_after_the_other(gw: Gateway) -> None:
    for number in range(10):
        name = f"p{number}"
        await gw.providers.register(id=name, kind="scripted")
        outcomes = await asyncio.gather(
            gw.models.register(id=f"m{number}", provider=name, upstream="echo"),
            gw.providers.remove(id=name),
            return_exceptions=True,
        )
        assert sum(isinstance(one, errors.TrunklineError) for one in outcomes) == 1


async def test_a_provider_that_is_changed_finishes_what_it_has_and_holds_up_nobody(gw: Gateway, nats: Client) -> None:
    async with calling(nats, chat_body("slow", stream=True), {headers.REQUEST: "r"}) as call:
        await call.next()
        await gw.providers.update(id="scripted", timeout_s=50)
        registered = await gw.providers.register(id="other", kind="scripted")
        assert registered["serving"]
        assert (await gw.chat.create("echo", "served by the new one")).text == "served by the new one"
        await gw.chat.abort("r")  # which the old one still hears


@pytest.mark.parametrize("fields", [{headers.THREAD: "-"}, {}])
async def test_a_stream_that_is_refused_at_once_is_ended_with_an_empty_message(
    nats: Client, fields: dict[str, str]
) -> None:
    body = chat_body("echo", stream=True) if fields else b'{"model": "echo", "stream": true, "messages": []}'
    async with calling(nats, body, fields) as call:
        assert (await call.next()).error["code"] == "invalid_request"
        assert (await call.next()).data == b""


async def test_an_id_that_was_used_for_another_request_is_a_conflict(gw: Gateway) -> None:
    await gw.chat.create("echo", "hello", request_id="r")
    with pytest.raises(errors.Conflict, match="another request"):
        await gw.chat.create("echo", "something else", request_id="r")
    async with gw.chat.stream("echo", "hello", request_id="r") as stream:
        with pytest.raises(errors.Conflict, match="another request"):
            await anext(stream)
