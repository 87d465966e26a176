"""Attempts that reach a provider twice: called upstream once, settled once."""

import asyncio

import pytest
import upstream as up
from audit import check_books, history, kinds
from embedded_kit import eventually
from far import LAST, USAGE, WHOLE, WORD, serving, then_silent
from messages import calling, chat_body
from nats.aio.client import Client, Msg
from trunkline.client import Gateway
from trunkline.host import Host
from trunkline_actors.bus import Bus
from trunkline_events import headers, subjects
from upstream import Reply, Upstream

pytest_plugins = ["gateway"]


@pytest.fixture(autouse=True)
def by_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """Attempts go by the server, as between processes."""
    monkeypatch.setattr(Bus, "send", Bus.publish)


@pytest.fixture
def nats(gw: Gateway) -> Client:
    return gw._connection.nats


class Deliveries:
    """What routers send to the provider `far`, to be sent again."""

    def __init__(self, nats: Client) -> None:
        self._nats = nats
        self._heard: list[Msg] = []

    async def listen(self) -> None:
        async def hear(message: Msg) -> None:
            self._heard.append(message)

        await self._nats.subscribe(subjects.provider_endpoint("far", "chat"), cb=hear)

    async def repeat(self, times: int = 3) -> None:
        """Deliver the first once more, some times; returns when all were taken."""
        await eventually(lambda: bool(self._heard))
        first = self._heard[0]
        for _ in range(times):
            await self._nats.publish(first.subject, first.data, reply=self._nats.new_inbox(), headers=first.headers)
        # The provider takes what it is sent in turn: when it is ready, it has them all.
        await self._nats.request(subjects.provider_endpoint("far", "ready"), b"", timeout=5)


@pytest.fixture
async def deliveries(nats: Client) -> Deliveries:
    heard = Deliveries(nats)
    await heard.listen()
    return heard


@pytest.mark.parametrize("thread", ["t", None])
async def test_an_attempt_delivered_again_while_it_runs_is_called_once(
    gw: Gateway, nats: Client, deliveries: Deliveries, thread: str | None
) -> None:
    may_answer = asyncio.Event()

    async def later(_request: up.Request) -> Reply:
        await may_answer.wait()
        return up.events(WORD, LAST, USAGE)

    async with serving(gw, Upstream(handler=later)) as upstream:
        fields = {headers.THREAD: thread} if thread else {}
        async with calling(nats, chat_body("m", stream=True), fields) as call:
            await upstream.asked.wait()
            await deliveries.repeat()
            may_answer.set()
            numbers = [int(message.fields[headers.SEQ]) for message in await call.rest()]
        assert numbers == list(range(1, len(numbers) + 1)), "two answers went out"
        assert len(upstream.requests) == 1
    recorded = await history(gw, thread or subjects.NO_THREAD)
    assert kinds(recorded) == ["route-decided", "usage-recorded"]
    check_books(recorded)


@pytest.mark.parametrize("thread", ["t", None])
@pytest.mark.parametrize(
    ("reply", "ending"),
    [
        pytest.param(up.events(WORD, LAST, USAGE), "usage-recorded", id="settled"),
        pytest.param(up.events(WORD, done=False, after="cut"), "usage-recorded", id="cut"),
        pytest.param(then_silent(WORD), "aborted", id="aborted"),
        pytest.param(up.answer({"error": {"message": "busy"}}, 503), "attempt-failed", id="failed"),
    ],
)
async def test_an_attempt_delivered_again_after_its_end_is_not_called_again(
    gw: Gateway, nats: Client, deliveries: Deliveries, reply: Reply, ending: str, thread: str | None
) -> None:
    fields = {headers.REQUEST: "r"} | ({headers.THREAD: thread} if thread else {})
    async with serving(gw, Upstream(reply)) as upstream:
        async with calling(nats, chat_body("m", stream=True, route={"attempts": 1}), fields) as call:
            if ending == "aborted":
                await call.next()
                await gw.chat.abort("r")
            await call.rest()
            await deliveries.repeat()
            upstream.replies = [up.answer(WHOLE)]
            await gw.chat.create("m", "what comes after them", thread="other")
            assert call.arrived.empty()
        assert len(upstream.requests) == 2
    recorded = await history(gw, thread or subjects.NO_THREAD)
    assert kinds(recorded) == ["route-decided", ending]
    check_books(recorded)


@pytest.mark.parametrize("thread", ["t", None])
async def test_an_attempt_that_several_processes_got_is_settled_once(
    gw: Gateway, nats: Client, deliveries: Deliveries, bus_url: str, thread: str | None
) -> None:
    """Nothing sends an attempt twice, and the bus repeats nothing: so its calls are not compared, only its endings."""
    second = await Host.start(bus_url, ("provider",))
    try:
        async with serving(gw, Upstream(up.events(*[WORD] * 3, LAST, USAGE))) as upstream:
            fields = {headers.THREAD: thread} if thread else {}
            async with calling(nats, chat_body("m", stream=True), fields) as call:
                await deliveries.repeat(20)
                await call.rest()
            await eventually(lambda: not second.runtime.open)
            assert 1 <= len(upstream.requests) <= 2  # each process once
    finally:
        await second.stop()
    recorded = await history(gw, thread or subjects.NO_THREAD)
    assert kinds(recorded) == ["route-decided", "usage-recorded"]
    check_books(recorded)
