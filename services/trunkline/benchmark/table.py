"""The rows that benchmarks print."""

import msgspec
from msgspec import Struct


class Row(Struct, frozen=True, kw_only=True):
    """One line of the table. Times are microseconds of CPU an operation; `ratio` is against the bare request/reply."""

    name: str
    rate: float
    cpu_us: float | None = None
    ratio: float | None = None
    p50_ms: float | None = None
    p99_ms: float | None = None
    note: str = ""


class Bench:
    """The rows of one run, each printed when it is known."""

    def __init__(self, *, as_json: bool, scale: float) -> None:
        self._as_json = as_json
        self.scale = scale
        self._headed = False

    def tell(self, row: Struct, line: str) -> None:
        """Print a row of another shape: as JSON, or this line of text."""
        print(msgspec.json.encode(row).decode() if self._as_json else line, flush=True)  # noqa: T201

    def say(self, line: str) -> None:
        """Print what is for people only."""
        if not self._as_json:
            print(line, flush=True)  # noqa: T201

    def add(self, row: Row) -> None:
        """Print a row, the first below what the columns are."""
        if self._as_json:
            print(msgspec.json.encode(row).decode(), flush=True)  # noqa: T201
            return
        if not self._headed:
            self._headed = True
            print(f"{'':<58}  {'rate':>11}  {'CPU each':>11}  {'ratio':>7}  {'p50':>10}  {'p99':>10}")  # noqa: T201
        cells = (
            f"{row.name:<58}",
            f"{row.rate:>9,.0f}/s",
            f"{row.cpu_us:>8.0f} µs" if row.cpu_us is not None else " " * 11,
            f"{row.ratio:>6.1f}×" if row.ratio is not None else " " * 7,
            f"{row.p50_ms:>7.2f} ms" if row.p50_ms is not None else " " * 10,
            f"{row.p99_ms:>7.2f} ms" if row.p99_ms is not None else " " * 10,
            row.note,
        )
        print("  ".join(cells).rstrip(), flush=True)  # noqa: T201
