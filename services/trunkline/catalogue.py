"""The event catalogue, `events/README.md`, made from the code: every event's name, meaning and fields."""

import inspect
from typing import Any

import msgspec
from trunkline_events import budget, circuit, gateway, key, plugin, policy, registry, secret, thread, workflow
from trunkline_events.codec import CODEC

_HEAD = """# The events

Every fact Trunkline keeps, made from the code by `python -m trunkline.catalogue`. Events lie in the JetStream stream
`TRUNKLINE` on `trunkline.log.<category>.<id>`; once stored, each is sent on as `trunkline.events.<category>.<id>`.
The name is in the body's `type` and in the header `Trunkline-Type`; `Nats-Msg-Id` is the event's id, `Trunkline-Time`
when it was decided, `Trunkline-Actor` by whom, `Trunkline-Cause` what led to it. Money is in nano-dollars.
Shapes never change: a new version is a new name, and readers bring old bytes up to date.
"""

_CATEGORIES = {
    "model": ("a model id", registry),
    "provider": ("a provider instance", registry),
    "policy": ("`routing`, the one there is", policy),
    "thread": ("a thread id, or `-` where there is none", thread),
    "budget": ("a scope: `gateway`, `team:<id>` or `key:<id>`", budget),
    "circuit": ("a provider instance", circuit),
    "gateway": ("a process of the gateway", gateway),
    "key": ("the id of an API key", key),
    "plugin": ("a kind of provider", plugin),
    "workflow": ("a run", workflow),
    "secret": ("a secret's name, or `vault:<id>` for all of a vault", secret),
}


def render() -> str:
    """The catalogue as Markdown."""
    parts = [_HEAD]
    for category, (identifier, module) in _CATEGORIES.items():
        parts.append(f"\n## {category}\n\nOne aggregate for {identifier}.\n")
        for name, kind in CODEC.types.items():
            if name.startswith(f"{category}.") and kind.__module__ == module.__name__:
                parts.append(_event(name, kind))
    return "".join(parts)


def _event(name: str, kind: type[Any]) -> str:
    fields = ", ".join(
        f"`{field.encode_name}`" + ("" if field.required else "?") for field in msgspec.structs.fields(kind)
    )
    return f"\n### `{name}`\n\n{inspect.cleandoc(kind.__doc__ or '')}\n\nFields: {fields}\n"


if __name__ == "__main__":
    print(render(), end="")  # noqa: T201 - what it is run for
