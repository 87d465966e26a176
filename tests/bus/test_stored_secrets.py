"""Secrets in the vault, over the bus: a real upstream sees which key it is called with, and the disk never does."""

import asyncio
from base64 import b64encode
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trunkline
from audit import events, kinds
from messages import ask
from trunkline import errors
from trunkline.client import Gateway
from trunkline.host import Host
from trunkline_actors import vault
from trunkline_actors.keyring import Keyring
from trunkline_actors.vault_store import VaultStore
from trunkline_events import headers, subjects
from upstream import Reply, Request, Upstream, answer
from vault_kit import FIRST, PASSPHRASE, SECOND, WHOLE, far, keys_seen, said, serving, well

pytest_plugins = ["gateway"]


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    async with well().serving() as running:
        yield running


async def test_a_provider_is_called_with_its_secret_before_and_after_it_is_rotated(
    gw: Gateway, upstream: Upstream
) -> None:
    await far(gw, upstream)
    assert (await gw.secrets.unlock(PASSPHRASE))["created"]
    stored = await gw.secrets.set("main", FIRST)
    assert (stored["provider"], stored["address"]) == ("far", upstream.url)
    assert (await said(gw)).json["choices"]
    rotated = await gw.secrets.rotate("main", SECOND)
    assert rotated["fingerprint"] != stored["fingerprint"]
    assert (await said(gw)).json["choices"]
    assert keys_seen(upstream) == [FIRST, SECOND]
    assert kinds(await events(gw, "secret")) == ["stored", "rotated"]


async def test_every_process_is_unlocked_and_locked_and_hears_of_a_rotation(
    gw: Gateway, host: Host, bus_url: str, upstream: Upstream
) -> None:
    async with serving(bus_url, "provider", "registry") as other:
        await far(gw, upstream)
        opened = await gw.secrets.unlock(PASSPHRASE)
        both = sorted([host.runtime.name, other.runtime.name])
        assert opened["processes"] == both
        await gw.secrets.set("main", FIRST)
        await gw.secrets.rotate("main", SECOND)
        for _ in range(20):  # whichever of them the router asks
            assert "choices" in (await said(gw)).json
        assert set(keys_seen(upstream)) == {SECOND}
        assert sorted((await gw.secrets.lock())["processes"]) == both
        assert {one["state"] for one in await gw.secrets.holders()} == {"locked"}
        for _ in range(10):
            assert "locked" in (await said(gw)).error["message"]


async def test_a_locked_provider_fails_so_that_another_serves_and_says_what_to_do(
    gw: Gateway, upstream: Upstream
) -> None:
    await far(gw, upstream)
    await gw.secrets.unlock(PASSPHRASE)
    await gw.secrets.set("main", FIRST)
    await gw.secrets.lock()
    answered = await said(gw, attempts=2, fallbacks=["echo"])
    assert answered.fields[headers.MODEL] == "echo"
    failed = [event.body for event in await events(gw, "thread") if event.type == "thread.attempt-failed.v1"]
    assert [getattr(body, "failure", None) for body in failed] == ["auth"]
    assert "locked; next: `trunkline secrets unlock`" in (await said(gw)).error["message"]
    checked = await gw.providers.check(id="far")
    assert (checked["serving"], checked["reachable"]) == (True, False)
    assert "secret 'main' is locked; next: `trunkline secrets unlock`" in checked["problem"]
    assert not upstream.requests
    await gw.secrets.unlock(PASSPHRASE)
    assert "choices" in (await said(gw)).json
    assert keys_seen(upstream) == [FIRST]


async def test_a_locked_process_takes_no_call_that_another_can_make(
    gw: Gateway, host: Host, bus_url: str, upstream: Upstream
) -> None:
    await far(gw, upstream)
    await gw.secrets.unlock(PASSPHRASE)
    await gw.secrets.set("main", FIRST)
    async with serving(bus_url, "provider") as other:
        assert (host.runtime.keyring.state, other.runtime.keyring.state) == ("unlocked", "locked")
        for _ in range(20):
            assert "choices" in (await said(gw)).json
        await gw.secrets.unlock(PASSPHRASE)
        host.runtime.keyring.lock()
        async with asyncio.timeout(5):
            while "choices" not in (await said(gw)).json:  # until it has left the others
                pass
        for _ in range(20):
            assert "choices" in (await said(gw)).json
        await gw.secrets.lock()
        async with asyncio.timeout(5):
            while "choices" in (await said(gw)).json:
                pass
        for _ in range(5):
            assert "locked; next: `trunkline secrets unlock`" in (await said(gw)).error["message"]


async def test_a_process_starts_locked_unless_its_unlock_file_opens_the_vault(
    gw: Gateway, host: Host, bus_url: str, tmp_path: Path
) -> None:
    await gw.secrets.unlock(PASSPHRASE)
    right, wrong = tmp_path / "right", tmp_path / "wrong"
    for file, text in ((right, PASSPHRASE), (wrong, "incorrect horse battery")):
        file.write_text(text + "\n")
        file.chmod(0o600)
    async with (
        serving(bus_url, "provider") as bare,
        serving(bus_url, "provider", unlock_file=right) as opened,
        serving(bus_url, "provider", unlock_file=wrong) as refused,
    ):
        states = {one["process"]: one["state"] for one in await gw.secrets.holders()}
        assert states[bare.runtime.name] == states[refused.runtime.name] == "locked"
        assert states[opened.runtime.name] == "unlocked"
        assert "does not open this vault" in refused.runtime.keyring.problem


async def test_the_wrong_passphrase_opens_nothing(gw: Gateway) -> None:
    await gw.secrets.unlock(PASSPHRASE)
    await gw.secrets.lock()
    with pytest.raises(errors.PermissionDenied, match="`trunkline secrets unlock`"):
        await gw.secrets.unlock("incorrect horse battery")
    assert [one["state"] for one in await gw.secrets.holders()] == ["locked"]


async def test_a_secret_is_of_no_use_at_another_address_until_it_is_set_again(gw: Gateway, upstream: Upstream) -> None:
    async with well().serving() as elsewhere:
        await far(gw, upstream)
        await gw.secrets.unlock(PASSPHRASE)
        await gw.secrets.set("main", FIRST)
        await gw.providers.update(id="far", base_url=elsewhere.url)
        assert "not here" in (await said(gw)).error["message"]
        assert [one["state"] for one in (await gw.secrets.list())["secrets"]] == ["unbound"]
        with pytest.raises(errors.Conflict):
            await gw.secrets.rotate("main", SECOND)
        assert not elsewhere.requests
        await gw.secrets.set("main", SECOND)
        assert "choices" in (await said(gw)).json
        assert (keys_seen(upstream), keys_seen(elsewhere)) == ([], [SECOND])


async def test_a_secret_that_a_provider_names_is_deleted_by_force_only(gw: Gateway, upstream: Upstream) -> None:
    await far(gw, upstream)
    await gw.secrets.unlock(PASSPHRASE)
    await gw.secrets.set("main", FIRST)
    with pytest.raises(errors.Conflict):
        await gw.secrets.delete("main")
    await gw.secrets.delete("main", force=True)
    assert "is not stored" in (await said(gw)).error["message"]
    assert [one["state"] for one in (await gw.secrets.list())["secrets"]] == ["missing"]
    assert kinds(await events(gw, "secret")) == ["stored", "deleted"]


async def test_under_a_new_passphrase_the_same_secrets_open_and_the_old_one_opens_nothing(
    gw: Gateway, bus_url: str, upstream: Upstream
) -> None:
    async with serving(bus_url, "provider"):
        await far(gw, upstream)
        await gw.secrets.unlock(PASSPHRASE)
        stored = await gw.secrets.set("main", FIRST)
        with pytest.raises(errors.PermissionDenied):
            await gw.secrets.change_key("incorrect horse battery", "another good passphrase")
        changed = await gw.secrets.change_key(PASSPHRASE, "another good passphrase", algorithm="pbkdf2-sha256")
        assert (len(changed["processes"]), changed["locked"]) == (2, [])
        for _ in range(10):
            assert "choices" in (await said(gw)).json
        await gw.secrets.lock()
        with pytest.raises(errors.PermissionDenied):
            await gw.secrets.unlock(PASSPHRASE)
        await gw.secrets.unlock("another good passphrase")
        [listed] = (await gw.secrets.list())["secrets"]
        assert (listed["state"], listed["kdf"]) == ("usable", "pbkdf2-sha256")
        assert listed["fingerprint"] == stored["fingerprint"]


async def test_what_was_written_and_not_told_is_told_by_whoever_looks_next(
    gw: Gateway, host: Host, bus_url: str, upstream: Upstream
) -> None:
    await far(gw, upstream)
    await gw.secrets.unlock(PASSPHRASE)
    await gw.secrets.set("main", FIRST)
    # As a process leaves it that dies after the vault is written and before the log is told.
    keyring: Keyring = host.runtime.keyring
    assert keyring.vault is not None
    assert keyring.opened is not None
    fresh = vault.Fresh(id="main", provider="far", address=upstream.url, secret=SECOND, how="rotated")
    written = vault.put(keyring.vault, keyring.opened, fresh, 1.0, lambda size: b"7" * size)
    await VaultStore(host.runtime.connection).write(written, keyring.revision)
    async with serving(bus_url, "registry"):
        async with asyncio.timeout(10):
            while len(await events(gw, "secret")) < 2:
                pass
    assert "choices" in (await said(gw)).json
    assert keys_seen(upstream) == [SECOND]
    # And one that was deleted so.
    await VaultStore(host.runtime.connection).write(vault.remove(written, "main"), keyring.revision)
    async with serving(bus_url, "registry"), serving(bus_url, "registry"):
        pass
    assert kinds(await events(gw, "secret")) == ["stored", "rotated", "deleted"]


async def test_a_call_that_runs_ends_with_the_key_it_began_with(gw: Gateway) -> None:
    released = asyncio.Event()

    async def wait(_request: Request) -> Reply:
        await released.wait()
        return answer(WHOLE)

    async with Upstream(handler=wait).serving() as slow:
        await far(gw, slow)
        await gw.secrets.unlock(PASSPHRASE)
        await gw.secrets.set("main", FIRST)
        running = asyncio.create_task(said(gw))
        await slow.asked.wait()
        await gw.secrets.rotate("main", SECOND)
        released.set()
        assert "choices" in (await running).json
        assert "choices" in (await said(gw)).json
        assert keys_seen(slow) == [FIRST, SECOND]


async def test_nothing_of_a_secret_goes_over_the_bus_into_the_log_or_onto_the_disk(
    gw: Gateway, upstream: Upstream, tmp_path: Path
) -> None:
    heard: list[bytes] = []

    async def hear(message: object) -> None:
        heard.append(repr(message).encode() + getattr(message, "data", b""))

    await gw._connection.nats.subscribe(">", cb=hear)
    await far(gw, upstream)
    await gw.secrets.unlock(PASSPHRASE)
    await gw.secrets.set("main", FIRST)
    await gw.secrets.rotate("main", SECOND)
    await said(gw)
    await gw._connection.nats.flush()
    stored = b"".join(file.read_bytes() for file in (tmp_path / "nats").rglob("*") if file.is_file())
    assert b"main" in stored
    assert any(b"trunkline.secrets.set" in one for one in heard)
    for canary in (FIRST, SECOND, PASSPHRASE):
        for form in (canary.encode(), canary.encode().hex().encode(), b64encode(canary.encode())):
            assert form not in stored
            assert form not in b"".join(heard)


async def test_a_short_and_a_long_secret_take_as_many_bytes(gw: Gateway, host: Host, upstream: Upstream) -> None:
    await far(gw, upstream)
    await gw.secrets.unlock(PASSPHRASE)
    sizes = set()
    for secret in ("k", "k" * 51, "k" * 400):
        await gw.secrets.set("main", secret)
        assert host.runtime.keyring.vault is not None
        sizes.add(len(vault.encode(host.runtime.keyring.vault)))
    assert len(sizes) == 1


@pytest.mark.parametrize("verb", ["set", "rotate"])
async def test_a_secret_that_comes_unsealed_is_refused(gw: Gateway, upstream: Upstream, verb: str) -> None:
    await far(gw, upstream)
    await gw.secrets.unlock(PASSPHRASE)
    with pytest.raises(errors.InvalidRequest) as refused:
        await gw.command(f"{subjects.SECRETS}.{verb}", {"id": "main", "value": FIRST})
    assert FIRST not in str(refused.value)


async def test_a_sealed_secret_that_is_sent_again_is_refused(gw: Gateway, upstream: Upstream) -> None:
    sent: list[bytes] = []

    async def hear(message: object) -> None:
        sent.append(getattr(message, "data", b""))

    await gw._connection.nats.subscribe(f"{subjects.SECRETS}.set", cb=hear)
    await far(gw, upstream)
    await gw.secrets.unlock(PASSPHRASE)
    await gw.secrets.set("main", FIRST)
    await gw.secrets.rotate("main", SECOND)
    again = await ask(gw._connection.nats, sent[0], subject=f"{subjects.SECRETS}.set")
    assert again.error["code"] == "conflict"
    await said(gw)
    assert keys_seen(upstream) == [SECOND]


async def test_without_a_vault_or_a_provider_it_is_said_what_to_do(gw: Gateway, upstream: Upstream) -> None:
    with pytest.raises(errors.InvalidRequest, match="provider"):
        await gw.secrets.set("main", FIRST)
    await far(gw, upstream)
    with pytest.raises(errors.Conflict, match="trunkline secrets unlock"):
        await gw.secrets.set("main", FIRST)
    assert "is not stored" in (await said(gw)).error["message"]
    with pytest.raises(errors.InvalidRequest, match="12 characters"):
        await gw.secrets.unlock("short")


async def test_a_client_without_asyncio_sets_secrets_too(gw: Gateway, bus_url: str, upstream: Upstream) -> None:
    await far(gw, upstream)

    def all_of_it() -> str:
        with trunkline.connect_sync(bus_url) as blocking:
            blocking.secrets.unlock(passphrase=PASSPHRASE)
            blocking.secrets.set(id="main", value=FIRST)
            return str(blocking.secrets.list()["secrets"][0]["state"])

    assert await asyncio.to_thread(all_of_it) == "usable"
