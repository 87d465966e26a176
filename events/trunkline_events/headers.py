"""Header names, and how any text becomes a header value."""

from urllib.parse import quote, unquote

MSG_ID = "Nats-Msg-Id"
EXPECTED_LAST = "Nats-Expected-Last-Subject-Sequence"
ERROR = "Nats-Service-Error"
ERROR_CODE = "Nats-Service-Error-Code"
STATUS = "Status"

TYPE = "Trunkline-Type"
TIME = "Trunkline-Time"
ACTOR = "Trunkline-Actor"
CAUSE = "Trunkline-Cause"
TRACEPARENT = "traceparent"

THREAD = "Trunkline-Thread"
REQUEST = "Trunkline-Request"
KEY = "Trunkline-Key"
REPLY = "Trunkline-Reply"
REPLAYED = "Trunkline-Replayed"

SEQ = "Trunkline-Seq"
MODEL = "Trunkline-Model"
PROVIDER = "Trunkline-Provider"
ATTEMPTS = "Trunkline-Attempts"
COST = "Trunkline-Cost-Usd"
EVENT = "Trunkline-Event"
FINISH = "Trunkline-Finish"
USAGE = "Trunkline-Usage"


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
