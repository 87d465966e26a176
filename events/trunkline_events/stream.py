"""The stream of the log, as it must be. docs/durability.md says what each promise is worth."""

from nats.js import api

from trunkline_events import subjects

DURABILITY, EPHEMERAL = "trunkline.durability", "trunkline.ephemeral"
"""Metadata of the stream: what was promised when it was made. Whoever reads it can compare it with the servers."""


def stream_config(replicas: int = 1, *, durability: str = "always", ephemeral: bool = False) -> api.StreamConfig:
    """The stream as it must be: append-only, unlimited, republishing what it stored.

    `durability` and `ephemeral` are the promise it is made with.
    """
    return api.StreamConfig(
        name=subjects.STREAM,
        subjects=[f"{subjects.LOG}.>"],
        storage=api.StorageType.FILE,
        retention=api.RetentionPolicy.LIMITS,
        discard=api.DiscardPolicy.NEW,
        num_replicas=replicas,
        metadata={DURABILITY: durability} | ({EPHEMERAL: "true"} if ephemeral else {}),
        duplicate_window=120.0,
        deny_delete=True,
        deny_purge=True,
        allow_direct=True,
        allow_atomic=True,
        republish=api.RePublish(src=f"{subjects.LOG}.>", dest=f"{subjects.EVENTS}.>"),
    )
