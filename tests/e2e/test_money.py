"""One budget, hundreds at once, processes killed at random: it is never exceeded, and nearly all of it can be spent."""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import pytest
import trunkline
from cluster import cluster_of_three
from processes import Role, passed, running
from spenders import PRICE, Spenders, Till
from trunkline.embedded import EmbeddedServer
from trunkline.errors import BudgetExceeded, Conflict, Unavailable
from trunkline_actors.claims import key_id
from trunkline_events.connection import Connection
from trunkline_events.subjects import STREAM
from upstream import Upstream

KEY = "tl-the-key-of-the-spenders"
LONG = [pytest.mark.soak, pytest.mark.timeout(3600)]


class Size(NamedTuple):
    """How many processes of each role, how many callers at once, and how often one of the processes is killed."""

    routers: int
    providers: int
    callers: int
    kills: int


SIZES = [pytest.param(Size(2, 2, 300, 4)), pytest.param(Size(4, 2, 2_000, 20), marks=LONG)]


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[EmbeddedServer]:
    async with EmbeddedServer(store=tmp_path / "nats", port=0, durability="process") as started:
        yield started


@pytest.fixture
async def till() -> Till:
    return Till()


@pytest.fixture
async def upstream(till: Till) -> AsyncIterator[Upstream]:
    async with Upstream(handler=till.handle).serving() as serving:
        yield serving


Disturb = Callable[[], Awaitable[None]]


async def spend(
    url: str,
    folder: Path,
    till: Till,
    upstream: Upstream,
    size: Size,
    *,
    scopes: bool,
    environ: Mapping[str, str] | None = None,
    disturb: Disturb | None = None,
) -> None:
    """Spend a budget of about a third of what is asked for, kill processes meanwhile, and check the books."""
    routers, providers, callers, kills = size
    core = Role(url, folder, "core", "registry", "keeper", environ=environ)
    victims = [Role(url, folder, f"router-{n}", "router", environ=environ) for n in range(routers)]
    victims += [Role(url, folder, f"provider-{n}", "provider", environ=environ) for n in range(providers)]
    async with running(core, *victims), trunkline.connect(url, key=KEY) as gw:
        await gw.providers.register(id="till", kind="openai-compatible", base_url=upstream.url, local=True)
        await gw.models.register(id="m", provider="till", price=PRICE)
        limit = f"{callers * 0.0002:.4f}"
        await gw.threads.configure(thread_id="t", budget={"limit_usd": limit, "warn_at": 0.5})
        if scopes:
            await gw.budgets.set(scope="gateway", budget={"limit_usd": limit})
            await gw.budgets.set(scope="team:spenders", budget={"limit_usd": "1000"})
            await gw.budgets.set(scope=f"key:{key_id(KEY)}", budget={"limit_usd": limit}, team="spenders")
        spenders = Spenders(gw, till, "t", most=100, deadline_ms=120_000)
        draw = random.Random(kills)
        spenders.call(callers)
        for _ in range(kills):
            await passed(draw.uniform(0.2, 1.2))
            await draw.choice(victims).again()
        if disturb is not None:
            await disturb()
        heard = await spenders.heard()
        recorded = await spenders.settled()
        told = Counter("served" if one is None else one.code for one in heard)
        books = await gw.threads.get(thread_id="t")
        print(f"{kills} kills, {len(recorded)} events, {books['settled_usd']} of {limit} spent, told {dict(told)}")
        spenders.compare(recorded)
        assert (books["open"], books["reserved_usd"]) == ([], "0")
        assert float(books["settled_usd"]) >= 0.95 * float(limit)
        assert "timeout" not in told, "somebody was left to a timeout of its own"
        # A conflict: the answer died with its process, what it cost is settled, and its repeat is given the receipt.
        assert all(one is None or isinstance(one, BudgetExceeded | Conflict | Unavailable) for one in heard), told
        assert sum(event.type == "thread.budget-warned.v1" for event in recorded) == 1
        if scopes:
            for scope in ("gateway", "team:spenders", f"key:{key_id(KEY)}"):
                async with asyncio.timeout(30):  # slices of the dead are closed after a lease
                    while (now := await gw.budgets.get(scope=scope))["reserved_usd"] != "0":  # noqa: ASYNC110
                        await asyncio.sleep(0.1)
                assert now["settled_usd"] == books["settled_usd"]
            spenders.compare(await spenders.settled())


@pytest.mark.parametrize("size", SIZES)
async def test_a_thread_spends_its_budget_and_no_more(
    server: EmbeddedServer, tmp_path: Path, till: Till, upstream: Upstream, size: Size
) -> None:
    await spend(server.url, tmp_path, till, upstream, size, scopes=False)


@pytest.mark.parametrize("size", SIZES)
async def test_key_team_and_gateway_spend_theirs_and_no_more(
    server: EmbeddedServer, tmp_path: Path, till: Till, upstream: Upstream, size: Size
) -> None:
    await spend(server.url, tmp_path, till, upstream, size, scopes=True)


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.filterwarnings("ignore:unclosed <StreamWriter:ResourceWarning")
async def test_the_same_on_a_cluster_of_three_whose_leader_is_killed(
    tmp_path: Path, till: Till, upstream: Upstream
) -> None:
    """Two gateways, and the leader killed under load: some seconds without acknowledgements, and the same books."""
    async with cluster_of_three(tmp_path) as cluster:

        async def kill_the_leader() -> None:
            probe = await Connection.open(cluster.url, name="probe", timeout=10)
            leader = await cluster.leader(probe, STREAM)
            await probe.close()
            cluster.kill(leader)
            await passed(5.0)
            cluster.start(leader)

        await spend(
            cluster.url,
            tmp_path,
            till,
            upstream,
            Size(2, 2, 500, 2),
            scopes=True,
            environ={"TRUNKLINE_REPLICAS": "3"},
            disturb=kill_the_leader,
        )
