"""Registering models from the catalogue, and looking through it. Pure."""

from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime
from typing import Any

import msgspec
from msgspec import Struct
from trunkline_events.money import usd_from_nanos
from trunkline_events.rate import Rate
from trunkline_events.refusal import Refused
from trunkline_events.registry import Model, Price, Provider
from trunkline_events.subjects import id_problem
from trunkline_projections.models import Registry

from trunkline_actors.capabilities import lacks, wanted_of
from trunkline_actors.known_models import Catalogue, Entry
from trunkline_actors.registry import FEATURES, Decision, RegisterModel, invalid, register_model
from trunkline_actors.shapes import mistyped

SERVING_WHAT_OTHERS_NAME = ("openai-compatible", "openrouter")
"""Kinds of providers that serve models of any maker, under names that they choose."""

MOST = 1000


class Registration(Struct, frozen=True, kw_only=True):
    """Which of the two ways `models.register` goes; the other arguments are read separately."""

    from_catalogue: str | None = None


class Browse(Struct, frozen=True, kw_only=True):
    """What to look for in the catalogue: all that is given must be so. `capabilities` are names, or names with the
    least score; `after` is the name before the first one wanted.
    """

    kind: str | None = None
    family: str | None = None
    capabilities: list[str] | dict[str, float] = []
    features: list[str] = []
    context_window: int | None = None
    limit: int = MOST
    after: str = ""


class Known(Struct, frozen=True, kw_only=True):
    """An entry as it is shown. `price` is the list price at its kind of provider now; `own`: not a shipped one."""

    name: str
    aliases: list[str]
    kind: str
    upstream: str
    elsewhere: dict[str, str]
    family: str
    capabilities: dict[str, float]
    features: list[str]
    context_window: int | None
    max_output: int | None
    price: Price | None
    retires: date | None
    own: bool


def find(catalogue: Catalogue, name: str) -> Entry | Refused:
    """The entry of this name, or which names are near and how to do without."""
    if problem := id_problem(name):
        return invalid(problem, "from_catalogue")
    entry = catalogue.find(name)
    if entry is not None:
        return entry
    near = catalogue.nearest(name)
    hint = f"; near are {', '.join(near)}" if near else ""
    return Refused(
        code="not_found",
        message=(
            f"the catalogue has no model {name!r}{hint}. `trunkline models catalogue` lists all; "
            "to register another one, name its --provider and describe it"
        ),
        param="from_catalogue",
        metadata={"near": near},
    )


def registration(entry: Entry, given: Mapping[str, Any]) -> tuple[str, Callable[[Registry], Decision]] | Refused:
    """The id under which a model is to be registered as an entry describes it, and the decision.

    `given` are arguments of `models.register`: they win over the entry. Where they name no provider it is the only
    one of the entry's kind.
    """
    fields = {name: value for name, value in given.items() if name != "from_catalogue"}
    model_id = fields.setdefault("id", entry.name)
    if not isinstance(model_id, str):
        return invalid("id must be text", "id")

    def decide(state: Registry) -> Decision:
        provider = _provider(state, entry, fields.get("provider"))
        if isinstance(provider, Refused):
            return provider
        described = {**entry.described(), "provider": provider.id, "upstream": _upstream(entry, provider.kind)}
        try:
            command = msgspec.convert({**described, **fields, "provider": provider.id}, RegisterModel)
        except msgspec.ValidationError as error:
            message, path = mistyped(error)
            return invalid(message, path.lstrip(".") or None)
        if not command.upstream:
            return invalid(
                f"the catalogue doesn't know what providers of kind {provider.kind!r} call {entry.name!r}; "
                "say it with --upstream",
                "upstream",
            )
        return register_model(state, command)

    return model_id, decide


def warnings(entry: Entry, now: float) -> list[str]:
    """What to tell whoever registers such a model at a Unix time."""
    if entry.retires is None:
        return []
    ends = "ended" if entry.retires <= datetime.fromtimestamp(now, UTC).date() else "ends"
    return [f"its provider {ends} {entry.name} on {entry.retires.isoformat()}"]


def _provider(state: Registry, entry: Entry, named: object) -> Provider | Refused:
    """The provider that is to serve an entry: the one that is named, or the only one of its kind."""
    if named is not None:
        provider = state.providers.get(named) if isinstance(named, str) else None
        if provider is None:
            return invalid(f"provider {named!r} is not registered; register it first", "provider")
        return _other_kind(entry, provider) or provider
    fitting = [provider for provider in state.providers.values() if provider.kind == entry.kind]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        ids = sorted(provider.id for provider in fitting)
        return Refused(
            code="invalid_request",
            message=f"{len(ids)} providers are of kind {entry.kind!r}: {', '.join(ids)}; name one with --provider",
            param="provider",
            metadata={"providers": ids},
        )
    return invalid(
        f"no provider of kind {entry.kind!r} is registered to serve {entry.name!r}; add one, as in "
        f"`trunkline providers register {entry.kind} --kind {entry.kind}`",
        "provider",
    )


def _other_kind(entry: Entry, provider: Provider) -> Refused | None:
    kinds = (entry.kind, *entry.elsewhere, *SERVING_WHAT_OTHERS_NAME)
    if provider.kind in kinds:
        return None
    return invalid(
        f"provider {provider.id!r} is of kind {provider.kind!r}, and {entry.name!r} is served by "
        f"{', '.join(dict.fromkeys(kinds))}; name one of these, or register without the catalogue",
        "provider",
    )


def _upstream(entry: Entry, kind: str) -> str | None:
    """What a kind of provider calls an entry; None where nobody knows. An OpenAI-compatible server most likely calls it
    as its maker does.
    """
    if kind in entry.elsewhere:
        return entry.elsewhere[kind]
    return entry.upstream or entry.name if kind in {entry.kind, "openai-compatible"} else None


# -- looking through it ------------------------------------------------------------------------------------------------


def browse(catalogue: Catalogue, asked: Browse, rate: Callable[[str, str], Rate | None]) -> dict[str, Any] | Refused:
    """`models`, the entries that fit, by name, and `after` which name there are more. `rate`: (kind, upstream) → list
    price.
    """
    if problem := _problem(asked):
        return problem
    fits = [entry for entry in catalogue.entries if entry.name > asked.after and _fits(entry, asked)]
    page = [_known(catalogue, entry, rate) for entry in fits[: asked.limit]]
    return {"models": page, "after": page[-1].name if len(fits) > len(page) else None}


def _fits(entry: Entry, asked: Browse) -> bool:
    model = Model(id=entry.name, provider="", upstream="", **entry.described())
    return (
        (asked.kind is None or asked.kind == entry.kind or asked.kind in entry.elsewhere)
        and (asked.family is None or asked.family == entry.family)
        and lacks(model, wanted_of(asked.capabilities)) is None
        and set(asked.features) <= set(entry.features)
        and (asked.context_window is None or (entry.context_window or 0) >= asked.context_window)
    )


def _known(catalogue: Catalogue, entry: Entry, rate: Callable[[str, str], Rate | None]) -> Known:
    upstream = entry.upstream or entry.name
    listed = rate(entry.kind, upstream)
    return Known(
        name=entry.name,
        aliases=entry.aliases,
        kind=entry.kind,
        upstream=upstream,
        elsewhere=entry.elsewhere,
        family=entry.family,
        capabilities=entry.scores(),
        features=entry.features,
        context_window=entry.context_window,
        max_output=entry.max_output,
        price=None if listed is None else _price(listed),
        retires=entry.retires,
        own=entry.name in catalogue.own,
    )


def _price(rate: Rate) -> Price:
    return Price(
        input=usd_from_nanos(rate.input_nanos),
        cached_input=usd_from_nanos(rate.cached_input_nanos),
        output=usd_from_nanos(rate.output_nanos),
    )


def _problem(asked: Browse) -> Refused | None:
    for name, least in wanted_of(asked.capabilities).items():
        if not name or not 0 <= least <= 1:
            return invalid(f"capability {name!r} can't score {least}; scores run from 0 to 1", "capabilities")
    unknown = sorted(set(asked.features) - FEATURES)
    if unknown:
        return invalid(f"{unknown[0]!r} is not a feature; there are {', '.join(sorted(FEATURES))}", "features")
    if not 1 <= asked.limit <= MOST:
        return invalid(f"limit must be from 1 to {MOST:,}", "limit")
    return None
