"""Personal data and secrets in texts: e-mail addresses, phone numbers, payment cards, keys. Pure.

They are found by shape and checksum, and nothing by guessing: no names, no places, no passwords. Sources: RFC 5321 for
addresses, ITU-T E.164 for numbers (7 to 15 digits), ISO/IEC 7812-1 for cards (the ranges that issuers use, and the
Luhn checksum), and the prefixes that services document for their keys. Patterns are bounded: nothing takes for ever.
"""

import base64
import binascii
import re
from collections.abc import Callable, Collection
from typing import Any, Literal

import msgspec
from msgspec import Struct

Kind = Literal["email", "phone", "card", "key"]
ALL: tuple[Kind, ...] = ("email", "phone", "card", "key")


class Found(Struct, frozen=True, order=True):
    """Where something is: `text[start:end]`. It does not hold the text, so that it can be logged."""

    start: int
    end: int
    kind: Kind


Mask = Callable[[Found, str], str]
"""What to put in the place of something found: told which, and the text that it is."""

# What may stand before and after: a longer word or number is another thing.
_EMAIL = re.compile(
    r"(?<![A-Za-z0-9._%+-])[A-Za-z0-9][A-Za-z0-9._%+-]{0,63}@(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.){1,8}"
    r"[A-Za-z][A-Za-z0-9-]{1,62}(?![A-Za-z0-9-]*@)"
)
_DIGITS = re.compile(r"(?<![\w.+-])\+?\(?\d(?:[ ./()-]{0,3}\d){6,24}(?![\w-])")
_KEY = re.compile(
    r"(?<![A-Za-z0-9_-])(?:tl-[A-Za-z0-9_-]{43}|sk-[A-Za-z0-9_-]{16,200}|(?:AKIA|ASIA)[A-Z0-9]{16}"
    r"|gh[pousr]_[A-Za-z0-9]{36,251}|github_pat_[A-Za-z0-9_]{22,251}|xox[abeoprs]-[A-Za-z0-9-]{10,250}"
    r"|AIza[A-Za-z0-9_-]{35}|S[UAONC][A-Z2-7]{56}|eyJ[A-Za-z0-9_-]{8,2000}\.[A-Za-z0-9_-]{4,8000}\.[A-Za-z0-9_-]{8,2000})"
    r"(?![A-Za-z0-9_-])"
)
_PEM = re.compile(r"-----BEGIN [A-Z ]{0,40}PRIVATE KEY-----[^-]{1,16384}-----END [A-Z ]{0,40}PRIVATE KEY-----")
_BEARER = re.compile(r"(?<![A-Za-z])[Bb]earer +([A-Za-z0-9._~+/=-]{20,4096})")

_DATE = re.compile(
    r"(?:19|20)\d\d[./-](?:0?[1-9]|1[0-2])[./-](?:0?[1-9]|[12]\d|3[01])|\d{1,2}[./-]\d{1,2}[./-](?:19|20)\d\d"
)
_ADDRESS = re.compile(r"\d{1,3}(?:\.\d{1,3}){3}")
_NANP = re.compile(r"(?:1[ .-])?\(?[2-9]\d\d\)?[ .-]{1,2}[2-9]\d\d[ .-]\d{4}")
_TRUNK = re.compile(r"\(?0\d{1,5}\)?[ ./-]{1,3}\d[\d ./-]{3,16}\d")

_CARDS = re.compile(
    r"4(?:\d{12}|\d{15}|\d{18})|5[1-5]\d{14}|(?:222[1-9]|22[3-9]\d|2[3-6]\d\d|27[01]\d|2720)\d{12}|3[47]\d{13}"
    r"|(?:6011|65\d\d|64[4-9]\d)\d{12}|35(?:2[89]|[3-8]\d)\d{12}|3(?:0[0-5]|[68]\d)\d{11}|62\d{14,17}"
    r"|(?:5018|5020|5038|5893|6304|6759|676[1-3])\d{8,15}"
)
"""The ranges of Visa, Mastercard (two), American Express, Discover, JCB, Diners Club, UnionPay and Maestro."""


def find(text: str, kinds: Collection[Kind] = ALL) -> list[Found]:
    """Everything of these kinds, in order and apart from one another; of two at one place the one that is longer."""
    found = [one for kind in ALL if kind in kinds for one in _FINDERS[kind](text)]
    if {"card", "phone"} - set(kinds):  # a card is no phone, whether or not somebody looks for cards
        found = [one for one in found if one.kind != "phone" or not _is_card(text[one.start : one.end])]
    apart: list[Found] = []
    for one in sorted(found, key=lambda one: (one.start - one.end, one.start, ALL.index(one.kind))):
        if all(one.end <= other.start or other.end <= one.start for other in apart):
            apart.append(one)
    return sorted(apart)


def redact(text: str, kinds: Collection[Kind] = ALL, mask: Mask | None = None) -> str:
    """The text with `[EMAIL]`, `[PHONE]`, `[CARD]` and `[KEY]` in the place of what was found, or what `mask` gives."""
    while found := find(text, kinds):
        out, place = [], 0
        for one in found:
            original = text[one.start : one.end]
            out += [text[place : one.start], mask(one, original) if mask is not None else f"[{one.kind.upper()}]"]
            place = one.end
        text = "".join([*out, text[place:]])
        if mask is not None:  # what it gives is its own affair
            break
    return text


def redact_json(value: Any, kinds: Collection[Kind] = ALL, mask: Mask | None = None) -> Any:
    """A JSON value with all of its texts redacted. Names of fields stay as they are, and so do numbers."""
    if isinstance(value, str):
        return redact(value, kinds, mask)
    if isinstance(value, dict):
        return {name: redact_json(one, kinds, mask) for name, one in value.items()}
    if isinstance(value, list):
        return [redact_json(one, kinds, mask) for one in value]
    return value


def luhn(digits: str) -> bool:
    """Whether the checksum of ISO/IEC 7812-1 holds: each second digit from the right doubled, the sum ends in 0."""
    total = 0
    for place, digit in enumerate(reversed(digits)):
        number = int(digit) * (2 if place % 2 else 1)
        total += number - 9 if number > 9 else number
    return total % 10 == 0


def _is_card(text: str) -> bool:
    digits = re.sub(r"\D", "", text)
    if re.search(r"[^\d -]|[ -]{2}", text) or not _CARDS.fullmatch(digits):
        return False
    return len(set(digits)) > 1 and luhn(digits)


def _is_phone(text: str) -> bool:
    digits = sum(character.isdigit() for character in text)
    if not 7 <= digits <= 15 or _DATE.search(text) or _ADDRESS.fullmatch(text):
        return False
    if text.startswith("+"):  # what is in parentheses is the area, and comes first
        return text[1] != "0" and text.rfind("(") < 6
    return bool(_NANP.fullmatch(text) or _TRUNK.fullmatch(text))


def _numbers(text: str, kind: Kind, suits: Callable[[str], bool]) -> list[Found]:
    """Runs of digits that suit, and what groups of a run do: `call 5555 or 4111 1111 1111 1111` is not one run."""
    found = []
    for run in _DIGITS.finditer(text):
        taken = 0
        for start, end in _groups(run.group()):
            if start >= taken and suits(run.group()[start:end]):
                found.append(Found(run.start() + start, run.start() + end, kind))
                taken = end
    return found


def _groups(run: str) -> list[tuple[int, int]]:
    """Where parts of a run of digits lie that spaces set apart, from each start the longest first."""
    words = [*re.finditer(r"\S+", run)]
    spans = []
    for first in range(len(words)):
        for last in range(len(words) - 1, first - 1, -1):
            start, end = words[first].start(), words[last].end()
            if run[start] == "(" and ")" not in run[start:end]:  # it belongs to the sentence
                start += 1
            spans.append((start, end))
    return sorted(spans, key=lambda span: (span[0], -span[1]))


def _keys(text: str) -> list[Found]:
    found = [Found(one.start(), one.end(), "key") for one in _PEM.finditer(text)]
    found += [Found(one.start(1), one.end(1), "key") for one in _BEARER.finditer(text)]
    for one in _KEY.finditer(text):
        if not one.group().startswith("eyJ") or _is_token(one.group()):
            found.append(Found(one.start(), one.end(), "key"))
    return found


def _is_token(text: str) -> bool:
    """Whether the first part of what looks like a JSON Web Token (RFC 7519) names an algorithm."""
    head = text.partition(".")[0]
    try:
        return "alg" in msgspec.json.decode(
            base64.urlsafe_b64decode(head + "=" * (-len(head) % 4)), type=dict[str, Any]
        )
    except (binascii.Error, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False


_FINDERS: dict[Kind, Callable[[str], list[Found]]] = {
    "email": lambda text: [Found(one.start(), one.end(), "email") for one in _EMAIL.finditer(text)],
    "phone": lambda text: _numbers(text, "phone", _is_phone),
    "card": lambda text: _numbers(text, "card", _is_card),
    "key": _keys,
}
