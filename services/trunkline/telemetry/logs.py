"""Logs: one JSON object a line on stderr, a constant event name with fields, and only fields that may be shown.

The list of fields is an allow-list: a key, a prompt or an Authorization header can't get into a log line by being
passed to it, since a field that nobody declared is dropped.
"""

import logging
import sys
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any

import structlog

FIELDS = frozenset(
    {
        "event", "event_id", "level", "timestamp", "logger",
        "request", "thread", "model", "provider", "trace", "attempt", "process", "role", "roles", "actor", "endpoint",
        "sequence", "position", "fold", "type", "kind", "subject", "size", "dropped", "restarts",
        "pid", "port", "url", "store", "durability", "seconds", "signal", "in_flight", "pause", "error", "code",
        "reason", "budget", "run", "step", "before", "holder", "exit_code", "deaths", "worker", "version", "where",
    }
)  # fmt: skip


def _allow(_logger: Any, _method: str, entry: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Keep what may be shown; say how a failure came about by place and type, never by the words of the error."""
    exc = entry.pop("exc_info", None)
    if exc is True:
        exc = sys.exc_info()[1]
    elif isinstance(exc, tuple):
        exc = exc[1]
    if isinstance(exc, BaseException):
        entry["error"] = type(exc).__name__
        entry["where"] = _place(exc)
    return {name: value for name, value in entry.items() if name in FIELDS}


def _place(error: BaseException) -> str:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return ""
    code = trace.tb_frame.f_code
    return f"{code.co_filename.rpartition('/')[2]}:{trace.tb_lineno} in {code.co_name}"


def configure(level: str = "info") -> None:
    """Send our log lines, and other libraries' warnings, to stderr as JSON."""
    _to_stderr(level, cached=True)
    # What libraries log may quote what they carry: only that they did, and who, is passed on.
    logging.basicConfig(level=logging.WARNING, handlers=[_Relay()], force=True)


@contextmanager
def as_guest() -> Iterator[None]:
    """In a program of somebody else's, that has not said where log lines go: our warnings to stderr, and no more."""
    if structlog.is_configured():
        yield
        return
    _to_stderr("warning", cached=False)
    try:
        yield
    finally:
        structlog.reset_defaults()


def _to_stderr(level: str, *, cached: bool) -> None:
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _allow,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=cached,
    )


class _Relay(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        structlog.get_logger().log(record.levelno, "library.message", logger=record.name, code=record.levelname)
