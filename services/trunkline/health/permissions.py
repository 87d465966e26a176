"""What a user of the bus may do to the log, judged from its permissions alone. Pure: nothing is tried out.

Permissions are those that nats-server tells its own user on `$SYS.REQ.USER.INFO`: `{"publish": {"allow": [pattern…],
"deny": [pattern…]}, …}`. What is absent is allowed, what is denied is denied whatever allows it.
"""

from collections.abc import Mapping, Sequence
from typing import Any

DESTRUCTIVE = ("UPDATE", "DELETE", "PURGE", "RESTORE", "MSG.DELETE")
"""The calls on a stream after which it no longer holds what it held."""


def matches(pattern: str, subject: str) -> bool:
    """Whether a subject without wildcards is covered by a pattern: `*` is one token, a last `>` one or more."""
    wanted, given = pattern.split("."), subject.split(".")
    if wanted[-1] == ">":
        return len(given) >= len(wanted) and _covers(wanted[:-1], given)
    return len(given) == len(wanted) and _covers(wanted, given)


def _covers(wanted: Sequence[str], given: Sequence[str]) -> bool:
    return all(token in ("*", told) for token, told in zip(wanted, given, strict=False))


def may_publish(permissions: Mapping[str, Any] | None, subject: str) -> bool:
    """Whether a user with these permissions may publish on a subject. None: there are none, so it may."""
    publish = (permissions or {}).get("publish") or {}
    allowed, denied = publish.get("allow") or (), publish.get("deny") or ()
    if any(matches(pattern, subject) for pattern in denied):
        return False
    return not allowed or any(matches(pattern, subject) for pattern in allowed)


def destructive_calls(permissions: Mapping[str, Any] | None, stream: str) -> list[str]:
    """Which calls that change or empty the stream a user with these permissions may make."""
    return [call for call in DESTRUCTIVE if may_publish(permissions, f"$JS.API.STREAM.{call}.{stream}")]
