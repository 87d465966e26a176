"""What commands about money and breakers answer, as the documents of the API have it."""

from typing import Any, Literal

from msgspec import UNSET, Struct, UnsetType
from trunkline_events.usage import Usage

from trunkline.gateway.answers import Circuit, Told

Window = Literal["none", "day", "month"]


class Money(Struct, frozen=True, kw_only=True):
    """A budget and what is spent and reserved of it in the window that runs."""

    limit_usd: str | None
    window: Window
    time_zone: str
    warn_at: float | None
    settled_usd: str
    reserved_usd: str


class ThreadMoney(Money, frozen=True, kw_only=True):
    """A thread's budget; `open` are the ids of the requests that run, `tokens` count its whole life."""

    thread_id: str
    open: list[str]
    tokens: Usage
    seq: int


class ListedThread(ThreadMoney, frozen=True, kw_only=True):
    """A thread in a list."""

    resets_at: str | None


class OneThread(ListedThread, frozen=True, kw_only=True):
    """A thread's books and its configuration."""

    ok: Literal[True]
    stale: bool = False
    model: str | None
    parameters: dict[str, Any]
    preferences: dict[str, Any]


class Threads(Told, frozen=True, kw_only=True):
    """A page of threads, by id."""

    threads: list[ListedThread]
    after: str | None


class ScopeMoney(Money, frozen=True, kw_only=True):
    """The budget of a key, a team or the gateway; `holders` are the processes that hold a part of it."""

    scope: str
    team: str | None
    holders: list[str]
    seq: int


class ListedBudget(ScopeMoney, frozen=True, kw_only=True):
    """A budget in a list."""

    resets_at: str | None


class OneBudget(ListedBudget, frozen=True, kw_only=True):
    """A budget above threads."""

    ok: Literal[True]
    stale: bool = False


class Budgets(Told, frozen=True, kw_only=True):
    """A page of budgets, by scope."""

    budgets: list[ListedBudget]
    after: str | None


class CircuitThen(Struct, frozen=True, kw_only=True):
    """A breaker; times are Unix time."""

    provider: str
    state: Circuit
    failures: int
    opened_at: float | None
    retry_at: float | None


class CircuitNow(CircuitThen, frozen=True, kw_only=True):
    """A breaker, and the probe that runs."""

    probe: str | None
    probe_until: float | None
    seq: int


class OneCircuit(CircuitNow, frozen=True, kw_only=True):
    """A breaker. `changed: false` after a reset: it was closed already."""

    ok: Literal[True]
    stale: bool = False
    changed: bool | UnsetType = UNSET


class Circuits(Told, frozen=True, kw_only=True):
    """A page of breakers, by provider instance."""

    seq: int
    circuits: list[CircuitNow]
    after: str | None


class CircuitHistory(Told, frozen=True, kw_only=True):
    """The last events of a breaker, the oldest first, each with `seq`, `time`, `type`, `actor` and its own fields."""

    provider: str
    events: list[dict[str, Any]]
