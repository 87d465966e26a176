"""A stored secret in real processes: killed, started again, unlocked by a file or not, told to its upstream alone."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trunkline
from processes import Role, running
from trunkline.client import Gateway
from trunkline.embedded import EmbeddedServer
from upstream import Reply, Request, Upstream, answer
from vault_kit import FIRST, PASSPHRASE, SECOND, WHOLE, far, keys_seen, said


class Tells:
    """An upstream that repeats the key it was called with in every other answer, which is an error."""

    def __init__(self) -> None:
        self._turns = 0

    async def __call__(self, request: Request) -> Reply:
        self._turns += 1
        if self._turns % 2:
            return answer({"error": {"message": f"Incorrect API key: {request.headers.get('authorization')}"}}, 401)
        return answer(WHOLE)


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[EmbeddedServer]:
    async with EmbeddedServer(store=tmp_path / "nats", port=0, durability="process") as serving:
        yield serving


@pytest.fixture
async def gw(server: EmbeddedServer) -> AsyncIterator[Gateway]:
    async with trunkline.connect(server.url) as gateway:
        yield gateway


async def states(gw: Gateway) -> set[str]:
    return {one["state"] for one in await gw.secrets.holders()}


async def test_killed_and_started_again_a_process_is_locked_or_unlocked_by_its_file_and_tells_no_secret(
    server: EmbeddedServer, gw: Gateway, tmp_path: Path
) -> None:
    file = tmp_path / "unlock"
    file.write_text(PASSPHRASE + "\n")
    file.chmod(0o600)
    core = Role(server.url, tmp_path, "core", "registry", "router", "keeper")
    bare = Role(server.url, tmp_path, "bare", "provider")
    async with Upstream(handler=Tells()).serving() as upstream, running(core, bare):
        await far(gw, upstream)
        await gw.secrets.unlock(PASSPHRASE)
        await gw.secrets.set("main", FIRST)
        heard = [await said(gw) for _ in range(4)]
        await bare.again()
        refused = await said(gw)
        assert "trunkline secrets unlock" in refused.error["message"]
        await bare.kill()
        core_again = Role(
            server.url, tmp_path, "opened", "provider", "registry", environ={"TRUNKLINE_UNLOCK_FILE": str(file)}
        )
        async with running(core_again):
            await core.kill()
            router = Role(server.url, tmp_path, "router", "router", "keeper")
            async with running(router):
                assert await states(gw) == {"unlocked"}
                await gw.secrets.rotate("main", SECOND)
                heard += [await said(gw) for _ in range(4)]
                assert await router.ended_gently() == 0
            assert await core_again.ended_gently() == 0
    assert keys_seen(upstream) == [FIRST] * 4 + [SECOND] * 4
    logs = b"".join(path.read_bytes() for path in tmp_path.glob("*.log"))
    disk = b"".join(path.read_bytes() for path in (tmp_path / "nats").rglob("*") if path.is_file())
    told = b"".join(got.data + repr(got.fields).encode() for got in [*heard, refused])
    for canary in (FIRST, SECOND, PASSPHRASE):
        for place in (logs, disk, told):
            assert place
            assert canary.encode() not in place
