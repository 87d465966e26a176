"""Texts with variables in braces, and conditions: given variables, when they are filled in or compared, then."""

from typing import Any

import pytest
from hypothesis import given as with_any
from hypothesis import strategies as st
from trunkline_actors.workflow_model import Condition, Is
from trunkline_actors.workflow_templates import BadTemplate, NoValue, holds, names_in, render, root_of, value_of

VARIABLES: dict[str, Any] = {
    "topic": "foxes",
    "doc": {"title": "T", "tags": ["a", "b"], "two words": 2, "0": "zero"},
    "list": [1, {"deep": [True]}],
    "none": None,
    "half": 0.5,
    "yes": True,
    "a-b": "dashed",
}


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("", ""),
        ("no names", "no names"),
        ("{topic} and {topic}!", "foxes and foxes!"),
        ("{doc.title}{a-b}", "Tdashed"),
        ("{doc.tags}", '["a","b"]'),
        ("{doc.tags[1]}", "b"),
        ("{doc[title]} {doc[two words]} {doc[0]} {doc.0}", "T 2 zero zero"),
        ("{list[1].deep[0]}", "true"),
        ("{none} {half} {yes}", "null 0.5 true"),
        ("{{topic}} {{}} {{{topic}}}", "{topic} {} {foxes}"),
    ],
)
def test_names_stand_for_their_values_texts_as_they_are_and_anything_else_as_json(template: str, text: str) -> None:
    assert render(template, VARIABLES) == text


def test_the_names_of_a_template_are_given_as_they_are_written() -> None:
    assert list(names_in("{a} {{b}} {c.d[0]} {a}")) == ["a", "c.d[0]", "a"]
    assert [root_of(name) for name in ("a", "c.d[0]", "a-b[x y].z")] == ["a", "c", "a-b"]


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{", "Single '{' encountered in format string; write {{ and }} for braces that are meant as such"),
        ("a } b", "Single '}' encountered in format string; write {{ and }} for braces that are meant as such"),
        ("{}", "{} names no variable; write {{ and }} for braces that are meant as such"),
        ("{1st}", "{1st} names no variable; write {{ and }} for braces that are meant as such"),
        ('{"json": 1}', '{"json"} has a format or a conversion; only names are taken: {"json"}'),
        ("{a!r}", "{a} has a format or a conversion; only names are taken: {a}"),
        ("{a:>10}", "{a} has a format or a conversion; only names are taken: {a}"),
        ("{a b}", "{a b} is no name of a variable, or of a part of one like doc.title or list[0]"),
        ("{a..b}", "{a..b} is no name of a variable, or of a part of one like doc.title or list[0]"),
        ("{a()}", "{a()} is no name of a variable, or of a part of one like doc.title or list[0]"),
    ],
)
def test_what_is_no_template_is_told_with_what_to_write(template: str, message: str) -> None:
    with pytest.raises(BadTemplate) as told:
        list(names_in(template))
    assert str(told.value) == message
    with pytest.raises(BadTemplate):
        render(template, VARIABLES)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("other", "there is no variable 'other'; there are a-b, doc, half, list, none, topic, yes"),
        ("doc.other", "'doc' has no part '.other'; it is an object with 'title', 'tags', 'two words', '0'"),
        ("doc.tags[2]", "'doc.tags' has no part '[2]'; it is a list of 2"),
        ("doc.tags.first", "'doc.tags' has no part '.first'; it is a list of 2"),
        ("topic.first", "'topic' has no part '.first'; it is a text"),
        ("topic[0]", "'topic' has no part '[0]'; it is a text"),
        ("none.x", "'none' has no part '.x'; it is null"),
        ("yes.x", "'yes' has no part '.x'; it is true or false"),
        ("half[0]", "'half' has no part '[0]'; it is a number"),
    ],
)
def test_a_part_that_is_not_there_is_told_with_what_is(name: str, message: str) -> None:
    with pytest.raises(NoValue) as told:
        value_of(name, VARIABLES)
    assert str(told.value) == message
    with pytest.raises(NoValue):
        render(f"{{{name}}}", VARIABLES)


def test_without_variables_and_without_entries_that_is_said() -> None:
    with pytest.raises(NoValue, match="there is no variable 'a'; there are none"):
        value_of("a", {})
    with pytest.raises(NoValue, match="it is an object with nothing in it"):
        value_of("a.b", {"a": {}})


def test_a_place_with_more_digits_than_python_reads_is_no_part() -> None:
    with pytest.raises(NoValue):
        value_of(f"list[{'9' * 5000}]", VARIABLES)


def test_no_attribute_of_an_object_can_be_read() -> None:
    with pytest.raises(NoValue):
        render("{topic.__class__}", VARIABLES)


CONDITIONS: list[tuple[str, Is, Any, bool]] = [
    ("yes", "true", None, True),
    ("none", "true", None, False),
    ("none", "false", None, True),
    ("topic", "false", None, False),
    ("topic", "equal", "foxes", True),
    ("topic", "not equal", "foxes", False),
    ("half", "not equal", "half", True),
    ("half", "above", 0.4, True),
    ("half", "above", 0.5, False),
    ("half", "at least", 0.5, True),
    ("half", "below", 0.5, False),
    ("half", "below", 1, True),
    ("half", "at most", 0.5, True),
    ("half", "at most", 0.4, False),
    ("topic", "in", ["foxes", "bears"], True),
    ("topic", "in", "all foxes", True),
    ("topic", "in", [], False),
    ("topic", "not in", ["bears"], True),
    ("topic", "not in", ["foxes"], False),
    ("doc.tags", "equal", ["a", "b"], True),
    *[("topic", is_, 3, False) for is_ in ("above", "below", "at least", "at most", "in", "not in")],
    *[("none", is_, 3, False) for is_ in ("above", "below", "at least", "at most", "in", "not in")],
    ("half", "in", "0.5", False),
    ("half", "not in", "0.5", False),
]


@pytest.mark.parametrize(("value", "is_", "to", "so"), CONDITIONS)
def test_a_condition_is_so_or_not_and_what_can_not_be_compared_is_not_so(
    value: str, is_: Is, to: object, so: bool
) -> None:
    assert holds(Condition(value=value, is_=is_, to=to), VARIABLES) is so


def test_every_kind_of_condition_is_in_the_table() -> None:
    assert {is_ for _, is_, _, _ in CONDITIONS} == set(Is.__args__)  # type: ignore[attr-defined]


def test_a_condition_about_what_is_not_there_has_no_answer() -> None:
    with pytest.raises(NoValue):
        holds(Condition(value="other"), VARIABLES)


@with_any(st.text())
def test_any_text_is_a_template_once_its_braces_are_doubled(text: str) -> None:
    doubled = text.replace("{", "{{").replace("}", "}}")
    assert list(names_in(doubled)) == []
    assert render(doubled, {}) == text


@with_any(st.text(alphabet="ab.[]{}!:0-_ ", max_size=20))
def test_what_is_checked_to_be_a_template_only_ever_lacks_values(text: str) -> None:
    try:
        names = list(names_in(text))
    except BadTemplate:
        with pytest.raises(BadTemplate):
            render(text, {})
        return
    if names:
        with pytest.raises(NoValue):
            render(text, {})
    else:
        render(text, {})
