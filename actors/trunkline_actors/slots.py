"""How the processes that serve one provider instance share its `max_concurrency`: slots, leased. Pure.

Every process holds as many slots as its entry says, until a time; all entries lie in one record that is changed by
compare-and-set, so that they never add up to more than the limit. A process that has calls waiting claims slots; who
holds more than a fair share lets go of what becomes free.
"""

import msgspec
from msgspec import Struct


class Holder(Struct, frozen=True, array_like=True):
    """The slots of one process, until a Unix time: after that they are anybody's."""

    slots: int
    until: float


class Leases(Struct, frozen=True):
    """Who holds slots of one provider instance."""

    holders: dict[str, Holder] = {}


class Standing(Struct, frozen=True, kw_only=True):
    """How one process stands: calls that run and that wait, slots it holds.

    `claimants` are other processes with calls waiting. `yielding`: it has just given one up for them.
    """

    running: int
    waiting: int
    held: int
    claimants: int
    yielding: bool = False
    idle: bool = False


_decoder = msgspec.json.Decoder(Leases)
encode = msgspec.json.Encoder().encode


def read(data: bytes | None) -> Leases:
    """The record; an empty one where there is none that makes sense."""
    try:
        return _decoder.decode(data or b"{}")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return Leases()


def wanted(standing: Standing, limit: int) -> int:
    """How many slots a process wants to hold. Never fewer than it has calls running."""
    needed = standing.running + standing.waiting
    if standing.claimants:
        fair = limit // (standing.claimants + 1)
        # What is left over when all have their share goes round: one more each, given up when a call ends.
        return max(standing.running, min(needed, fair if standing.yielding else fair + 1))
    return min(limit, needed if standing.idle else max(needed, standing.held))


def gives_up(standing: Standing, limit: int) -> bool:
    """Whether a process whose call has just ended lets somebody else have its slot."""
    return bool(standing.claimants) and standing.held > limit // (standing.claimants + 1)


def leased(leases: Leases, name: str, slots: int, running: int, limit: int, now: float, until: float) -> Leases:
    """The record where a process asks for this many slots: it gets what is left, and keeps what is in use."""
    others = {who: one for who, one in leases.holders.items() if who != name and one.until > now}
    free = limit - sum(one.slots for one in others.values())
    mine = max(running, min(slots, free), 0)
    return Leases({**others, name: Holder(mine, until)} if mine else others)


def held(leases: Leases, name: str) -> int:
    """How many slots a process holds."""
    holder = leases.holders.get(name)
    return holder.slots if holder else 0
