"""What Linux's /proc says of a process: CPU time, memory, and age. See proc(5), stat fields 4, 14 to 17, 22 and 24."""

import os
import time
from pathlib import Path


def cpu_seconds(pid: int) -> float | None:
    """User and system time of a process so far; None where there is no /proc, or no such process."""
    fields = _stat(pid)
    return None if fields is None else (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def family(pid: int) -> list[int]:
    """A process, and all that it started and what those started; only itself where there is no /proc."""
    children: dict[int, list[int]] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        fields = _stat(int(folder.name))
        if fields is not None:
            children.setdefault(int(fields[1]), []).append(int(folder.name))
    found = [pid]
    for one in found:  # grows as it goes
        found += children.get(one, ())
    return found


def family_cpu_seconds(pid: int) -> float | None:
    """User and system time of a family so far, of those that have ended too; None where there is no such process."""
    if _stat(pid) is None:
        return None
    ticks = [sum(map(int, fields[11:15])) for fields in map(_stat, family(pid)) if fields is not None]
    return sum(ticks) / os.sysconf("SC_CLK_TCK")


def family_resident_bytes(pid: int) -> int | None:
    """Resident memory of a family, what they share counted once for each; None where there is no such process."""
    if _stat(pid) is None:
        return None
    pages = [int(fields[21]) for fields in map(_stat, family(pid)) if fields is not None]
    return sum(pages) * os.sysconf("SC_PAGE_SIZE")


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
