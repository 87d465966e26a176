"""CPU time of another process."""

import os
from pathlib import Path


def cpu_seconds(pid: int) -> float | None:
    """User and system time of a process so far, from Linux's /proc (proc(5), stat fields 14 and 15); None elsewhere."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    except OSError:
        return None
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
