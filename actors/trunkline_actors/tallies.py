"""What calls took, cost and came to, counted so that counts can be merged: over slots of time and processes. Pure."""

from collections import deque
from typing import Annotated, NamedTuple

from msgspec import Meta, Struct
from trunkline_events.failure import FailureClass
from trunkline_events.measured import Measured
from trunkline_events.thread import Ending, Metered

from trunkline_actors import sketch
from trunkline_actors.sketch import Sketch

SLOT_SECONDS = 10.0
SLOTS = 30
"""A window lasts five minutes."""

_UPSTREAMS_FAULT = frozenset(
    {
        FailureClass.RATE_LIMITED,
        FailureClass.OVERLOADED,
        FailureClass.UNAVAILABLE,
        FailureClass.CONNECTION,
        FailureClass.TIMEOUT,
        FailureClass.INTERNAL,
        FailureClass.AUTH,
        FailureClass.MODEL_NOT_FOUND,
    }
)
"""What any request might have met; all else is the doing of one request, its caller or its budget."""

Count = Annotated[int, Meta(ge=0)]


class Line(NamedTuple):
    """What is counted apart: one version of a model at one provider instance."""

    provider: str
    model: str
    version: str


class Tally(Struct, kw_only=True, omit_defaults=True):
    """Some calls that have ended. All are whole numbers, so that what was added can be taken out exactly.

    `good` and `bad` are those whose outcome says something about the upstream. `settled` cost `cost_nanos` together,
    with `input_tokens` and `output_tokens`. `timed_tokens` of the latter took `timed_us` microseconds to generate.
    `latency` and `ttft` are of good calls, in milliseconds; a plain answer has no first chunk.
    """

    calls: Count = 0
    good: Count = 0
    bad: Count = 0
    settled: Count = 0
    cost_nanos: Count = 0
    input_tokens: Count = 0
    output_tokens: Count = 0
    timed_tokens: Count = 0
    timed_us: Count = 0
    latency: dict[int, Count] = {}
    ttft: dict[int, Count] = {}

    def ended(self, failure: FailureClass | None, ending: Ending | None) -> None:
        """A call ended: well where `failure` is None, and recorded as `ending`, where we recorded it."""
        self.calls += 1
        if failure is None:
            self.good += 1
        elif failure in _UPSTREAMS_FAULT:
            self.bad += 1
        if isinstance(ending, Metered):
            self.settled += 1
            self.cost_nanos += ending.cost_nanos
            usage = ending.usage
            self.input_tokens += usage.input_tokens
            self.output_tokens += usage.output_tokens
            if failure is None:
                self._timed(ending, usage.output_tokens)

    def _timed(self, ending: Metered, tokens: int) -> None:
        took, first = ending.latency_ms, ending.ttft_ms
        sketch.add(self.latency, took)
        # A plain answer is recorded with its end for its first chunk.
        if first is not None and first < took:
            sketch.add(self.ttft, first)
            took -= first
        if tokens and not ending.estimated:
            self.timed_tokens += tokens
            self.timed_us += int(took * 1000)

    def merge(self, other: "Tally") -> None:
        """Count what another one counted."""
        self._shift(other, 1)
        sketch.merge(self.latency, other.latency)
        sketch.merge(self.ttft, other.ttft)

    def unmerge(self, other: "Tally") -> None:
        """Forget what was merged before."""
        self._shift(other, -1)
        sketch.unmerge(self.latency, other.latency)
        sketch.unmerge(self.ttft, other.ttft)

    def _shift(self, other: "Tally", sign: int) -> None:
        self.calls += sign * other.calls
        self.good += sign * other.good
        self.bad += sign * other.bad
        self.settled += sign * other.settled
        self.cost_nanos += sign * other.cost_nanos
        self.input_tokens += sign * other.input_tokens
        self.output_tokens += sign * other.output_tokens
        self.timed_tokens += sign * other.timed_tokens
        self.timed_us += sign * other.timed_us

    @property
    def success(self) -> float:
        """The share of good calls among those that say something about the upstream; 1 where none does."""
        telling = self.good + self.bad
        return round(self.good / telling, 4) if telling else 1.0

    @property
    def tokens_per_s(self) -> float | None:
        """Output over the time it took."""
        return round(self.timed_tokens / self.timed_us * 1e6, 2) if self.timed_us else None

    def measured(self, in_flight: int = 0) -> Measured:
        """What routing decides by."""
        p50, p95 = percentiles(self.latency)
        ttft_p50, ttft_p95 = percentiles(self.ttft)
        return Measured(
            calls=self.calls,
            success=self.success,
            p50_ms=p50,
            p95_ms=p95,
            ttft_p50_ms=ttft_p50,
            ttft_p95_ms=ttft_p95,
            tokens_per_s=self.tokens_per_s,
            cost_nanos=round(self.cost_nanos / self.settled, 1) if self.settled else None,
            in_flight=in_flight,
        )


def percentiles(counted: Sketch) -> tuple[float | None, float | None]:
    """The 50th and the 95th, to the microsecond."""
    p50, p95 = (None if one is None else round(one, 3) for one in sketch.quantiles(counted, 0.5, 0.95))
    return p50, p95


class Window:
    """The calls of the last five minutes, in slots of ten seconds. `total` counts all of them. Times are monotonic."""

    def __init__(self) -> None:
        self.total = Tally()
        self._slots: deque[tuple[int, Tally]] = deque()

    def add(self, tally: Tally, now: float) -> None:
        """These calls ended now."""
        slot = int(now // SLOT_SECONDS)
        if not self._slots or self._slots[-1][0] != slot:
            self._slots.append((slot, Tally()))
        self._slots[-1][1].merge(tally)
        self.total.merge(tally)

    def slide(self, now: float) -> bool:
        """Let go of what is too old; whether anything was."""
        oldest = int(now // SLOT_SECONDS) - SLOTS
        slid = False
        while self._slots and self._slots[0][0] <= oldest:
            self.total.unmerge(self._slots.popleft()[1])
            slid = True
        return slid
