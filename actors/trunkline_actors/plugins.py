"""What is told of plugins: what the log hears, and how processes' words of them are put together. Pure."""

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
from msgspec import Struct, structs
from trunkline_events.plugin import PluginFact, PluginFailed, PluginLoaded, Stage
from trunkline_events.registry import Provider

OURS = "trunkline"
"""The distribution that brings the built-in kinds."""


class Plugin(Struct, frozen=True, kw_only=True):
    """A kind of provider that is installed: its name, the object it is, and the package that brings it."""

    name: str
    object: str
    distribution: str = ""
    version: str = ""

    @property
    def built_in(self) -> bool:
        """Whether it comes with Trunkline."""
        return self.distribution == OURS


class Trouble(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Why one provider can't be served in a process, since when, and when that is tried again (Unix times).

    `error` is the class of what was raised; `failures` counts how often in a row it was tried.
    """

    stage: Stage
    error: str
    message: str
    since: float
    failures: int = 1
    retry_at: float | None = None


class Used(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One kind of provider as a process uses it: for how many instances, which of them it can't serve, and why."""

    plugin: Plugin
    providers: int = 0
    crashes: int = 0
    last_error: str = ""
    unusable: Mapping[str, Trouble] = {}


def unknown_kind(kind: str, known: Iterable[str]) -> str:
    """What is said of a kind that nobody knows."""
    names = sorted(known)
    close = difflib.get_close_matches(kind.lower(), names, n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return (
        f"{kind!r} is not a kind of provider; {hint}there are {', '.join(names)}. "
        "Or install the package that brings it, wherever registry and providers run"
    )


class Standing(Struct, frozen=True, kw_only=True):
    """The plugin of one provider, as the process says that answers: a part of what `providers.check` shows."""

    name: str
    distribution: str
    version: str
    state: str
    last_error: str | None = None


class _Answer(Struct):
    plugin: Standing | None = None


class _Refusal(Struct):
    error: "_Metadata | None" = None


class _Metadata(Struct):
    metadata: _Answer | None = None


def standing(plugin: Plugin, trouble: Trouble | None, last_error: str) -> Standing:
    """How a plugin stands where this trouble is with it."""
    return Standing(
        name=plugin.name,
        distribution=plugin.distribution,
        version=plugin.version,
        state="failed" if trouble else "ready",
        last_error=last_error or None,
    )


def read_standing(data: bytes) -> Standing | None:
    """What the answer of a check says of its plugin, good or bad; None where it says nothing."""
    try:
        answer = msgspec.json.decode(data, type=_Answer)
        refusal = msgspec.json.decode(data, type=_Refusal)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if answer.plugin is None and refusal.error is not None and refusal.error.metadata is not None:
        return refusal.error.metadata.plugin
    return answer.plugin


def failed(last: PluginFact | None, event: PluginFailed) -> PluginFailed | None:
    """What is recorded of a failure; None where the log's last word is the same one, from whatever process."""
    if isinstance(last, PluginFailed) and _what(last) == _what(event):
        return None
    return event


def loaded(last: PluginFact | None, event: PluginLoaded) -> PluginLoaded | None:
    """What is recorded of a plugin that works; None where nobody would learn anything new."""
    if last is None:
        return None if event.distribution == OURS else event
    if isinstance(last, PluginLoaded) and (last.distribution, last.version) == (event.distribution, event.version):
        return None
    return event


def _what(event: PluginFailed) -> tuple[str, ...]:
    return (event.distribution, event.version, event.provider, event.stage, event.error, event.detail)


def shown(
    installed: Iterable[Plugin], used: Mapping[str, Iterable[Used]], providers: Iterable[Provider]
) -> list[dict[str, Any]]:
    """Every kind of provider, as commands show it.

    `installed` are those of the process that answers, `used` what every process says of itself. `state` is `failed`
    where any process can't serve a provider of it, `ready` where one serves such, `missing` where one is registered and
    nobody has the plugin, else `unused`.
    """
    known = {plugin.name: plugin for plugin in installed}
    told: dict[str, dict[str, Used]] = {}
    for process, uses in used.items():
        for use in uses:
            told.setdefault(use.plugin.name, {})[process] = use
            if use.plugin.name not in known or not known[use.plugin.name].object:  # a process without it names it too
                known[use.plugin.name] = use.plugin
    registered: dict[str, list[str]] = {}
    for provider in providers:
        registered.setdefault(provider.kind, []).append(provider.id)
        known.setdefault(provider.kind, Plugin(name=provider.kind, object=""))
    return [_shown(plugin, told.get(name, {}), registered.get(name, [])) for name, plugin in sorted(known.items())]


def _shown(plugin: Plugin, told: Mapping[str, Used], providers: list[str]) -> dict[str, Any]:
    troubles = [
        {"provider": provider, "process": process, **structs.asdict(trouble)}
        for process, use in sorted(told.items())
        for provider, trouble in sorted(use.unusable.items())
    ]
    serving = sum(use.providers - len(use.unusable) for use in told.values())
    state = "failed" if troubles else "ready" if serving else "unused"
    if not plugin.object:
        state = "missing"
    versions = sorted({use.plugin.version for use in told.values()} | {plugin.version})
    errors = [one["error"] for one in troubles] or [use.last_error for use in told.values() if use.last_error]
    return {
        "name": plugin.name,
        "distribution": plugin.distribution,
        "version": plugin.version,
        "versions": versions,
        "object": plugin.object,
        "built_in": plugin.built_in,
        "state": state,
        "providers": sorted(providers),
        "processes": len(told),
        "crashes": sum(use.crashes for use in told.values()),
        "last_error": errors[-1] if errors else None,
        "troubles": troubles,
    }
