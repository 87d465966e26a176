"""Bad messages from good ones: what a broken client, a curious user or a bad cable might send."""

import random
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

_NASTY: list[Any] = [
    None,
    True,
    -1,
    0,
    2**31,
    2**63,
    2**64,
    10**40,
    1e308,
    "",
    "-",
    " ",
    "*",
    ">",
    "a.b",
    "\x00",
    "\n",
    "\u2028",
    "é" * 100,
    "x" * 5000,
    "\U0001f600",
    "${HOME}",
    [],
    [[]],
    {},
    {"a": {}},
    [None],
    ["x"] * 100,
]
_RAW = [b"NaN", b"Infinity", b"-Infinity", b"1e999", b'"\\ud800"', b'"\\udc00x"', b"\xff\xfe", b"0x10", b"01", b"'a'"]
_WHOLE = [
    b"",
    b"null",
    b"0",
    b'""',
    b"[]",
    b"{}",
    b"\x00",
    b"\xff" * 32,
    b"\xef\xbb\xbf{}",
    b"[" * 10_000,
    b'{"a":' * 10_000,
    b'{"model":' + b"[" * 10_000 + b"]" * 10_000 + b"}",
    b"9" * 10_000,
    b'"' + b"\\u0000" * 2000 + b'"',
    b"{" + b'"a":1,' * 5000 + b'"a":1}',
    "\u202e\U0001f4a9".encode(),
]

Change = Callable[[random.Random, bytes], bytes]


def _cut(draw: random.Random, body: bytes) -> bytes:
    return body[: draw.randrange(len(body) + 1)]


def _flip(draw: random.Random, body: bytes) -> bytes:
    changed = bytearray(body)
    for _ in range(draw.choice((1, 1, 2, 8))):
        changed[draw.randrange(len(changed))] ^= 1 << draw.randrange(8)
    return bytes(changed)


def _insert(draw: random.Random, body: bytes) -> bytes:
    place = draw.randrange(len(body))
    return body[:place] + draw.randbytes(draw.choice((1, 4, 64))) + body[place:]


def _repeat(draw: random.Random, body: bytes) -> bytes:
    start, end = sorted(draw.randrange(len(body) + 1) for _ in range(2))
    return body[:end] + body[start:end] * draw.choice((1, 2, 50)) + body[end:]


def _swap(draw: random.Random, body: bytes) -> bytes:
    """Another type or an extreme value somewhere in the tree."""
    tree = msgspec.json.decode(body)
    holder, key = draw.choice(list(_places(tree)))
    holder[key] = draw.choice(_NASTY)
    return msgspec.json.encode(tree)


def _raw(draw: random.Random, body: bytes) -> bytes:
    """Something that is no JSON value, in the place of one."""
    tree = msgspec.json.decode(body)
    holder, key = draw.choice(list(_places(tree)))
    holder[key] = "@@@"
    return msgspec.json.encode(tree).replace(b'"@@@"', draw.choice(_RAW), 1)


def _drop(draw: random.Random, body: bytes) -> bytes:
    tree = msgspec.json.decode(body)
    holder, key = draw.choice(list(_places(tree)))
    del holder[key]
    return msgspec.json.encode(tree)


def _deep(draw: random.Random, body: bytes) -> bytes:
    tree = msgspec.json.decode(body)
    holder, key = draw.choice(list(_places(tree)))
    holder[key] = "@@@"
    depth = draw.choice((100, 10_000))
    return msgspec.json.encode(tree).replace(b'"@@@"', b"[" * depth + b"]" * depth, 1)


def _whole(draw: random.Random, body: bytes) -> bytes:
    return draw.choice(_WHOLE)


def _noise(draw: random.Random, body: bytes) -> bytes:
    return draw.randbytes(draw.choice((1, 10, 100, 1000)))


CHANGES: list[Change] = [_cut, _flip, _insert, _repeat, _swap, _swap, _raw, _drop, _deep, _whole, _noise]


def mutated(draw: random.Random, body: bytes) -> bytes:
    """One change to a good body of JSON, at random."""
    return draw.choice(CHANGES)(draw, body)


def _places(tree: Any) -> Iterator[tuple[Any, Any]]:
    """Every value in the tree, as its container and its key."""
    keys = range(len(tree)) if isinstance(tree, list) else list(tree) if isinstance(tree, dict) else ()
    for key in keys:
        yield tree, key
        yield from _places(tree[key])
