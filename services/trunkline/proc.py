"""What Linux's /proc says of a process: CPU time, and age. See proc(5), stat fields 14, 15 and 22."""

import os
import time
from pathlib import Path


def cpu_seconds(pid: int) -> float | None:
    """User and system time of a process so far; None where there is no /proc, or no such process."""
    fields = _stat(pid)
    return None if fields is None else (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def age_seconds() -> float | None:
    """How long this process has been there, Python's own start included; None where there is no /proc."""
    fields = _stat(os.getpid())
    if fields is None:
        return None
    return time.clock_gettime(time.CLOCK_BOOTTIME) - int(fields[19]) / os.sysconf("SC_CLK_TCK")


def _stat(pid: int) -> list[str] | None:
    """The fields after the command's name, which may hold anything: from the third on."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
