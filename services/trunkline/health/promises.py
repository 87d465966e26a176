"""What each durability promises, in the one wording that banner, help, doctor and documents share. Imports nothing."""

DEFAULT = "always"

PROMISES = {
    "always": "what is acknowledged is on disk",
    "process": "what is acknowledged survives a killed process, NOT a power cut, which may cost up to two minutes",
}
"""By the name that `--durability` takes."""


def promise(durability: str) -> str:
    """The name and what it promises: `always: what is acknowledged is on disk`."""
    return f"{durability}: {PROMISES[durability]}"
