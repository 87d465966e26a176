"""`trunkline circuits` and what `trunkline doctor` says of them, as a user has them."""

import asyncio
from pathlib import Path

import pytest
from cli_kit import Trunkline, on_terminal
from trunkline import errors
from trunkline.client import Gateway

pytest_plugins = ["gateway", "console"]


@pytest.fixture
async def broken(gw: Gateway) -> Gateway:
    """A gateway with the provider `shaky`, whose circuit is open."""
    await gw.providers.register(id="shaky", kind="scripted", local=True, breaker_failures=2)
    await gw.models.register(id="down", provider="shaky", upstream="fail:overloaded")
    for _ in range(2):
        with pytest.raises(errors.Unavailable):
            await gw.chat.create("down", "hi", route={"attempts": 1})
    async with asyncio.timeout(5):
        while (await gw.circuits.get(provider="shaky"))["state"] != "open":
            pass
    return gw


async def test_circuits_are_listed_shown_and_reset(trunkline: Trunkline, broken: Gateway) -> None:
    listed = (await trunkline("circuits", "list")).out.splitlines()
    assert listed[0] == "scripted\tclosed\t0\t-\t-"
    assert listed[1].startswith("shaky\topen\t2\t20")
    assert (await trunkline("circuits", "list", "--state", "closed")).out.count("\n") == 1
    shown = (await trunkline("circuits", "get", "shaky", "--json")).json
    assert (shown["provider"], shown["state"], shown["failures"]) == ("shaky", "open", 2)
    assert "retry_at     20" in (await trunkline("circuits", "get", "shaky")).out
    done = await trunkline("circuits", "reset", "shaky", "--reason", "mended")
    assert done.out.startswith("shaky reset: calls flow again (event ")
    done = await trunkline("circuits", "reset", "shaky")
    assert (done.code, done.out) == (0, "shaky is closed already: nothing changed\n")


async def test_the_history_tells_what_opened_a_circuit(trunkline: Trunkline, broken: Gateway) -> None:
    await trunkline("circuits", "reset", "shaky", "--reason", "mended")
    lines = [line.split("\t") for line in (await trunkline("circuits", "history", "shaky")).out.splitlines()]
    assert [line[2] for line in lines] == ["call-failed", "opened", "reset"]
    assert lines[0][3] == "failure=overloaded failures=1"
    assert "retry_at=20" in lines[1][3]
    assert lines[2][3] == "reason=mended"
    last = (await trunkline("circuits", "history", "shaky", "--limit", "1", "--json")).json
    assert [event["type"] for event in last["events"]] == ["circuit.reset.v1"]


async def test_there_is_more_than_a_page(trunkline: Trunkline, broken: Gateway) -> None:
    done = await trunkline("circuits", "list", "--limit", "1")
    assert done.out.startswith("scripted\t")
    assert "next: --after scripted" in done.err


async def test_a_terminal_shows_headings(broken: Gateway, bus_url: str, tmp_path: Path) -> None:
    shown = await on_terminal("circuits", "list", "--nats", bus_url, cwd=tmp_path, NO_COLOR="1")
    assert shown.splitlines()[0].split() == ["provider", "state", "failures", "opened_at", "retry_at"]


@pytest.mark.parametrize("verb", ["get", "reset", "history"])
async def test_who_is_not_registered_is_not_found(trunkline: Trunkline, gw: Gateway, verb: str) -> None:
    done = await trunkline("circuits", verb, "nobody")
    assert done.code == 3
    assert "trunkline providers list" in done.err


async def test_the_doctor_turns_red_for_an_open_circuit(trunkline: Trunkline, broken: Gateway) -> None:
    done = await trunkline("doctor", "--json")
    assert done.code == 1
    [check] = [one for one in done.json["checks"] if one["name"] == "circuits"]
    assert check["state"] == "problem"
    assert "trunkline circuits reset shaky" in check["next"]
