"""Random policy documents that can be published where these models are registered."""

from typing import Any

from hypothesis import strategies as st

MODELS = ("m1", "m2", "m/3 ü")
TAGS = ("fast", "cheap")

_words = st.sampled_from(["reasoning", "speed", "eu", "x y", "ü"])
_lists = st.lists(_words, max_size=2)
_models = st.lists(st.sampled_from([*MODELS, *TAGS]), max_size=3)
_shares = st.floats(0, 1) | st.sampled_from([0, 1])
_optimize = st.sampled_from(["cost", "latency", "quality", "balanced", "round_robin", "least_busy"])
_patterns = st.sampled_from(["*", "auto", "a*b", "-", "m1"])


def _some(**fields: Any) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional=fields)


_when = _some(
    capabilities=_lists,
    features=st.lists(st.sampled_from(["tools", "vision"]), max_size=2),
    tags=_lists,
    hints=_lists,
    model=_patterns | st.none(),
    thread=_patterns,
    key=_patterns,
    operation=st.sampled_from(["chat", "embeddings", None]),
    stream=st.booleans() | st.none(),
    min_input_tokens=st.integers(0, 100),
    max_input_tokens=st.integers(100, 10**9),
)
_require = _some(
    local_only=st.booleans(),
    max_cost_usd=st.sampled_from(["0", "0.05", "1e-3"]) | st.none(),
    tags=_lists,
    data=_lists,
    avoid=_models,
    capabilities=_lists | st.dictionaries(_words, _shares, max_size=2),
)
_common = {"optimize": _optimize | st.none(), "fallbacks": _models, "require": _require, "min_match": _shares}
_filter = st.sampled_from(["stop", "fallback"])


@st.composite
def documents(draw: st.DrawFn) -> dict[str, Any]:
    """A policy document with any of its fields, right in every place."""
    names = draw(st.lists(st.sampled_from(["a", "b", "c d", "ü"]), unique=True, max_size=4))
    rules = []
    for name in names:
        rule = draw(_some(when=_when, on_content_filter=_filter, **_common))
        which = draw(st.sampled_from(["use", "weights", None]))
        if which == "use":
            rule["use"] = draw(_models)
        elif which == "weights":
            rule["weights"] = draw(st.dictionaries(st.sampled_from(MODELS), st.floats(0.001, 100), max_size=3))
        rules.append({"name": name, **rule})
    defaults = _some(**_common, on_content_filter=_filter, percentile=st.sampled_from([50, 95]))
    rest = _some(defaults=defaults, analyzer=st.sampled_from(["builtin", None]), hints=st.dictionaries(_words, _lists))
    return {"rules": rules, **draw(rest)}
