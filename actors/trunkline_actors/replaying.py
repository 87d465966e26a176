"""Gives an answer that was kept to one more caller: whole, or as numbered chunks with the receipt at their end."""

from collections.abc import Mapping, Sequence

from trunkline_events import headers
from trunkline_events.refusal import Refused

from trunkline_actors.bus import Bus

WHO_SERVED = (
    *(headers.LIMITS, headers.REQUEST, headers.MODEL, headers.PROVIDER, headers.ATTEMPTS),
    *(headers.REPLAYED, headers.CACHE),
)
"""What a stream says with its first chunk already."""


def answered_before(receipt: Mapping[str, str]) -> Refused:
    """What a caller is told whose answer is there no more."""
    return Refused(
        code="conflict",
        message="this request id has been used, and its answer was not kept; the receipt is in metadata",
        retryable=False,
        metadata={name.lower(): value for name, value in receipt.items()},
    )


async def replay(bus: Bus, inbox: str, messages: Sequence[bytes], fields: Mapping[str, str]) -> None:
    """Send an answer again. `fields` are the headers of its end; with a number among them it is a stream."""
    if headers.SEQ not in fields:
        await bus.publish(inbox, messages[0], dict(fields))
        return
    told = {name: fields[name] for name in WHO_SERVED if name in fields}
    for seq, message in enumerate(messages, 1):
        await bus.publish(inbox, message, {headers.SEQ: str(seq), **(told if seq == 1 else {})})
    await bus.publish(inbox, b"", dict(fields))
