"""How far a run has come: given a definition and what its steps came to, then what can be done now, or the output."""

from typing import Any

import msgspec
import pytest
from hypothesis import given as with_any
from hypothesis import settings
from hypothesis import strategies as st
from trunkline_actors.workflow_model import (
    Choice,
    Code,
    Condition,
    Definition,
    Each,
    Llm,
    Parallel,
    Step,
    Sub,
    Wait,
)
from trunkline_actors.workflow_walk import Failure, Walked, functions_of, leaves, models_of, walk
from workflow_strategies import definitions, outcome_of, play

INPUT = {"topic": "foxes", "list": ["a", "b", "c"], "no": 0}
NO, YES = Condition(value="no"), Condition(value="topic")
BROKEN = Condition(value="zzz")
FAILED = Failure("busy")


def ask(name: str, **more: Any) -> Llm:
    return Llm(name=name, prompt="x", **more)


def walked(
    *steps: Step, done: dict[str, Any] | None = None, signals: dict[str, Any] | None = None, output: str | None = None
) -> Walked:
    return walk(Definition(name="w", steps=list(steps), output=output), INPUT, done or {}, signals or {})


def ready(*steps: Step, done: dict[str, Any] | None = None, signals: dict[str, Any] | None = None) -> list[str]:
    """The paths of what can be done, of which nothing is over yet."""
    found = walked(*steps, done=done, signals=signals)
    assert (found.finished, found.failed, found.broken) == (False, None, "")
    assert not any(one.skipped or one.broken for one in found.ready)
    return [one.path for one in found.ready]


def only(found: Walked) -> tuple[str, bool, str]:
    (one,) = found.ready
    return one.path, one.skipped, one.broken


# -- one after another


def test_the_first_step_can_be_done_and_each_other_one_when_the_one_before_is() -> None:
    assert ready(ask("a"), ask("b")) == ["a"]
    assert ready(ask("a"), ask("b"), done={"a": 1}) == ["b"]
    assert walked(ask("a"), ask("b"), done={"a": 1, "b": 2}) == Walked(finished=True, output=2)


def test_a_step_knows_the_input_and_what_the_steps_before_it_came_to() -> None:
    assert walked(ask("a"), ask("b"), done={"a": 1}).ready[0].variables == {**INPUT, "a": 1}


def test_an_input_that_is_no_object_is_the_variable_input() -> None:
    assert walk(Definition(name="w", steps=[ask("a")]), [1], {}, {}).ready[0].variables == {"input": [1]}


def test_a_step_that_failed_fails_the_run_unless_the_run_can_do_without() -> None:
    assert walked(ask("a"), ask("b"), done={"a": FAILED}) == Walked(failed="a")
    lenient = walked(ask("a", critical=False), ask("b"), done={"a": FAILED})
    assert lenient.ready[0].variables == {**INPUT, "a": None}


def test_a_step_whose_condition_is_not_so_is_passed_over() -> None:
    assert only(walked(ask("a", when=NO), ask("b"))) == ("a", True, "")
    assert ready(ask("a", when=YES)) == ["a"]
    assert ready(ask("a", when=NO), ask("b"), done={"a": None}) == ["b"]
    for step in (Parallel(name="a", steps=[ask("b")], when=NO), Wait(name="a", signal="s", when=NO)):
        assert only(walked(step)) == ("a", True, "")
        assert walked(step, done={"a": None}) == Walked(finished=True)


def test_a_condition_about_what_is_not_there_breaks_its_step() -> None:
    path, skipped, broken = only(walked(ask("a", when=BROKEN)))
    assert (path, skipped) == ("a", False)
    assert broken.startswith("there is no variable 'zzz'; there are")


# -- waiting


def test_a_wait_can_be_done_once_its_signal_is_there_and_knows_what_came_with_it() -> None:
    step = Wait(name="a", signal="s")
    assert ready(step) == ready(step, signals={"t": 1}) == []
    (one,) = walked(step, signals={"s": {"who": "Ada"}}).ready
    assert (one.path, one.variables) == ("a", {"signal": {"who": "Ada"}})
    assert walked(step, done={"a": 1}) == Walked(finished=True, output=1)


# -- side by side


BOTH = Parallel(name="p", steps=[ask("a"), ask("b")])


def test_what_is_side_by_side_can_be_done_at_once_and_is_over_when_all_of_it_is() -> None:
    assert ready(BOTH) == ["p/a", "p/b"]
    assert ready(BOTH, done={"p/b": 2}) == ["p/a"]
    assert walked(BOTH, done={"p/b": 2, "p/a": 1}) == Walked(finished=True, output={"a": 1, "b": 2})


def test_one_that_fails_of_those_side_by_side_fails_all_at_once() -> None:
    assert walked(BOTH, done={"p/b": FAILED}) == Walked(failed="p/b")


def test_a_group_that_the_run_can_do_without_is_given_up_with_all_that_was_to_be_done_in_it() -> None:
    group = Parallel(name="p", steps=[ask("a"), ask("b")], critical=False)
    beside = Parallel(name="q", steps=[ask("c"), group])
    assert ready(beside, done={"q/p/b": FAILED}) == ["q/c"]
    assert walked(group, done={"p/b": FAILED}) == Walked(finished=True)


# -- one or the other


def choice(condition: Condition, **more: Any) -> Choice:
    then: list[Step] = [ask("a"), ask("b")]
    return Choice(name="c", condition=condition, then=then, otherwise=[ask("x")], **more)


def test_of_a_choice_one_side_is_done_in_order_and_its_last_output_is_that_of_the_choice() -> None:
    assert ready(choice(YES)) == ["c/a"]
    assert ready(choice(YES), done={"c/a": 1}) == ["c/b"]
    assert walked(choice(YES), done={"c/a": 1, "c/b": 2}).output == 2
    assert ready(choice(NO)) == ["c/x"]


def test_a_choice_with_nothing_to_do_is_null() -> None:
    step = Choice(name="c", condition=NO, then=[ask("a")])
    assert walked(step) == Walked(finished=True)


def test_a_choice_by_what_is_not_there_is_broken_as_itself() -> None:
    path, _, broken = only(walked(choice(BROKEN)))
    assert path == "c"
    assert "no variable 'zzz'" in broken
    assert walked(choice(BROKEN), done={"c": FAILED}) == Walked(failed="c")
    assert walked(choice(BROKEN, critical=False), done={"c": FAILED}) == Walked(finished=True)


# -- through a list


def each(over: str = "list", at_once: int = 8, **more: Any) -> Each:
    return Each(name="e", over=over, steps=[ask("a"), ask("b")], at_once=at_once, **more)


def test_the_entries_of_a_list_go_side_by_side_each_in_order_and_give_a_list() -> None:
    assert ready(each()) == ["e/0/a", "e/1/a", "e/2/a"]
    assert ready(each(), done={"e/1/a": 1}) == ["e/0/a", "e/1/b", "e/2/a"]
    done = {f"e/{place}/{step}": f"{place}{step}" for place in (2, 0, 1) for step in "ba"}
    assert walked(each(), done=done).output == ["0b", "1b", "2b"]


def test_an_entry_is_known_under_its_name_to_its_own_steps_only() -> None:
    assert [one.variables["item"] for one in walked(each()).ready] == ["a", "b", "c"]
    second = walked(each(), done={"e/1/a": 1}).ready[1].variables
    assert (second["item"], second["a"]) == ("b", 1)
    done = {f"e/{place}/{step}": 1 for place in range(3) for step in "ab"}
    assert "item" not in walked(each(), ask("after"), done=done).ready[0].variables


def test_only_so_many_entries_are_under_way_at_once() -> None:
    assert ready(each(at_once=2)) == ["e/0/a", "e/1/a"]
    assert ready(each(at_once=2), done={"e/0/a": 1}) == ["e/0/b", "e/1/a"]
    assert ready(each(at_once=2), done={"e/0/a": 1, "e/0/b": 1}) == ["e/1/a", "e/2/a"]
    assert ready(each(at_once=1), done={"e/0/a": 1, "e/0/b": 1}) == ["e/1/a"]


def test_an_empty_list_gives_one() -> None:
    assert walk(Definition(name="w", steps=[each("list")]), {"list": []}, {}, {}) == Walked(finished=True, output=[])


@pytest.mark.parametrize(
    ("over", "told"), [("topic", "'topic' is no list, so there is nothing"), ("zzz", "there is no variable 'zzz'")]
)
def test_what_is_no_list_can_not_be_gone_through(over: str, told: str) -> None:
    path, _, broken = only(walked(each(over)))
    assert path == "e"
    assert broken.startswith(told)


def test_an_entry_that_fails_fails_the_list_unless_its_step_or_the_list_can_be_done_without() -> None:
    assert walked(each(), done={"e/1/a": FAILED}) == Walked(failed="e/1/a")
    assert walked(each(critical=False), done={"e/1/a": FAILED}) == Walked(finished=True)
    soft = Each(name="e", over="list", steps=[ask("a", critical=False)])
    assert walked(soft, done={"e/0/a": 0, "e/1/a": FAILED, "e/2/a": 2}).output == [0, None, 2]


# -- another workflow


def sub(*, output: str | None = None, over: str = "topic", **more: Any) -> Sub:
    definition = Definition(name="inner", steps=[ask("a"), ask("b")], output=output)
    return Sub(name="s", definition=definition, input={"what": over}, **more)


def test_a_sub_workflow_knows_what_it_is_given_and_nothing_else() -> None:
    (one,) = walked(sub()).ready
    assert (one.path, one.variables) == ("s/a", {"what": "foxes"})


def test_its_output_is_that_of_its_last_step_or_the_variable_it_names() -> None:
    done = {"s/a": {"x": 1}, "s/b": 2}
    assert walked(sub(), done=done).output == 2
    assert walked(sub(output="a.x"), done=done).output == 1


def test_an_input_or_output_of_it_that_is_not_there_breaks_it() -> None:
    assert only(walked(sub(over="zzz")))[::2] == (
        "s",
        "there is no variable 'zzz'; there are list, no, topic",
    )
    done = {"s/a": {"x": 1}, "s/b": 2}
    assert only(walked(sub(output="a.y"), done=done))[2] == "'a' has no part '.y'; it is an object with 'x'"
    assert walked(sub(output="a.y", critical=False), done={**done, "s": FAILED}) == Walked(finished=True)


# -- the whole


def test_the_output_of_a_run_is_the_variable_it_names_and_one_that_is_not_there_is_told() -> None:
    assert walked(ask("a"), ask("b"), done={"a": {"x": 1}, "b": 2}, output="a.x").output == 1
    broken = walked(ask("a"), done={"a": {"x": 1}}, output="a.y")
    assert broken == Walked(broken="'a' has no part '.y'; it is an object with 'x'")


def test_the_code_a_definition_needs_is_found_however_deep_it_lies() -> None:
    steps: list[Step] = [
        Code(name="a", function="m:a"),
        Parallel(name="p", steps=[Code(name="b", function="m:b"), ask("x")]),
        Choice(
            name="c",
            condition=YES,
            then=[Code(name="d", function="m:c")],
            otherwise=[Each(name="e", over="list", steps=[Code(name="f", function="m:d"), Wait(name="w", signal="s")])],
        ),
        Sub(name="s", definition=Definition(name="i", steps=[Code(name="a", function="m:a")])),
    ]
    definition = Definition(name="w", steps=steps)
    assert functions_of(definition) == ["m:a", "m:b", "m:c", "m:d"]
    assert [leaf.name for leaf in leaves(definition.steps)] == ["a", "b", "x", "d", "f", "w", "a"]


def test_the_models_that_its_chats_name_are_found_however_deep_they_lie() -> None:
    inner = Definition(name="i", steps=[Llm(name="a", model="m2", route={"prefer": ["m3"], "avoid": ["m5"]})])
    steps: list[Step] = [
        Llm(name="x", model="m1"),
        Llm(name="y", route={"fallbacks": ["m4", "m1"]}),
        Parallel(name="p", steps=[Sub(name="s", definition=inner)]),
        Code(name="c", function="m:f"),
    ]
    assert models_of(Definition(name="w", steps=steps)) == ["m1", "m2", "m3", "m4"]


# -- any definition, in any order


@settings(max_examples=150)
@with_any(definitions(), st.randoms(use_true_random=False), st.randoms(use_true_random=False), st.integers(0, 3))
def test_a_run_ends_with_what_its_steps_came_to_in_whatever_order_they_did(
    definition: Definition, first: Any, second: Any, salt: int
) -> None:
    one, other = play(definition, first, salt), play(definition, second, salt)
    assert one.end.finished == other.end.finished
    assert one.end.output == other.end.output
    assert one.end.broken == other.end.broken
    assert bool(one.end.failed) == bool(other.end.failed)
    for played in (one, other):
        assert set(played.started.values()) <= {1}, "nothing is done twice"
        assert played.started.keys() == played.done.keys() | played.cut
        assert not played.done.keys() & played.cut
        for path, outcome in played.done.items():
            assert outcome == outcome_of(path, salt) or path in played.forced


@settings(max_examples=100)
@with_any(definitions(), st.randoms(use_true_random=False), st.integers(0, 3))
def test_another_process_that_walks_from_what_is_recorded_is_at_the_same_place(
    definition: Definition, order: Any, salt: int
) -> None:
    again = msgspec.json.decode(msgspec.json.encode(definition), type=Definition)
    for outcomes, signals, found in play(definition, order, salt).places:
        backwards = dict(reversed(list(outcomes.items())))
        assert walk(again, INPUT, backwards, signals) == found


def test_walking_changes_nothing_it_was_given() -> None:
    given, done, definition = dict(INPUT), {"e/0/a": 1}, Definition(name="w", steps=[each()])
    walk(definition, given, done, {})
    assert (given, done) == (INPUT, {"e/0/a": 1})
