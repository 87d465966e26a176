"""The page on plugins: its package, installed as it stands there, does what the page says."""

import re
from collections.abc import Iterator
from pathlib import Path

import plugin_kit
import pytest
from trunkline import errors
from trunkline.client import Gateway

pytest_plugins = ["gateway"]

PAGE = Path(__file__).parents[2] / "docs" / "plugins.md"


@pytest.fixture
def package(tmp_path: Path) -> Iterator[None]:
    found = re.search(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert found
    with plugin_kit.installed(tmp_path, "trunkline_acme"):
        plugin_kit.write(tmp_path, found[1])
        plugin_kit.forget()
        yield


async def test_the_plugin_of_the_page_serves(package: None, gw: Gateway) -> None:
    assert (await gw.providers.register(id="acme-1", kind="acme"))["serving"] is True
    await gw.models.register(id="shout", provider="acme-1")
    done = await gw.chat.create("shout", "hello there")
    assert (done.text, done.usage.get("total_tokens")) == ("HELLO THERE", None)
    async with gw.chat.stream("shout", "hello there") as chunks:
        assert [chunk async for chunk in chunks]
    with pytest.raises(errors.TrunklineError) as raised:
        await gw.chat.create("shout", "long " * 300)
    assert raised.value.code == "context_length_exceeded"
    assert (await gw.providers.check(id="acme-1"))["reachable"] is True


async def test_a_setting_it_refuses_is_named(package: None, gw: Gateway) -> None:
    headers = {"x-acme-limit": "much"}
    assert (await gw.providers.register(id="acme-1", kind="acme", headers=headers))["serving"] is False
    problem = (await gw.providers.check(id="acme-1"))["problem"]
    assert problem == "acme-1: headers: x-acme-limit must be a number of characters, not 'much'"
