"""What a process has counted and how it stands, as it says to whoever asks all processes for it."""

import msgspec
from msgspec import Struct

from trunkline_actors.totals import Calls, Path, Refusals, Served


class InFlight(Struct, frozen=True, kw_only=True):
    """Upstream calls that run."""

    provider: str
    model: str
    version: str
    calls: int


class Figures(Struct, frozen=True, kw_only=True):
    """The figures of one process. Times are Unix times; `spans` counts what became of traces here."""

    process: str
    version: str
    roles: list[str]
    began: float
    at: float
    calls: list[Calls]
    served: list[Served]
    paths: list[Path]
    refusals: list[Refusals]
    in_flight: list[InFlight]
    lookups: dict[str, int]
    running: int
    open: int
    backlog: int
    position: int
    degraded: dict[str, float]
    cpu_s: float
    memory: int
    descriptors: int
    replies_dropped: int
    spans: dict[str, int]


encode = msgspec.json.Encoder().encode
_decoder = msgspec.json.Decoder(Figures)


def read(data: bytes) -> Figures | None:
    """What a process said; None where it is unreadable, as of a process of another version."""
    try:
        return _decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
