"""Header names, how a block of headers is read, and how any text becomes a header value."""

from collections.abc import Mapping
from urllib.parse import quote, unquote

MSG_ID = "Nats-Msg-Id"
EXPECTED_LAST = "Nats-Expected-Last-Subject-Sequence"
BATCH_ID = "Nats-Batch-Id"
BATCH_SEQUENCE = "Nats-Batch-Sequence"
BATCH_COMMIT = "Nats-Batch-Commit"
ERROR = "Nats-Service-Error"
ERROR_CODE = "Nats-Service-Error-Code"
STATUS = "Status"
DESCRIPTION = "Description"
STALLED = "Nats-Consumer-Stalled"
LAST_CONSUMER = "Nats-Last-Consumer"
SEQUENCE = "Nats-Sequence"
"""Where an event is in the log, on what is sent on from there."""

TYPE = "Trunkline-Type"
TIME = "Trunkline-Time"
ACTOR = "Trunkline-Actor"
CAUSE = "Trunkline-Cause"
TRACEPARENT = "traceparent"

THREAD = "Trunkline-Thread"
REQUEST = "Trunkline-Request"
KEY = "Trunkline-Key"
DRAWN = "Trunkline-Drawn"
"""When the request's id was drawn (Unix time), for this request and no other; with ` again`, it is sent once more."""
ON_BEHALF = "Trunkline-On-Behalf"
"""With the gateway's own key: the id of the API key whose money it takes, `-` for none."""
REPLY = "Trunkline-Reply"
REPLAYED = "Trunkline-Replayed"

SEQ = "Trunkline-Seq"
SILENT = "Trunkline-Silent"
"""On a chunk that says nothing, sent to see whether anybody listens."""
MODEL = "Trunkline-Model"
PROVIDER = "Trunkline-Provider"
ATTEMPTS = "Trunkline-Attempts"
COST = "Trunkline-Cost-Usd"
EVENT = "Trunkline-Event"
FINISH = "Trunkline-Finish"
USAGE = "Trunkline-Usage"
CACHE = "Trunkline-Cache"
"""`hit`: the answer is that of an earlier request; `miss`: it might have been."""
LIMITS = "Trunkline-Ratelimit"
"""How the limits of the API key stand, where it has any: `requests=60/59/1.0`."""


def again(fields: Mapping[str, str]) -> dict[str, str]:
    """The headers of a request that is sent once more."""
    drawn = fields.get(DRAWN)
    return {**fields, DRAWN: f"{drawn} {_AGAIN}"} if drawn and _AGAIN not in drawn else dict(fields)


def drawn_at(value: str | None) -> tuple[float | None, bool]:
    """When an id was drawn, None where it was chosen or where this is no time; and whether it is sent once more."""
    time, _, more = (value or "").partition(" ")
    try:
        return (float(time) if time else None), more == _AGAIN
    except ValueError:
        return None, False


_AGAIN = "again"


def encode_value(text: str) -> str:
    """Text as a header value: as it is where it is printable ASCII, else percent-encoded.

    What is printable but would be read back as something else (`a%41`) is encoded too, so that every text survives.
    """
    if text.isascii() and text.isprintable() and text.strip() == text and ("%" not in text or unquote(text) == text):
        return text
    return quote(text, safe=" !#$&'()*+,/:;=?@[]{}\"<>|^`\\") if text.strip() == text else quote(text, safe="")


def decode_value(value: str) -> str:
    """The text of a header value that may be percent-encoded."""
    return unquote(value, errors="replace") if "%" in value else value


def parse(block: bytes) -> dict[str, str]:
    """A block of headers as it comes off the wire: `NATS/1.0[ <status>[ <description>]]`, then a header a line.

    Status and description are under STATUS and DESCRIPTION. Bytes that are no UTF-8 are replaced, a line without a
    colon is passed over, and of a header that is there twice the last one counts. Never raises.
    """
    lines = block.decode("utf-8", "replace").split("\r\n")
    fields = {}
    if len(lines[0]) > _VERSION:
        fields[STATUS], _, fields[DESCRIPTION] = lines[0][_VERSION:].strip().partition(" ")
    lines[0] = ""
    for line in lines:  # the plainest loop is the fastest: patterns and comprehensions take twice as long
        name, colon, value = line.partition(":")
        if colon:
            fields[name] = value.strip()
    return fields


_VERSION = len("NATS/1.0")
