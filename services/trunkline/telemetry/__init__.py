"""What is told of a process to whoever runs it: log lines, traces and metrics, the latter two only if asked for."""

from trunkline.telemetry.logs import FIELDS, as_guest, configure

__all__ = ["FIELDS", "as_guest", "configure"]
