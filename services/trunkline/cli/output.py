"""What a command prints: data on stdout, messages on stderr, colour on a terminal only."""

import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any, TextIO

import msgspec

from trunkline import settings

_STYLES = {"dim": "2", "bold": "1", "green": "32", "red": "31", "yellow": "33", "cyan": "36"}
# All that could move the cursor or retitle the window; line feed and tab stay.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def emit(value: Any) -> None:
    """One JSON value on a line of stdout, at once."""
    print(msgspec.json.encode(value).decode(), flush=True)


def show(text: str) -> None:
    """One line of data for a reader."""
    print(printable(text, sys.stdout), flush=True)


def say(text: str) -> None:
    """A message: stderr."""
    print(printable(text, sys.stderr), file=sys.stderr, flush=True)


def printable(text: str, stream: TextIO) -> str:
    """Text as it may go to a stream: a terminal must not get control characters from a model or from the log."""
    if not stream.isatty():
        return text
    pieces = re.split(r"(\x1b\[[0-9;]*m)", text)  # our own colours
    return "".join(piece if number % 2 else _CONTROL.sub("", piece) for number, piece in enumerate(pieces))


def plain(text: str, stream: TextIO) -> str:
    """Foreign text as it may go to a stream: on a terminal not even a colour comes through."""
    return _CONTROL.sub("", text) if stream.isatty() else text


def styled(text: str, style: str, stream: TextIO) -> str:
    """Text in a colour or weight, where the stream is a terminal and NO_COLOR is not set."""
    if not stream.isatty() or settings.has_environment("NO_COLOR"):
        return text
    return f"\x1b[{_STYLES[style]}m{text}\x1b[0m"


def table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Rows for a reader: aligned under a heading on a terminal, else separated by tabs, without heading."""
    cells = [[plain(_cell(value), sys.stdout) for value in row] for row in rows]
    if not sys.stdout.isatty():
        for row in cells:
            show("\t".join(row))
        return
    widths = [max(len(row[i]) for row in [list(columns), *cells]) for i in range(len(columns))]
    show(styled(_aligned(columns, widths), "bold", sys.stdout))
    for row in cells:
        show(_aligned(row, widths))


def fields(entry: Mapping[str, Any]) -> None:
    """One entry for a reader: a field a line."""
    width = max(map(len, entry), default=0)
    for name, value in entry.items():
        show(f"{styled(name.ljust(width), 'dim', sys.stdout)}  {plain(_cell(value), sys.stdout)}")


def _aligned(row: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def _cell(value: Any) -> str:
    match value:
        case None | [] | "":
            return "-"
        case str():
            return value
        case bool():
            return "yes" if value else "no"
        case list():
            return ",".join(map(_cell, value))
        case dict():  # the pattern `{}` would match every one, whatever it holds
            return ",".join(f"{name}={_cell(inner)}" for name, inner in value.items()) or "-"
        case _:
            return str(value)
