"""Personal data and keys in text: found by their form, and masked. Pure, with no word list and no guess at entropy.

    email    letters, digits and . _ % ' + - (of RFC 5321's dot-string), at a domain that ends in letters or xn--…
    phone    +… or 00…, a trunk 0, or North American 3-3-4: 7 to 15 digits (E.164)
    card     12 to 19 digits that begin as an issuer's do and end in their check digit (ISO/IEC 7812-1)
    key      by its known beginning, as a PEM block, as a JWT whose head says its algorithm, or after "Bearer"

What has several readings is a key before it is an e-mail address, that before a card, and that before a phone number.
Phones and cards: `trunkline.pii_numbers`. Time is linear in the text, whatever is in it: each pattern begins only
where a run of its characters does, is possessive there, or is of bounded length.

It finds what people write, not what they hide: no spelt-out numbers, no invisible characters, nothing inside base64.
"""

import base64
import re
from collections.abc import Callable, Collection, Iterator
from typing import Any, Literal

import msgspec
from msgspec import Struct

from trunkline import pii_numbers

Kind = Literal["email", "phone", "card", "key"]
ALL: frozenset[Kind] = frozenset(("email", "phone", "card", "key"))


class Found(Struct, frozen=True):
    """Where something is: `text[start:end]`. It doesn't hold the text, so that it can be logged."""

    kind: Kind
    start: int
    end: int


Mask = Callable[[Found, str], str]
"""What to put in the place of something found, which is given beside it."""


def find(text: str, kinds: Collection[Kind] = ALL) -> list[Found]:
    """All that is in a text, in order; no two overlap.

    Kinds not asked for are still recognised, so that the digits of a key are no phone number when only phones are.
    """
    seen = bytearray(text.translate(_PLAIN).encode("latin-1", "replace"))  # a byte for each character
    found = []
    for look in (_keys, _emails, pii_numbers.look):
        for kind, start, end in look(seen):
            # Overwritten at once, with what no pattern holds: the next one sees what a masked text would show.
            seen[start:end] = bytes(end - start)
            found.append(Found(kind, start, end))
    return sorted((one for one in found if one.kind in kinds), key=lambda one: one.start)


def redact(text: str, kinds: Collection[Kind] = ALL, mask: Mask | None = None) -> str:
    """The text with `[EMAIL]`, `[PHONE]`, `[CARD]` or `[KEY]` in place of each, or with what `mask` gives for it.

    With the first four, redacting again changes nothing.
    """
    parts, position = [], 0
    for one in find(text, kinds):
        original = text[one.start : one.end]
        parts += [text[position : one.start], mask(one, original) if mask else f"[{one.kind.upper()}]"]
        position = one.end
    return "".join([*parts, text[position:]])


def redact_json(value: Any, kinds: Collection[Kind] = ALL, mask: Mask | None = None) -> Any:
    """A JSON value with all of its strings redacted, the names in objects too; the value that was given stays as it is.

    Numbers and structure are kept: a name that would come twice gets ` (2)` after it. Each string is looked at alone.
    A value nested deeper than Python recurses (about 900 levels) raises RecursionError.
    """
    if isinstance(value, str):
        return redact(value, kinds, mask)
    if isinstance(value, list):
        items = []
        for item in value:
            items.append(redact_json(item, kinds, mask))  # noqa: PERF401 - a comprehension halves the depth it can go
        return items
    if not isinstance(value, dict):
        return value
    names = {name: redact(name, kinds, mask) for name in value}
    taken = {name for name, masked in names.items() if masked == name}
    times: dict[str, int] = {}
    fields = {}
    for name, item in value.items():
        masked = unique = names[name]
        while masked != name and unique in taken:
            times[masked] = times.get(masked, 1) + 1
            unique = f"{masked} ({times[masked]})"
        taken.add(unique)
        fields[unique] = redact_json(item, kinds, mask)
    return fields


_PLAIN: dict[int, int | str] = {
    **{0xFEE0 + code: code for code in range(0x21, 0x7F)},  # full-width forms
    **dict.fromkeys(map(ord, "\u00a0\u2007\u2009\u202f\u3000"), " "),
    **dict.fromkeys(map(ord, "\u2010\u2011\u2012\u2013\u2212"), "-"),
}
"""Characters that are written for ASCII ones, each for one."""

# -- keys --------------------------------------------------------------------------------------------------------------

_PEM = re.compile(
    rb"""-----BEGIN[ ](?:[A-Z0-9]{1,20}[ ]){0,3}PRIVATE[ ]KEY(?:[ ]BLOCK)?-----
    (?: (?:[A-Za-z0-9+/=\s\\:,.()]++|-(?!----))*+ -----END[ ](?:[A-Z0-9]{1,20}[ ]){0,3}PRIVATE[ ]KEY(?:[ ]BLOCK)?-----
      | (?:(?:\s|\\[nr])*+[A-Za-z0-9+/=]{16,}+)++ )  # cut off: as far as it looks like base64""",
    re.VERBOSE,
)
_MEANT = rb"(?=[\w.~+/-]*?(?:[0-9]|[A-Za-z]{20}))"
"""A digit, or twenty letters in a row: words joined by dashes are no key."""
_BEARER = re.compile(rb"(?i:(?<![a-z0-9])bearer)[ \t]++" + _MEANT + rb"([\w~+/-]++(?:\.[\w~+/-]++)*+=*+)")
_JWT_HEAD = re.compile(rb"(?<![\w-])e[wy][\w-]++(?=\.[\w-]*+\.)")  # e[wy]: how { and " or white space begin in base64
_JWT_REST = re.compile(rb"\.[\w-]*+\.[\w-]*+(?:\.[\w-]++){0,2}+")  # an encrypted one has five parts
_KNOWN = re.compile(
    rb"""(?<![\w-])(?:
      tl-[\w-]{43,}+                                     # ours
    | (?:sk|xai|pplx|nvapi|glpat)-"""
    + _MEANT
    + rb"""[\w-]{20,}+                                   # OpenAI, Anthropic (sk-ant-), OpenRouter, DeepSeek and others
    | (?:gsk|hf)_[A-Za-z0-9]{20,}+
    | A[KS]IA[0-9A-Z]{16}(?![A-Za-z0-9])                 # AWS
    | gh[oprsu]_[A-Za-z0-9]{36,}+ | github_pat_\w{22,}+
    | xox[abposr]-[A-Za-z0-9-]{10,}+                     # Slack
    | AIza[\w-]{35,}+                                    # Google
    | S[ACNOUX][A-Z2-7]{56}(?![A-Za-z0-9])               # seeds of NATS: SU of users, SA of accounts and so on
    )""",
    re.VERBOSE,
)
_SHORTEST_TOKEN = 20

Spot = tuple[Kind, int, int]


class _Head(Struct):
    alg: str


_head = msgspec.json.Decoder(_Head)


def _keys(seen: bytearray) -> Iterator[Spot]:
    for block in _PEM.finditer(seen):
        yield "key", *block.span()
    for head in _JWT_HEAD.finditer(seen):
        rest = _JWT_REST.match(seen, head.end())
        if rest and _names_its_algorithm(head[0]):
            yield "key", head.start(), rest.end()
    for token in _BEARER.finditer(seen):
        if len(token[1]) >= _SHORTEST_TOKEN:
            yield "key", *token.span(1)
    for known in _KNOWN.finditer(seen):
        yield "key", *known.span()


def _names_its_algorithm(part: bytes) -> bool:
    try:
        _head.decode(base64.urlsafe_b64decode(part + b"=" * (-len(part) % 4)))
    except (ValueError, RecursionError):  # no base64, no UTF-8, no JSON, or none with an alg
        return False
    return True


# -- e-mail addresses --------------------------------------------------------------------------------------------------

# Letters of Latin-1 beside those of ASCII, so that half of a name isn't left behind. Any other letter ends an address.
_EMAIL = re.compile(
    rb"""(?<![\w.%'+\xc0-\xff-]) ['.%+-]*+ (?P<address>[\w\xc0-\xff][\w.%'+\xc0-\xff-]*+ @
    (?![0-9]x\.)                                          # picture@2x.png
    (?:[A-Za-z0-9\xc0-\xff][A-Za-z0-9\xc0-\xff-]*+\.)+
    (?:xn--[A-Za-z0-9-]*[A-Za-z0-9]|[A-Za-z]{2,63}))(?![A-Za-z0-9])""",
    re.VERBOSE,
)


def _emails(seen: bytearray) -> Iterator[Spot]:
    for match in _EMAIL.finditer(seen):
        yield "email", *match.span("address")
