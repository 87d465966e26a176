"""What the page about policies shows can be published, and it names every field there is."""

import re
from pathlib import Path
from typing import Any

import msgspec
import yaml
from trunkline.client import Gateway
from trunkline_events.policy import Defaults, Policy, Require, Rule, When

pytest_plugins = ["gateway"]

PAGE = (Path(__file__).parents[2] / "docs" / "policies.md").read_text(encoding="utf-8")


def example() -> Any:
    (block,) = re.findall(r"^```yaml\n(.+?)^```", PAGE, re.MULTILINE | re.DOTALL)
    return yaml.safe_load(block)


async def test_the_example_can_be_published_and_nothing_in_it_is_doubtful(gw: Gateway) -> None:
    await gw.providers.update(id="scripted", data=["eu", "no-training"])
    models = {"gpt-4.1": ["long"], "gpt-4.1-mini": [], "claude-sonnet": ["long"], "in-house": [], "gpt-3": ["legacy"]}
    for name, tags in models.items():
        await gw.models.register(id=name, provider="scripted", upstream="echo", tags=tags)
    done = await gw.policy.publish(policy=example())
    assert (done["version"], done["warnings"]) == (1, [])
    assert (await gw.policy.get())["policy"]["rules"][3]["weights"] == {"gpt-4.1": 9, "gpt-4.1-mini": 1}
    answered = await gw.chat.create("auto", "hello", thread="support-1", request_id="r")
    assert answered.text == "hello"


def test_every_field_is_explained() -> None:
    explained = set(re.findall(r"`([a-z_]+)`", PAGE.partition("## The fields")[2]))
    for kind in (Policy, Rule, When, Require, Defaults):
        assert {field.encode_name for field in msgspec.structs.fields(kind)} <= explained
