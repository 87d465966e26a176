"""What a workflow is made of, as data: steps, and what each needs. Written in Python (`trunkline.workflows`).

A step's output is a variable for the steps after it, under the step's name; so is each field of the input.
"""

from typing import Any, Literal

from msgspec import Struct, field

Is = Literal["true", "false", "equal", "not equal", "above", "below", "at least", "at most", "in", "not in"]


class Condition(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Whether something is so: the variable `value`, compared `to` something. `true` is what Python takes for true."""

    value: str
    is_: Is = field(default="true", name="is")
    to: Any = None


class Retry(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """How often a step is tried, and how long it rests between: `first_s`, then `factor` times that, up to `most_s`."""

    attempts: int = 3
    first_s: float = 0.5
    factor: float = 2.0
    most_s: float = 30.0

    def pause(self, failed: int) -> float | None:
        """Seconds to rest after so many failures; None: it was the last."""
        if failed >= self.attempts:
            return None
        return float(min(self.most_s, self.first_s * self.factor ** (failed - 1)))


class _Step(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True, tag_field="kind"):
    """What every step has. `when`: it is passed over unless that is so, and its output is null.

    Without `critical` the run goes on where it fails, with null for its output.
    """

    name: str
    when: Condition | None = None
    critical: bool = True


class _Leaf(_Step, frozen=True, kw_only=True):
    """A step that does something, and may be tried again."""

    timeout_s: float | None = None
    retry: Retry = Retry()


class Llm(_Leaf, frozen=True, kw_only=True, tag="llm"):
    """One chat. `prompt`, `system` and the contents of `messages` are templates; the output is what the model says.

    With `schema` (JSON Schema) the output is the JSON value that it says, which must fit; where it does not, it is
    asked up to `repairs` times to mend it. `budget_usd` is the most that a chat of it may cost, `route` as in any
    request.
    """

    prompt: str = ""
    system: str = ""
    messages: list[dict[str, str]] = []
    model: str = "auto"
    parameters: dict[str, Any] = {}
    route: dict[str, Any] = {}
    budget_usd: str | None = None
    schema: dict[str, Any] | None = None
    repairs: int = 1


class Code(_Leaf, frozen=True, kw_only=True, tag="code"):
    """A call of the function registered as `function`: `takes` maps its parameters to variables."""

    function: str
    takes: dict[str, str] = {}


class Wait(_Step, frozen=True, kw_only=True, tag="wait"):
    """Goes on when somebody sends the run the signal `signal`; the output is what came with it."""

    signal: str


class Parallel(_Step, frozen=True, kw_only=True, tag="parallel"):
    """All at once; over when each is. The output maps their names to their outputs."""

    steps: list["Step"]


class Choice(_Step, frozen=True, kw_only=True, tag="choice"):
    """One or the other, each in order. The output is that of the last step of what was chosen."""

    condition: Condition
    then: list["Step"]
    otherwise: list["Step"] = []


class Each(_Step, frozen=True, kw_only=True, tag="each"):
    """The steps, in order, for each entry of the list `over`, which they know as `item`; `at_once` entries at a time.

    The output is the list of the outputs of their last step.
    """

    over: str
    steps: list["Step"]
    item: str = "item"
    at_once: int = 8


class Sub(_Step, frozen=True, kw_only=True, tag="workflow"):
    """Another workflow, as part of this run. `input` maps the fields of its input to variables of ours."""

    definition: "Definition"
    input: dict[str, str] = {}


Step = Llm | Code | Wait | Parallel | Choice | Each | Sub
Leaf = Llm | Code | Wait


class Definition(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A workflow. `inputs` is the JSON Schema of its input, an object; without one anything goes.

    `output` names the variable that is the run's output, by default that of the last step. `budget_usd` is what a run
    may cost in all, `deadline_s` how long it may take.
    """

    name: str
    steps: list[Step]
    inputs: dict[str, Any] | None = None
    output: str | None = None
    budget_usd: str | None = None
    deadline_s: float | None = None
