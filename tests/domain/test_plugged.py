"""What is told of plugins: news to the log, and every process's word put together for whoever asks."""

from given import a_provider
from hypothesis import given
from hypothesis import strategies as st
from trunkline_actors.plugins import Plugin, Standing, Trouble, Used, failed, loaded, read_standing, shown, unknown_kind
from trunkline_events.plugin import PluginFailed, PluginLoaded

ACME = Plugin(name="acme", object="acme:KIND", distribution="trunkline-acme", version="1")
OURS = Plugin(name="openai", object="x:OPENAI", distribution="trunkline", version="9")
TROUBLE = Trouble(stage="import", error="KeyError", message="it failed", since=1.0)


def works(version: str = "1", distribution: str = "trunkline-acme") -> PluginLoaded:
    return PluginLoaded(plugin="acme", distribution=distribution, version=version, process="p")


def fails(error: str = "KeyError", process: str = "p") -> PluginFailed:
    named = {"plugin": "acme", "distribution": "trunkline-acme", "version": "1", "process": process}
    return PluginFailed(**named, provider="acme-1", stage="import", error=error)


def test_a_failure_is_told_once_whatever_process_meets_it() -> None:
    assert failed(None, fails()) == fails()
    assert failed(works(), fails()) == fails()
    assert failed(fails(process="q"), fails()) is None
    assert failed(fails("ValueError"), fails()) == fails()


def test_a_plugin_that_works_is_told_of_where_that_is_news() -> None:
    assert loaded(None, works()) == works()
    assert loaded(None, works(distribution="trunkline")) is None, "what comes with us is no news"
    assert loaded(works(), works()) is None
    assert loaded(works("0"), works()) == works()
    assert loaded(fails(), works()) == works()


def states(installed: list[Plugin], used: dict[str, list[Used]], kinds: list[str]) -> dict[str, str]:
    providers = [a_provider(f"{kind}-1", kind=kind) for kind in kinds]
    return {one["name"]: one["state"] for one in shown(installed, used, providers)}


def test_the_state_of_a_plugin_is_the_worst_that_any_process_tells() -> None:
    fine, broken = Used(plugin=ACME, providers=1), Used(plugin=ACME, providers=1, unusable={"acme-1": TROUBLE})
    assert states([ACME, OURS], {}, []) == {"acme": "unused", "openai": "unused"}
    assert states([ACME], {"p": [fine]}, ["acme"]) == {"acme": "ready"}
    assert states([ACME], {"p": [fine], "q": [broken]}, ["acme"]) == {"acme": "failed"}
    assert states([OURS], {"q": [broken]}, ["acme"]) == {"acme": "failed", "openai": "unused"}


def test_a_kind_that_no_process_has_is_missing() -> None:
    nothing = Plugin(name="acme", object="")
    without = Used(plugin=nothing, providers=1, unusable={"acme-1": TROUBLE})
    assert states([], {}, ["acme"]) == {"acme": "missing"}
    assert states([], {"p": [without]}, ["acme"]) == {"acme": "missing"}
    with_it = Used(plugin=ACME, providers=1, unusable={"acme-1": TROUBLE})
    assert states([], {"p": [without], "q": [with_it]}, ["acme"]) == {"acme": "failed"}


def test_what_a_check_says_of_its_plugin_is_found_in_good_answers_and_in_refusals() -> None:
    told = Standing(name="acme", distribution="d", version="1", state="failed", last_error="KeyError")
    body = b'{"name":"acme","distribution":"d","version":"1","state":"failed","last_error":"KeyError"}'
    assert read_standing(b'{"ok":true,"plugin":' + body + b"}") == told
    assert read_standing(b'{"error":{"metadata":{"plugin":' + body + b"}}}") == told
    assert read_standing(b'{"ok":true}') is None


@given(st.binary())
def test_no_answer_breaks_the_reading(data: bytes) -> None:
    read_standing(data)


def test_a_kind_that_nobody_knows_is_answered_with_what_may_be_meant() -> None:
    assert "did you mean 'ollama'" in unknown_kind("Olama", ["ollama", "openai"])
    assert "did you mean" not in unknown_kind("xyz", ["ollama", "openai"])
