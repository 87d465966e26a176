"""The ready file: where everything is, for scripts that started us. Written atomically when all of it serves."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path


class ReadyFile:
    """`{"nats": "nats://…", "http": "http://…", "pid": 1, "pids": {"nats-server": 2}}`.

    Nothing is written without a path. `http` is null where this process serves no HTTP. Where `trunkline run` was told
    the roles of this process, they are in `roles`.
    """

    def __init__(self, path: Path | None, roles: Sequence[str] = ()) -> None:
        self._path = path
        self._roles = {"roles": list(roles)} if roles else {}

    def write(self, nats: str, http: str | None, server: int | None, workers: Mapping[str, int]) -> None:
        """Say where we are; also again, after the embedded server or a worker was started anew."""
        if self._path is None:
            return
        pids = {"nats-server": server} if server is not None else {}
        content = {"nats": nats, "http": http, "pid": os.getpid(), "pids": {**pids, **workers}, **self._roles}
        beside = self._path.with_name(f".{self._path.name}.{os.getpid()}")
        beside.write_text(json.dumps(content) + "\n", encoding="utf-8")
        beside.replace(self._path)

    def remove(self) -> None:
        """We no longer serve; nor does a restart that ends only now say so again."""
        path, self._path = self._path, None
        if path is not None:
            path.unlink(missing_ok=True)
