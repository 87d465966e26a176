"""What a process knows of workflows: functions by their names, definitions, and what stands around steps."""

import inspect
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

from msgspec import Struct, field
from trunkline_events.usage import Usage

from trunkline_actors.workflow_model import Definition

LONGEST_CODE = 100


class Ask(Struct, frozen=True, kw_only=True):
    """One chat of a step. `body` is an OpenAI request; the same `request_id` again is the same chat."""

    run: str
    step: str
    request_id: str
    body: dict[str, Any]
    thread: str
    key: str = ""
    seconds: float = 60.0
    traceparent: str | None = None


class Said(Struct, frozen=True, kw_only=True):
    """Its answer: an OpenAI `chat.completion`, what it used and cost, and the event that settled it."""

    data: dict[str, Any]
    usage: Usage = Usage()
    cost_nanos: int = 0
    event: int = 0
    model: str = ""
    provider: str = ""

    @property
    def text(self) -> str:
        """The content of the first choice."""
        choices = self.data.get("choices") or [{}]
        return (choices[0].get("message") or {}).get("content") or ""


class StepError(Exception):
    """An attempt at a step failed, with a code. `retryable`: it may go better next time.

    The code is in an event: where it is no short plain text, what can be told of it.
    """

    def __init__(self, code: str, message: str, *, retryable: bool = True) -> None:
        super().__init__(message)
        self.code = str(code).encode("ascii", "replace").decode()[:LONGEST_CODE] or "failed"
        self.retryable = retryable


class Caller(Protocol):
    """Asks models."""

    async def chat(self, ask: Ask) -> Said:
        """Ask, and return the whole answer. Raises StepError."""
        ...

    async def abort(self, request_id: str) -> None:
        """Nobody wants the answer any more."""
        ...


class StepContext(Struct, frozen=True, kw_only=True):
    """A step that is about to be done: in which run, for the n-th time, with which variables."""

    run: str
    workflow: str
    step: str
    kind: str
    attempt: int
    variables: Mapping[str, Any]


class Middleware:
    """Stands around steps, and around the chats of steps: override what you need, and go on by calling `proceed`.

    The first of several is the outermost. What it raises itself is logged, and the step goes on as if it was not there,
    unless `fails_closed`: then the step fails. What `proceed` raised and it lets through is the step's own.
    """

    fails_closed = False

    async def on_step(self, step: StepContext, proceed: "Callable[[], Any]") -> Any:
        """Around one attempt at a step; returns its output."""
        return await proceed()

    async def on_call(self, ask: Ask, proceed: "Callable[[Ask], Any]") -> Said:
        """Around one chat; may ask something else, or answer itself."""
        said: Said = await proceed(ask)
        return said


Function = Callable[..., Any]


class CodeBook(Struct, kw_only=True):
    """The functions, workflows and middleware of one process."""

    functions: dict[str, Function] = field(default_factory=dict)
    workflows: dict[str, Definition] = field(default_factory=dict)
    middleware: list[Middleware] = field(default_factory=list)

    def lacks(self, code: Iterable[str]) -> list[str]:
        """Those of these names, of functions and of middleware, that are not known here."""
        needs = self.needs()
        return [name for name in code if name not in self.functions and name not in needs]

    def needs(self) -> list[str]:
        """The names of middleware that nothing here goes past."""
        kinds = [type(one) for one in self.middleware if one.fails_closed]
        return [f"middleware {_module_of(kind)}:{kind.__qualname__}" for kind in kinds]


def name_of(function: Function) -> str:
    """What a function is registered as: its module and its name. Raises ValueError for one that has no such name.

    In the program that Python was started with it is the name that others import it by, so that they can go on with
    what that program began.
    """
    module, name = _module_of(function), getattr(function, "__qualname__", "")
    if not module or not name or "<" in name:
        raise ValueError(f"{function!r} can't be found by a name; write it as a function of a module")
    return f"{module}:{name}"


def _module_of(code: object) -> str | None:
    module: str | None = getattr(code, "__module__", None)
    if module != "__main__":
        return module
    main = sys.modules[module]
    if main.__spec__ is not None:  # python -m flows.tweet
        return main.__spec__.name
    file = str(getattr(main, "__file__", None) or "__main__")  # python flows/tweet.py
    return file.replace("\\", "/").rpartition("/")[2].removesuffix(".py")


def parameters_of(function: Function) -> tuple[list[str], list[str]]:
    """The parameters that a function must be given, and all that it takes by name."""
    must, all_ = [], []
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            all_.append(parameter.name)
            if parameter.default is parameter.empty:
                must.append(parameter.name)
    return must, all_
