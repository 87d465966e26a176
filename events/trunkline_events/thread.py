"""The facts of a thread: what was decided for each request, what it used, and the books after it.

Every event carries the thread's books as they stand after it, so that the last event is the state: loading a thread
is one read of its last message. On the aggregate `-` (no thread) the books are those of the one request alone.
"""

from typing import Any, Literal

from msgspec import Struct, field

from trunkline_events.measured import Measured
from trunkline_events.rate import Rate
from trunkline_events.usage import Usage

Window = Literal["none", "day", "month"]
"""How long a budget lasts before it starts again."""
Operation = Literal["chat", "embeddings"]


class OpenAttempt(Struct, frozen=True, kw_only=True):
    """An attempt that runs, and the nano-dollars it may cost at most."""

    request_id: str
    reserve_nanos: int


class Books(Struct, frozen=True, kw_only=True):
    """A thread's money and tokens after an event.

    settled + reserved ≤ limit, at every event. `settled_nanos` is what the running window has cost, `period` names
    that window (`2026-11-20`, `2026-11`, or empty where the window is none); `tokens` counts the thread's whole life.
    Windows turn at midnight in the time zone `zone` (an IANA name).
    `warned`: the share `warn_at` of the limit was passed in this period, and somebody was told.
    `config_seq` is the log sequence of the thread's configuration, 0 where it has none.
    """

    settled_nanos: int = 0
    reserved_nanos: int = 0
    limit_nanos: int | None = None
    window: Window = "none"
    zone: str = "UTC"
    period: str = ""
    warn_at: float | None = None
    warned: bool = False
    config_seq: int = 0
    tokens: Usage = Usage()
    open: dict[str, OpenAttempt] = field(default_factory=dict)


class ThreadEvent(Books, frozen=True, kw_only=True, tag_field="type"):
    """What every event of a thread carries: the request it belongs to, and the books after it."""

    request_id: str


class ThreadConfigured(ThreadEvent, frozen=True, kw_only=True, tag="thread.configured.v1"):
    """The thread's budget, model, parameters and preferences from here on, as a whole."""

    model: str | None = None
    parameters: dict[str, Any] = field(default_factory=dict)
    preferences: dict[str, Any] = field(default_factory=dict)
    reason: str | None = None


class RequestEvent(ThreadEvent, frozen=True, kw_only=True):
    """What every event of a request carries besides: who asked, and whose money it takes.

    `key` is the id of the API key, empty where none was sent: a fingerprint, never the key. `slices` names the slice
    that an attempt takes from for each budget above the thread's: `{"team:research": "<slice>"}`.
    """

    key: str = ""
    slices: dict[str, str] = field(default_factory=dict)


class Candidate(Struct, frozen=True, kw_only=True):
    """A model that was considered: its place by `score` (lower is better), or why it was left out."""

    model: str
    provider: str
    score: float | None
    reason: str


class Asked(Struct, frozen=True, kw_only=True):
    """What routing needs of a request, and all it may decide from: sizes, names and wishes, never the prompt.

    `input_bound` is the most tokens the input can be, but for its `images`; `max_tokens` what the caller asked for.
    `features` are the abilities the body needs, such as `tools` or `vision`. `tokens` holds tighter bounds on the
    input, by the name of the tokenizer they were counted with, where somebody counted. `choices` is how many answers
    are wanted; `hints` is what an analyzer found in it, such as `code`. `allowed` are the models, or patterns of
    them, that the key may use; empty: all.
    """

    operation: Operation
    model: str
    stream: bool
    input_bound: int
    max_tokens: int | None = None
    features: list[str] = field(default_factory=list)
    route: dict[str, Any] = field(default_factory=dict)
    images: int = 0
    tokens: dict[str, int] = field(default_factory=dict)
    choices: int = 1
    hints: list[str] = field(default_factory=list)
    allowed: list[str] = field(default_factory=list)


class Funded(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a router held of a budget above the thread when it decided, in nano-dollars.

    `possible_nanos` is what the budget could have given at most. `answer`: more had been asked for, and this came back,
    `waiting` or `exceeded`, for want of `answer_nanos`; anything else counts as `refused`.
    """

    scope: str
    slice: str
    free_nanos: int
    possible_nanos: int
    answer: Literal["waiting", "exceeded", "refused"] | None = None
    answer_nanos: int = 0


class Basis(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What else a decision was made from, so that it can be made again. Absent: nothing of the kind.

    `failures` and `versions` are the classes and the versions of those in `tried`, in their order; the first `rested`
    of them were waited out. `turn` counts the decisions of the router, `busy` its calls under way to each candidate.
    `blind`: statistics were asked for, and there were none. `rates` are those of candidates whose price the log doesn't
    hold. `config_seq` is the sequence of the thread's configuration, whose model is `default_model`. `forced` is the
    model that the router's own process was told to use, `funds` what it held of budgets.
    """

    failures: list[str] = []
    versions: list[str] = []
    rested: int = 0
    turn: int | None = None
    busy: dict[str, int] = {}
    blind: bool = False
    rates: dict[str, Rate] = {}
    config_seq: int = 0
    default_model: str | None = None
    forced: str | None = None
    funds: list[Funded] = []


class RouteDecided(RequestEvent, frozen=True, kw_only=True, tag="thread.route-decided.v1"):
    """An attempt was chosen and its worst case reserved, before anything was sent upstream.

    `candidates` holds at most 16 in full; `left_out` counts the rest by reason. `log_seq` is the position of the
    registry it was decided from; `now` is Unix time in seconds, `draw` the random number used, 0 to 1.
    `deadline` is Unix time too; `reply` is the caller's inbox, so that somebody else can answer it. `input_bound` is
    what the input was taken for, images and all. `version` is that of the model which serves, a canary's for one;
    `rule` the rule of the policy that counted; `override` the model that an operator forced.
    """

    attempt_id: str
    attempt: int
    model: str
    provider: str
    candidates: list[Candidate]
    left_out: dict[str, int]
    reserve_nanos: int
    max_tokens: int | None
    price_version: str
    asked: Asked
    tried: list[str]
    log_seq: int
    policy_version: int
    override: str | None
    preferences: dict[str, Any]
    stats: dict[str, Measured]
    now: float
    draw: float
    deadline: float
    reply: str
    input_bound: int = 0
    version: str = ""
    rule: str | None = None
    basis: Basis = Basis()


class Ending(RequestEvent, frozen=True, kw_only=True):
    """How an attempt ended: exactly one such event for each, under the id `<attempt>/ended`."""

    attempt_id: str
    attempt: int
    model: str
    provider: str


class Metered(Ending, frozen=True, kw_only=True):
    """An ending that cost something. `estimated`: the provider sent no final usage, so a bound was settled.

    `cost_nanos` follows from `usage` and the prices of `price_version`; times are in milliseconds, `ttft_ms` to the
    first chunk (a plain answer: to the answer).
    """

    usage: Usage
    cost_nanos: int
    price_version: str
    latency_ms: float
    ttft_ms: float | None
    finish: str
    partial: bool = False
    estimated: bool = False


class UsageRecorded(Metered, frozen=True, kw_only=True, tag="thread.usage-recorded.v1"):
    """An attempt ended and was settled; `partial` where its stream was cut."""


class Aborted(Metered, frozen=True, kw_only=True, tag="thread.aborted.v1"):
    """An attempt was cut short on somebody's wish; what was generated is settled."""


class AttemptFailed(Ending, frozen=True, kw_only=True, tag="thread.attempt-failed.v1"):
    """An attempt failed before its first chunk and cost nothing.

    `failure` is its class, `status` the upstream's HTTP status. The upstream's own words may quote the prompt: they go
    to the caller and never into the log.
    """

    failure: str
    status: int | None = None
    latency_ms: float = 0.0


class Orphaned(Ending, frozen=True, kw_only=True, tag="thread.orphaned.v1"):
    """The process that ran an attempt was lost; it is settled at its reservation, since nobody knows better."""

    cost_nanos: int
    last_seen: float


class RequestRefused(RequestEvent, frozen=True, kw_only=True, tag="thread.refused.v1"):
    """A request was refused, for want of money, or because the log was away: nothing was sent upstream.

    `code` is what the caller was told; `needed_nanos` the least it would have cost, at its worst; `budget` the scope
    that had too little.
    """

    code: str
    message: str
    asked: Asked
    needed_nanos: int
    budget: str = "thread"


class AnswerReused(RequestEvent, frozen=True, kw_only=True, tag="thread.answer-reused.v1"):
    """A request was answered from the cache, at no cost: nothing was reserved, and nothing sent upstream.

    The answer was generated by `model` (in this `version`) at `provider` for an earlier request, `age_s` seconds
    before, and paid for in the event at `origin`, which cost `saved_nanos`.
    """

    asked: Asked
    model: str
    provider: str
    version: str
    origin: int
    age_s: float
    saved_nanos: int


class BudgetWarned(ThreadEvent, frozen=True, kw_only=True, tag="thread.budget-warned.v1"):
    """What is settled passed the share `warn_at` of the limit: told once in each window."""


ThreadFact = (
    ThreadConfigured
    | RouteDecided
    | UsageRecorded
    | Aborted
    | AttemptFailed
    | Orphaned
    | RequestRefused
    | AnswerReused
    | BudgetWarned
)
