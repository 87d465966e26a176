"""Spans and metrics as OTLP's protobuf messages, by hand: a fraction of the CPU that the SDK takes. Pure.

Messages and field numbers: https://github.com/open-telemetry/opentelemetry-proto, v1.10.0 (trace/v1, metrics/v1,
common/v1, resource/v1); the encoding: https://protobuf.dev/programming-guides/encoding/. Tests read what is written
here with the classes generated from those files.
"""

from collections.abc import Iterable, Mapping
from struct import Struct as Format
from typing import Any

from trunkline_actors.semconv import SCHEMA
from trunkline_actors.spans import Own, Said, Span, Value

from trunkline.telemetry.families import Family, Point

SCOPE = "trunkline"
_MOST_CACHED = 2_000
_LARGEST_CACHED = 2_000
_CUMULATIVE = b"\x10\x02"
_DOUBLE, _FIXED = Format("<d"), Format("<Q")
_TIMES = Format("<BQBQ")

_shared: dict[Said, bytes] = {}
_names: dict[str, bytes] = {}
"""What comes again and again, as it goes over the wire."""


def spans_request(spans: Iterable[bytes], resource: Mapping[str, Value], version: str) -> bytes:
    """An ExportTraceServiceRequest of spans as `encoded` has them."""
    return _request(b"".join(spans), resource, version)


def metrics_request(
    families: Iterable[Family], resource: Mapping[str, Value], version: str, began: float, now: float
) -> bytes:
    """An ExportMetricsServiceRequest; counts are of all since `began`, a Unix time."""
    times = _TIMES.pack(0x11, int(began * 1e9), 0x19, int(now * 1e9))
    return _request(b"".join([_part(0x12, _metric(family, times)) for family in families]), resource, version)


def _request(items: bytes, resource: Mapping[str, Value], version: str) -> bytes:
    # Requests for spans and for metrics have the same outer fields.
    said = _part(0x0A, b"".join([_key_value(0x0A, name, value) for name, value in resource.items()]))
    scope = _part(0x0A, _text(0x0A, SCOPE) + _text(0x12, version))
    return _part(0x0A, said + _part(0x12, scope + items + _text(0x1A, SCHEMA)))


def encoded(span: Span) -> bytes:
    """A span as a part of such a request."""
    trace, number, parent, said, start, end, own, failed, marks = span
    shared = _shared.get(said)
    if shared is None:
        shared = _kept(_shared, said, _alike(said))
    body = b"%b%b%b%b%b%b" % (
        bytes.fromhex(f"0a10{trace}1208{number}2208{parent}" if parent else f"0a10{trace}1208{number}"),
        shared,
        _TIMES.pack(0x39, int(start * 1e9), 0x41, int((end if end > start else start) * 1e9)),  # noqa: FURB136 - dearer
        b"".join([_key_value(0x4A, key, value) for key, value in own]),
        b"".join([_event(*mark) for mark in marks]) if marks else b"",
        b"\x7a\x02\x18\x02" if failed else b"",
    )
    return _part(0x12, body)


def _event(at: float, said: Said, own: Own) -> bytes:
    shared = _shared.get(said)
    if shared is None:
        name, attributes = said[0](*said[1:])
        parts = [_key_value(0x1A, key, value) for key, value in attributes.items()]
        shared = _kept(_shared, said, b"".join([_text(0x12, name), *parts]))
    more = b"".join([_key_value(0x1A, key, value) for key, value in own])
    return _part(0x5A, b"\x09%b%b%b" % (_FIXED.pack(int(at * 1e9)), shared, more))


def _alike(said: Said) -> bytes:
    name, kind, attributes = said[0](*said[1:])
    parts = [_key_value(0x4A, key, value) for key, value in attributes.items()]
    return b"".join([_text(0x2A, name), bytes((0x30, kind)), *parts])


def _kept(cache: dict[Any, bytes], key: Any, made: bytes) -> bytes:
    if len(cache) >= _MOST_CACHED:
        cache.clear()
    if len(made) < _LARGEST_CACHED:
        cache[key] = made
    return made


def _metric(family: Family, times: bytes) -> bytes:
    head = _text(0x0A, family.name) + _text(0x12, family.help) + _text(0x1A, family.unit)
    if family.kind == "histogram":
        points = b"".join([_part(0x0A, _histogram(family, point, times)) for point in family.points])
        return head + _part(0x4A, points + _CUMULATIVE)
    points = b"".join([_part(0x0A, _number(point, times)) for point in family.points])
    if family.kind == "counter":
        return head + _part(0x3A, points + _CUMULATIVE + b"\x18\x01")
    return head + _part(0x2A, points)


def _number(point: Point, times: bytes) -> bytes:
    labels = b"".join([_key_value(0x3A, name, value) for name, value in point.labels.items()])
    return times + b"\x21" + _DOUBLE.pack(point.value) + labels


def _histogram(family: Family, point: Point, times: bytes) -> bytes:
    counted = point.histogram
    assert counted is not None, f"{family.name} is a histogram"
    counts = b"".join([_FIXED.pack(count) for count in counted.counts])
    bounds = b"".join([_DOUBLE.pack(bound) for bound in family.bounds])
    labels = b"".join([_key_value(0x4A, name, value) for name, value in point.labels.items()])
    count, total = b"\x21" + _FIXED.pack(counted.count), b"\x29" + _DOUBLE.pack(counted.sum)
    return times + count + total + _part(0x32, counts) + _part(0x3A, bounds) + labels


def _key_value(tag: int, key: str, value: Value) -> bytes:
    """A KeyValue as a field."""
    named = _names.get(key)
    if named is None:
        named = _kept(_names, key, _text(0x0A, key))
    size = len(named)
    if isinstance(value, str):
        text = value.encode("utf-8", "replace")
        length = len(text)
        if size + length < 120:
            return b"%c%c%b\x12%c\x0a%c%b" % (tag, size + length + 4, named, length + 2, length, text)
    elif type(value) is int and size < 100 and value >= 0:
        number = bytes((value,)) if value < 128 else _varint(value)
        return b"%c%c%b\x12%c\x18%b" % (tag, size + len(number) + 3, named, len(number) + 1, number)
    elif type(value) is float and size < 100:
        return b"%c%c%b\x12\x09\x21%b" % (tag, size + 11, named, _DOUBLE.pack(value))
    return _part(tag, named + _part(0x12, _any(value)))


def _any(value: Value) -> bytes:
    if isinstance(value, str):
        return _text(0x0A, value)
    if isinstance(value, bool):
        return b"\x10\x01" if value else b"\x10\x00"
    if isinstance(value, int):
        return b"\x18" + _varint(value & 0xFFFFFFFFFFFFFFFF)
    if isinstance(value, float):
        return b"\x21" + _DOUBLE.pack(value)
    return _part(0x2A, b"".join([_part(0x0A, _text(0x0A, one)) for one in value]))


def _text(tag: int, value: str) -> bytes:
    return _part(tag, value.encode("utf-8", "replace"))


def _part(tag: int, data: bytes) -> bytes:
    size = len(data)
    return bytes((tag, size)) + data if size < 128 else b"%c%b%b" % (tag, _varint(size), data)


def _varint(number: int) -> bytes:
    if 127 < number < 16_384:  # most are
        return bytes((number & 127 | 128, number >> 7))
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)
