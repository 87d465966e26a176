"""Models on a provider's own machine: pulled, joined, aborted, deleted, listed, and registered, over the bus."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest
from nats.aio.msg import Msg
from ollama_kit import SIZE, FakeOllama
from processes import until
from trunkline.client import Gateway
from trunkline.errors import Aborted, Conflict, InvalidRequest, ModelNotFound, NotFound
from trunkline.host import Host
from trunkline.local_models import Progress, Pull
from trunkline_events.connection import Connection
from trunkline_events.jetstream import JetStreamLog
from trunkline_events.log import Scope

pytest_plugins = ["gateway"]

PULL = "trunkline.provider.ollama-1.models.pull"


@pytest.fixture
async def ollama(gw: Gateway) -> AsyncIterator[FakeOllama]:
    async with FakeOllama("mistral").serving() as serving:
        await gw.providers.register(id="ollama-1", kind="ollama", base_url=serving.url, local=True)
        yield serving


async def all_of(pull: Pull) -> list[Progress]:
    async with pull:
        return [step async for step in pull]


async def rest_of(pull: Pull) -> list[Progress]:
    return [step async for step in pull]


async def names(log: JetStreamLog) -> list[str]:
    return [event.type async for event in log.read(scope=Scope(("model",), "llama3.2"))]


async def begun(ollama: FakeOllama, count: int = 1) -> None:
    await until(lambda: len(ollama.pulls) == count)


async def test_a_pulled_model_is_registered_with_what_is_known_of_it(
    gw: Gateway, ollama: FakeOllama, log: JetStreamLog
) -> None:
    pull = gw.local_models("ollama-1").pull("llama3.2")
    steps = asyncio.create_task(all_of(pull))
    await begun(ollama)
    ollama.step(SIZE // 2)
    ollama.step()
    told = await steps
    assert told[-1].status == "success"
    assert told[-1].total_bytes == told[-1].completed_bytes == SIZE
    assert pull.model is not None
    model = (await gw.models.get(id="llama3.2"))["model"]
    assert (model["provider"], model["upstream"], model["context_window"]) == ("ollama-1", "llama3.2", 131072)
    assert model["features"] == ["json_schema", "thinking", "tools"]
    assert model["tags"] == ["family:llama", "size:3.2B", "quantization:Q4_K_M"]
    assert model["version"] == pull.model["digest"][:12]
    assert await names(log) == ["model.pull-started.v1", "model.registered.v1", "model.pulled.v1"]
    (last,) = [e async for e in log.read(scope=Scope(("model",), "llama3.2")) if e.type == "model.pulled.v1"]
    assert last.sequence == pull.event
    assert (await gw.chat.create("llama3.2", "hi")).text == "Hello."


async def test_progress_is_numbered_and_ends_with_an_empty_message(
    gw: Gateway, ollama: FakeOllama, connection: Connection
) -> None:
    inbox, heard, done = connection.nats.new_inbox(), list[Msg](), asyncio.Event()

    async def hear(message: Msg) -> None:
        heard.append(message)
        if not message.data:
            done.set()

    await connection.nats.subscribe(inbox, cb=hear)
    await connection.nats.publish(PULL, b'{"model": "llama3.2", "as": "small"}', reply=inbox)
    await begun(ollama)
    ollama.step()
    async with asyncio.timeout(10):
        await done.wait()
    assert [int(one.headers["Trunkline-Seq"]) for one in heard if one.headers] == list(range(1, len(heard) + 1))
    assert all(json.loads(one.data)["object"] == "model.pull" for one in heard[:-1])
    last = heard[-1].headers or {}
    assert (last["Trunkline-Finish"], last["Trunkline-Model"]) == ("pulled", "small")
    assert json.loads(heard[-2].data)["registered"] is True


async def test_two_who_pull_the_same_model_share_one_pull(gw: Gateway, ollama: FakeOllama, log: JetStreamLog) -> None:
    models = gw.local_models("ollama-1")
    first = asyncio.create_task(all_of(models.pull("llama3.2")))
    second = asyncio.create_task(all_of(models.pull("llama3.2")))
    await begun(ollama)
    with pytest.raises(Conflict, match=r"as 'llama3\.2'"):
        await all_of(models.pull("llama3.2:latest", name="other"))
    ollama.step()
    for told in await asyncio.gather(first, second):
        assert told[-1].status == "success"
    assert ollama.pulls == ["llama3.2:latest"]
    assert (await names(log)).count("model.pull-started.v1") == 1


async def test_a_pull_on_another_replica_is_joined(gw: Gateway, ollama: FakeOllama, bus_url: str) -> None:
    other = await Host.start(bus_url, ["provider"])
    try:
        # The queue group sends each to either: of so many, some were taken by each.
        pulls = [gw.local_models("ollama-1").pull("llama3.2") for _ in range(12)]
        async with AsyncExitStack() as stack:
            for pull in pulls:
                await anext(await stack.enter_async_context(pull))
            ollama.step()
            told = await asyncio.gather(*(rest_of(pull) for pull in pulls))
        assert {steps[-1].status for steps in told} == {"success"}
        assert ollama.pulls == ["llama3.2:latest"]
    finally:
        await other.stop()


async def test_a_caller_that_leaves_does_not_stop_a_pull(gw: Gateway, ollama: FakeOllama) -> None:
    async with gw.local_models("ollama-1").pull("llama3.2") as pull:
        await anext(pull)
        await begun(ollama)
    ollama.step()
    await until(lambda: "llama3.2:latest" in ollama.models)
    told = await all_of(gw.local_models("ollama-1").pull("llama3.2"))
    assert told[-1].status == "success"


async def test_an_abort_ends_the_pull_for_all_who_listen(gw: Gateway, ollama: FakeOllama, log: JetStreamLog) -> None:
    models = gw.local_models("ollama-1")
    pull = asyncio.create_task(all_of(models.pull("llama3.2")))
    await begun(ollama)
    assert [one["model"] for one in (await models.list())["pulls"]] == ["llama3.2"]
    reply = await models.abort_pull("llama3.2:latest", reason="no room")
    with pytest.raises(Aborted):
        await pull
    async with asyncio.timeout(5):
        await ollama.left.acquire()
    (*_, last) = [e async for e in log.read(scope=Scope(("model",), "llama3.2"))]
    body: Any = last.body
    assert (last.type, last.sequence) == ("model.pull-failed.v1", reply["seq"])
    assert (body.aborted, body.reason) == (True, "no room")
    assert (await models.list())["pulls"] == []
    with pytest.raises(NotFound):
        await models.abort_pull("llama3.2")


async def test_a_model_that_the_upstream_has_not_ends_in_not_found(
    gw: Gateway, ollama: FakeOllama, log: JetStreamLog
) -> None:
    with pytest.raises(ModelNotFound, match="does not exist"):
        await all_of(gw.local_models("ollama-1").pull("nowhere"))
    types = [event.type async for event in log.read(scope=Scope(("model",), "nowhere"))]
    assert types == ["model.pull-started.v1", "model.pull-failed.v1"]


async def test_a_pull_again_brings_the_registration_up_to_date(gw: Gateway, ollama: FakeOllama) -> None:
    ollama.paced = False
    models = gw.local_models("ollama-1")
    await all_of(models.pull("llama3.2"))
    before = (await gw.models.update(id="llama3.2", tags=["mine", "size:1B"], capabilities={"speed": 0.9}))["model"]
    ollama.completed.clear()
    await all_of(models.pull("llama3.2"))
    after = (await gw.models.get(id="llama3.2"))["model"]
    assert after["version"] != before["version"]
    assert after["tags"] == ["mine", "family:llama", "size:3.2B", "quantization:Q4_K_M"]
    assert after["capabilities"] == {"speed": 0.9}


async def test_an_id_of_another_provider_is_not_taken_over(gw: Gateway, ollama: FakeOllama) -> None:
    with pytest.raises(Conflict, match="echo"):
        await all_of(gw.local_models("ollama-1").pull("echo"))
    assert ollama.pulls == []


async def test_a_deleted_model_is_registered_no_more(gw: Gateway, ollama: FakeOllama, log: JetStreamLog) -> None:
    ollama.paced = False
    models = gw.local_models("ollama-1")
    await all_of(models.pull("llama3.2"))
    await gw.threads.configure(thread_id="t", model="llama3.2")
    with pytest.raises(Conflict, match="thread 't'"):
        await models.delete("llama3.2")
    reply = await models.delete("llama3.2", force=True)
    assert reply["removed"] == ["llama3.2"]
    assert list(ollama.models) == ["mistral:latest"]
    assert (await names(log))[-2:] == ["model.removed.v1", "model.deleted.v1"]
    with pytest.raises(ModelNotFound):
        await models.delete("llama3.2")


async def test_a_list_says_what_is_there_loaded_and_registered(gw: Gateway, ollama: FakeOllama) -> None:
    await gw.models.register(id="m", provider="ollama-1", upstream="mistral")
    (model,) = (await gw.local_models("ollama-1").list())["models"]
    assert (model["model"], model["size_bytes"], model["quantization"]) == ("mistral:latest", SIZE, "Q4_K_M")
    assert (model["loaded"], model["registered"]) == (True, ["m"])


async def test_a_kind_that_manages_no_models_names_those_that_do(gw: Gateway) -> None:
    models = gw.local_models("scripted")
    for asking in (models.list(), models.delete("m"), models.abort_pull("m"), all_of(models.pull("m"))):
        with pytest.raises(InvalidRequest, match="ollama"):
            await asking


@pytest.mark.parametrize("body", [b"[]", b"{}", b'{"model": 1}', b'{"model": ""}', b"\xff"])
async def test_a_pull_that_makes_no_sense_is_refused_and_ended(
    gw: Gateway, ollama: FakeOllama, connection: Connection, body: bytes
) -> None:
    inbox = connection.nats.new_inbox()
    subscription = await connection.nats.subscribe(inbox)
    await connection.nats.publish(PULL, body, reply=inbox)
    refused = await subscription.next_msg(timeout=5)
    assert (refused.headers or {})["Nats-Service-Error-Code"] == "400"
    assert (await subscription.next_msg(timeout=5)).data == b""
    assert ollama.pulls == []


async def test_a_stopped_process_leaves_its_pull_to_another(gw: Gateway, ollama: FakeOllama, bus_url: str) -> None:
    first = await Host.start(bus_url, ["provider"])
    pull = asyncio.create_task(all_of(gw.local_models("ollama-1").pull("llama3.2")))
    await begun(ollama)
    await first.stop()
    if len(ollama.pulls) == 1 and not ollama.left.locked():
        await begun(ollama, 2)
    ollama.step()
    assert (await pull)[-1].status == "success"
