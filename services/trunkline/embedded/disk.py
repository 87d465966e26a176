"""Whether the disk under the embedded server has room, and what the server may store accordingly.

A nats-server that meets a full disk answers an append with silence, and goes on doing so after space has returned,
until it is started again. So it is not let get there: with little left it is started again with nothing that it may
store, and refuses each append at once, with JetStream error 10023. With room again it is started without that limit.
No file has to be written for that: the limit is in the server's environment.
"""

import asyncio
import os
from pathlib import Path
from typing import Final

from trunkline.embedded.errors import tells_of_a_full_disk

NOTHING: Final = "1"  # in bytes; 0 would mean: as much as there is. A log that is still empty may try one event
EVERYTHING: Final = "1PB"  # nats-server's own default ends at three quarters of what was free when it started
LOOK_SECONDS: Final = 0.25
LOG_TAIL_BYTES: Final = 64 * 1024
_MIB: Final = 1024 * 1024


def reserve(size: int) -> int:
    """How many bytes a disk of that size must have free: a sixteenth, but at least 1 MiB and at most 32 MiB."""
    return max(_MIB, min(32 * _MIB, size // 16))


def is_full(store: Path) -> bool:
    """Whether the folder's disk has too little room for a log."""
    return _room(store) < 1


def has_room_again(store: Path) -> bool:
    """Whether there is twice what makes a disk full, so that it isn't full again at once; and whether it can be used.

    A quota counts as a full disk, and shows only when something is written.
    """
    return _room(store) >= 2 and _can_write(store)


def _room(store: Path) -> float:
    """What is free, in reserves."""
    disk = os.statvfs(store)
    if disk.f_blocks == 0:  # it doesn't tell
        return 2.0
    return disk.f_bavail * disk.f_frsize / reserve(disk.f_blocks * disk.f_frsize)


def _can_write(store: Path) -> bool:
    probe = store / "room.tmp"
    try:
        with probe.open("wb") as file:
            file.write(bytes(_MIB))
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        return False
    else:
        return True
    finally:
        probe.unlink(missing_ok=True)


class DiskWatch:
    """What one running server may store, and when it has to be started again because that has changed."""

    def __init__(self, store: Path, log_file: Path) -> None:
        self._store, self._log_file = store, log_file
        self._read = 0
        self.full = False
        """Whether the server refuses appends, or has failed one, for want of space."""

    def limit(self) -> str:
        """`max_file_store` for the server about to start."""
        self.full = is_full(self._store)
        self._read = self._log_size()
        return NOTHING if self.full else EVERYTHING

    async def turned(self) -> None:
        """Return when the server must be started again: the disk got full, or one that was full has room.

        A server that failed a write, which its log tells, counts as one on a full disk however short that was.
        """
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                if not self.full and is_full(self._store):
                    return
                self.full = self.full or self._failed_a_write()
                if self.full and has_room_again(self._store):
                    return
            except OSError:  # the folder is gone, or its disk: the server will say so
                continue

    def _failed_a_write(self) -> bool:
        size = self._log_size()
        if size == self._read:
            return False
        with self._log_file.open("rb") as file:
            file.seek(max(self._read if self._read < size else 0, size - LOG_TAIL_BYTES))
            text = file.read().decode(errors="replace")
        self._read = size
        return tells_of_a_full_disk(text)

    def _log_size(self) -> int:
        return self._log_file.stat().st_size if self._log_file.exists() else 0
