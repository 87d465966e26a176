"""Child processes that must not outlive us."""

import ctypes
import os
import signal
import sys
from collections.abc import Callable
from typing import Final

_PR_SET_PDEATHSIG: Final = 1


def die_with_owner(owner: int) -> Callable[[], None] | None:
    """A `preexec_fn` that has Linux send SIGTERM to the child when the process `owner` is gone, even by kill -9.

    None elsewhere: there an orphan lives on. See prctl(2), PR_SET_PDEATHSIG; the signal is tied to the thread that
    started the child, so start it from one that lives as long as the owner.
    """
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None).prctl  # loaded here, before the fork

    def arm() -> None:
        prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)
        if os.getppid() != owner:  # it died before the signal was armed
            os._exit(1)

    return arm
