"""What is wrong with a workflow before its first step: variables nobody gives, names used twice, bad numbers. Pure."""

import math
import re
from collections.abc import Iterator, Sequence
from typing import Any, assert_never

import msgspec
from trunkline_events.money import BadAmount, nanos_from_usd

from trunkline_actors.requests import Route, route_problem
from trunkline_actors.shapes import Problem, at, mistyped, suggestion
from trunkline_actors.workflow_model import (
    Choice,
    Code,
    Condition,
    Definition,
    Each,
    Llm,
    Parallel,
    Retry,
    Step,
    Sub,
    Wait,
)
from trunkline_actors.workflow_schemas import fields_of, required_of, schema_problems, validator
from trunkline_actors.workflow_templates import BadTemplate, names_in, root_of

MOST_STEPS = 1_000
DEEPEST = 16
LONGEST_S = 30 * 86_400.0
ROLES = ("system", "user", "assistant")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,63}")

Found = Iterator[Problem]


def problems(definition: Definition) -> list[Problem]:
    """Everything that is wrong with it, each with its place, in the order of the definition."""
    found = list(_name(definition.name, "name"))
    if too_much := _size(definition.steps):
        return [*found, too_much]
    checker = _Checker(made_of(definition.steps))
    after = checker.sequence(definition.steps, "steps", fields_of(definition.inputs))
    if definition.output is not None:
        checker.variable(definition.output, "output", after)
    found += checker.found
    if definition.inputs is not None:
        found += schema_problems(definition.inputs, "inputs")
    found += _amount(definition.budget_usd, "budget_usd")
    found += _seconds(definition.deadline_s, "deadline_s")
    return found


def input_problems(definition: Definition, given: Any, deadline_s: float | None) -> list[Problem]:
    """What is wrong with what a run is to be begun with."""
    found = list(_seconds(deadline_s, "deadline_s"))
    if definition.inputs is None:
        return found
    errors = validator(definition.inputs).iter_errors(given)
    return found + [Problem(".".join(map(str, ("input", *one.absolute_path))), one.message[:300]) for one in errors]


def _size(steps: Sequence[Step]) -> Problem | None:
    """More steps than there may be, or deeper ones. Level by level, so that no depth is too deep to be told."""
    level, number = [(step, at("steps", place)) for place, step in enumerate(steps)], 0
    for _ in range(DEEPEST + 1):
        number += len(level)
        if number > MOST_STEPS:
            return Problem("steps", f"has more than {MOST_STEPS:,} steps; go through a list with a map instead")
        level = [inner for step, path in level for inner in _within(step, path)]
    if not level:
        return None
    return Problem(level[0][1], f"lies more than {DEEPEST} levels deep; make it flatter, or a run of its own")


def _within(step: Step, path: str) -> list[tuple[Step, str]]:
    """The steps right inside a step, and where they are."""
    match step:
        case Parallel(steps=inner) | Each(steps=inner):
            parts = {"steps": inner}
        case Choice(then=then, otherwise=otherwise):
            parts = {"then": then, "otherwise": otherwise}
        case Sub(definition=definition):
            parts = {"definition.steps": definition.steps}
        case _:
            return []
    return [(one, at(f"{path}.{name}", place)) for name, inner in parts.items() for place, one in enumerate(inner)]


def made_of(steps: Sequence[Step], path: str = "steps") -> dict[str, str]:
    """Where each variable is made, of those that steps make on this level."""
    return {step.name: at(path, place) for place, step in enumerate(steps)}


class _Checker:
    def __init__(self, made: dict[str, str]) -> None:
        self.found: list[Problem] = []
        self._made = made

    def sequence(self, steps: Sequence[Step], path: str, known: set[str] | None) -> set[str] | None:
        """Check them in order; the variables known after them. None: any may be."""
        if not steps:
            self._tell(path, "has no steps; give it one at least")
        seen: dict[str, str] = {}
        before, self._made = self._made, {**self._made, **made_of(steps, path)}
        for place, step in enumerate(steps):
            where = at(path, place)
            self.found += _name(step.name, f"{where}.name")
            if step.name in seen:
                self._tell(f"{where}.name", f"{seen[step.name]} has the name {step.name!r} already; give it another")
            seen[step.name] = where
            self._step(step, where, known)
            known = None if known is None else {*known, step.name}
        self._made = before
        return known

    def _step(self, step: Step, where: str, known: set[str] | None) -> None:
        if step.when is not None:
            self._condition(step.when, f"{where}.when", known)
        match step:
            case Llm():
                self._llm(step, where, known)
            case Code(takes=takes):
                for parameter, variable in takes.items():
                    self.variable(variable, at(f"{where}.takes", parameter), known)
            case Wait(signal=signal):
                self.found += _name(signal, f"{where}.signal")
            case Parallel(steps=steps):
                self._parallel(steps, f"{where}.steps", known)
            case Choice(condition=condition, then=then, otherwise=otherwise):
                self._condition(condition, f"{where}.condition", known)
                self.sequence(then, f"{where}.then", known)
                if otherwise:
                    self.sequence(otherwise, f"{where}.otherwise", known)
            case Each():
                self._each(step, where, known)
            case Sub():
                self._sub(step, where, known)
            case _:  # pragma: no cover
                assert_never(step)
        if isinstance(step, Llm | Code):
            self.found += [*_seconds(step.timeout_s, f"{where}.timeout_s"), *_retry(step.retry, f"{where}.retry")]

    def _llm(self, step: Llm, where: str, known: set[str] | None) -> None:
        if bool(step.prompt) == bool(step.messages):
            self._tell(f"{where}.prompt", "a step asks either with a prompt or with messages; give one of them")
        self._template(step.prompt, f"{where}.prompt", known)
        self._template(step.system, f"{where}.system", known)
        for place, message in enumerate(step.messages):
            path = at(f"{where}.messages", place)
            if set(message) != {"role", "content"} or message["role"] not in ROLES:
                self._tell(path, f"a message has a role ({', '.join(ROLES)}) and a content, and nothing else")
            self._template(message.get("content", ""), f"{path}.content", known)
        self.found += _amount(step.budget_usd, f"{where}.budget_usd")
        self.found += _route(step.route, f"{where}.route")
        if step.schema is not None:
            self.found += schema_problems(step.schema, f"{where}.schema")
        if not 0 <= step.repairs <= 10:
            self._tell(f"{where}.repairs", "must be from 0 to 10")

    def _parallel(self, steps: Sequence[Step], path: str, known: set[str] | None) -> None:
        """None of them knows what another one makes."""
        if not steps:
            self._tell(path, "has no steps; give it one at least")
        before, self._made = self._made, {**self._made, **made_of(steps, path)}
        names: dict[str, str] = {}
        for place, step in enumerate(steps):
            where = at(path, place)
            self.found += _name(step.name, f"{where}.name")
            if step.name in names:
                self._tell(f"{where}.name", f"{names[step.name]} has the name {step.name!r} already; give it another")
            names[step.name] = where
            self._step(step, where, known)
        self._made = before

    def _each(self, step: Each, where: str, known: set[str] | None) -> None:
        self.variable(step.over, f"{where}.over", known)
        self.found += _name(step.item, f"{where}.item")
        if not 1 <= step.at_once <= 1_000:
            self._tell(f"{where}.at_once", "must be from 1 to 1,000")
        self.sequence(step.steps, f"{where}.steps", None if known is None else {*known, step.item})

    def _sub(self, step: Sub, where: str, known: set[str] | None) -> None:
        for name, variable in step.input.items():
            self.variable(variable, at(f"{where}.input", name), known)
        definition, place = step.definition, f"{where}.definition."
        for name in required_of(definition.inputs):
            if name not in step.input:
                self._tell(f"{where}.input", f"workflow {definition.name!r} needs {name!r}; give it a variable")
        self.found += _name(definition.name, f"{place}name")
        inner = _Checker(made_of(definition.steps, f"{place}steps"))
        given = {*step.input, *(fields_of(definition.inputs) or ())}
        after = inner.sequence(definition.steps, f"{place}steps", given)
        if definition.output is not None:
            inner.variable(definition.output, f"{place}output", after)
        self.found += inner.found
        if definition.inputs is not None:
            self.found += schema_problems(definition.inputs, f"{place}inputs")
        for limit, amount in (("budget_usd", definition.budget_usd), ("deadline_s", definition.deadline_s)):
            if amount is not None:  # a limit that nobody keeps to would be worse than none
                self._tell(f"{place}{limit}", "only a whole run has one: give it to the outermost workflow, or a step")

    def _condition(self, condition: Condition, path: str, known: set[str] | None) -> None:
        self.variable(condition.value, f"{path}.value", known)

    def _template(self, text: str, path: str, known: set[str] | None) -> None:
        try:
            for name in names_in(text):
                self.variable(name, path, known)
        except BadTemplate as error:
            self._tell(path, str(error))

    def variable(self, name: str, path: str, known: set[str] | None) -> None:
        """A name must be that of something known here."""
        try:
            root = root_of(name)
        except BadTemplate as error:
            self._tell(path, str(error))
            return
        if known is None or root in known:
            return
        if root in self._made:
            self._tell(path, f"{root!r} is not there yet: {self._made[root]} makes it, which comes later or beside")
            return
        like = suggestion(root, known) or f"; there are {', '.join(sorted(known)) or 'none'}"
        self._tell(path, f"nothing gives {root!r}{like}")

    def _tell(self, path: str, message: str) -> None:
        self.found.append(Problem(path, message))


def _name(name: str, path: str) -> Found:
    if not _NAME.fullmatch(name):
        yield Problem(path, f"{name!r} is no name: letters, digits, _ and -, beginning with a letter or _, at most 64")


def _amount(amount: str | None, path: str) -> Found:
    if amount is not None:
        try:
            nanos_from_usd(amount)
        except BadAmount as error:
            yield Problem(path, str(error))


def _route(route: dict[str, Any], path: str) -> Found:
    try:
        problem = route_problem(msgspec.convert(route, Route))
    except msgspec.ValidationError as error:
        message, place = mistyped(error)
        yield Problem(path + place, message)
    else:
        if problem is not None:
            yield Problem(path, problem.message)


def _seconds(seconds: float | None, path: str) -> Found:
    if seconds is not None and not (math.isfinite(seconds) and 0 < seconds <= LONGEST_S):
        yield Problem(path, f"must be more than 0 seconds, and no more than {LONGEST_S:,.0f} (30 days)")


def _retry(retry: Retry, path: str) -> Found:
    if not 1 <= retry.attempts <= 100:
        yield Problem(f"{path}.attempts", "must be from 1 to 100")
    if not (0 <= retry.first_s <= LONGEST_S and 1 <= retry.factor <= 100 and 0 <= retry.most_s <= LONGEST_S):
        yield Problem(path, "first_s and most_s are seconds from 0 on, factor is from 1 to 100")
