"""How far a run has come: which steps can be done now, what is over, and whether all of it is. Pure.

A run is not kept as a place in its definition but as what its steps came to, by their paths; where that leaves it is
found out by walking the definition from its beginning, which is quick, and the same in every process.
"""

from collections.abc import Mapping, Sequence
from typing import Any, assert_never

from msgspec import Struct, field

from trunkline_actors.requests import models_named
from trunkline_actors.workflow_model import Choice, Code, Definition, Each, Leaf, Llm, Parallel, Step, Sub, Wait
from trunkline_actors.workflow_templates import NoValue, holds, value_of

Variables = Mapping[str, Any]


class Failure(Struct, frozen=True):
    """A step has failed for good."""

    code: str
    detail: str = ""


class Ready(Struct, frozen=True):
    """A step that can be done, with the variables it knows.

    `skipped`: its condition is not so, and it is passed over. `broken` says why it can't be done.
    """

    path: str
    step: Step
    variables: Variables
    skipped: bool = False
    broken: str = ""


class Walked(Struct):
    """Where a run stands. `failed` is the step that it can't do without and that has failed; `output` is there once
    `finished`. `broken` says why there is none though all is done: what is to be the output has no such part.
    """

    ready: list[Ready] = field(default_factory=list)
    finished: bool = False
    output: Any = None
    failed: str | None = None
    broken: str = ""


Outcome = Any
"""A step's output, or a Failure."""


class _Pending(Exception):
    """Not over yet."""


class _Failed(Exception):
    """The step at `path` failed, and whatever holds it can't do without it."""

    def __init__(self, path: str) -> None:
        self.path = path


def walk(definition: Definition, given: Any, outcomes: Mapping[str, Outcome], signals: Mapping[str, Any]) -> Walked:
    """Where a run of this definition stands: `outcomes` are those of its steps, by their paths."""
    walker = _Walker(outcomes, signals)
    try:
        output = walker.definition(definition, "", given)
    except _Pending:
        return Walked(ready=walker.ready)
    except _Failed as failed:
        return Walked(failed=failed.path)
    except NoValue as error:
        return Walked(broken=str(error))
    return Walked(finished=True, output=output)


class _Walker:
    def __init__(self, outcomes: Mapping[str, Outcome], signals: Mapping[str, Any]) -> None:
        self._outcomes = outcomes
        self._signals = signals
        self.ready: list[Ready] = []

    def definition(self, definition: Definition, prefix: str, given: Any) -> Any:
        variables = {**given} if isinstance(given, dict) else {"input": given}
        variables, last = self._sequence(definition.steps, prefix, variables)
        return last if definition.output is None else value_of(definition.output, variables)

    def _sequence(self, steps: Sequence[Step], prefix: str, variables: Variables) -> tuple[dict[str, Any], Any]:
        """The variables after all of them, and the last one's output. Raises _Pending, _Failed."""
        known, last = dict(variables), None
        for step in steps:
            last = known[step.name] = self._step(step, f"{prefix}{step.name}", known)
        return known, last

    def _step(self, step: Step, path: str, variables: Variables) -> Any:
        if path in self._outcomes:
            return self._of_outcome(step, path)
        if step.when is not None:
            try:
                if not holds(step.when, variables):
                    return self._wait_for(Ready(path, step, variables, skipped=True))
            except NoValue as error:
                return self._wait_for(Ready(path, step, variables, broken=str(error)))
        if isinstance(step, Llm | Code):
            return self._wait_for(Ready(path, step, variables))
        if isinstance(step, Wait):
            if step.signal not in self._signals:
                raise _Pending
            return self._wait_for(Ready(path, step, {"signal": self._signals[step.signal]}))
        before = len(self.ready)
        try:
            return self._composed(step, path, variables)
        except _Failed:
            if step.critical:
                raise
            del self.ready[before:]  # what else of it was to be done is not
            return None

    def _of_outcome(self, step: Step, path: str) -> Any:
        outcome = self._outcomes[path]
        if not isinstance(outcome, Failure):
            return outcome
        if step.critical:
            raise _Failed(path)
        return None

    def _wait_for(self, ready: Ready) -> Any:
        self.ready.append(ready)
        raise _Pending

    def _composed(self, step: Parallel | Choice | Each | Sub, path: str, variables: Variables) -> Any:
        try:
            match step:
                case Parallel(steps=steps):
                    return self._all([(one, f"{path}/{one.name}") for one in steps], variables)
                case Choice(condition=condition, then=then, otherwise=otherwise):
                    chosen = then if holds(condition, variables) else otherwise
                    return self._sequence(chosen, f"{path}/", variables)[1]
                case Each():
                    return self._each(step, path, variables)
                case Sub(definition=definition):
                    given = {name: value_of(variable, variables) for name, variable in step.input.items()}
                    return self.definition(definition, f"{path}/", given)
                case _:  # pragma: no cover
                    assert_never(step)
        except NoValue as error:
            return self._wait_for(Ready(path, step, variables, broken=str(error)))

    def _all(self, steps: list[tuple[Step, str]], variables: Variables) -> dict[str, Any]:
        outputs: dict[str, Any] = {}
        for step, path in steps:
            try:
                outputs[step.name] = self._step(step, path, variables)
            except _Pending:
                continue
        if len(outputs) < len(steps):
            raise _Pending
        return outputs

    def _each(self, step: Each, path: str, variables: Variables) -> list[Any]:
        entries = value_of(step.over, variables)
        if not isinstance(entries, list):
            raise NoValue(f"{step.over!r} is no list, so there is nothing to go through")
        outputs: list[Any] = []
        under_way = 0
        for place, entry in enumerate(entries):
            if under_way == step.at_once:
                raise _Pending
            try:
                outputs.append(self._sequence(step.steps, f"{path}/{place}/", {**variables, step.item: entry})[1])
            except _Pending:
                under_way += 1
        if under_way:
            raise _Pending
        return outputs


def leaves(steps: Sequence[Step]) -> list[Leaf]:
    """All steps that do something, however deep."""
    found: list[Leaf] = []
    for step in steps:
        match step:
            case Llm() | Code() | Wait():
                found.append(step)
            case Parallel(steps=inner) | Each(steps=inner):
                found += leaves(inner)
            case Choice(then=then, otherwise=otherwise):
                found += leaves([*then, *otherwise])
            case Sub(definition=definition):
                found += leaves(definition.steps)
            case _:  # pragma: no cover
                assert_never(step)
    return found


def functions_of(definition: Definition) -> list[str]:
    """The names of the code that a definition needs."""
    return sorted({step.function for step in leaves(definition.steps) if isinstance(step, Code)})


def models_of(definition: Definition) -> list[str]:
    """The names of the models that a definition's chats name: those that its code asks are not known."""
    chats = [step for step in leaves(definition.steps) if isinstance(step, Llm)]
    return sorted({name for chat in chats for name in models_named(chat.model, chat.route)})
