"""What is wrong with a workflow before its first step: given a definition, then its problems, with their places."""

from typing import Any

import pytest
from referencing.exceptions import Unresolvable
from trunkline_actors.workflow_checks import DEEPEST, MOST_STEPS, input_problems, problems
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

NAME = "is no name: letters, digits, _ and -, beginning with a letter or _, at most 64"


def typed(*fields: str, required: list[str] | None = None) -> dict[str, Any]:
    return {"type": "object", "properties": {field: {} for field in fields}, "required": required or []}


def found(*steps: Step, name: str = "w", inputs: dict[str, Any] | None = None, **more: Any) -> list[str]:
    """The problems of a workflow whose input is `topic` and `list`."""
    given = typed("topic", "list") if inputs is None else inputs
    return [str(problem) for problem in problems(Definition(name=name, steps=list(steps), inputs=given, **more))]


def ask(name: str, prompt: str = "x", **more: Any) -> Llm:
    return Llm(name=name, prompt=prompt, **more)


def test_a_workflow_of_every_kind_of_step_has_no_problems() -> None:
    inner = Definition(name="inner", steps=[ask("said", "{what}")], output="said", inputs=typed("what"))
    steps: list[Step] = [
        ask("draft", "About {topic}", system="You know {topic}"),
        Llm(name="talk", messages=[{"role": "user", "content": "{draft}"}], schema={"type": "object"}),
        Code(name="size", function="m:f", takes={"text": "draft", "n": "list[0].n"}),
        Parallel(name="checks", steps=[ask("tone", "{draft}"), ask("sense", "{draft}")]),
        Choice(name="judged", condition=Condition(value="checks.tone"), then=[ask("a", "{size}"), ask("b", "{a}")]),
        Each(name="each", over="list", steps=[ask("say", "{item} {topic}"), ask("cry", "{say}")]),
        Wait(name="ok", signal="approved", when=Condition(value="judged")),
        Sub(name="sub", definition=inner, input={"what": "ok"}),
    ]
    assert found(*steps, output="sub", budget_usd="0.5", deadline_s=10) == []


# -- variables


def test_a_variable_that_nothing_gives_is_told_with_what_is_like_it_or_all_there_is() -> None:
    assert found(ask("a", "{topik}")) == ["steps[0].prompt: nothing gives 'topik'; did you mean \"topic\"?"]
    assert found(ask("a", "{zzz}")) == ["steps[0].prompt: nothing gives 'zzz'; there are list, topic"]
    assert found(ask("a", "{zzz}"), inputs=typed()) == ["steps[0].prompt: nothing gives 'zzz'; there are none"]


def test_a_variable_that_is_made_later_or_beside_is_told_with_its_place() -> None:
    beside = "'b' is not there yet: {} makes it, which comes later or beside"
    assert found(ask("a", "{b}"), ask("b")) == [f"steps[0].prompt: {beside.format('steps[1]')}"]
    both = Parallel(name="p", steps=[ask("a", "{b}"), ask("b")])
    assert found(both) == [f"steps[0].steps[0].prompt: {beside.format('steps[0].steps[1]')}"]


def test_what_is_made_inside_is_not_known_outside() -> None:
    inside = Each(name="each", over="list", steps=[ask("one")])
    assert found(inside, ask("after", "{one}")) == ["steps[1].prompt: nothing gives 'one'; there are each, list, topic"]


def test_an_input_without_a_type_gives_any_variable() -> None:
    definition = Definition(name="w", steps=[ask("a", "{anything}"), Each(name="e", over="x", steps=[ask("b", "{y}")])])
    assert problems(definition) == []


@pytest.mark.parametrize(
    ("step", "path"),
    [
        (ask("a", system="{zzz}"), "steps[0].system"),
        (Llm(name="a", messages=[{"role": "user", "content": "{zzz}"}]), "steps[0].messages[0].content"),
        (Code(name="a", function="f", takes={"x": "zzz.y"}), "steps[0].takes.x"),
        (ask("a", when=Condition(value="zzz")), "steps[0].when.value"),
        (Choice(name="a", condition=Condition(value="zzz"), then=[ask("b")]), "steps[0].condition.value"),
        (
            Choice(name="a", condition=Condition(value="topic"), then=[ask("b")], otherwise=[ask("c", "{zzz}")]),
            "steps[0].otherwise[0].prompt",
        ),
        (Each(name="a", over="zzz", steps=[ask("b")]), "steps[0].over"),
        (Sub(name="a", definition=Definition(name="i", steps=[ask("b")]), input={"x": "zzz"}), "steps[0].input.x"),
    ],
)
def test_every_place_that_names_a_variable_is_looked_at(step: Step, path: str) -> None:
    assert found(step) == [f"{path}: nothing gives 'zzz'; there are list, topic"]


def test_an_output_is_a_variable_after_the_last_step() -> None:
    assert found(ask("a"), output="a.part") == []
    assert found(ask("a"), output="b") == ["output: nothing gives 'b'; there are a, list, topic"]
    assert "is no name of a variable" in found(ask("a"), output="a b")[0]


def test_a_text_that_is_no_template_is_told() -> None:
    assert found(ask("a", "{")) == [
        "steps[0].prompt: Single '{' encountered in format string; write {{ and }} for braces that are meant as such"
    ]


# -- inputs


def test_the_fields_of_an_input_that_is_a_definition_of_the_schema_are_known() -> None:
    schema = {"$ref": "#/$defs/T", "$defs": {"T": typed("topic")}}
    assert found(ask("a", "{topic}"), inputs=schema) == []
    assert found(ask("a", "{other}"), inputs=schema) == ["steps[0].prompt: nothing gives 'other'; there are topic"]


@pytest.mark.parametrize(
    ("schema", "told"),
    [
        ({"type": "thing"}, "inputs.type: is no JSON Schema: 'thing' is not valid under any of the given schemas"),
        ({"$defs": [1], "$ref": "#/$defs/T"}, "inputs[\"$defs\"]: is no JSON Schema: [1] is not of type 'object'"),
        ({"$ref": "#/$defs/T"}, "inputs[\"$ref\"]: '#/$defs/T' is not in this schema"),
        (
            {"allOf": [{"$ref": "http://x.test/y"}]},
            "inputs.allOf[0][\"$ref\"]: 'http://x.test/y' is not in this schema",
        ),
        ({"$ref": "#/$defs/T", "$defs": {"T": True}}, ""),
        ({"properties": 1}, "inputs.properties: is no JSON Schema: 1 is not of type 'object'"),
        ({"properties": {}, "required": 1}, "inputs.required: is no JSON Schema: 1 is not of type 'array'"),
        ({"enum": [{"$ref": "this is a value"}]}, ""),
    ],
)
def test_an_input_schema_that_is_none_or_refers_to_nowhere_is_told(schema: dict[str, Any], told: str) -> None:
    problems_ = found(ask("a"), inputs=schema)
    assert (told in problems_[0] and len(problems_) == 1) if told else problems_ == []


def test_a_schema_of_answers_is_looked_at_too_and_so_is_one_that_is_too_deep() -> None:
    assert found(ask("a", schema={"type": 1}))[0].startswith("steps[0].schema.type: is no JSON Schema: 1 is")
    deep: dict[str, Any] = {}
    for _ in range(5_000):
        deep = {"not": deep}
    told = "steps[0].schema: is nested too deep to be checked; write its parts under $defs"
    assert found(ask("a", schema=deep)) == [told]


def test_what_a_run_is_begun_with_fits_its_input_and_has_a_time() -> None:
    inputs = {"type": "object", "properties": {"n": {"type": "object", "properties": {"m": {"type": "integer"}}}}}
    definition = Definition(name="w", steps=[ask("a")], inputs=inputs)
    assert input_problems(definition, {"n": {"m": 1}}, 5.0) == []
    told = [str(one) for one in input_problems(definition, {"n": {"m": "x"}}, 0.0)]
    assert told[0].startswith("deadline_s: must be more than 0 seconds")
    assert told[1:] == ["input.n.m: 'x' is not of type 'integer'"]
    assert [str(one) for one in input_problems(definition, 3, None)] == ["input: 3 is not of type 'object'"]
    assert input_problems(Definition(name="w", steps=[ask("a")]), 3, None) == []


def test_no_reference_of_a_schema_is_ever_fetched() -> None:
    """One that was not checked, since it was begun by an earlier version."""
    elsewhere = {"$ref": "http://127.0.0.1:9/schema"}
    with pytest.raises(Unresolvable):
        input_problems(Definition(name="w", steps=[ask("a")], inputs=elsewhere), {}, None)


# -- sub-workflows


def sub(inputs: dict[str, Any] | None, given: dict[str, str], **more: Any) -> Sub:
    return Sub(name="s", input=given, definition=Definition(name="inner", steps=[ask("a")], inputs=inputs, **more))


def test_a_sub_workflow_needs_what_its_input_requires_and_no_more() -> None:
    told = "steps[0].input: workflow 'inner' needs 'x'; give it a variable"
    assert found(sub(typed("x", "y", required=["x"]), {"y": "topic"})) == [told]
    assert found(sub({"$ref": "#/$defs/T", "$defs": {"T": typed("x", "y", required=["x"])}}, {})) == [told]
    assert found(sub(typed("x", "y"), {})) == []
    assert found(sub({"$ref": "#/$defs/T", "$defs": {"T": typed("x", "y", required=["x"])}}, {"x": "topic"})) == []
    assert found(sub(None, {})) == []


def test_a_sub_workflow_knows_its_own_input_and_nothing_else() -> None:
    inner = Definition(name="inner", steps=[ask("a", "{topic}{x}")])
    assert found(Sub(name="s", definition=inner, input={"x": "topic"})) == [
        "steps[0].definition.steps[0].prompt: nothing gives 'topic'; there are x"
    ]


def test_all_of_a_sub_workflow_is_looked_at() -> None:
    step = sub({"type": 1}, {}, output="zzz", budget_usd="much", deadline_s=-1)
    paths = [one.partition(":")[0] for one in found(step)]
    inner = "steps[0].definition"
    assert paths == [f"{inner}.output", f"{inner}.inputs.type", f"{inner}.budget_usd", f"{inner}.deadline_s"]
    assert found(Sub(name="s", definition=Definition(name="no name", steps=[ask("a")]))) == [
        f"{inner}.name: 'no name' {NAME}"
    ]


# -- names


@pytest.mark.parametrize("name", ["", "1st", "a b", "a.b", "a/b", "-a", "a" * 65, "é", "a\n"])
def test_what_is_no_name_is_told_wherever_there_is_one(name: str) -> None:
    told = f"{name!r} {NAME}"
    assert found(ask("a"), name=name) == [f"name: {told}"]
    assert found(ask(name)) == [f"steps[0].name: {told}"]
    assert found(Parallel(name="p", steps=[ask(name)])) == [f"steps[0].steps[0].name: {told}"]
    assert found(Wait(name="w", signal=name)) == [f"steps[0].signal: {told}"]
    assert found(Each(name="e", over="list", item=name, steps=[ask("a")])) == [f"steps[0].item: {told}"]


@pytest.mark.parametrize("name", ["a", "_", "A-1_b", "a" * 64])
def test_a_name_is_taken(name: str) -> None:
    assert found(ask(name), name=name) == []


def test_a_name_is_given_once_on_a_level() -> None:
    told = "has the name 'a' already; give it another"
    assert found(ask("a"), ask("a")) == [f"steps[1].name: steps[0] {told}"]
    assert found(Parallel(name="p", steps=[ask("a"), ask("a")])) == [
        f"steps[0].steps[1].name: steps[0].steps[0] {told}"
    ]
    assert found(ask("a"), Parallel(name="p", steps=[ask("a")])) == []


# -- numbers


@pytest.mark.parametrize(
    ("step", "told"),
    [
        (ask("a", timeout_s=0.0), "timeout_s: must be more than 0 seconds, and no more than 2,592,000 (30 days)"),
        (ask("a", timeout_s=float("nan")), "timeout_s: must be more than 0 seconds"),
        (ask("a", timeout_s=3e6), "timeout_s: must be more than 0 seconds"),
        (Code(name="a", function="f", timeout_s=-1.0), "timeout_s: must be more than 0 seconds"),
        (ask("a", retry=Retry(attempts=0)), "retry.attempts: must be from 1 to 100"),
        (ask("a", retry=Retry(attempts=101)), "retry.attempts: must be from 1 to 100"),
        (ask("a", retry=Retry(first_s=-1)), "retry: first_s and most_s are seconds from 0 on, factor is from 1 to 100"),
        (ask("a", retry=Retry(factor=0.5)), "retry: first_s and most_s"),
        (ask("a", retry=Retry(most_s=float("inf"))), "retry: first_s and most_s"),
        (ask("a", repairs=11), "repairs: must be from 0 to 10"),
        (ask("a", repairs=-1), "repairs: must be from 0 to 10"),
        (ask("a", route={"prefer": 5}), "route.prefer: Expected `array`, got `int`"),
        (ask("a", route={"speed": 1}), "route: Object contains unknown field `speed`"),
        (ask("a", route={"min_match": 2.0}), "route: route.min_match must be from 0 to 1"),
        (ask("a", budget_usd="much"), "budget_usd: 'much' is not an amount in US dollars; write it like \"0.25\""),
        (Each(name="e", over="list", steps=[ask("a")], at_once=0), "at_once: must be from 1 to 1,000"),
        (Each(name="e", over="list", steps=[ask("a")], at_once=1_001), "at_once: must be from 1 to 1,000"),
    ],
)
def test_a_number_that_makes_no_sense_is_told_with_what_does(step: Step, told: str) -> None:
    (only,) = found(step)
    assert only.startswith(f"steps[0].{told}")


def test_so_are_those_of_the_whole() -> None:
    paths = [one.partition(":")[0] for one in found(ask("a"), budget_usd="-1", deadline_s=0)]
    assert paths == ["budget_usd", "deadline_s"]


# -- shapes


@pytest.mark.parametrize(
    ("step", "told"),
    [
        (Llm(name="a"), "prompt: a step asks either with a prompt or with messages; give one of them"),
        (ask("a", messages=[{"role": "user", "content": "x"}]), "prompt: a step asks either with a prompt or"),
        (Llm(name="a", messages=[{"role": "tool", "content": "x"}]), "messages[0]: a message has a role (system, user"),
        (Llm(name="a", messages=[{"content": "x"}]), "messages[0]: a message has a role (system, user, assistant)"),
        (Llm(name="a", messages=[{"role": "user"}]), "messages[0]: a message has a role (system, user, assistant)"),
        (Parallel(name="p", steps=[]), "steps: has no steps; give it one at least"),
        (Each(name="e", over="list", steps=[]), "steps: has no steps; give it one at least"),
        (Choice(name="c", condition=Condition(value="topic"), then=[]), "then: has no steps; give it one at least"),
    ],
)
def test_a_step_that_asks_for_nothing_or_for_too_much_is_told(step: Step, told: str) -> None:
    (only,) = found(step)
    assert only.startswith(f"steps[0].{told}")


def test_a_workflow_has_a_step() -> None:
    assert found() == ["steps: has no steps; give it one at least"]


def test_there_are_only_so_many_steps() -> None:
    many = [ask(f"a{place}") for place in range(MOST_STEPS)]
    assert found(*many) == []
    told = "steps: has more than 1,000 steps; go through a list with a map instead"
    assert found(*many, ask("b")) == [told]
    assert found(Parallel(name="p", steps=list(many))) == [told]


def nested(kind: str, levels: int) -> Step:
    step: Step = ask("x")
    for _ in range(levels):
        inner: list[Step] = [step]
        kinds: dict[str, Step] = {
            "parallel": Parallel(name="x", steps=inner),
            "then": Choice(name="x", condition=Condition(value="topic"), then=inner),
            "otherwise": Choice(name="x", condition=Condition(value="topic"), then=[ask("y")], otherwise=inner),
            "each": Each(name="x", over="list", steps=inner),
            "sub": Sub(name="x", definition=Definition(name="x", steps=inner, inputs=typed("topic", "list"))),
        }
        step = kinds[kind]
    return step


@pytest.mark.parametrize("kind", ["parallel", "then", "otherwise", "each", "sub"])
def test_steps_lie_only_so_deep_whatever_they_lie_in(kind: str) -> None:
    assert found(nested(kind, DEEPEST)) == []
    for levels in (DEEPEST + 1, 900):
        (only,) = found(nested(kind, levels))
        assert "lies more than 16 levels deep; make it flatter, or a run of its own" in only
        assert only.startswith("steps[0].")


def test_a_workflow_within_another_has_no_budget_and_no_deadline_of_its_own() -> None:
    inner = Definition(name="inner", steps=[ask("said")], budget_usd="1", deadline_s=5)
    assert found(Sub(name="sub", definition=inner, input={})) == [
        f"steps[0].definition.{limit}: only a whole run has one: give it to the outermost workflow, or a step"
        for limit in ("budget_usd", "deadline_s")
    ]
