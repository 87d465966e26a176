"""The arguments of commands about the policy. Pure."""

from typing import Any

import msgspec


class Publish(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The arguments of `policy.publish`. `base` is the version that the document was made from."""

    policy: Any
    base: int | None = None
    reason: str | None = None


class Validate(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The arguments of `policy.validate`."""

    policy: Any


class Get(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The arguments of `policy.get`; by default the version in force."""

    version: int | None = None


class Listing(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The arguments of `policy.history`: at most `limit` versions, the newest first, of those before `after`."""

    limit: int = 100
    after: int | None = None


class Compare(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename={"before": "from"}):
    """The arguments of `policy.diff`: two versions, or one and a document.

    By default `to` is the version in force and `from` the one before `to`, or the one in force where a document is
    given.
    """

    before: int | None = None
    to: int | None = None
    policy: Any = msgspec.UNSET


class RollBack(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The arguments of `policy.rollback`. `force`: even where it names what isn't there any more."""

    to: int
    force: bool = False
    reason: str | None = None


class SetOverride(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The arguments of `policy.override`; no model clears it. `until` is RFC 3339 or Unix time."""

    model: str | None
    for_s: float | None = None
    until: float | str | None = None
    reason: str | None = None
