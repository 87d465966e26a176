"""Reading while the log is away: what was known last is answered, and the answer says that it may be stale."""

import asyncio
from contextvars import ContextVar

from trunkline_events.log import LogUnavailable
from trunkline_projections.folds import Gateway

from trunkline_actors.runtime import Runtime

PATIENCE = 2.0
"""Seconds to wait for the log where it was there when it was last asked."""
BRIEFLY = 0.25
"""And where it was not."""

_stale: ContextVar[list[int] | None] = ContextVar("stale", default=None)
"""Of the command that is being answered: positions of what it was answered from while the log was away."""


def begin() -> list[int]:
    """A command begins: what is in the list when it has been answered tells that the answer may be stale."""
    noted: list[int] = []
    _stale.set(noted)
    return noted


def note(position: int) -> None:
    """The command that is being answered is answered from what was known at this position."""
    noted = _stale.get()
    if noted is not None:
        noted.append(position)


async def current(runtime: Runtime) -> Gateway:
    """The gateway as the log has it now; as it was known last where the log does not answer, which is noted.

    For what only reads. Raises LogUnavailable where there is no connection at all.
    """
    view, modes = runtime.gateway, runtime.degraded
    try:
        async with asyncio.timeout(BRIEFLY if modes.log_away else PATIENCE):
            await view.catch_up()
    except (LogUnavailable, TimeoutError) as error:
        if not runtime.connection.nats.is_connected:
            raise LogUnavailable("there is no connection to NATS") from error
        modes.log_failed()
        note(view.position)
    return view.state
