"""What the doctor sees of plugins: the kinds of providers that don't work, and where."""

from collections.abc import Iterable

from trunkline_actors.dispatch import Pulse

from trunkline.health.check import Check


def plugin_checks(pulses: Iterable[Pulse]) -> list[Check]:
    """One check for each plugin that some process can't serve a provider with; none where all work."""
    broken: dict[tuple[str, str, str, str, str], set[str]] = {}
    for pulse in pulses:
        for use in pulse.plugins:
            plugin = use.plugin
            for provider, trouble in use.unusable.items():
                what = (plugin.name, plugin.distribution, plugin.version, trouble.error, trouble.message)
                broken.setdefault(what, set()).add(provider)
    return [
        Check(
            "plugin",
            "problem",
            f"{_named(name, distribution, version)} can't serve {', '.join(sorted(providers)[:3])}: {error}: {message}",
            f"see `trunkline plugins get {name}`; mend or update the package, or `trunkline providers update` the "
            "provider: it is tried again then, and by itself from time to time",
        )
        for (name, distribution, version, error, message), providers in sorted(broken.items())
    ]


def _named(name: str, distribution: str, version: str) -> str:
    return f"{name} ({distribution} {version})" if distribution else name
