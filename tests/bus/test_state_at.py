"""The gateway as it was: `gw.state_at` on a real log, and direct gets from servers that are behind or lose messages."""

import asyncio
import json
import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest
import trunkline
from cluster import NAMES, cluster_of_three
from given import new
from logs import an_event, append
from nats.aio.client import Msg
from trunkline.client import Gateway
from trunkline.errors import InvalidRequest, NotFound, Unavailable
from trunkline_actors.claims import key_id
from trunkline_actors.windows import period_of
from trunkline_events import direct
from trunkline_events.budget import BudgetFact, BudgetSettled
from trunkline_events.connection import Connection
from trunkline_events.direct import DirectGet
from trunkline_events.envelope import RecordedEvent
from trunkline_events.jetstream import JetStreamLog
from trunkline_events.log import LogMissing, LogUnavailable
from trunkline_events.subjects import STREAM
from trunkline_events.thread import ThreadFact
from trunkline_projections.as_of import State
from trunkline_projections.budgets import Budgets
from trunkline_projections.budgets import evolve as evolve_budgets
from trunkline_projections.folds import GATEWAY
from trunkline_projections.folds import Gateway as Decided
from trunkline_projections.threads import ThreadHistory, evolve

pytest_plugins = ["gateway"]


# -- on a log with a history


async def history(gw: Gateway) -> list[RecordedEvent]:
    return [event async for event in (await gw.log()).read()]


async def test_the_state_at_any_event_follows_from_the_events_up_to_it(gw: Gateway) -> None:
    threads = [f"t{n}" for n in range(4)]
    for thread in threads[:2]:
        await gw.threads.configure(thread_id=thread, budget={"limit_usd": "1"})
    await asyncio.gather(*(gw.chat.create("tokens", "hi", thread=threads[n % 4]) for n in range(12)))
    await gw.models.disable(id="echo")
    await gw.models.remove(id="slow")
    events = await history(gw)
    for sequence in random.Random(7).sample(range(1, len(events) + 1), 12):
        decided, books = Decided(), dict[str, ThreadHistory]()
        for event in events[:sequence]:
            if event.category == "thread":
                state = books.get(event.aggregate, ThreadHistory())
                books[event.aggregate] = evolve(state, cast("ThreadFact", event.body), event.sequence)
            else:
                decided = GATEWAY.step(decided, event)
        then = await gw.state_at(sequence)
        assert (then.sequence, then.time) == (sequence, events[sequence - 1].time)
        assert (then.models, then.providers) == (decided.registry.models, decided.registry.providers)
        assert {name: one.books for name, one in then.threads.items()} == {
            name: one.books for name, one in books.items()
        }
    now = await gw.state_at()
    assert now.sequence == len(events)
    assert {name: one.books.open for name, one in now.threads.items()} == {name: {} for name in threads}


async def test_budgets_at_any_event_are_those_that_their_events_up_to_it_tell(gw: Gateway, bus_url: str) -> None:
    scope = f"key:{key_id('tl-k')}"
    await gw.budgets.set(scope="gateway", budget={"limit_usd": "1"})
    await gw.budgets.set(scope="team:a", budget={"limit_usd": "0.5"})
    await gw.budgets.set(scope=scope, budget={"limit_usd": "0.25"}, team="a")
    async with trunkline.connect(bus_url, key="tl-k") as keyed:
        await asyncio.gather(*(keyed.chat.create("echo", f"hi {n}", max_tokens=100) for n in range(8)))
    await gw.budgets.set(scope="team:a", budget={})
    events = await history(gw)
    reserved = 0
    for sequence in range(6, len(events) + 1):
        budgets: Budgets = {}
        for event in events[:sequence]:
            if event.category == "budget":
                budgets = evolve_budgets(budgets, cast("BudgetFact", event.body), event.sequence, event.aggregate)
        then = await gw.state_at(sequence, limit=0)
        assert then.budgets == budgets
        assert list(then.budgets) == sorted(budgets)
        reserved += sum(one.books.reserved_nanos for one in then.budgets.values())
    assert reserved, "some moment was while slices were out"


async def test_a_window_that_ended_is_turned_to_the_time_that_was_asked_for(
    gw: Gateway, connection: Connection
) -> None:
    """The event is of yesterday; by the time it was stored, its window was over."""
    yesterday = time.time() - 86_400
    spent = BudgetSettled(
        slice="s",
        spent_nanos=5,
        returned_nanos=0,
        limit_nanos=9,
        window="day",
        period=period_of("day", yesterday),
        settled_nanos=5,
    )
    log = await JetStreamLog.open(connection)
    last = await log.append(new(spent, "gateway", "budget", time=yesterday))
    await log.close()
    # A sequence is looked at by the time its event shows, a time by itself.
    assert (await gw.state_at(last.sequence)).budgets["gateway"].books.settled_nanos == 5
    assert (await gw.state_at(time.time())).budgets["gateway"].books.settled_nanos == 0


async def test_a_time_means_what_was_stored_by_then(gw: Gateway) -> None:
    moment = time.time()
    await gw.models.disable(id="echo")
    assert (await gw.state_at(moment)).models["echo"].status == "enabled"
    assert (await gw.state_at(time.time())).models["echo"].status == "disabled"
    assert (await gw.state_at(moment)).time == moment


async def test_threads_are_told_by_name_or_by_page(gw: Gateway) -> None:
    for name in "abc":
        await gw.threads.configure(thread_id=name, budget={"limit_usd": "1"})
    await gw.chat.create("echo", "nobody's")
    page = await gw.state_at(limit=2)
    assert (list(page.threads), page.more) == (["a", "b"], "b")
    rest = await gw.state_at(limit=2, after="b")
    assert (list(rest.threads), rest.more) == (["c"], None)
    assert list((await gw.state_at(threads=["c", "a"], limit=1)).threads) == ["a", "c"]


async def test_code_without_asyncio_asks_the_same(gw: Gateway, bus_url: str) -> None:
    def ask() -> State:
        with trunkline.connect_sync(bus_url) as gateway:
            return gateway.state_at(3, limit=0)

    assert await asyncio.to_thread(ask) == await gw.state_at(3, limit=0)


async def test_what_was_not_there_then_is_not_found(gw: Gateway) -> None:
    end = await (await gw.log()).end()
    await gw.threads.configure(thread_id="t", budget={})
    with pytest.raises(NotFound, match="'t'"):
        await gw.state_at(end, threads=["t"])
    assert list((await gw.state_at(end + 1, threads=["t"])).threads) == ["t"]
    for at, said in (
        (end + 2, "the log ends at"),
        (10**30, "the log ends at"),
        (1.0, "had not begun"),
        (9e9, "to come"),
    ):
        with pytest.raises(NotFound, match=said):
            await gw.state_at(at)
    for at in (0, -1):
        with pytest.raises(InvalidRequest, match="from 1"):
            await gw.state_at(at)


async def test_a_bus_without_a_log_has_no_past(bus_url: str) -> None:
    async with trunkline.connect(bus_url) as gw:
        with pytest.raises(Unavailable, match="no log yet"):
            await gw.state_at()
    connection = await Connection.open(bus_url, name="test")
    with pytest.raises(LogMissing):
        await JetStreamLog(connection).position_at(time.time())
    await connection.close()
    with pytest.raises(LogUnavailable):
        await JetStreamLog(connection).position_at(time.time())


async def test_an_empty_log_has_an_empty_state(bus_url: str) -> None:
    connection = await Connection.open(bus_url, name="test")
    await JetStreamLog.open(connection)
    await connection.close()
    async with trunkline.connect(bus_url) as gw:
        state = await gw.state_at()
        assert (state.sequence, state.models, state.threads) == (0, {}, {})
        with pytest.raises(NotFound, match="ends at 0"):
            await gw.state_at(1)


# -- servers that are behind


class Between:
    """Stands between a `DirectGet` and JetStream. `bend` may change a direct get, or drop messages of its answer."""

    def __init__(self, connection: Connection) -> None:
        self._nats = connection.nats
        self.gets = 0
        self.bend: Callable[[int, dict[str, Any]], dict[str, Any] | None] = lambda _number, request: request
        self.drop: Callable[[int, int], bool] = lambda _number, _message: False
        self.page = 100_000

    async def ask(self, message: Msg) -> None:
        verb = message.subject.removeprefix("between.")
        if verb.startswith("DIRECT"):
            await self._get(f"$JS.API.{verb}", message)
            return
        asked = json.loads(message.data)
        offset = asked.pop("offset", None)
        answer = json.loads((await self._nats.request(f"$JS.API.{verb}", json.dumps(asked).encode())).data)
        if offset is not None:
            names = sorted(answer["state"]["subjects"])[offset:][: self.page]
            answer["total"] = len(answer["state"]["subjects"])
            answer["state"]["subjects"] = dict.fromkeys(names, 1)
        await message.respond(json.dumps(answer).encode())

    async def _get(self, subject: str, message: Msg) -> None:
        self.gets += 1
        request = self.bend(number := self.gets, json.loads(message.data))
        if request is None:
            return
        inbox = self._nats.new_inbox()
        answer = await self._nats.subscribe(inbox)
        await self._nats.publish(subject, json.dumps(request).encode(), reply=inbox)
        for place in range(10_000):
            part = await answer.next_msg(timeout=5)
            if not self.drop(number, place) or not part.data:
                await self._nats.publish(message.reply, part.data, headers=dict(part.headers))
            if not part.data:
                break
        await answer.unsubscribe()


@asynccontextmanager
async def between(connection: Connection) -> AsyncIterator[tuple[Between, DirectGet]]:
    middle, get = Between(connection), DirectGet(connection, api="between")
    await connection.nats.subscribe("between.>", cb=middle.ask)
    yield middle, get
    await get.close()


@pytest.fixture
async def log(connection: Connection) -> AsyncIterator[JetStreamLog]:
    """A log with 30 events of 10 aggregates."""
    opened = await JetStreamLog.open(connection)
    for number in range(30):
        await append(opened, f"e{number}", aggregate=f"a{number % 10}")
    yield opened
    await opened.close()


async def sequences(get: DirectGet, up_to: int, *only: str) -> list[int]:
    return [one.sequence async for one in get.last_of_each("circuit", up_to, only or None, "")]


def behind(by: int, until: int) -> Callable[[int, dict[str, Any]], dict[str, Any] | None]:
    """What a replica answers that has not heard of the last events: the state before them."""
    return lambda number, request: {**request, "up_to_seq": request["up_to_seq"] - by} if number <= until else request


@pytest.mark.parametrize("by", [1, 7, 25])
async def test_a_replica_that_is_behind_is_not_believed(log: JetStreamLog, connection: Connection, by: int) -> None:
    async with between(connection) as (middle, get):
        middle.bend = behind(by, until=3)
        assert await sequences(get, 26) == [21, 22, 23, 24, 25, 26, 17, 18, 19, 20]
        assert middle.gets == 4
        assert await sequences(get, 26, "a2", "a9") == [23, 20]


async def test_a_replica_that_has_not_got_that_far_is_asked_again(log: JetStreamLog, connection: Connection) -> None:
    async with between(connection) as (middle, get):
        middle.bend = behind(-1000, until=2)  # JetStream's own answer to that is 404
        assert await sequences(get, 30, "a0") == [21]
        assert middle.gets == 3


async def test_replicas_that_fell_behind_tell_the_past_as_it_was(tmp_path: Path) -> None:
    async with cluster_of_three(tmp_path) as cluster:
        connection = await Connection.open(cluster.url, name="test")
        log = await JetStreamLog.open(connection, replicas=3)
        leader = await cluster.leader(connection, STREAM)
        follower = next(
            name
            for name in NAMES
            if name != leader and str(cluster.ports[name]) not in connection.nats.connected_url.netloc
        )
        await append(log, "first", aggregate="a0")
        cluster.pause(follower)
        for number in range(200):
            await append(log, f"e{number}", aggregate=f"a{number % 10}")
        cluster.resume(follower)
        for _ in range(30):
            end = await log.end()
            told = [event.sequence async for event in log.last_of_each("circuit", end)]
            assert sorted(told) == list(range(end - 9, end + 1))
            await append(log, f"e{end}", aggregate=f"a{(end - 1) % 10}")
        await log.close()
        await connection.close()


@pytest.mark.parametrize("lost", [0, 4, 9])
async def test_an_answer_with_a_gap_is_no_answer(log: JetStreamLog, connection: Connection, lost: int) -> None:
    async with between(connection) as (middle, get):
        middle.drop = lambda number, place: number == 1 and place == lost
        assert await sequences(get, 30) == list(range(21, 31))
        assert middle.gets == 2


async def test_silence_is_not_waited_for_without_end(
    log: JetStreamLog, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(direct, "ANSWER_WITHIN", 0.05)
    monkeypatch.setattr(direct, "GIVE_UP_AFTER", 0.2)
    async with between(connection) as (middle, get):
        middle.bend = lambda number, request: request if number == 2 else None
        assert await sequences(get, 30, "a0") == [21]
        with pytest.raises(LogUnavailable, match="event 30"):
            await sequences(get, 30, "a0")


@pytest.mark.parametrize("most", [1, 300, 1_000])
async def test_what_is_too_much_for_one_answer_comes_in_several(
    log: JetStreamLog, connection: Connection, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(direct, "MOST_BYTES", most)
    if most == 1:
        with pytest.raises(LogUnavailable, match="more than 1 bytes"):
            await sequences(DirectGet(connection), 30)
        return
    async with between(connection) as (middle, get):
        assert await sequences(get, 30) == list(range(21, 31))
        assert middle.gets > 2


async def test_subjects_are_told_in_pages(log: JetStreamLog, connection: Connection) -> None:
    async with between(connection) as (middle, get):
        middle.page = 3
        assert await get.subjects("trunkline.log.circuit.>") == {f"trunkline.log.circuit.a{n}" for n in range(10)}


async def test_what_strangers_write_is_no_aggregate(log: JetStreamLog, connection: Connection) -> None:
    js = connection.nats.jetstream()
    for subject in ("trunkline.log.circuit.a.b", "trunkline.log.circuit.=FF", "trunkline.log.circuit.a=2e"):
        await js.publish(subject, b"garbage")
    assert [event.aggregate async for event in log.last_of_each("circuit", 99)] == [f"a{n}" for n in range(10)]
    last = await log.append(an_event("e99", "a1"))
    assert [event.sequence async for event in log.last_of_each("circuit", last.sequence, only=["a1"])] == [34]
