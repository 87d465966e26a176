"""What stored events of the `eventsourcing` library look like on the wire.

Subjects, below the store's own prefix, `trunkline.es.<application>.<purpose>`:

    e.<originator>.<page>.<version>     an event; the body is its state. <page> is version // 500
    t.<application>.<notification id>   a tracking that came without events; the body is the view kept with it

There is one subject for each event, so that "nothing is there yet" is what makes (originator, version) unique.
Headers: `Trunkline-Topic`, `Trunkline-Originator` (uuid or str), `Trunkline-Insert` (which call stored it, the same for
all messages of the call), and where the store tracks, `Trunkline-Notification` (how many events there are up to here)
and `Trunkline-Tracking` (JSON: the last notification id processed of each application upstream, as of here).
"""

from collections.abc import Mapping, Sequence
from uuid import UUID

import msgspec
from eventsourcing.persistence import DataError, Notification, StoredEvent, Tracking
from msgspec import Struct

from trunkline_events import headers, subjects

TOPIC = "Trunkline-Topic"
ORIGINATOR = "Trunkline-Originator"
INSERT = "Trunkline-Insert"
NOTIFICATION = "Trunkline-Notification"
TRACKING = "Trunkline-Tracking"

VERSIONS_PER_PAGE = 500
"""How many versions share a page: what one request reads of an aggregate. In the subjects, so never to be changed."""

MAX_ORIGINATOR_BYTES = 1024

_positions = msgspec.json.Decoder(dict[str, int])


class Message(Struct, frozen=True):
    """A message to store."""

    subject: str
    fields: dict[str, str]
    data: bytes


class Stored(Struct, frozen=True):
    """A message as it is stored. `sequence` counts the stream's messages from 1."""

    subject: str
    sequence: int
    fields: Mapping[str, str]
    data: bytes


class State(Struct, frozen=True):
    """Where a store stands after its last message. `view` is the body of a tracking, empty after an event."""

    sequence: int = 0
    events: int = 0
    positions: dict[str, int] = {}
    view: bytes = b""


def page_of(version: int) -> int:
    """The page that a version's subject is on."""
    return version // VERSIONS_PER_PAGE


def originator_subject(prefix: str, originator_id: UUID | str) -> str:
    """What the subjects of one aggregate begin with. A UUID and its text are one originator. Raises DataError."""
    text = str(originator_id)
    try:
        token = subjects.encode_id(text)
    except UnicodeEncodeError as error:
        raise DataError("an originator id must be valid UTF-8") from error
    if not token or len(token) > MAX_ORIGINATOR_BYTES:
        raise DataError(
            f"an originator id has 1 to {MAX_ORIGINATOR_BYTES} bytes as part of a subject, this one {len(token)}; "
            "use a shorter one"
        )
    return f"{prefix}.e.{token}"


def version_subject(originator: str, version: int) -> str:
    """The subject of one event of the aggregate whose subjects begin so."""
    return f"{originator}.{page_of(version)}.{version}"


def event_message(prefix: str, event: StoredEvent, insert: str) -> Message:
    """The message of one event. Raises DataError where its originator id can't be part of a subject."""
    subject = version_subject(originator_subject(prefix, event.originator_id), event.originator_version)
    fields = {
        TOPIC: headers.encode_value(event.topic),
        ORIGINATOR: "uuid" if isinstance(event.originator_id, UUID) else "str",
        INSERT: insert,
    }
    return Message(subject, fields, event.state)


def tracking_message(prefix: str, tracking: Tracking, insert: str, view: bytes) -> Message:
    """The message of a tracking that comes without events."""
    token = subjects.encode_id(tracking.application_name) or "="  # which `encode_id` makes of nothing else
    return Message(f"{prefix}.t.{token}.{tracking.notification_id}", {INSERT: insert}, view)


def with_state(messages: Sequence[Message], state: State, positions: dict[str, int]) -> list[Message]:
    """The messages with the state after each of them, where `state` is that before the first."""
    after, count = headers.encode_value(msgspec.json.encode(positions).decode()), state.events
    stated = []
    for message in messages:
        count += is_event(message.subject)
        fields = message.fields | {NOTIFICATION: str(count), TRACKING: after}
        stated.append(Message(message.subject, fields, message.data))
    return stated


def is_event(subject: str) -> bool:
    """Whether a subject of a store is an event's: `trunkline.es.<application>.<purpose>.e.…`."""
    return subject.split(".", 5)[4] == "e"


def version_of(subject: str) -> int:
    """The version in an event's subject."""
    return int(subject[subject.rindex(".") + 1 :])


def state_after(message: Stored) -> State:
    """The state of a store that tracks, as of this message of it."""
    return State(
        sequence=message.sequence,
        events=notification_id(message),
        positions=_positions.decode(headers.decode_value(message.fields.get(TRACKING, "{}"))),
        view=b"" if is_event(message.subject) else message.data,
    )


def notification_id(message: Stored) -> int:
    """How many events the store has up to this message. In a store that does not track, its sequence."""
    return int(message.fields.get(NOTIFICATION, message.sequence))


def stored_event(message: Stored) -> StoredEvent:
    """The event of a message that is one."""
    return StoredEvent(*_parts(message))


def notification(message: Stored) -> Notification:
    """The event of a message that is one, with its place in the application's sequence."""
    return Notification(*_parts(message), notification_id(message))


def _parts(message: Stored) -> tuple[UUID | str, int, str, bytes]:
    token, _, version = message.subject.split(".")[5:8]
    text = subjects.decode_id(token)
    originator_id = UUID(text) if message.fields.get(ORIGINATOR) == "uuid" else text
    return originator_id, int(version), headers.decode_value(message.fields.get(TOPIC, "")), message.data
