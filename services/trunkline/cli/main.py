"""The console script `trunkline`: read the flags, load the verb, turn what it raises into an exit code."""

import argparse
import importlib
import os
import sys
from collections.abc import Sequence

from trunkline.cli.parser import build_parser

__all__ = ["build_parser", "main"]

INTERRUPTED = 130
BROKEN_PIPE = 141
"""128 + SIGINT and 128 + SIGPIPE, as a shell counts them."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit code."""
    if sys.stdout is None:  # closed by whoever started us, as `>&-` does
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, PTH123 - for the rest of the process
    try:
        args = build_parser().parse_args(argv)
    except SystemExit as ended:  # after --help, --version or a usage error, which argparse has printed
        return ended.code if isinstance(ended.code, int) else 2
    try:
        code = _run(args)
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has gone, as `head` does. Python would complain when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE


def _run(args: argparse.Namespace) -> int:
    module, _, name = args.run.partition(":")
    try:
        code: int = getattr(importlib.import_module(f"trunkline.cli.{module}"), name)(args)
        return code
    except (BrokenPipeError, KeyboardInterrupt):
        raise
    except Exception as error:
        from trunkline.cli.failures import report

        code_of_error = report(error, args)
        if code_of_error is None:
            raise
        return code_of_error
