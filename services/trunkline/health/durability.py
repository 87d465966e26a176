"""Is what was promised about the log kept? Promise, server's own report and permissions, compared. Changes nothing.

The promise is written into the stream's metadata when the log is made: `always` or `process`. What the servers say of
themselves may differ, and then an acknowledgement means less than whoever reads it believes.

One server without a cluster keeps one copy, which is fine as long as it is known. The embedded server lets everybody
on its machine do everything, delete the log included: that is what makes it start without any set-up, and whoever can
reach its port can usually delete its folder as well. So it is told as something to know, not as a problem.
"""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from nats.js import api
from trunkline_events import subjects
from trunkline_events.connection import Connection
from trunkline_events.stream import DURABILITY, EPHEMERAL

from trunkline.embedded.disk import is_full
from trunkline.health import promises, report
from trunkline.health.check import Check
from trunkline.health.permissions import destructive_calls
from trunkline.health.report import Report, User

TEMPORARY = ("/tmp", "/var/tmp", "/dev/shm", "/private/tmp", "/private/var/tmp", "/var/folders")  # noqa: S108 - looked for
ACCOUNTS = "deploy/nats/accounts.conf"
MANY = 3
"""Copies of which one may be lost."""


async def durability_checks(connection: Connection, info: api.StreamInfo) -> list[Check]:
    """All that bears on whether an acknowledged event can get lost."""
    reports = await report.reports(connection)
    here = report.is_here(connection)
    embedded = report.is_embedded(connection)
    promised = info.config.metadata or {}
    checks = [durability(info.config, promised, reports)]
    if reports:
        temporary = temporary_folders() if here else TEMPORARY
        crowded = [report.server for report in reports if here and _has_no_room(report.store)]
        checks += [store(promised, reports, temporary), disk(reports, crowded, embedded=embedded)]
    alone = embedded and here
    return [*checks, copies(info, reports), permissions(await report.user(connection), alone=alone)]


def durability(config: api.StreamConfig, promised: Mapping[str, str], reports: Sequence[Report]) -> Check:
    """Whether every server syncs to disk as was promised."""
    if getattr(config, "persist_mode", None) == api.PersistMode.ASYNC:
        return Check(
            "durability", "problem", "the stream is written asynchronously", "make it with persist_mode default"
        )
    chosen = promised.get(DURABILITY, promises.DEFAULT)
    if chosen not in promises.PROMISES:
        chosen = promises.DEFAULT
    told = f"promised is {promises.promise(chosen)}"
    if not reports:
        return Check(
            "durability",
            "unknown",
            f"{told}; whether the server keeps that, and where, can't be seen by this user",
            f"look for `sync_interval: always` in the server's configuration; {ACCOUNTS} lets a user ask for it",
        )
    lazy = [report for report in reports if not report.sync_always]
    missing = reports[0].peers - len(reports)
    silent = f"; {missing} of {reports[0].peers} servers did not say" if missing > 0 else ""
    if chosen == "always" and lazy:
        names = ", ".join(report.server for report in lazy)
        return Check(
            "durability",
            "problem",
            f"{told}, but {names} writes to disk every {max(one.sync_seconds for one in lazy):g} s: "
            f"a power cut loses what was acknowledged since",
            "set `sync_interval: always` there (`trunkline up --durability always`) and restart it, or promise less: "
            f"`nats stream edit {subjects.STREAM} --metadata {DURABILITY}=process`",
        )
    more = "" if chosen == "always" or lazy else "; the server keeps more than that, and syncs each event"
    return Check("durability", "ok", f"{told}{more}{silent}")


def store(promised: Mapping[str, str], reports: Sequence[Report], temporary: Sequence[str]) -> Check:
    """Whether the servers keep the log where it stays."""
    lost = [report for report in reports if any(_below(report.store, folder) for folder in temporary)]
    if not lost:
        return Check("store", "ok", ", ".join(sorted({report.store for report in reports})))
    found = ", ".join(f"{report.store} ({report.server})" for report in lost)
    if promised.get(EPHEMERAL) == "true":
        return Check("store", "ok", f"{found}: a temporary folder, as asked for (--ephemeral)")
    return Check(
        "store",
        "problem",
        f"{found}: a temporary folder, which the system may empty",
        "move the log: `trunkline up --data DIR`, or `store_dir` in the server's configuration",
    )


def _below(path: str, folder: str) -> bool:
    return PurePosixPath(path).is_relative_to(folder)


def temporary_folders(mounts: Path = Path("/proc/self/mounts")) -> list[str]:
    """Where nothing stays on this machine: the usual folders, this user's own, and whatever is in memory."""
    folders = [*TEMPORARY, tempfile.gettempdir()]
    try:
        lines = [line.split() for line in mounts.read_text(encoding="utf-8", errors="replace").splitlines()]
    except OSError:  # not Linux
        return folders
    return folders + [
        line[1].replace("\\040", " ") for line in lines if len(line) > 2 and line[2] in ("tmpfs", "ramfs")
    ]


def _has_no_room(folder: str) -> bool:
    try:
        return is_full(Path(folder))
    except OSError:  # not ours to look at
        return False


def disk(reports: Sequence[Report], crowded: Sequence[str] = (), *, embedded: bool) -> Check:
    """Whether the servers have reached what they may store, or are on a disk that we see to be full (`crowded`)."""
    full = [report for report in reports if 0 < report.most <= report.stored or report.server in crowded]
    if not full:
        return Check("disk", "ok", f"{max(report.stored for report in reports):,} bytes stored, and room for more")
    if embedded:
        found = f"the disk of {full[0].store} is full: every append is refused, reading goes on"
        return Check("disk", "problem", found, "free some space: the server then goes on by itself")
    names = ", ".join(f"{report.server} ({report.most:,} bytes)" for report in full)
    return Check(
        "disk",
        "problem",
        f"full, or at what the server may store: {names}; appends are refused or not answered",
        "free some space or raise `max_file_store`, then start the server again: it takes no append before",
    )


def copies(info: api.StreamInfo, reports: Sequence[Report]) -> Check:
    """Whether the log outlives one disk, and each copy of it is where it should be."""
    cluster = info.cluster
    asked = info.config.num_replicas or 1
    if asked == 1 and (cluster is None or not cluster.name):
        return Check("copies", "ok", "one copy: the disk is the only one")
    servers = max((report.peers for report in reports), default=MANY)
    if asked < min(MANY, servers):
        return Check(
            "copies",
            "problem",
            f"{asked} of {MANY} copies in a cluster of {servers}: losing one server stops the log, or loses it",
            f"`nats stream edit {subjects.STREAM} --replicas {MANY}`, and start us with TRUNKLINE_REPLICAS={MANY}",
        )
    if cluster is None or not cluster.leader:
        return Check("copies", "problem", f"{asked} copies without a leader", "start the servers that are down")
    answering = {report.server for report in reports}
    others = cluster.replicas or []
    down = [peer.name for peer in others if peer.offline or (answering and peer.name not in answering)]
    if down:
        found = f"{asked - len(down)} of {asked} copies; {', '.join(down)} does not answer"
        return Check("copies", "problem", found, "start it again: it catches up by itself")
    behind = [f"{peer.name} by {peer.lag or 0:,} events" for peer in others if not peer.current]
    if behind:
        found = f"{asked} copies; behind: {', '.join(behind)}"
        return Check("copies", "problem", found, "look again in a minute; then see that server's log, disk and network")
    return Check("copies", "ok", f"{asked} copies of every event, {cluster.leader} leads")


def permissions(user: User | None, *, alone: bool) -> Check:
    """Whether we could do away with the log. Judged from what the server says we may, never by trying.

    `alone`: the server is an embedded one on this machine.
    """
    if user is None:
        return Check(
            "permissions", "unknown", "the server does not say what this user may do", f"allow it {report.USER}"
        )
    calls = destructive_calls(user.permissions, subjects.STREAM)
    if not calls:
        return Check("permissions", "ok", f"{user.name} can neither change, empty nor delete the log")
    if alone and user.permissions is None:
        return Check(
            "permissions",
            "unknown",
            "anybody on this machine can change, empty or delete the log",
            f"use a server with the accounts of {ACCOUNTS} where that matters",
        )
    return Check(
        "permissions",
        "problem",
        f"{user.name or 'anybody'} may {', '.join(calls)} the log",
        f"deny it `$JS.API.STREAM.{{{','.join(calls)}}}.>`, as {ACCOUNTS} does",
    )
