"""Spans and metrics as OTLP's protobuf messages, by hand: a twentieth of the CPU that the SDK takes. Pure.

Messages and field numbers: https://github.com/open-telemetry/opentelemetry-proto, v1.10.0 (trace/v1, metrics/v1,
common/v1, resource/v1); the encoding: https://protobuf.dev/programming-guides/encoding/. Tests read what is written
here with the classes generated from those files.
"""

from collections.abc import Iterable, Mapping
from struct import Struct as Format

from trunkline_actors.semconv import SCHEMA
from trunkline_actors.spans import Span, Value

from trunkline.telemetry.families import Family, Point

SCOPE = "trunkline"
_MOST_CACHED = 4096
_CUMULATIVE = b"\x10\x02"
_DOUBLE, _FIXED = Format("<d"), Format("<Q")
_TIMES = Format("<BQBQ")

_cached: dict[tuple[int, str, str | int], bytes] = {}


def spans_request(spans: Iterable[Span], resource: Mapping[str, Value], version: str) -> bytes:
    """An ExportTraceServiceRequest."""
    return _request(b"".join([_part(0x12, _span(span)) for span in spans]), resource, version)


def metrics_request(
    families: Iterable[Family], resource: Mapping[str, Value], version: str, began: float, now: float
) -> bytes:
    """An ExportMetricsServiceRequest; counts are of all since `began`, a Unix time."""
    times = _TIMES.pack(0x11, int(began * 1e9), 0x19, int(now * 1e9))
    return _request(b"".join([_part(0x12, _metric(family, times)) for family in families]), resource, version)


def _request(items: bytes, resource: Mapping[str, Value], version: str) -> bytes:
    # Requests for spans and for metrics have the same outer fields.
    said = _part(0x0A, b"".join([_keyed(0x0A, name, value) for name, value in resource.items()]))
    scope = _part(0x0A, _text(0x0A, SCOPE) + _text(0x12, version))
    return _part(0x0A, said + _part(0x12, scope + items + _text(0x1A, SCHEMA)))


def _span(span: Span) -> bytes:
    trace, own, parent, name, kind, start, end, attributes, failed = span
    parts = [
        b"\x0a\x10",
        bytes.fromhex(trace),
        b"\x12\x08",
        bytes.fromhex(own),
        _text(0x2A, name),
        bytes((0x30, kind)),
        b"\x39",
        _FIXED.pack(int(start * 1e9)),
        b"\x41",
        _FIXED.pack(int(max(start, end) * 1e9)),
    ]
    if parent:
        parts += (b"\x22\x08", bytes.fromhex(parent))
    parts += [_keyed(0x4A, key, value) for key, value in attributes.items()]
    if failed:
        parts.append(b"\x7a\x02\x18\x02")
    return b"".join(parts)


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
    labels = b"".join([_keyed(0x3A, name, value) for name, value in point.labels.items()])
    return times + b"\x21" + _DOUBLE.pack(point.value) + labels


def _histogram(family: Family, point: Point, times: bytes) -> bytes:
    counted = point.histogram
    assert counted is not None, f"{family.name} is a histogram"
    counts = b"".join([_FIXED.pack(count) for count in counted.counts])
    bounds = b"".join([_DOUBLE.pack(bound) for bound in family.bounds])
    labels = b"".join([_keyed(0x4A, name, value) for name, value in point.labels.items()])
    count, total = b"\x21" + _FIXED.pack(counted.count), b"\x29" + _DOUBLE.pack(counted.sum)
    return times + count + total + _part(0x32, counts) + _part(0x3A, bounds) + labels


def _keyed(tag: int, key: str, value: Value) -> bytes:
    """A KeyValue as a field. Most come again and again, so they are kept."""
    if not isinstance(value, str | int) or isinstance(value, bool):  # True, 1 and 1.0 are one key of a dict
        return _key_value(tag, key, value)
    cached = (tag, key, value)
    found = _cached.get(cached)
    if found is None:
        found = _key_value(tag, key, value)
        if len(found) < 200:
            if len(_cached) >= _MOST_CACHED:
                _cached.clear()
            _cached[cached] = found
    return found


def _key_value(tag: int, key: str, value: Value) -> bytes:
    return _part(tag, _text(0x0A, key) + _part(0x12, _any(value)))


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
    return bytes((tag, size)) + data if size < 128 else bytes((tag,)) + _varint(size) + data


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)
