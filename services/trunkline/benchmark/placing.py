"""Which core a process runs on, where the system lets us say."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple


class Cores(NamedTuple):
    """One for the gateways that are measured; one for who asks them, and for their upstream."""

    gateways: int
    others: int


def two_cores() -> Cores | None:
    """Two cores of those that this process may use; None where there is one only, or where we have no say."""
    if sys.platform != "linux":
        return None
    cores = sorted(os.sched_getaffinity(0))
    return Cores(cores[-1], cores[0]) if len(cores) > 1 else None


@contextmanager
def on_core(core: int | None) -> Iterator[None]:
    """Within this the calling thread runs there, and what it starts does for good. None: anywhere."""
    if core is None or sys.platform != "linux":
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
