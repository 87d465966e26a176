"""The facts of plugins: kinds of providers, as processes of the gateway found them to work or not to work."""

from typing import Literal

from msgspec import Struct

Stage = Literal["import", "build", "initialize", "call"]


class PluginEvent(Struct, frozen=True, kw_only=True, tag_field="type"):
    """What every event of a plugin carries: the kind of provider it is, the package that brings it, and the process."""

    plugin: str
    distribution: str
    version: str
    process: str


class PluginLoaded(PluginEvent, frozen=True, kw_only=True, tag="plugin.loaded.v1"):
    """A package's kind of provider is in use in this version for the first time, or works again after it failed.

    What comes with Trunkline is told of only after it failed.
    """


class PluginFailed(PluginEvent, frozen=True, kw_only=True, tag="plugin.failed.v1"):
    """A provider can't be served: its plugin failed, at this stage of its life, with an error of class `error`.

    `detail` says what to do, where we know; it never quotes a foreign error, which may hold a secret. Told once, and
    again when it fails otherwise: not each time it is tried.
    """

    provider: str
    stage: Stage
    error: str
    detail: str = ""


PluginFact = PluginLoaded | PluginFailed
