"""Card and phone numbers in text, for `trunkline.pii`. Pure.

Issuers and lengths of cards follow the table in Wikipedia's "Payment card number", but that Maestro is taken for all of
50, 56 to 58 and 6; the check digit is that of ISO/IEC 7812-1, annex B. One number in ten has it by chance, so that one
of about twenty-five random runs of 16 digits is taken for a card.

No phones: dates, times, IP addresses, versions, decimals, ISBNs, IBANs, UUIDs, digits that stand in an identifier, and
plain runs of digits, but for those of 10 or 11 with a trunk 0, as mobile numbers are written in half of Europe.
Where it can't be told whether the digits behind a number are part of it, they are taken along.

Why redacting is idempotent: a number is judged by its own characters, and by its neighbours only as far as these keep
them apart (`_LEFT`, `_END`): what glues digits behind a number to it also keeps a number from beginning there.
"""

import re
from collections.abc import Iterator
from typing import Literal

Spot = tuple[Literal["card", "phone"], int, int]

LEAST, MOST = 7, 15
"""Digits of a phone number."""


def look(seen: bytearray) -> Iterator[Spot]:
    """Kind, start and end of each. What was given is overwritten by the caller before it asks for the next one."""
    for pattern in (_UUID, _IBAN):
        for match in pattern.finditer(seen):
            if pattern is _UUID or _is_iban(match[0]):
                seen[match.start() : match.end()] = b"_" * len(match[0])
    yield from _phones(seen, signed=True)  # before cards: what stands after a + is none
    yield from _cards(seen)
    yield from _phones(seen, signed=False)


# -- what looks like it, and isn't -------------------------------------------------------------------------------------

_UUID = re.compile(rb"(?<![A-Za-z0-9])[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}(?![A-Za-z0-9])")
_IBAN = re.compile(rb"(?<![A-Za-z0-9])[A-Z]{2}[0-9]{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?(?![A-Za-z0-9])")

_DAY = rb"(?:0?[1-9]|[12][0-9]|3[01])"
_NONE = (
    rb"(?i:isbn)[-: ]*+(?:1[03]:?[ ]++)?(?:97[89][ -]?)?(?:[0-9][ -]?){9}[0-9Xx](?![0-9])",
    rb"(?:19|20)[0-9]{2}(?P<ymd>[-/.])" + _DAY + rb"(?P=ymd)" + _DAY + rb"(?![0-9])",
    _DAY + rb"(?P<dmy>[-/. ])" + _DAY + rb"(?P=dmy)(?:19|20)[0-9]{2}(?![0-9])(?![-./][0-9])",
    _DAY + rb"/" + _DAY + rb"/[0-9]{2}(?![0-9])(?!/[0-9])",
    rb"[0-9]{1,3}(?:\.[0-9]{1,3}){3}(?![0-9])(?!\.[0-9])",  # an IP address, or a version
    rb"\+?[1-9][0-9]{0,2}(?:\.[0-9]{3}){1,4}(?![0-9])(?!\.[0-9])",  # 1.234.567
)


def _is_iban(written: bytes) -> bool:
    """By its check digits, ISO 13616."""
    text = written.replace(b" ", b"").decode()
    return int("".join(str(int(sign, 36)) for sign in text[4:] + text[:4])) % 97 == 1


# -- cards -------------------------------------------------------------------------------------------------------------

ISSUERS: dict[str, tuple[list[range], range]] = {
    "Visa": ([range(4, 5)], range(13, 20, 3)),
    "Mastercard": ([range(51, 56), range(2221, 2721)], range(16, 17)),
    "American Express": ([range(34, 35), range(37, 38)], range(15, 16)),
    "Discover": ([range(6011, 6012), range(644, 650), range(65, 66)], range(16, 20)),
    "JCB": ([range(3528, 3590)], range(16, 20)),
    "Diners Club": ([range(300, 306), range(3095, 3096), range(36, 37), range(38, 40)], range(14, 20)),
    "UnionPay": ([range(62, 63)], range(16, 20)),
    "Maestro": ([range(50, 51), range(56, 59), range(6, 7)], range(12, 20)),
}
"""What numbers of an issuer begin with, and how many digits they have."""

_LENGTHS = {
    str(prefix).encode(): frozenset(lengths)
    for prefixes, lengths in ISSUERS.values()
    for several in prefixes
    for prefix in several
}
_CARD_START = re.compile(rb"(?<![\w+])(?<![0-9]\.)[2-6](?=(?:[ -]?[0-9]){11})")
_CARD = re.compile(rb"[0-9](?:[ -]?[0-9]){11,18}")
_CARD_END = re.compile(rb"(?!\w)(?!\.[0-9])")
_DOUBLED = bytes.maketrans(b"0123456789", b"0246813579")


def has_check_digit(digits: bytes) -> bool:
    """Whether the last digit is the check digit of the others, by Luhn's formula."""
    odd, even = digits[::-2], digits[-2::-2].translate(_DOUBLED)
    return (sum(odd) + sum(even) - len(digits) * ord("0")) % 10 == 0


def _cards(seen: bytearray) -> Iterator[Spot]:
    for start in _CARD_START.finditer(seen):
        end = _end_of_card(seen, start.start())
        if end is not None:
            yield "card", start.start(), end


def _end_of_card(seen: bytearray, start: int) -> int | None:
    """Where a card number that begins here ends, the longest there is."""
    written = _CARD.match(seen, start)
    if written is None:
        return None
    digits = re.sub(rb"[ -]", b"", written[0])
    lengths = frozenset[int]().union(*(_LENGTHS.get(digits[:size], ()) for size in range(1, 5)))
    end = written.end()
    for length in range(len(digits), 11, -1):
        if length in lengths and _CARD_END.match(seen, end) and has_check_digit(digits[:length]):
            return end
        end -= 1 if seen[end - 2 : end - 1].isdigit() else 2
    return None


# -- phones ------------------------------------------------------------------------------------------------------------

_LEFT = rb"(?<![\w#$])(?<![A-Za-z0-9]-)(?<![0-9][.:])"
_END = re.compile(rb"(?!\w)(?![-.:][0-9])")
_AMERICAN = (  # exactly 3-3-4; with spaces only where area and exchange are possible ones
    rb"(?:1[-. ])?(?:\([1-9][0-9]{2}\)[ -]?[0-9]{3}[-. ]|[1-9][0-9]{2}(?P<by>[-.])[0-9]{3}(?P=by)"
    rb"|[2-9][0-9]{2}[-./ ][2-9][0-9]{2}[-. ])[0-9]{4}" + _END.pattern
)
_BEGUN = (
    rb"\(\+[1-9][0-9]{0,2}\)|\+[1-9][0-9]*+|00[1-9][0-9]*+"  # with the code of a country
    rb"|\(0[1-9][0-9]{0,4}\)|0[1-9][0-9]*+"  # with a trunk 0
)
_PHONE = re.compile(
    _LEFT + rb"(?:(?P<none>" + b"|".join(_NONE) + rb")|(?P<american>" + _AMERICAN + rb")|(?P<begun>" + _BEGUN + rb"))"
)
_BY = rb"(?: [-/] |[-/. ])"
_AREA = re.compile(_BY + rb"?\([0-9]{1,5}\)" + _BY + rb"?[0-9]++")  # +49 (0)30 …, only behind the country
_PART = re.compile(_BY + rb"[0-9]++")
_AFTER_PARENTHESIS = re.compile(_BY + rb"?[0-9]++")
_EXTENSION = re.compile(rb"-[0-9]{1,5}(?![0-9])")
_ONE_ALONE = re.compile(rb"\.[0-9](?![0-9])")
_WHOLE = range(10, 12)
"""Digits of a number with a trunk 0 that may be written without anything between them."""
_FULL = 10
"""From so many digits on, what begins like a number is the next one."""


def _phones(seen: bytearray, *, signed: bool) -> Iterator[Spot]:
    for match in _PHONE.finditer(seen):
        end: int | None = None
        if match["american"] and not signed:
            end = match.end()
        elif match["begun"] and (not signed or b"+" in match["begun"]):
            end = _end_of_phone(seen, match.start(), match.end())
        if end is not None:
            yield "phone", match.start(), end


def _end_of_phone(seen: bytearray, start: int, end: int) -> int | None:
    """Where a phone number ends of which this is the first part: the farthest place where one may."""
    best = end if _is_phone(seen, start, end) else None
    first = _count(seen[start:end])
    while (part := _part(seen, start, end, first)) and _count(seen[start : part.end()]) <= MOST:
        if _count(seen[start:end]) >= _FULL and _begins_another(seen, part):
            break
        end = part.end()
        if _is_phone(seen, start, end):
            best = end
    return best


def _part(seen: bytearray, start: int, end: int, first: int) -> re.Match[bytes] | None:
    """What is joined to a number so far."""
    if first > LEAST:  # written without anything between, so it is whole
        return _EXTENSION.match(seen, end) if _count(seen[start:end]) == first else None
    if seen[end - 1 : end] == b")":
        return _AFTER_PARENTHESIS.match(seen, end)
    signed = seen[start : start + 1] == b"+" or seen[start : start + 2] == b"00"
    area = _AREA.match(seen, end) if signed and _count(seen[start:end]) == first else None
    return area or _PART.match(seen, end)


def _begins_another(seen: bytearray, part: re.Match[bytes]) -> bool:
    at = part.end() - len(part[0].lstrip(b" -/."))
    return seen[at : at + 1] == b"0" or _end_of_card(seen, at) is not None


def _is_phone(seen: bytearray, start: int, end: int) -> bool:
    written = bytes(seen[start:end])
    joints = written.lstrip(b"(+").translate(None, b"0123456789")
    if not LEAST <= _count(written) <= MOST or not _END.match(seen, end):
        return False
    dots = joints.count(b".")
    if b"+" in written:
        return dots != 1 or len(joints) > 1  # a decimal number
    if not joints:
        return not written.startswith(b"00") and len(written) in _WHOLE
    return dots == 0 or (dots > 1 and dots == len(joints) and not _ONE_ALONE.search(written))


def _count(written: bytes | bytearray) -> int:
    return sum(map(written.count, b"0123456789"))
