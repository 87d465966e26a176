"""What commands of workflows answer, as the document of the bus has it. Money is US dollars as text."""

from typing import Any, Literal

from msgspec import Struct
from trunkline_actors.workflow import Status
from trunkline_events.usage import Usage

from trunkline.gateway.answers import Changed, Told

StepStatus = Literal["running", "waiting", "completed", "skipped", "failed", "cut"]


class Begun(Told, frozen=True, kw_only=True):
    """A run. `began: false`: it had begun before. `waits_for`: the code that it needs and no process has loaded."""

    id: str
    seq: int
    thread: str
    began: bool
    waits_for: list[str]


class RunMetrics(Struct, frozen=True, kw_only=True):
    """What a run took; `led_by` counts the processes that have led it."""

    duration_ms: float
    cost_usd: str
    usage: Usage
    chats: int
    retries: int
    led_by: int


class Led(Struct, frozen=True, kw_only=True):
    """Who has led a run since when."""

    by: str
    since: str


class RunStep(Struct, frozen=True, kw_only=True):
    """One step; `waiting` is to be tried again, `cut` was under way when its run ended. `busy_ms`: of all attempts."""

    step: str
    kind: str
    status: StepStatus
    attempts: int
    began_at: str
    ended_at: str | None
    busy_ms: float
    cost_usd: str
    usage: Usage
    chats: int
    code: str | None
    by: str | None


class OneRun(Told, frozen=True, kw_only=True):
    """A run with its steps in the order they began. `code`, `message` and `failed_step` tell why it failed."""

    seq: int
    id: str
    workflow: str
    version: str
    status: Status
    by: str | None
    thread: str
    key: str | None
    began_at: str
    ended_at: str | None
    deadline: str | None
    code: str | None
    failed_step: str | None
    metrics: RunMetrics
    led: list[Led]
    steps: list[RunStep]
    output: Any
    message: str | None


class ListedRun(Struct, frozen=True, kw_only=True):
    """A run by its last event, at `at`. Cost and duration are told once it is over."""

    id: str
    workflow: str
    status: Status
    at: str
    seq: int
    by: str | None
    waits_for: list[str]
    cost_usd: str | None
    duration_ms: float | None


class Runs(Told, frozen=True, kw_only=True):
    """A page of runs, by id; `after` asks for the next one, null: there is none."""

    seq: int
    runs: list[ListedRun]
    after: str | None


class RunChanged(Changed, frozen=True, kw_only=True):
    """A run after it was told something. `changed: false`: it knew so already, or was over."""
