"""What is answered from the log and about plugins, as the documents of the API have it."""

from typing import Any, Literal

from msgspec import UNSET, Struct, UnsetType
from trunkline_events.measured import Measured
from trunkline_events.registry import Model, Provider
from trunkline_events.usage import Usage

from trunkline.gateway.answers import Circuit, Told
from trunkline.gateway.answers_money import CircuitThen, ScopeMoney, ThreadMoney


class Event(Struct, frozen=True, kw_only=True):
    """An event of the log. `data` is its body, with its `type`; `problem`: this version can't read it."""

    seq: int
    time: str
    category: str
    id: str
    event_id: str
    type: str
    actor: str
    cause: str
    data: Any
    problem: str | UnsetType = UNSET


class Events(Struct, frozen=True, kw_only=True):
    """A page of events. `after` asks for the next one, null: the log ended there, at `seq`."""

    ok: Literal[True]
    events: list[Event]
    after: int | None
    seq: int


class Spent(Struct, frozen=True, kw_only=True):
    """A thread's budget as a decision found it."""

    limit_usd: str | None
    settled_usd: str
    reserved_usd: str


class Free(Struct, frozen=True, kw_only=True):
    """What was free of a budget above threads."""

    free_usd: str


class Tried(Struct, frozen=True, kw_only=True):
    """A model that had failed before, and how."""

    model: str
    failure: str | None


class DecidedFrom(Struct, frozen=True, kw_only=True):
    """What a decision was made from."""

    log_seq: int
    policy_version: int
    rule: str | None
    override: str | None
    preferences: dict[str, Any]
    thread_model: str | None
    tried: list[Tried]
    circuits: dict[str, Circuit]
    statistics: bool
    budget: Spent
    budgets: dict[str, Free]
    draw: float


class Weighed(Struct, frozen=True, kw_only=True):
    """A model that was considered, and what it would have cost for the tokens that were used in the end."""

    model: str
    provider: str
    score: float | None
    reason: str
    chosen: bool
    statistics: Measured | None
    would_have_cost_usd: str | None


class Ended(Struct, frozen=True, kw_only=True):
    """How an attempt ended: with tokens, with a failure, or with its process."""

    type: str
    seq: int
    at: str
    cost_usd: str
    usage: Usage | UnsetType = UNSET
    latency_ms: float | UnsetType | None = UNSET
    ttft_ms: float | UnsetType | None = UNSET
    finish: str | UnsetType | None = UNSET
    partial: bool | UnsetType = UNSET
    estimated: bool | UnsetType = UNSET
    failure: str | UnsetType = UNSET
    status: int | UnsetType | None = UNSET


class AttemptExplained(Struct, frozen=True, kw_only=True):
    """One attempt. `again` lists what comes out differently when it is decided again from the log."""

    attempt: int
    attempt_id: str
    seq: int
    at: str
    by: str
    model: str
    version: str
    provider: str
    state: DecidedFrom
    candidates: list[Weighed]
    left_out: dict[str, int]
    reserved_usd: str
    max_tokens: int | None
    input_bound: int
    price_version: str
    ended: Ended | None
    again: list[str]


class RefusedThen(Struct, frozen=True, kw_only=True):
    """Why a request was refused."""

    seq: int
    at: str
    code: str
    message: str
    needed_usd: str
    budget: Any


class ReusedThen(Struct, frozen=True, kw_only=True):
    """Which answer of the cache a request was given, who had made it, and in which event it was paid for."""

    seq: int
    at: str
    model: str
    version: str
    provider: str
    origin: int
    age_s: float
    saved_usd: str


class Explanation(Struct, frozen=True, kw_only=True):
    """Why a request was served as it was."""

    request_id: str
    thread: str
    key: str | None
    asked: dict[str, Any]
    attempts: list[AttemptExplained]
    refused: RefusedThen | None
    reused: ReusedThen | None
    cost_usd: str


class PolicyThen(Struct, frozen=True, kw_only=True):
    """The policy that was in force."""

    version: int
    policy: Any
    override: Any
    seq: int


class StateThen(Struct, frozen=True, kw_only=True):
    """The gateway as it was after the event at `seq`. `unknown`: events that this version can't read."""

    seq: int
    time: str
    models: list[Model]
    providers: list[Provider]
    policy: PolicyThen
    circuits: list[CircuitThen]
    budgets: list[ScopeMoney]
    threads: list[ThreadMoney]
    after: str | None
    unknown: list[int]


# -- plugins -----------------------------------------------------------------------------------------------------------


class PluginTrouble(Struct, frozen=True, kw_only=True):
    """Why a provider can't be served in a process; times are Unix time."""

    provider: str
    process: str
    stage: str
    error: str
    message: str
    since: float
    failures: int
    retry_at: float | None


class Plugin(Struct, frozen=True, kw_only=True):
    """A kind of provider, and how it fares in every process."""

    name: str
    distribution: str
    version: str
    versions: list[str]
    object: str
    built_in: bool
    state: Literal["ready", "failed", "missing", "unused"]
    providers: list[str]
    processes: int
    crashes: int
    last_error: str | None
    troubles: list[PluginTrouble]


class Plugins(Told, frozen=True, kw_only=True):
    """A page of plugins, by name."""

    seq: int
    plugins: list[Plugin]
    after: str | None


class OnePlugin(Told, frozen=True, kw_only=True):
    """One plugin."""

    seq: int
    plugin: Plugin


class PluginNumbers(Struct, frozen=True, kw_only=True):
    """What a plugin did over the last minutes, over all providers of its kind. `success` is null without calls."""

    name: str
    state: Literal["ready", "failed", "missing", "unused"]
    providers: int
    processes: int
    troubles: int
    crashes: int
    calls: int
    success: float | None
    in_flight: int


class PluginMetrics(Told, frozen=True, kw_only=True):
    """Numbers of every plugin, by name."""

    seq: int
    plugins: list[PluginNumbers]
