"""`trunkline models`, `providers` and `threads`, as a user has them."""

from pathlib import Path

from cli_kit import Trunkline, on_terminal
from trunkline.client import Gateway

pytest_plugins = ["gateway", "console"]


async def test_a_model_lives_from_register_to_remove(trunkline: Trunkline) -> None:
    arguments = "--provider scripted --upstream echo --price-input 1 --price-output 2 --price-cached-input 0.5"
    more = "--context-window 1000 --max-output 100 --capability speed=0.5 --capability wit --feature tools --tag a"
    done = await trunkline(
        "models", "register", "m", *arguments.split(), *more.split(), "--reason", "why not", "--json"
    )
    assert done.code == 0
    assert done.json["model"] == {
        "id": "m",
        "provider": "scripted",
        "upstream": "echo",
        "version": "1",
        "capabilities": {"speed": 0.5, "wit": 1.0},
        "features": ["tools"],
        "context_window": 1000,
        "max_output": 100,
        "price": {"input": "1", "output": "2", "cached_input": "0.5"},
        "tags": ["a"],
        "status": "enabled",
        "canary": None,
    }
    assert (await trunkline("models", "register", "m", "--provider", "scripted")).code == 1
    assert (await trunkline("models", "update", "m", "--tag", "b")).out.startswith("m updated (event ")
    assert (await trunkline("models", "disable", "m")).out.startswith("m disabled (event ")
    assert (await trunkline("models", "disable", "m")).out == "m was disabled already\n"
    assert (await trunkline("models", "enable", "m")).code == 0
    assert (await trunkline("models", "retire", "m")).code == 0
    shown = await trunkline("models", "get", "m")
    assert "status          retired\n" in shown.out
    assert "tags            b\n" in shown.out
    assert "price           input=1,output=2,cached_input=0.5\n" in shown.out
    assert "capabilities    speed=0.5,wit=1.0\n" in shown.out
    assert (await trunkline("models", "remove", "m")).code == 0
    gone = await trunkline("models", "get", "m", "--json")
    assert (gone.code, gone.json["error"]["code"]) == (3, "model_not_found")


async def test_models_are_listed_by_page_and_filter(trunkline: Trunkline) -> None:
    page = await trunkline("models", "list", "--limit", "2")
    assert [line.split("\t")[0] for line in page.out.splitlines()] == ["echo", "fails"]
    assert "--after fails" in page.err
    rest = await trunkline("models", "list", "--after", "fails", "--status", "enabled", "--json")
    assert [model["id"] for model in rest.json["models"]] == ["slow", "tokens"]
    assert (await trunkline("models", "list", "--limit", "0")).code == 2


async def test_models_are_a_table_on_a_terminal(gw: Gateway, bus_url: str, tmp_path: Path) -> None:
    shown = await on_terminal("models", "list", cwd=tmp_path, TRUNKLINE_NATS=bus_url, NO_COLOR="1")
    head, first_row, *_ = shown.splitlines()
    assert head.split() == ["id", "provider", "upstream", "status", "capabilities", "price", "tags"]
    assert first_row.split() == ["echo", "scripted", "echo", "enabled", "-", "1.00/4.00", "-"]


async def test_a_provider_lives_from_register_to_remove(trunkline: Trunkline) -> None:
    arguments = "--kind openai-compatible --base-url http://127.0.0.1:1/v1 --secret env:NO_KEY --local --transport sdk"
    more = "--max-concurrency 2 --timeout 5 --header X-Team=red"
    more += " --first-token-timeout 3 --stall-timeout 1.5 --queue-timeout 4"
    more += " --breaker-failures 2 --breaker-open 10 --data eu --data no-logs"
    done = await trunkline("providers", "register", "p", *arguments.split(), *more.split(), "--json")
    assert done.json["provider"] == {
        "id": "p",
        "kind": "openai-compatible",
        "base_url": "http://127.0.0.1:1/v1",
        "secret": "env:NO_KEY",
        "local": True,
        "max_concurrency": 2,
        "timeout_s": 5.0,
        "headers": {"X-Team": "red"},
        "first_token_timeout_s": 3.0,
        "stall_timeout_s": 1.5,
        "breaker_failures": 2,
        "breaker_open_s": 10.0,
        "data": ["eu", "no-logs"],
        "queue_timeout_s": 4.0,
        "transport": "sdk",
    }
    assert (await trunkline("providers", "update", "p", "--no-local", "--json")).json["provider"]["local"] is False
    changed = await trunkline("providers", "update", "p", "--stall-timeout", "2", "--breaker-failures", "3", "--json")
    assert (changed.json["provider"]["stall_timeout_s"], changed.json["provider"]["breaker_failures"]) == (2.0, 3)
    assert (await trunkline("providers", "update", "p", "--stall-timeout", "0")).code == 2
    assert (await trunkline("providers", "check", "p")).code == 6
    assert (await trunkline("providers", "check", "scripted", "--json")).json["reachable"] is True
    listed = await trunkline("providers", "list")
    assert [line.split("\t")[0] for line in listed.out.splitlines()] == ["p", "scripted"]
    shown = await trunkline("providers", "get", "p")
    assert "kind                   openai-compatible\n" in shown.out
    assert "headers                X-Team=red\n" in shown.out
    assert (await trunkline("providers", "remove", "p")).code == 0
    assert (await trunkline("providers", "check", "p")).code == 3
    assert (await trunkline("providers", "remove", "scripted")).code == 1


async def test_a_threads_budget_is_set_and_its_books_shown(trunkline: Trunkline) -> None:
    done = await trunkline("threads", "configure", "t1", "--limit", "0.5", "--window", "day", "--reason", "pilot")
    assert done.out.startswith("t1 configured: $0.5 a day (event ")
    assert (await trunkline("chat", "hello", "--model", "echo", "--thread", "t1")).code == 0
    books = (await trunkline("threads", "get", "t1", "--json")).json
    assert (books["limit_usd"], books["window"], books["settled_usd"]) == ("0.5", "day", "0.000005")
    shown = (await trunkline("threads", "get", "t1")).out
    assert "settled_usd   0.000005\n" in shown
    counts = books["tokens"]
    assert counts["output_tokens"] == 1
    assert f"tokens        {counts['input_tokens']} in, 1 out\n" in shown
    assert (await trunkline("threads", "list")).out == "t1\t0.5\tday\t0.000005\t0\t-\n"
    lifted = await trunkline("threads", "configure", "t1", "--limit", "none")
    assert lifted.out.startswith("t1 configured: no limit (event ")
    assert (await trunkline("threads", "configure", "t1")).code == 2
    assert (await trunkline("threads", "get", "t2")).code == 3
    assert (await trunkline("threads", "configure", "t1", "--limit", "much")).code == 2
