"""`trunkline plugins`, with a package that another process has on its path."""

import asyncio
from pathlib import Path

import plugin_kit
from cli_kit import Trunkline
from processes import Role, running
from trunkline.client import Gateway

pytest_plugins = ["gateway", "console"]


async def test_plugins_are_listed_and_shown(trunkline: Trunkline, gw: Gateway) -> None:
    listed = (await trunkline("plugins", "list")).out.splitlines()
    row = next(line.split("\t") for line in listed if line.startswith("scripted"))
    assert (row[1], row[3], row[4]) == ("ready", "trunkline", "scripted")
    assert "state         ready" in (await trunkline("plugins", "get", "scripted")).out
    missing = await trunkline("plugins", "get", "scrpted")
    assert missing.code == 3
    assert "did you mean 'scripted'" in missing.err


async def test_a_process_whose_package_is_broken_serves_all_else(
    trunkline: Trunkline, gw: Gateway, bus_url: str, tmp_path: Path
) -> None:
    site = tmp_path / "site"
    plugin_kit.write(site, "raise RuntimeError('sk-not-to-be-seen')")
    environ = {"PYTHONPATH": str(site)}
    child = Role(bus_url, tmp_path, "child", "registry", "provider", environ=environ)
    async with running(child):
        async with asyncio.timeout(20):  # either registry may answer, and one of them doesn't know the kind
            while (done := await trunkline("providers", "register", "acme-1", "--kind", "acme", "--json")).code:
                pass
        assert done.json["provider"]["kind"] == "acme"
        async with asyncio.timeout(20):
            while (shown := await trunkline("plugins", "get", "acme", "--json")).json["plugin"]["state"] != "failed":
                pass
        troubles = shown.json["plugin"]["troubles"]
        assert {one["error"] for one in troubles} >= {"RuntimeError"}
        assert "trunkline-acme" in (await trunkline("plugins", "list", "--state", "failed")).out
        doctor = await trunkline("doctor")
        assert doctor.code == 1
        assert "acme (trunkline-acme 1.2.0) can't serve acme-1: RuntimeError" in doctor.out
        assert "sk-not-to-be-seen" not in doctor.out + str(shown.json) + child.log.read_text()
        assert (await trunkline("chat", "hello", "--model", "echo")).out.strip() == "hello"
