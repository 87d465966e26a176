"""Spans and metrics as OTLP has them, read back with the classes generated from OpenTelemetry's own files."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from otlp import spans_of, value_of
from trunkline.telemetry.families import Family, Point
from trunkline.telemetry.wire import encoded, metrics_request, spans_request
from trunkline_actors.spans import Mark, Span
from trunkline_actors.totals import Histogram

TEXT = st.text(st.characters(codec="utf-8"), max_size=300)
VALUES = st.one_of(
    TEXT, st.booleans(), st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False), st.lists(TEXT, max_size=3)
)
IDS = st.integers(1, 2**64 - 1).map(lambda number: f"{number:016x}")


def event(name: str, *pairs: tuple[str, Any]) -> tuple[str, dict[str, Any]]:
    """A shape of events within spans."""
    return name, dict(pairs)


OWN = st.dictionaries(TEXT, VALUES, max_size=5).map(lambda said: list(said.items()))
MARKS = st.builds(
    Mark,
    time=st.floats(1e9, 2e9),
    said=st.tuples(st.just(event), TEXT, st.tuples(TEXT, TEXT), st.tuples(TEXT, st.integers(0, 2**40))),
    own=OWN,
)


def shape(name: str, kind: int, *pairs: tuple[str, Any]) -> tuple[str, int, dict[str, Any]]:
    """A shape whose spans have these attributes alike."""
    return name, kind, dict(pairs)


SPANS = st.builds(
    Span,
    trace=st.integers(1, 2**128 - 1).map(lambda number: f"{number:032x}"),
    span=IDS,
    parent=st.one_of(st.just(""), IDS),
    said=st.tuples(
        st.just(shape), TEXT, st.integers(1, 3), st.tuples(TEXT, TEXT), st.tuples(TEXT, st.integers(0, 2**40))
    ),
    start=st.floats(1e9, 2e9),
    end=st.floats(1e9, 2e9),
    own=OWN,
    failed=st.booleans(),
    marks=st.lists(MARKS, max_size=3).map(tuple),
)


@given(st.lists(SPANS, max_size=4), st.dictionaries(TEXT, VALUES, max_size=3))
def test_whatever_a_span_says_arrives(spans: list[Span], resource: dict[str, Any]) -> None:
    read = ExportTraceServiceRequest.FromString(spans_request(map(encoded, spans), resource, "1"))
    arrived = spans_of(read)
    assert len(arrived) == len(spans)
    for one, sent in zip(arrived, spans, strict=True):
        assert (one.trace, one.span, one.parent, one.name, one.kind, one.failed) == (
            *(sent.trace, sent.span, sent.parent, sent.said[1], sent.said[2], sent.failed),
        )
        said = {**dict(sent.said[3:]), **dict(sent.own)}
        assert one.attributes == said
        assert {key: type(value) for key, value in one.attributes.items()} == {
            key: type(value) for key, value in said.items()
        }
        assert one.start == int(sent.start * 1e9)
        assert one.end >= one.start
        assert one.events == [
            (mark.said[1], int(mark.time * 1e9), {**dict(mark.said[2:]), **dict(mark.own)}) for mark in sent.marks
        ]
        assert one.resource == resource


def test_a_span_says_which_conventions_it_follows() -> None:
    [of_resource] = ExportTraceServiceRequest.FromString(spans_request([], {"service.name": "x"}, "1.2")).resource_spans
    [scope] = of_resource.scope_spans
    assert (scope.scope.name, scope.scope.version) == ("trunkline", "1.2")
    assert scope.schema_url.startswith("https://opentelemetry.io/schemas/")


@given(
    st.lists(st.integers(0, 2**40), min_size=3, max_size=3),
    st.floats(0, 1e12),
    st.dictionaries(TEXT, TEXT, max_size=3),
)
def test_whatever_was_counted_arrives(counts: list[int], total: float, labels: dict[str, str]) -> None:
    histogram = Point(labels, histogram=Histogram(counts=counts, sum=total))
    families = [
        Family(name="h", kind="histogram", unit="s", help="H", points=[histogram], bounds=(0.5, 1)),
        Family(name="c", kind="counter", unit="USD", help="C", points=[Point(labels, total), Point({}, 0)]),
        Family(name="g", kind="gauge", unit="", help="G", points=[Point(labels, -total)]),
    ]
    read = ExportMetricsServiceRequest.FromString(metrics_request(families, {"a": "b"}, "1", 10.5, 20.25))
    h, c, g = read.resource_metrics[0].scope_metrics[0].metrics
    [point] = h.histogram.data_points
    assert (list(point.bucket_counts), list(point.explicit_bounds)) == (counts, [0.5, 1.0])
    assert (point.count, point.sum) == (sum(counts), total)
    assert {one.key: value_of(one.value) for one in point.attributes} == labels
    assert (point.start_time_unix_nano, point.time_unix_nano) == (10_500_000_000, 20_250_000_000)
    assert h.histogram.aggregation_temporality == c.sum.aggregation_temporality == 2
    assert (h.unit, c.unit, c.description) == ("s", "USD", "C")
    assert c.sum.is_monotonic
    assert [one.as_double for one in c.sum.data_points] == [total, 0]
    assert g.gauge.data_points[0].as_double == -total
