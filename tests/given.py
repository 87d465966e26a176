"""What domain tests start from: models, providers, requests, books and events, with what doesn't matter filled in."""

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
from trunkline_actors.moment import Moment, Request
from trunkline_actors.requests import Parsed, parse_chat, parse_embeddings
from trunkline_events.envelope import Event, NewEvent, RecordedEvent
from trunkline_events.rate import Rate
from trunkline_events.registry import Model, Provider
from trunkline_events.thread import OpenAttempt, RouteDecided
from trunkline_projections.circuits import Circuits
from trunkline_projections.folds import Gateway
from trunkline_projections.models import Registry

NOON = 1_795_262_400.0
"""2026-11-21 12:00:00 UTC."""
DAY = 86_400.0


def a_model(name: str = "m", **more: Any) -> Model:
    return Model(**{"id": name, "provider": "p", "upstream": name, **more})


def a_provider(name: str = "p", **more: Any) -> Provider:
    return Provider(**{"id": name, "kind": "scripted", "local": True, **more})


def a_registry(*models: Model, providers: Iterable[Provider] | None = None) -> Registry:
    served = [a_provider(name) for name in {model.provider for model in models} | {"p"}]
    return Registry(
        models={model.id: model for model in models},
        providers={one.id: one for one in (served if providers is None else providers)},
        model_seq={model.id: place for place, model in enumerate(models, 1)},
    )


def a_rate(given: int = 0, output: int = 0, cached: int | None = None, version: str = "v") -> Rate:
    """Nano-dollars a token, for in and out."""
    return Rate(
        input_nanos=given * 1_000_000,
        cached_input_nanos=(given if cached is None else cached) * 1_000_000,
        output_nanos=output * 1_000_000,
        version=version,
    )


def chat(model: str = "m", **more: Any) -> Parsed:
    body = {"model": model, "messages": [{"role": "user", "content": "hi"}], **more}
    parsed = parse_chat(msgspec.json.encode(body))
    assert isinstance(parsed, Parsed), parsed
    return parsed


def embeddings(model: str = "m", **more: Any) -> Parsed:
    parsed = parse_embeddings(msgspec.json.encode({"model": model, "input": "hi", **more}))
    assert isinstance(parsed, Parsed), parsed
    return parsed


def a_request(parsed: Parsed, *tried: str) -> Request:
    attempt = len(tried) + 1
    return Request(
        request_id="r",
        attempt_id=f"r-{attempt}",
        attempt=attempt,
        parsed=parsed,
        tried=tried,
        reply="_INBOX.caller",
        deadline=NOON + 60,
    )


def a_moment(
    *models: Model,
    rates: Mapping[str, Rate] | None = None,
    providers: Iterable[Provider] | None = None,
    circuits: Circuits | None = None,
) -> Moment:
    registry = a_registry(*models, providers=providers)
    known = {model.id: a_rate() for model in models} | dict(rates or {})
    gateway = Gateway(registry=registry, circuits=circuits or {})
    return Moment(gateway=gateway, rates=known, log_seq=7, now=NOON, draw=0.5)


def a_decision(attempt_id: str = "r-1", reserve: int = 5, attempt: int = 1, **books: Any) -> RouteDecided:
    """A `RouteDecided` with the books given; by default those of this one attempt."""
    after: dict[str, Any] = {
        "reserved_nanos": reserve,
        "open": {attempt_id: OpenAttempt(request_id="r", reserve_nanos=reserve)},
    }
    return RouteDecided(
        request_id="r",
        attempt_id=attempt_id,
        attempt=attempt,
        model="m",
        provider="p",
        candidates=[],
        left_out={},
        reserve_nanos=reserve,
        max_tokens=None,
        price_version="v",
        asked=chat().asked,
        tried=[],
        log_seq=1,
        policy_version=0,
        override=None,
        preferences={},
        stats={},
        now=NOON,
        draw=0.5,
        deadline=NOON + 60,
        reply="_INBOX.caller",
        **(after | books),
    )


def new(body: Event, aggregate: str = "a", category: str = "thread", **more: Any) -> NewEvent:
    """An event to append; its id is the caller's, or one made of the body."""
    fields = {"id": f"{aggregate}/{hash(str(body))}", "time": NOON, "actor": "test", **more}
    return NewEvent(category=category, aggregate=aggregate, body=body, **fields)


def recorded(body: Any, sequence: int = 1, aggregate: str = "a", category: str = "thread") -> RecordedEvent:
    """An event as the log would hold it."""
    return RecordedEvent(
        sequence=sequence,
        id=f"e{sequence}",
        category=category,
        aggregate=aggregate,
        type=getattr(body, "__struct_config__").tag,  # noqa: B009 - not in the protocol
        body=body,
        time=NOON,
        actor="test",
        cause="",
    )
