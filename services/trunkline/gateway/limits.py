"""The limits of an API key as OpenAI's headers tell them: `x-ratelimit-limit-requests` and so on. Pure."""

from collections.abc import Mapping
from typing import Any

from trunkline_actors.keys_rates import Standing, untold


def of_answer(told: str | None) -> dict[str, str]:
    """The headers for what an answer on the bus says of limits."""
    return {} if not told else _headers(untold(told))


def of_refusal(metadata: Mapping[str, Any]) -> dict[str, str]:
    """The headers for a refusal that came from a limit; none for any other."""
    limits = metadata.get("limits")
    if not isinstance(limits, dict):
        return {}
    try:
        return _headers({str(kind): Standing(**one) for kind, one in limits.items()})
    except TypeError:  # of a newer router
        return {}


def _headers(standings: Mapping[str, Standing]) -> dict[str, str]:
    found = {}
    for kind, one in standings.items():
        found[f"x-ratelimit-limit-{kind}"] = str(one.limit)
        found[f"x-ratelimit-remaining-{kind}"] = str(one.remaining)
        found[f"x-ratelimit-reset-{kind}"] = f"{one.reset_s:g}s"
    return found
