"""Versions, dependents, discovery and settings of threads, as a user of the command line has them."""

from cli_kit import Trunkline

pytest_plugins = ["gateway", "console"]


async def test_a_version_is_tried_out_and_promoted(trunkline: Trunkline) -> None:
    done = await trunkline(
        *("models", "deploy", "echo", "--version", "2", "--weight", "0.25", "--upstream", "tokens:3"),
        *("--price-input", "3", "--price-output", "5", "--reason", "try"),
    )
    assert done.out.startswith("echo deployed: version 1, 2 for 0.25 of the requests (event ")
    assert "canary          version=2,provider=scripted" in (await trunkline("models", "get", "echo")).out
    promoted = await trunkline("models", "promote", "echo", "--json")
    model = promoted.json["model"]
    assert (model["version"], model["upstream"], model["price"]["input"]) == ("2", "tokens:3", "3")
    assert (await trunkline("models", "promote", "echo")).code == 1
    again = await trunkline("models", "deploy", "echo", "--version", "2")
    assert again.out == "echo was deployed already\n"
    assert (await trunkline("models", "deploy", "echo", "--version", "3", "--weight", "2")).code == 2
    assert (await trunkline("models", "deploy", "echo")).code == 2


async def test_a_model_in_use_is_retired_by_force_and_drained(trunkline: Trunkline) -> None:
    assert (await trunkline("threads", "configure", "t1", "--model", "echo")).code == 0
    refused = await trunkline("models", "retire", "echo", "--json")
    assert refused.code == 1
    assert "in use by thread 't1'" in refused.err
    assert "`trunkline models retire --force`" in refused.err
    done = await trunkline("models", "retire", "echo", "--force", "--drain", "20")
    assert done.out.startswith("echo retired (event ")
    assert done.err == "nothing runs there any more\n"
    hasty = await trunkline("models", "retire", "slow", "--drain", "0")
    assert (hasty.code, "before it was certain" in hasty.err) == (6, True)


async def test_models_are_found_by_what_they_can_do(trunkline: Trunkline) -> None:
    flags = ["--capability", "reasoning=0.9", "--capability", "wit=0.5", "--feature", "tools"]
    assert (await trunkline("models", "update", "echo", *flags)).code == 0
    assert (
        await trunkline("models", "update", "slow", "--capability", "reasoning=0.8", "--feature", "tools")
    ).code == 0
    found = await trunkline("models", "discover", "--capability", "reasoning=0.7", "--feature", "tools")
    rows = [line.split("\t") for line in found.out.splitlines()]
    assert [(row[0], row[1], row[4]) for row in rows] == [("echo", "0.90", "closed"), ("slow", "0.80", "closed")]
    assert rows[0][2] == "reasoning=0.9,wit=0.5"
    one = await trunkline("models", "discover", "--capability", "reasoning", "--limit", "1", "--json")
    assert ([each["model"]["id"] for each in one.json["models"]], one.json["count"]) == (["echo"], 2)
    assert (await trunkline("models", "discover", "--capability", "wit=0.6")).out == ""
    assert (await trunkline("models", "discover", "--feature", "smell")).code == 2


async def test_a_thread_is_configured_piece_by_piece(trunkline: Trunkline) -> None:
    assert (await trunkline("threads", "configure", "t1", "--limit", "0.5")).code == 0
    done = await trunkline(
        *("threads", "configure", "t1", "--model", "tokens", "--parameter", "max_tokens=3"),
        *("--parameter", "stop=END", "--preference", 'prefer=["echo"]', "--preference", "optimize=latency"),
    )
    said = 'model tokens; max_tokens=3, stop="END"; prefers prefer=["echo"], optimize="latency"'
    assert done.out.startswith(f"t1 configured: $0.5; {said} (event ")
    answer = await trunkline("chat", "hello", "--thread", "t1", "--model", "auto", "--json")
    assert answer.code == 0, answer
    shown = await trunkline("threads", "get", "t1", "--json")
    assert (shown.json["parameters"], shown.json["tokens"]["output_tokens"]) == ({"max_tokens": 3, "stop": "END"}, 3)
    assert 'preferences   prefer=["echo"], optimize="latency"\n' in (await trunkline("threads", "get", "t1")).out
    bare = await trunkline("threads", "configure", "t1", "--model", "", "--no-parameters", "--no-preferences")
    assert bare.out.startswith("t1 configured: $0.5 (event ")


async def test_a_change_of_a_thread_that_makes_no_sense_is_a_usage_error(trunkline: Trunkline) -> None:
    for flags, words in (
        ([], "say what to change"),
        (["--parameter", "temperature"], "NAME=JSON"),
        (["--parameter", "seed=1", "--no-parameters"], "give one of them"),
        (["--parameter", "temperature=0,2"], "temperature"),
        (["--preference", "optimize=beauty"], "optimize"),
    ):
        done = await trunkline("threads", "configure", "t1", *flags)
        assert (done.code, words in done.err) == (2, True), done
    assert (await trunkline("threads", "configure", "t1", "--model", "gone")).code == 3
