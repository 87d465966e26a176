"""A progress bar on stderr for what reads a known part of the log: how far, how fast, how much longer."""

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

from trunkline.cli.output import styled

REDRAW_EVERY = 0.1
"""Seconds between two drawings."""
BAR = 24
NARROW = 60
"""Columns below which there is no room for the bar itself."""


class Progress:
    """How far a reader is between two sequences. Draws nothing where `stream` is None."""

    def __init__(
        self, start: int, end: int, stream: TextIO | None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._start, self._end = min(start, end), end
        self._stream, self._clock = stream, clock
        self._began = clock()
        self._drawn = self._began
        self._position = self._start
        self._open = False

    @classmethod
    @contextmanager
    def on_terminal(cls, start: int, end: int) -> "Iterator[Progress]":
        """A bar where stderr is a terminal and the data goes elsewhere; however it ends, the next line is free."""
        progress = cls(start, end, sys.stderr if sys.stderr.isatty() and not sys.stdout.isatty() else None)
        try:
            yield progress
        finally:
            progress.close()

    def reached(self, sequence: int) -> None:
        """The reader has handled the event at this sequence."""
        self._position = sequence
        if self._stream is None:
            return
        now = self._clock()
        if now - self._drawn >= REDRAW_EVERY:
            self._draw(now)

    def finish(self) -> None:
        """Everything up to the end has been read, whatever of it was wanted."""
        self._position = self._end
        if self._stream is not None:
            self._draw(self._clock())

    def close(self) -> None:
        """Leave what is drawn as it is, and go to the next line."""
        if self._open and self._stream is not None:
            self._open = False
            print(file=self._stream, flush=True)

    def line(self, now: float, columns: int) -> tuple[str, str]:
        """What there is to say at this time: the bar, and the figures behind it, together in so many columns."""
        done, whole = self._position - self._start, self._end - self._start
        share = done / whole if whole else 1.0
        passed = max(now - self._began, 1e-6)
        rate = done / passed
        left = "" if done >= whole else f", {duration((whole - done) / rate)} left" if rate else ""
        figures = f"{share:4.0%}  event {self._position:,} of {self._end:,}, {rate:,.0f}/s{left}"
        if columns < NARROW:
            return "", figures[: columns - 1]
        filled = int(share * BAR)
        return f"{'█' * filled}{'░' * (BAR - filled)} ", figures[: columns - BAR - 2]

    def _draw(self, now: float) -> None:
        assert self._stream is not None
        self._drawn, self._open = now, True
        bar, figures = self.line(now, columns_of(self._stream))
        self._stream.write(f"\r{styled(bar, 'cyan', self._stream)}{figures}\x1b[K")
        self._stream.flush()


def columns_of(stream: TextIO) -> int:
    with contextlib.suppress(OSError, ValueError):
        return os.get_terminal_size(stream.fileno()).columns or 80
    return 80


def duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
