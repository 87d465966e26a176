"""How a model did of late, as its providers measured it."""

from msgspec import Struct


class Measured(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The calls of the last minutes to one model, over all processes that serve it.

    Latencies are in milliseconds, of calls that succeeded, to their end; `ttft` is to the first chunk. None: not
    measured. `success` is the share of calls that succeeded, of those whose outcome says something about the upstream.
    `tokens_per_s` is output over the time it took; `cost_nanos` the mean cost of a call; `in_flight` counts calls that
    run now.
    """

    calls: int = 0
    success: float = 1.0
    p50_ms: float | None = None
    p95_ms: float | None = None
    ttft_p50_ms: float | None = None
    ttft_p95_ms: float | None = None
    tokens_per_s: float | None = None
    cost_nanos: float | None = None
    in_flight: int = 0


NOTHING = Measured()
