"""What a run may cost in all: the budget of the thread that it has for itself."""

from typing import cast

import msgspec
import nats.errors
from trunkline_events import headers, subjects
from trunkline_events.log import LogError
from trunkline_events.money import nanos_from_usd
from trunkline_events.refusal import Refused
from trunkline_events.thread import ThreadEvent

from trunkline_actors.runtime import Runtime

COMMAND_S = 5.0


async def give_budget(runtime: Runtime, thread: str, limit_usd: str) -> Refused | None:
    """Set it, where nothing has happened in the thread yet but that, at most; else why not.

    Whoever may begin runs chooses their ids, and could change the budget of any thread that goes by such a name.
    """
    try:
        recorded = await runtime.log.last("thread", thread)
    except LogError:
        return Refused(code="unavailable", message="its budget can't be set right now: the log is away; try again")
    if recorded is not None:
        if cast("ThreadEvent", recorded.body).limit_nanos == nanos_from_usd(limit_usd):
            return None  # the run was to begin before, and could not
        message = f"thread {thread!r} is there already, with another budget; choose another id for the run"
        return Refused(code="conflict", message=message, param="id")
    body = {"thread_id": thread, "budget": {"limit_usd": limit_usd}, "reason": "a workflow's budget"}
    own = runtime.door.own_key
    fields = {headers.KEY: own} if own else None
    try:
        reply = await runtime.bus.nats.request(
            f"{subjects.THREADS}.configure", msgspec.json.encode(body), timeout=COMMAND_S, headers=fields
        )
    except (nats.errors.Error, TimeoutError):
        return Refused(code="unavailable", message="its budget can't be set right now; is a registry running?")
    if headers.ERROR_CODE in (reply.headers or {}):
        return Refused(code="unavailable", message=f"its budget can't be set: {reply.headers.get(headers.ERROR)}")
    return None
