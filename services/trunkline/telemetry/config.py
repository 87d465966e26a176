"""Where traces and metrics go: OpenTelemetry's own variables, read as its specification has them.

https://opentelemetry.io/docs/specs/otel/protocol/exporter/ and .../configuration/sdk-environment-variables/. Nothing
goes anywhere unless an endpoint is named. Of the protocols `http/protobuf` is spoken, the default.
"""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from msgspec import Struct
from trunkline_actors.tracing import sampler

from trunkline.settings import BadSettings, Settings, opentelemetry

if TYPE_CHECKING:
    from trunkline_actors.runtime import Runtime

    from trunkline.telemetry.exporter import Exporter

_BASE = "OTEL_EXPORTER_OTLP_"
PROTOCOL = "http/protobuf"
SAMPLER = "parentbased_always_on"
MOST, BATCH = 2048, 512


class Target(Struct, frozen=True, kw_only=True):
    """Where one signal goes, and how. `certificate`: whose signature a collector needs; `client`: ours and its key."""

    url: str
    headers: dict[str, str]
    timeout_s: float
    gzip: bool
    certificate: str | None
    client: tuple[str, str | None] | None


class Otlp(Struct, frozen=True, kw_only=True):
    """What is exported. Times are in seconds; `most` spans wait at once, and go in batches of `batch`."""

    traces: Target | None
    metrics: Target | None
    resource: dict[str, str]
    sampler: str = SAMPLER
    argument: float = 1.0
    most: int = MOST
    batch: int = BATCH
    every_s: float = 5.0
    metrics_every_s: float = 60.0


def read(given: Mapping[str, str], endpoint: str | None = None) -> Otlp | None:
    """What the variables `OTEL_…` ask for; None: nothing. `endpoint` is the setting `otlp`, and comes before theirs.

    Raises BadSettings.
    """
    if given.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return None
    traces, metrics = _target(given, "TRACES", endpoint), _target(given, "METRICS", endpoint)
    if traces is None and metrics is None:
        return None
    name = given.get("OTEL_TRACES_SAMPLER", SAMPLER)
    argument = _number(given, "OTEL_TRACES_SAMPLER_ARG", 1.0)
    try:
        sampler(name, argument)
    except KeyError:
        raise BadSettings(
            f"OTEL_TRACES_SAMPLER = {name!r} is not known; use always_on, always_off or traceidratio, with or without "
            "parentbased_ before it"
        ) from None
    if not 0 <= argument <= 1:
        raise BadSettings(f"OTEL_TRACES_SAMPLER_ARG = {argument:g} must be from 0 to 1")
    most = max(1, int(_number(given, "OTEL_BSP_MAX_QUEUE_SIZE", MOST)))
    return Otlp(
        traces=traces,
        metrics=metrics,
        resource={
            **_pairs(given, "OTEL_RESOURCE_ATTRIBUTES"),
            **({"service.name": given["OTEL_SERVICE_NAME"]} if "OTEL_SERVICE_NAME" in given else {}),
        },
        sampler=name,
        argument=argument,
        most=most,
        batch=min(most, max(1, int(_number(given, "OTEL_BSP_MAX_EXPORT_BATCH_SIZE", BATCH)))),
        every_s=max(0.01, _number(given, "OTEL_BSP_SCHEDULE_DELAY", 5_000) / 1000),
        metrics_every_s=max(0.1, _number(given, "OTEL_METRIC_EXPORT_INTERVAL", 60_000) / 1000),
    )


def observed(settings: Settings) -> "Callable[[Runtime], Exporter] | None":
    """What exports the traces and metrics of a process; None where nobody asked for that. Raises BadSettings."""
    otlp = read(opentelemetry(), settings.otlp)
    if otlp is None:
        return None
    from trunkline.telemetry.exporter import Exporter

    return lambda runtime: Exporter(otlp, runtime, settings.trace_upstream)


def _target(given: Mapping[str, str], signal: str, endpoint: str | None) -> Target | None:
    exporter = given.get(f"OTEL_{signal}_EXPORTER", "otlp")
    if exporter == "none" or (exporter, signal) == ("prometheus", "METRICS"):  # GET /metrics is there anyway
        return None
    if exporter != "otlp":
        raise BadSettings(f"OTEL_{signal}_EXPORTER = {exporter!r} is not known; use otlp or none")

    def option(name: str) -> str | None:
        return given.get(f"{_BASE}{signal}_{name}") or given.get(f"{_BASE}{name}")

    url = given.get(f"{_BASE}{signal}_ENDPOINT")
    base = endpoint or given.get(f"{_BASE}ENDPOINT")
    if not url:
        if not base:
            return None
        url = f"{base.rstrip('/')}/v1/{signal.lower()}"
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise BadSettings(f"{url!r} is no place for OTLP; write one such as http://localhost:4318")
    protocol = option("PROTOCOL") or PROTOCOL
    if protocol != PROTOCOL:
        raise BadSettings(f"{_BASE}PROTOCOL = {protocol!r} is not spoken here; use {PROTOCOL}, at port 4318 mostly")
    compression = option("COMPRESSION") or "none"
    if compression not in ("none", "gzip"):
        raise BadSettings(f"{_BASE}COMPRESSION = {compression!r} is not known; use gzip or none")
    ours = option("CLIENT_CERTIFICATE")
    timeout = f"{_BASE}{signal}_TIMEOUT"
    return Target(
        url=url,
        headers={**_pairs(given, f"{_BASE}HEADERS"), **_pairs(given, f"{_BASE}{signal}_HEADERS")},
        timeout_s=max(0.1, _number(given, timeout if timeout in given else f"{_BASE}TIMEOUT", 10_000) / 1000),
        gzip=compression == "gzip",
        certificate=option("CERTIFICATE"),
        client=(ours, option("CLIENT_KEY")) if ours else None,
    )


def _pairs(given: Mapping[str, str], name: str) -> dict[str, str]:
    """`key=value,key=value`, percent-encoded."""
    found = {}
    for pair in filter(None, map(str.strip, given.get(name, "").split(","))):
        key, equals, value = pair.partition("=")
        # The value may be a secret, and is not repeated.
        if not equals or not key.strip() or "\n" in unquote(pair) or "\r" in unquote(pair):
            raise BadSettings(f"{name} has a part that is no key=value; write them with commas between")
        found[unquote(key.strip())] = unquote(value.strip())
    return found


def _number(given: Mapping[str, str], name: str, default: float) -> float:
    text = given.get(name)
    if not text:
        return default
    try:
        return float(text)
    except ValueError:
        raise BadSettings(f"{name} = {text!r} is no number") from None
