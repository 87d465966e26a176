"""The facts of the gateway itself: when one of its processes had to do with less than it needs, and for how long."""

from msgspec import Struct


class GatewayEvent(Struct, frozen=True, kw_only=True, tag_field="type"):
    """What every event of the gateway carries.

    `mode` names what is missing or forced: `log-unreachable`, `registry-cached`, `no-statistics` or
    `routing-override`; `process` says where; `since` is when it began, Unix time.
    """

    mode: str
    process: str
    since: float


class GatewayDegraded(GatewayEvent, frozen=True, kw_only=True, tag="gateway.degraded.v1"):
    """A process serves in a degraded mode. Where the log was away, this is appended when it is back."""

    detail: str = ""


class GatewayRecovered(GatewayEvent, frozen=True, kw_only=True, tag="gateway.recovered.v1"):
    """That mode is over. `until` is when it ended."""

    until: float


GatewayFact = GatewayDegraded | GatewayRecovered
