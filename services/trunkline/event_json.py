"""An event of the log as JSON, the same for the command line and over HTTP."""

from typing import Any

import msgspec
from trunkline_events.envelope import RecordedEvent, Unknown
from trunkline_events.times import format_time


def as_json(event: RecordedEvent) -> dict[str, Any]:
    """An event with its envelope. One that this version doesn't know says so in `problem`; `data` is as stored."""
    shown = {
        "seq": event.sequence,
        "time": format_time(event.time),
        "category": event.category,
        "id": event.aggregate,
        "event_id": event.id,
        "type": event.type,
        "actor": event.actor,
        "cause": event.cause,
    }
    if not isinstance(event.body, Unknown):
        return {**shown, "data": msgspec.to_builtins(event.body)}
    try:
        data = msgspec.json.decode(event.body.data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        data = event.body.data.decode(errors="replace")
    return {**shown, "type": event.body.name, "data": data, "problem": event.body.problem}
