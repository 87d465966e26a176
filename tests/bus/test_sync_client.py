"""The client without asyncio: same answers, same errors, many threads, and nothing left behind."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import pytest
import trunkline
from trunkline import errors, sync
from trunkline.client import Gateway

pytest_plugins = ["gateway"]

T = TypeVar("T")

pytestmark = pytest.mark.usefixtures("gw")


async def apart(url: str, work: Callable[[sync.Gateway], T]) -> T:
    """Do it on a thread, as code without asyncio would, while the gateway runs on this one."""

    def connected() -> T:
        with trunkline.connect_sync(url) as gateway:
            return work(gateway)

    return await asyncio.to_thread(connected)


async def test_a_chat_is_answered_with_its_receipt(bus_url: str) -> None:
    answer = await apart(bus_url, lambda gw: gw.chat.create("echo", "hello", thread="t1", request_id="r1"))
    assert (answer.text, answer.cost) == ("hello", "0.000005")
    assert (answer.receipt.request_id, answer.receipt.model) == ("r1", "echo")


async def test_a_stream_is_iterated_and_ends_with_a_receipt(bus_url: str) -> None:
    def stream(gateway: sync.Gateway) -> tuple[str, sync.Stream]:
        with gateway.chat.stream("tokens", "hi") as answer:
            assert answer.request_id
            assert answer.receipt is None
            return "".join(chunk.text for chunk in answer), answer

    text, answer = await apart(bus_url, stream)
    assert text.split() == [f"w{i}" for i in range(1, 21)]
    assert answer.receipt is not None
    assert answer.cost == answer.receipt.cost
    assert answer.usage is not None
    assert answer.usage.output_tokens == 20


async def test_a_stream_that_is_left_early_is_aborted(bus_url: str, gw: Gateway) -> None:
    def leave(gateway: sync.Gateway) -> str:
        with gateway.chat.stream("slow", "hi", thread="left") as answer:
            next(answer)
        return answer.request_id

    request = await apart(bus_url, leave)
    async for event in gw.events("thread", id="left", since=0):
        if event.type == "thread.aborted.v1":
            assert getattr(event.body, "request_id", None) == request
            break


async def test_commands_give_dicts(bus_url: str) -> None:
    def use(gateway: sync.Gateway) -> list[str]:
        gateway.models.register(id="more", provider="scripted", upstream="say:more")
        assert gateway.providers.get(id="scripted")["provider"]["kind"] == "scripted"
        assert gateway.command("trunkline.models.get", {"id": "more"})["model"]["upstream"] == "say:more"
        return [model["id"] for model in gateway.models.list()["models"]]

    assert await apart(bus_url, use) == ["echo", "fails", "more", "slow", "tokens"]


async def test_events_come_from_the_beginning_and_then_live(bus_url: str) -> None:
    def read(gateway: sync.Gateway) -> list[str]:
        seen = []
        for event in gateway.events("model", since=0):
            seen.append(event.aggregate)
            if event.aggregate == "fails":
                gateway.models.disable(id="echo")
            if event.type == "model.disabled.v1":
                break
        return seen

    assert await apart(bus_url, read) == ["echo", "tokens", "slow", "fails", "echo"]


@pytest.mark.parametrize(
    ("ask", "error"),
    [
        (lambda gw: gw.chat.create("gone", "x"), errors.ModelNotFound),
        (lambda gw: gw.chat.create("echo", []), errors.InvalidRequest),
        (lambda gw: gw.chat.create("fails", "x"), errors.Unavailable),
        (lambda gw: gw.chat.create("echo", "x" * 9_000_000), errors.InvalidRequest),
        (lambda gw: gw.models.get(id="gone"), errors.ModelNotFound),
        (lambda gw: gw.models.register(id="m" * 9_000_000, provider="scripted"), errors.InvalidRequest),
        (lambda gw: gw.models.fly(), errors.Unavailable),
        (lambda gw: gw.chat.abort("gone"), errors.NotFound),
        (lambda gw: gw.embeddings.create("gone", "x"), errors.ModelNotFound),
        (lambda gw: next(gw.chat.stream("echo", "x")), RuntimeError),
    ],
)
async def test_errors_are_those_of_the_async_client(
    ask: Callable[[sync.Gateway], object], error: type[Exception], bus_url: str
) -> None:
    with pytest.raises(error):
        await apart(bus_url, ask)


async def test_an_error_in_a_stream_is_raised_while_it_is_iterated(bus_url: str) -> None:
    def stream(gateway: sync.Gateway) -> None:
        with gateway.chat.stream("fails", "x") as answer:
            list(answer)

    with pytest.raises(errors.Unavailable):
        await apart(bus_url, stream)


async def test_many_threads_share_one_gateway(bus_url: str) -> None:
    def use(gateway: sync.Gateway) -> set[str]:
        with ThreadPoolExecutor(8) as pool:
            return set(pool.map(lambda i: gateway.chat.create("echo", f"n{i}").text, range(100)))

    assert await apart(bus_url, use) == {f"n{i}" for i in range(100)}


async def test_closing_ends_what_other_threads_wait_for(bus_url: str) -> None:
    def use(gateway: sync.Gateway) -> BaseException | None:
        waiting = threading.Event()

        def wait() -> None:
            with gateway.chat.stream("slow", "x") as answer:
                for _ in answer:
                    waiting.set()

        with ThreadPoolExecutor(1) as pool:
            waiter = pool.submit(wait)
            assert waiting.wait(10)
            gateway.close()
            return waiter.exception(10)

    assert isinstance(await apart(bus_url, use), errors.Unavailable)


async def test_a_closed_gateway_says_so(bus_url: str) -> None:
    gateway = await apart(bus_url, lambda gateway: gateway)
    gateway.close()  # again: nothing happens
    with pytest.raises(errors.Unavailable, match=r"connect again with `trunkline\.connect_sync`"):
        gateway.chat.create("echo", "x")


async def test_a_gateway_leaves_no_thread_behind(bus_url: str) -> None:
    await apart(bus_url, lambda gateway: next(gateway.events(since=0)))
    assert not [thread for thread in threading.enumerate() if thread.name == "trunkline-client"]


async def test_a_bus_that_is_not_there_is_unavailable() -> None:
    def connect() -> None:
        with trunkline.connect_sync("nats://127.0.0.1:1"):
            pass

    with pytest.raises(errors.Unavailable, match="start one with `trunkline up`"):
        await asyncio.to_thread(connect)
    assert not [thread for thread in threading.enumerate() if thread.name == "trunkline-client"]
