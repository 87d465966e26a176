"""Plugins on the bus: whatever one does, its own provider is all that suffers, and everybody can see why."""

import asyncio
import itertools
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import plugin_kit
import pytest
from audit import events
from processes import until
from trunkline import errors
from trunkline.client import Gateway
from trunkline.health.modes import mode_checks
from trunkline_actors import plugged
from trunkline_actors.adapters import factory
from trunkline_events.connection import Connection
from trunkline_events.failure import FailureClass
from trunkline_events.plugin import PluginFailed, PluginLoaded
from trunkline_events.thread import AttemptFailed

pytest_plugins = ["gateway"]

Install = Callable[[str], None]

_numbers = itertools.count(1)


@pytest.fixture
def install(tmp_path: Path) -> Iterator[Install]:
    """Installs the package with this code as its module, whose name no other test uses: its import may hang."""
    module = f"trunkline_acme_{next(_numbers)}"
    with plugin_kit.installed(tmp_path / "site", module):

        def lay(code: str) -> None:
            plugin_kit.write(tmp_path / "site", code, module=module)
            factory.look_again()

        lay(plugin_kit.GOOD)
        yield lay


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Deadlines and pauses that a test can wait for."""
    monkeypatch.setattr(plugged, "START_S", 1.0)
    monkeypatch.setattr(plugged, "CLOSE_S", 0.3)
    monkeypatch.setattr(plugged, "FIRST_PAUSE", 0.1)


class Acme:
    """A gateway with a model of the plugin's kind."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway

    async def register(self) -> dict[str, Any]:
        reply: dict[str, Any] = await self.gateway.providers.register(id="acme-1", kind="acme", local=True)
        await self.gateway.models.register(id="m", provider="acme-1")
        return reply

    async def call(self, **more: Any) -> str:
        done = await self.gateway.chat.create("m", "hi", **{"route": {"attempts": 1}, **more})
        return done.text

    async def plugin(self, state: str) -> dict[str, Any]:
        """What is shown of the plugin, once it is in this state."""
        async with asyncio.timeout(8):
            while (shown := (await self.gateway.plugins.get(name="acme"))["plugin"])["state"] != state:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        return dict(shown)

    async def failure(self, **more: Any) -> tuple[str, str]:
        """The class that the next attempt fails with, and what the caller is told."""
        with pytest.raises(errors.TrunklineError) as raised:
            await self.call(**more)
        failed = [one.body for one in await events(self.gateway) if isinstance(one.body, AttemptFailed)]
        return failed[-1].failure, str(raised.value)


@pytest.fixture
def acme(install: Install, gw: Gateway) -> Acme:
    """The package is there before the registry starts, which knows its kind for that reason."""
    return Acme(gw)


async def others_serve(gateway: Gateway) -> None:
    assert (await gateway.chat.create("echo", "still here")).text == "still here"


async def test_a_plugin_that_works_is_initialised_once_checked_and_closed(acme: Acme, install: Install) -> None:
    install(plugin_kit.GOOD)
    assert (await acme.register())["serving"] is True
    assert await acme.call() == "hi"
    async with acme.gateway.chat.stream("m", "hi") as chunks:
        assert len([chunk async for chunk in chunks]) == 1
    checked = await acme.gateway.providers.check(id="acme-1")
    assert checked["reachable"] is True
    assert checked["plugin"] == {
        "name": "acme",
        "distribution": "trunkline-acme",
        "version": "1.2.0",
        "state": "ready",
        "last_error": None,
    }
    shown = await acme.plugin("ready")
    assert (shown["distribution"], shown["version"], shown["providers"]) == ("trunkline-acme", "1.2.0", ["acme-1"])
    heard = sys.modules[shown["object"].partition(":")[0]].HEARD
    await acme.gateway.models.remove(id="m")
    await acme.gateway.providers.remove(id="acme-1")
    await until(lambda: "close" in heard)
    assert heard == ["initialize", "complete", "check", "close"]
    told = [one.body for one in await events(acme.gateway) if isinstance(one.body, PluginLoaded)]
    assert [(one.plugin, one.version) for one in told] == [("acme", "1.2.0")]


def initialising(line: str) -> str:
    return plugin_kit.GOOD.replace('HEARD.append("initialize")', line)


def building(made: str) -> str:
    return plugin_kit.GOOD.replace("lambda settings: Adapter()", f"lambda settings: {made}")


DEAF = """import asyncio
        for _ in range(20):
            try:
                await asyncio.sleep(0.2)
            except asyncio.CancelledError:
                pass"""
BROKEN = {
    "no import": ("import acme_sdk_that_is_not_there", "import", "ModuleNotFoundError"),
    "exits at import": ("raise SystemExit(3)", "import", "SystemExit"),
    "hangs at import": ("import time; time.sleep(5)", "import", "Hung"),
    "no kind": ("KIND = 'acme'", "import", "NotAKind"),
    "build raises": (building("1/0"), "build", "ZeroDivisionError"),
    "builds nothing": (building("7"), "build", "NotAnAdapter"),
    "initialize raises": (initialising("{}['sk-secret-of-somebody']"), "initialize", "KeyError"),
    "initialize exits": (initialising("raise SystemExit"), "initialize", "SystemExit"),
    "initialize interrupts": (initialising("raise KeyboardInterrupt"), "initialize", "KeyboardInterrupt"),
    "initialize hangs": (initialising("import asyncio; await asyncio.sleep(99)"), "initialize", "Hung"),
    "initialize hangs whatever is done": (initialising(DEAF), "initialize", "Hung"),
}


@pytest.mark.parametrize("case", BROKEN)
async def test_a_plugin_that_cannot_be_started_leaves_its_provider_visibly_unusable(
    acme: Acme, install: Install, connection: Connection, case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, stage, error = BROKEN[case]
    if error != "Hung":
        monkeypatch.setattr(plugged, "START_S", 10.0)  # else a busy machine hangs too
    install(code)
    assert (await acme.register())["serving"] is False
    shown = await acme.plugin("failed")
    assert shown["last_error"] == error
    assert shown["troubles"][0]["stage"] == stage
    failure, told = await acme.failure()
    assert failure == (FailureClass.TIMEOUT if error == "Hung" else FailureClass.INTERNAL)
    assert "acme" in told
    assert "sk-secret" not in told + str(shown)
    await others_serve(acme.gateway)
    checked = await acme.gateway.providers.check(id="acme-1")
    assert (checked["reachable"], checked["plugin"]["state"], checked["plugin"]["last_error"]) == (
        False,
        "failed",
        error,
    )
    found = [check for check in await mode_checks(connection) if check.name == "plugin"]
    assert len(found) == 1
    assert error in found[0].found
    assert "acme-1" in found[0].found
    failed = [one.body for one in await events(acme.gateway) if isinstance(one.body, PluginFailed)]
    assert [(one.plugin, one.stage, one.error) for one in failed] == [("acme", stage, error)], "told once"


async def test_a_plugin_that_failed_is_tried_again_by_itself(acme: Acme, install: Install) -> None:
    install("raise ValueError")
    await acme.register()
    await acme.plugin("failed")
    install(plugin_kit.GOOD)
    await acme.plugin("ready")
    assert await acme.call() == "hi"
    told = [one.body for one in await events(acme.gateway) if isinstance(one.body, PluginFailed | PluginLoaded)]
    assert [type(one) for one in told] == [PluginFailed, PluginLoaded]


async def test_a_plugin_that_failed_is_tried_again_when_its_provider_is_changed(
    acme: Acme, install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plugged, "FIRST_PAUSE", 600.0)
    monkeypatch.setattr(plugged, "LONGEST_PAUSE", 600.0)
    install("raise ValueError")
    await acme.register()
    await acme.plugin("failed")
    install(plugin_kit.GOOD)
    await acme.gateway.providers.update(id="acme-1", timeout_s=5.0)
    await acme.plugin("ready")
    assert await acme.call() == "hi"


CALLS = {
    "raises": ('HEARD.append("complete")', "raise KeyError('sk-secret-of-somebody')", "KeyError"),
    "exits": ('HEARD.append("complete")', "raise SystemExit", "SystemExit"),
    "cancels itself": ('HEARD.append("complete")', "import asyncio; raise asyncio.CancelledError", "CancelledError"),
    "interrupts": ('HEARD.append("complete")', "raise KeyboardInterrupt", "KeyboardInterrupt"),
    "leaves": ('HEARD.append("complete")', "raise GeneratorExit", "GeneratorExit"),
    "returns text": ('HEARD.append("complete")', "return 'hi'", "WrongType"),
    "returns a body that is text": ("body=body", "body=body.decode()", "WrongType"),
    "returns usage of its own": ("usage=Usage(input_tokens=1, output_tokens=1)", "usage={'in': 1}", "WrongType"),
    "stream raises": ("        yield Chunk(", "        1/0\n        yield Chunk(", "ZeroDivisionError"),
    "stream interrupts": (
        "        yield End(",
        "        raise KeyboardInterrupt\n        yield End(",
        "KeyboardInterrupt",
    ),
    "stream leaves at once": (
        "        yield Chunk(",
        "        raise GeneratorExit\n        yield Chunk(",
        "GeneratorExit",
    ),
    "stream leaves": ("        yield End(", "        raise GeneratorExit\n        yield End(", "GeneratorExit"),
    "streams text": ("        yield Chunk(", "        yield 'hi'\n        yield Chunk(", "WrongType"),
    "stream counts less than nothing": ("hi\"}}]}', 2)", "hi\"}}]}', -2)", "WrongType"),
    "stream counts halves": ("hi\"}}]}', 2)", "hi\"}}]}', 0.5)", "WrongType"),
    "streams without end": ("        yield End(", "        return\n        yield End(", "WrongType"),
    "stream is no generator": (
        "    async def stream(self, call):",
        "    async def stream(self, call):\n        return 3\n\n    async def other(self, call):",
        "WrongType",
    ),
}


@pytest.mark.parametrize("case", CALLS)
async def test_a_call_that_ends_as_none_may_is_a_failed_attempt_and_too_many_take_the_plugin_out_of_use(
    acme: Acme, install: Install, case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plugged, "FIRST_PAUSE", 600.0)
    monkeypatch.setattr(plugged, "LONGEST_PAUSE", 600.0)
    old, new, error = CALLS[case]
    install(plugin_kit.GOOD.replace(old, new))
    await acme.register()
    streams = case.startswith("stream")

    async def call() -> str:
        if not streams:
            return (await acme.failure())[1]
        try:
            async with acme.gateway.chat.stream("m", "hi", route={"attempts": 1}) as chunks:
                async for _ in chunks:
                    pass
        except errors.TrunklineError as error:
            return str(error)
        return "answered"

    told = [await call() for _ in range(plugged.MOST_CRASHES)]
    assert all("acme" in one and "sk-secret" not in one for one in told)
    shown = await acme.plugin("failed")
    assert (shown["last_error"], shown["crashes"]) == (error, plugged.MOST_CRASHES)
    assert shown["troubles"][0]["stage"] == "call"
    await others_serve(acme.gateway)
    await acme.failure()
    assert (await acme.plugin("failed"))["crashes"] == plugged.MOST_CRASHES, "it is called no more"


async def test_a_call_that_never_ends_is_cut(acme: Acme, install: Install) -> None:
    install(plugin_kit.GOOD.replace('HEARD.append("complete")', "import asyncio; await asyncio.sleep(99)"))
    await acme.register()
    await acme.gateway.providers.update(id="acme-1", timeout_s=0.2)
    assert (await acme.failure())[0] == FailureClass.TIMEOUT


async def test_a_kind_that_nobody_has_is_refused_with_one_that_may_be_meant(gw: Gateway) -> None:
    with pytest.raises(errors.InvalidRequest, match="did you mean 'ollama'"):
        await gw.providers.register(id="x", kind="olama")


async def test_all_kinds_are_listed_with_where_they_come_from(gw: Gateway) -> None:
    listed = {one["name"]: one for one in (await gw.plugins.list())["plugins"]}
    assert {"openai", "scripted"} <= set(listed)
    scripted = listed["scripted"]
    assert (scripted["distribution"], scripted["state"], scripted["built_in"]) == ("trunkline", "ready", True)
    with pytest.raises(errors.NotFound, match="there are "):
        await gw.plugins.get(name="nobody")
