"""Prices as people write them, and what is said of those that can't be used."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from trunkline import settings
from trunkline.prices import BadPrice, price_of
from trunkline.settings import BadSettings
from trunkline_events.registry import Price

Write = Callable[[str], str]

GPT = Price(input="2.5", output="10")


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No trunkline.yaml of whoever runs the tests counts."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def written(text: str) -> str:
        path = tmp_path / "settings.yaml"
        path.write_text(text)
        return str(path)

    return written


@pytest.mark.parametrize(
    ("text", "price"),
    [
        ("2.5,10", GPT),
        (" 2.5 , 10 ", GPT),
        ("2.5,10,0.5", Price(input="2.5", output="10", cached_input="0.5")),
        ("0,0", Price(input="0", output="0")),
    ],
)
def test_a_price_is_input_output_and_cached_input(text: str, price: Price) -> None:
    assert price_of(text) == price


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("2", "'2' is no price; write INPUT,OUTPUT or INPUT,OUTPUT,CACHED, like 2,8 or"),
        ("1,2,3,4", "is no price"),
        ("", "is no price"),
        ("2,", "output: '' is not an amount in US dollars"),
        ("x,8", "input: 'x' is not an amount in US dollars; write it like"),
        ("2,8,-1", "cached_input: '-1' is not an amount we can keep"),
        ("nan,8", "input: 'nan' is not"),
        ("2,0.00000000001", "output: '0.00000000001' has more than nine decimal places"),
    ],
)
def test_what_is_no_price_is_refused_with_how_to_write_one(text: str, told: str) -> None:
    with pytest.raises(BadPrice) as caught:
        price_of(text)
    assert told in str(caught.value)


def test_by_default_there_are_no_prices_and_no_ceiling_of_ones_own() -> None:
    chosen = settings.load({}, {})
    assert (chosen.prices, chosen.price_ceiling) == ({}, None)


def test_prices_come_from_the_file(write: Write) -> None:
    text = """
prices:
  openai/gpt-4o: {input: "2.5", output: "10"}
  openrouter/deepseek/chat: {input: 0.27, cached_input: 0.07, output: 1}
price_ceiling: {input: "40", output: "160"}
"""
    chosen = settings.load({"config": write(text)}, {})
    assert chosen.prices == {
        "openai/gpt-4o": GPT,
        "openrouter/deepseek/chat": Price(input="0.27", output="1", cached_input="0.07"),
    }
    assert chosen.price_ceiling == Price(input="40", output="160")


@pytest.mark.parametrize("text", ["price_ceiling: 40/160", 'price_ceiling: {input: 40, output: "160"}'])
def test_the_ceiling_may_be_written_in_two_ways(text: str, write: Write) -> None:
    assert settings.load({"config": write(text)}, {}).price_ceiling == Price(input="40", output="160")


def test_the_environments_ceiling_outweighs_the_files(write: Write) -> None:
    environ = {"TRUNKLINE_PRICE_CEILING": "30/120", "TRUNKLINE_CONFIG": write("price_ceiling: 1/1")}
    assert settings.load({}, environ).price_ceiling == Price(input="30", output="120")


@pytest.mark.parametrize(
    ("text", "environ", "told"),
    [
        ("prices: [1]", {}, "prices from {file}: it belongs in trunkline.yaml"),
        ("", {"TRUNKLINE_PRICES": "x"}, "prices from the environment: it belongs in trunkline.yaml, as a price for"),
        ("prices: {gpt-4o: {input: 1, output: 1}}", {}, "'gpt-4o' is no model; write kind/upstream, such as"),
        ("prices: {/gpt-4o: {input: 1, output: 1}}", {}, "'/gpt-4o' is no model"),
        ("prices: {openai/: {input: 1, output: 1}}", {}, "'openai/' is no model"),
        ("prices: {openai/m: 3}", {}, "openai/m: 3 is no price; write {{input:"),
        ("prices: {openai/m: {input: 1}}", {}, "openai/m: {{'input': 1}} is no price"),
        ("prices: {openai/m: {input: 1, output: 1, outptu: 1}}", {}, "is no price; write {{input:"),
        ("prices: {openai/m: {input: true, output: 1}}", {}, "input: 'True' is not an amount"),
        ("prices: {openai/m: {input: [1], output: 1}}", {}, "input: '[1]' is not an amount"),
        ("prices: {openai/m: {input: .nan, output: 1}}", {}, "input: 'nan' is not an amount"),
        ("price_ceiling: 0/120", {}, "price_ceiling from {file}: a ceiling of 0 would let calls of unknown price"),
        ("", {"TRUNKLINE_PRICE_CEILING": "30/0"}, "price_ceiling from the environment: a ceiling of 0"),
        ("", {"TRUNKLINE_PRICE_CEILING": "30"}, "'30' is no ceiling; write input/output, like 30/120"),
        ("", {"TRUNKLINE_PRICE_CEILING": "30/120/1"}, "'30/120/1' is no ceiling"),
        ("price_ceiling: {input: 1, output: 1, cached_input: 1}", {}, "of input and output alone"),
        ("price_ceiling: 30", {}, "30 is no price"),
        ("price_ceiling: {input: -1, output: 1}", {}, "'-1' is not an amount we can keep"),
    ],
)
def test_a_price_that_cant_be_used_is_refused_by_the_name_of_its_setting(
    text: str, environ: dict[str, str], told: str, write: Write
) -> None:
    path = write(text)
    with pytest.raises(BadSettings) as caught:
        settings.load({"config": path}, environ)
    assert told.format(file=path) in str(caught.value)
    assert str(caught.value).startswith("price")


@pytest.mark.parametrize("nothing", ["prices:", "price_ceiling:", "prices: {}"])
def test_an_empty_setting_is_none(nothing: str, write: Write) -> None:
    chosen: Any = settings.load({"config": write(nothing)}, {})
    assert (chosen.prices, chosen.price_ceiling) == ({}, None)


def test_what_the_page_about_prices_says_of_the_file_can_be_used(write: Write) -> None:
    page = (Path(__file__).parents[2] / "docs" / "prices.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"^```yaml\n(.+?)^```", page, re.MULTILINE | re.DOTALL)
    chosen = settings.load({"config": write(block)}, {})
    assert len(chosen.prices) == 2
    assert chosen.price_ceiling == Price(input="40", output="160")
