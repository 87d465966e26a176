"""The catalogue on the bus: `models.register` with `from_catalogue`, and `models.catalogue`."""

from datetime import date
from pathlib import Path

import pytest
import trunkline
from trunkline import errors
from trunkline.client import Gateway
from trunkline.embedded import EmbeddedServer
from trunkline.host import Host
from trunkline.known import known_models
from trunkline.settings import BadSettings, Settings
from trunkline_actors.known_models import shipped

pytest_plugins = ["gateway"]


async def test_one_event_holds_the_whole_model_as_if_it_had_been_described(gw: Gateway) -> None:
    await gw.providers.register(id="oa", kind="openai", secret="env:NO_KEY")
    known = await gw.models.register(from_catalogue="gpt-4.1", reason="pilot")
    assert known["model"]["context_window"] == 1_047_576
    assert (known["id"], known["model"]["provider"]) == ("gpt-4.1", "oa")
    assert [told.partition("gpt-4.1")[2] for told in known["warnings"]] == [" on 2027-01-14"]
    described = {name: known["model"][name] for name in known["model"] if name not in {"id", "canary"}}
    by_hand = await gw.models.register(id="by-hand", **described, reason="pilot")
    assert by_hand["model"] == {**known["model"], "id": "by-hand"}
    assert "warnings" not in by_hand
    log = await gw.log()
    first, second = await log.get(known["seq"]), await log.get(by_hand["seq"])
    assert first is not None
    assert second is not None
    assert type(first.body) is type(second.body)
    assert [event.sequence async for event in log.read(after=known["seq"] - 1)] == [known["seq"], by_hand["seq"]]


async def test_what_is_given_besides_wins(gw: Gateway) -> None:
    await gw.providers.register(id="one", kind="ollama", local=True)
    await gw.providers.register(id="two", kind="ollama", local=True)
    reply = await gw.models.register(from_catalogue="llama3.3", provider="two", id="l", context_window=8192, tags=["x"])
    model = reply["model"]
    assert (model["id"], model["provider"], model["upstream"]) == ("l", "two", "llama3.3:70b")
    assert (model["context_window"], model["tags"], reply["warnings"]) == (8192, ["x"], [])


@pytest.mark.parametrize(
    ("arguments", "kind", "said"),
    [
        ({"from_catalogue": "gpt-41"}, errors.NotFound, "near are gpt-4.1"),
        ({"from_catalogue": "gpt-4.1"}, errors.InvalidRequest, "no provider of kind 'openai'"),
        ({"from_catalogue": "gpt-4.1", "provider": "scripted"}, errors.InvalidRequest, "is of kind 'scripted'"),
        ({"from_catalogue": 3}, errors.InvalidRequest, "Expected `str"),
        ({"from_catalogue": None, "id": "m"}, errors.InvalidRequest, "provider"),
    ],
)
async def test_what_can_not_be_registered_is_refused_and_appends_nothing(
    gw: Gateway, arguments: dict[str, object], kind: type[errors.TrunklineError], said: str
) -> None:
    log = await gw.log()
    end = await log.end()
    with pytest.raises(kind, match=said):
        await gw.models.register(**arguments)
    assert await log.end() == end


async def test_the_catalogue_is_looked_through_with_list_prices(gw: Gateway) -> None:
    reply = await gw.models.catalogue()
    assert len(reply["models"]) == len(shipped().entries)
    assert date.fromisoformat(reply["dated"]) == shipped().dated
    assert reply["seq"] > 0
    known = {one["name"]: one for one in reply["models"]}
    assert known["gpt-4.1"]["price"] == {"input": "2", "cached_input": "0.5", "output": "8"}
    assert (known["gpt-4.1"]["retires"], known["llama3.3:70b"]["price"]) == ("2027-01-14", None)
    page = await gw.models.catalogue(kind="anthropic", capabilities={"reasoning": 0.8}, features=["vision"], limit=1)
    assert page["after"] == page["models"][0]["name"]
    with pytest.raises(errors.InvalidRequest, match="not a feature"):
        await gw.models.catalogue(features=["telepathy"])


async def test_entries_of_ones_own_are_registered_before_the_shipped_ones(
    server: EmbeddedServer, tmp_path: Path
) -> None:
    own = tmp_path / "ours.toml"
    own.write_text(
        '[[models]]\nname = "house"\naliases = ["gpt-4.1"]\nkind = "scripted"\nfamily = "f"\nupstream = "echo"\n'
    )
    host = await Host.start(server.url, ["registry", "provider"], known=known_models(Settings(catalogue=str(own))))
    async with trunkline.connect(server.url) as gateway:
        await gateway.providers.register(id="s", kind="scripted")
        reply = await gateway.models.register(from_catalogue="gpt-4.1")
        assert (reply["model"]["id"], reply["model"]["upstream"]) == ("house", "echo")
        models = (await gateway.models.catalogue(kind="scripted"))["models"]
        assert [(one["name"], one["own"]) for one in models] == [("house", True)]
    await host.stop()


@pytest.mark.parametrize(("text", "said"), [(None, "No such file"), ("models = 3", "write `"), (b"\xff", "utf-8")])
def test_a_catalogue_that_can_not_be_used_is_a_bad_setting(tmp_path: Path, text: str | bytes | None, said: str) -> None:
    own = tmp_path / "ours.toml"
    if text is not None:
        own.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(BadSettings, match=said):
        known_models(Settings(catalogue=str(own)))
