"""The console script, forked from a process that has imported it: a command costs what it does, and not its imports.

`python forked_cli.py SOCKET` serves until its standard input is closed. Each connection is one command: a line of JSON
`{"argv", "cwd", "env"}` with its three standard files beside it, answered with its exit code as text. Each is a process
of its own all the same. Never on a terminal: how output is buffered was settled when the first process began.
"""

import contextlib
import importlib
import json
import os
import select
import signal
import socket
import sys
from pathlib import Path
from typing import Any

from trunkline.cli.main import main

IMPORTED = ("trunkline.cli.failures", "trunkline.cli.session", "trunkline.cli.output", "trunkline.explain", "uvloop")

MOST = 1 << 20


def serve(path: str) -> list[str]:
    """Fork for each command; returns in each child, with its arguments. Ends the process when its owner has gone."""
    for name in IMPORTED:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(f"{path}.new")
    listener.listen(64)
    Path(f"{path}.new").rename(path)  # whoever finds it can connect
    woken, wakes = os.pipe()
    os.set_blocking(wakes, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wakes)
    running: dict[int, socket.socket] = {}
    while True:
        ready, _, _ = select.select([listener.fileno(), woken, 0], [], [])
        if 0 in ready:
            os._exit(0)
        if woken in ready:
            os.read(woken, 4096)
            _tell_ends(running)
        if listener.fileno() in ready:
            caller, _ = listener.accept()
            asked, files = _read(caller)
            pid = os.fork()
            if not pid:
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                for one in (listener, caller, *running.values()):
                    one.close()
                os.close(woken)
                os.close(wakes)
                return _become(asked, files)
            running[pid] = caller
            for file in files:
                os.close(file)


def _read(caller: socket.socket) -> tuple[dict[str, Any], list[int]]:
    data, files, _, _ = socket.recv_fds(caller, MOST, 3)
    while not data.endswith(b"\n"):
        data += caller.recv(MOST)
    return json.loads(data), files


def _tell_ends(running: dict[int, socket.socket]) -> None:
    while running:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if not pid:
            return
        with running.pop(pid) as caller, contextlib.suppress(OSError):
            caller.sendall(str(os.waitstatus_to_exitcode(status)).encode())


def _become(asked: dict[str, Any], files: list[int]) -> list[str]:
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    os.chdir(asked["cwd"])
    os.environ.clear()
    os.environ.update(asked["env"])
    argv: list[str] = asked["argv"]
    sys.argv = ["trunkline", *argv]
    return argv


if __name__ == "__main__":
    sys.exit(main(serve(sys.argv[1])))
