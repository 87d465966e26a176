"""What models are good at: scores from 0 to 1 under names that everybody knows, or names of one's own. Pure."""

import math
from collections.abc import Iterable, Mapping

from trunkline_events.measured import Measured
from trunkline_events.registry import Model

STANDARD = ("reasoning", "creativity", "precision", "speed", "context")
"""The names that mean the same everywhere; any other name means what whoever registers models takes it for."""

MEASURED_CALLS = 5
"""Calls after which a measured speed is believed more than the declared one."""
HALF_SPEED = 50.0
"""Output tokens a second that score 0.5: about what people read in a hurry."""
LARGEST_WINDOW = 2**20
"""Tokens of context that score 1; a thousandth of it scores 0, and each doubling adds a tenth."""

Wanted = Mapping[str, float]
"""Capabilities that are asked for, each with the least score; 0: any score above none will do."""


def wanted_of(named: Iterable[str] | Wanted) -> dict[str, float]:
    """Capabilities as a list of names, or as names with the least score, in the one form."""
    return dict(named) if isinstance(named, Mapping) else dict.fromkeys(named, 0.0)


def score(model: Model, name: str, measured: Measured | None = None) -> float:
    """How good a model is at something, 0 to 1; 0 where nobody says so.

    `speed` is the measured one where enough calls were measured: tokens a second t score t / (t + 50). `context` is
    worked out from the window where it is not declared.
    """
    if name == "speed" and measured is not None and measured.tokens_per_s and measured.calls >= MEASURED_CALLS:
        return measured.tokens_per_s / (measured.tokens_per_s + HALF_SPEED)
    declared = model.capabilities.get(name)
    if declared is None and name == "context" and model.context_window:
        return min(1.0, max(0.0, 1 + math.log2(model.context_window / LARGEST_WINDOW) / 10))
    return declared or 0.0


def lacks(model: Model, wanted: Wanted, measured: Measured | None = None) -> str | None:
    """The first of the capabilities that a model has too little of; None where it has all of them."""
    for name, least in wanted.items():
        has = score(model, name, measured)
        if has <= 0 or has < least:
            return name
    return None


def match(model: Model, wanted: Iterable[str], measured: Measured | None = None) -> float:
    """How well a model fits what is wanted, 0 to 1: the mean of its scores, 1 where nothing is wanted."""
    scores = [score(model, name, measured) for name in wanted]
    return math.fsum(scores) / len(scores) if scores else 1.0


def quality(model: Model, wanted: Iterable[str], measured: Measured | None = None) -> float:
    """How good a model is for what is wanted; where nothing is, at what it is for: all but speed and context."""
    names = list(wanted) or [name for name in model.capabilities if name not in ("speed", "context")]
    return match(model, names, measured) if names else 0.0
