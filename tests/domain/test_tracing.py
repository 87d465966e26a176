"""What is recorded: contexts, sampling, and how much may wait."""

from collections.abc import Iterator

import pytest
from trunkline.settings import BadSettings
from trunkline.telemetry.config import read
from trunkline.telemetry.wire import encoded
from trunkline_actors.adapters.noticing import UPSTREAM
from trunkline_actors.spans import Context, Span, http
from trunkline_actors.tracing import TOGETHER, ToUpstream, Tracing, sampler
from trunkline_events.registry import Provider

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
ON = sampler("parentbased_always_on", 1.0)


def test_a_span_has_its_callers_trace_and_is_its_child() -> None:
    context, along = Tracing(ON, encoded).begin(f"00-{TRACE}-{PARENT}-01")
    assert context is not None
    assert (context.trace, context.parent) == (TRACE, PARENT)
    assert along == f"00-{TRACE}-{context.span}-01"


@pytest.mark.parametrize(
    "given", [None, "", "junk", f"ff-{TRACE}-{PARENT}-01", f"00-{'0' * 32}-{PARENT}-01", f"00-{TRACE}-{'0' * 16}-01"]
)
def test_without_a_context_that_makes_sense_a_trace_begins(given: str | None) -> None:
    context, _ = Tracing(ON, encoded).begin(given)
    assert context is not None
    assert context.parent == ""
    assert context.trace != TRACE


def test_a_caller_that_records_nothing_is_left_alone() -> None:
    given = f"00-{TRACE}-{PARENT}-00"
    assert Tracing(ON, encoded).begin(given) == (None, given)


def test_what_is_not_recorded_here_is_not_recorded_further_on() -> None:
    context, along = Tracing(sampler("always_off", 1.0), encoded).begin(f"00-{TRACE}-{PARENT}-01")
    assert (context, along) == (None, f"00-{TRACE}-{PARENT}-00")
    context, along = Tracing(sampler("parentbased_always_off", 1.0), encoded).begin(None)
    assert context is None
    assert along.endswith("-00")
    assert Tracing(ON, encoded).begin(along) == (None, along)


def test_a_share_of_traces_is_the_same_share_in_every_process() -> None:
    one, other = (sampler("parentbased_traceidratio", 0.25) for _ in range(2))
    traces = [f"{number * 0x9E3779B97F4A7C15 % 2**128:032x}" for number in range(1, 4001)]
    chosen = [one(trace, None) for trace in traces]
    assert chosen == [other(trace, None) for trace in traces]
    assert 0.2 < sum(chosen) / len(chosen) < 0.3


def test_more_than_may_wait_is_dropped_and_counted() -> None:
    woken: list[None] = []
    tracing = Tracing(ON, encoded, most=3, batch=2)
    tracing.wake = lambda: woken.append(None)
    for number in range(5):
        tracing.record(http(Context(TRACE, PARENT, "", 0.0), 1.0, "GET", "/", "/", number))
    tracing.flush()
    assert (tracing.recorded, tracing.dropped, len(tracing.waiting), len(woken)) == (3, 2, 3, 1)


def test_where_less_may_wait_or_be_sent_at_once_spans_are_made_sooner(monkeypatch: pytest.MonkeyPatch) -> None:
    for tracing in (Tracing(ON, encoded, most=8, batch=8), Tracing(ON, encoded, batch=1)):
        woken: list[None] = []
        monkeypatch.setattr(tracing, "wake", lambda woken=woken: woken.append(None))
        for number in range(8):
            tracing.record(http(Context(TRACE, PARENT, "", 0.0), 1.0, "GET", "/", "/", number))
        assert (tracing.recorded, tracing.dropped, len(woken)) == (8, 0, 1)


def test_a_span_that_can_not_be_made_is_dropped_and_no_other_with_it() -> None:
    def broken() -> Iterator[Span]:
        yield from http(Context(TRACE, PARENT, "", 0.0), 1.0, "GET", "/", "/", 200)
        raise ValueError

    tracing = Tracing(ON, encoded)
    tracing.record(broken())
    tracing.record(http(Context(TRACE, PARENT, "", 0.0), 1.0, "GET", "/", "/", 200))
    tracing.flush()
    assert (tracing.dropped, len(tracing.waiting) >= 1) == (1, True)


def test_spans_are_made_a_few_at_a_time_or_when_it_is_time() -> None:
    tracing = Tracing(ON, encoded)
    for number in range(TOGETHER + 1):
        tracing.record(http(Context(TRACE, PARENT, "", 0.0), 1.0, "GET", "/", "/", number))
    assert (tracing.recorded, len(tracing.waiting)) == (TOGETHER, TOGETHER)
    for _ in range(2):
        tracing.flush()
        assert (tracing.recorded, len(tracing.waiting)) == (TOGETHER + 1, TOGETHER + 1)


@pytest.mark.parametrize(
    ("setting", "local", "told"),
    [("local", True, True), ("local", False, False), ("all", False, True), ("none", True, False)],
)
def test_only_our_own_providers_are_told_the_trace_unless_somebody_wants_that(
    setting: ToUpstream, local: bool, told: bool
) -> None:
    token = UPSTREAM.set(None)
    try:
        Tracing(ON, encoded, to_upstream=setting).take_along(
            Context(TRACE, PARENT, "", 0.0), Provider(id="p", kind="openai", local=local)
        )
        assert UPSTREAM.get() == (f"00-{TRACE}-{PARENT}-01" if told else None)
    finally:
        UPSTREAM.reset(token)


def test_every_span_and_every_trace_has_an_id_of_its_own() -> None:
    tracing = Tracing(ON, encoded)
    begun = [context for context, _ in (tracing.begin(None) for _ in range(2_000)) if context]
    assert len({one.span for one in begun}) == len({one.trace for one in begun}) == 2_000
    assert {(len(one.span), len(one.trace)) for one in begun} == {(16, 32)}


# -- where it goes -----------------------------------------------------------------------------------------------------


def test_nothing_goes_anywhere_unless_somebody_says_where() -> None:
    assert read({}) is None
    assert read({"OTEL_SERVICE_NAME": "x"}) is None
    assert read({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318", "OTEL_SDK_DISABLED": "true"}) is None
    none = {"OTEL_TRACES_EXPORTER": "none", "OTEL_METRICS_EXPORTER": "none"}
    assert read({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318", **none}) is None


def test_opentelemetrys_variables_mean_what_its_specification_says() -> None:
    otlp = read(
        {
            "OTEL_EXPORTER_OTLP_ENDPOINT": "https://c:4318/",
            "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://m/measured",
            "OTEL_EXPORTER_OTLP_HEADERS": "a=1, b=x%3Dy",
            "OTEL_EXPORTER_OTLP_TRACES_HEADERS": "a=2",
            "OTEL_EXPORTER_OTLP_TIMEOUT": "2500",
            "OTEL_BSP_SCHEDULE_DELAY": "100",
            "OTEL_BSP_MAX_QUEUE_SIZE": "10",
            "OTEL_TRACES_SAMPLER": "traceidratio",
            "OTEL_TRACES_SAMPLER_ARG": "0.5",
            "OTEL_METRIC_EXPORT_INTERVAL": "1000",
        }
    )
    assert otlp is not None
    assert otlp.traces is not None
    assert otlp.metrics is not None
    assert (otlp.traces.url, otlp.metrics.url) == ("https://c:4318/v1/traces", "http://m/measured")
    assert (otlp.traces.headers, otlp.metrics.headers) == ({"a": "2", "b": "x=y"}, {"a": "1", "b": "x=y"})
    assert (otlp.traces.timeout_s, otlp.every_s, otlp.metrics_every_s) == (2.5, 0.1, 1.0)
    assert (otlp.most, otlp.batch, otlp.sampler, otlp.argument) == (10, 10, "traceidratio", 0.5)


def test_a_setting_of_ours_comes_before_the_variable() -> None:
    otlp = read({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://theirs:4318"}, "http://ours:4318")
    assert otlp is not None
    assert otlp.traces is not None
    assert otlp.traces.url == "http://ours:4318/v1/traces"


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4318", "http://localhost:4318"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc", "http/protobuf"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "zstd", "gzip"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "authorization", "key=value"),
        ("OTEL_TRACES_SAMPLER", "jaeger_remote", "traceidratio"),
        ("OTEL_TRACES_SAMPLER_ARG", "2", "from 0 to 1"),
        ("OTEL_BSP_SCHEDULE_DELAY", "soon", "no number"),
        ("OTEL_TRACES_EXPORTER", "zipkin", "otlp or none"),
    ],
)
def test_what_can_not_be_meant_is_said_with_what_can(name: str, value: str, said: str) -> None:
    with pytest.raises(BadSettings, match=said):
        read({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318", name: value})
