"""Metrics as Prometheus reads them: its text format 0.0.4. Pure.

Names follow OpenTelemetry's rules for Prometheus: dots become underscores, units and `_total` are appended.
"""

from collections.abc import Iterable, Iterator, Mapping

from trunkline.telemetry.families import Family, Point

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_UNITS = {"s": "seconds", "By": "bytes", "USD": "usd"}
_ESCAPES = str.maketrans({"\\": r"\\", "\n": r"\n", '"': r"\""})


def text_of(families: Iterable[Family]) -> bytes:
    """The whole page. Families without series are left out."""
    return "".join(line for family in families if family.points for line in _lines(family)).encode("utf-8", "replace")


def name_of(family: Family) -> str:
    """A metric's name here."""
    name = family.name.replace(".", "_")
    unit = _UNITS.get(family.unit, "")
    if unit and not name.endswith(f"_{unit}"):
        name = f"{name}_{unit}"
    return f"{name}_total" if family.kind == "counter" else name


def _lines(family: Family) -> Iterator[str]:
    name = name_of(family)
    yield f"# HELP {name} {family.help}\n# TYPE {name} {family.kind}\n"
    for point in family.points:
        labels = _labels(point.labels)
        if point.histogram is None:
            yield f"{name}{{{labels}}} {_number(point.value)}\n" if labels else f"{name} {_number(point.value)}\n"
        else:
            yield from _buckets(name, labels, family, point)


def _buckets(name: str, labels: str, family: Family, point: Point) -> Iterator[str]:
    counted = point.histogram
    assert counted is not None
    before = f"{labels}," if labels else ""
    below = 0
    for bound, count in zip([*map(str, map(float, family.bounds)), "+Inf"], counted.counts, strict=True):
        below += count
        yield f'{name}_bucket{{{before}le="{bound}"}} {below}\n'
    end = f"{{{labels}}}" if labels else ""
    yield f"{name}_sum{end} {_number(counted.sum)}\n{name}_count{end} {below}\n"


def _labels(labels: Mapping[str, str]) -> str:
    return ",".join(f'{name.replace(".", "_")}="{value.translate(_ESCAPES)}"' for name, value in labels.items())


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(float(value))
