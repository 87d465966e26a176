"""What a user may do to the log, judged from its permissions: the rules of NATS's subjects, as a table and as laws."""

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trunkline.health.permissions import DESTRUCTIVE, destructive_calls, matches, may_publish

TOKENS = st.text(alphabet="abc$_-", min_size=1, max_size=2)
SUBJECTS = st.lists(TOKENS, min_size=1, max_size=4).map(".".join)
PATTERNS = st.builds(
    lambda tokens, rest: ".".join([*tokens, *rest]),
    st.lists(TOKENS | st.just("*"), min_size=1, max_size=4),
    st.sampled_from([[], [">"]]),
) | st.just(">")


def by_regex(pattern: str, subject: str) -> bool:
    """The same rule, said in another language."""
    wanted = re.escape(pattern).replace(r"\*", "[^.]+")
    wanted = re.sub(r"(^|\\\.)>$", lambda match: f"{match[1]}.+", wanted)
    return re.fullmatch(wanted, subject) is not None


@given(PATTERNS, SUBJECTS)
def test_a_pattern_covers_what_the_rules_say(pattern: str, subject: str) -> None:
    assert matches(pattern, subject) == by_regex(pattern, subject)


@given(SUBJECTS)
def test_a_subject_covers_itself_and_everything_covers_it(subject: str) -> None:
    assert matches(subject, subject)
    assert matches(">", subject)
    assert not matches(f"{subject}.>", subject), "`>` stands for one token at least"


@given(SUBJECTS, st.lists(PATTERNS), st.lists(PATTERNS))
def test_a_denial_outweighs_whatever_allows(subject: str, allow: list[str], deny: list[str]) -> None:
    assert not may_publish({"publish": {"allow": allow, "deny": [*deny, subject]}}, subject)


@given(SUBJECTS, st.lists(PATTERNS, min_size=1))
def test_with_a_list_of_what_is_allowed_nothing_else_is(subject: str, allow: list[str]) -> None:
    assert may_publish({"publish": {"allow": allow}}, subject) == any(matches(one, subject) for one in allow)


@pytest.mark.parametrize(
    ("permissions", "calls"),
    [
        (None, list(DESTRUCTIVE)),
        ({}, list(DESTRUCTIVE)),
        ({"subscribe": {"allow": ["a"]}}, list(DESTRUCTIVE)),
        ({"publish": {"allow": ["trunkline.chat"]}}, []),
        (
            {"publish": {"allow": ["$JS.>"], "deny": ["$JS.API.STREAM.DELETE.*"]}},
            ["UPDATE", "PURGE", "RESTORE", "MSG.DELETE"],
        ),
        ({"publish": {"deny": ["$JS.API.STREAM.*.LOG", "$JS.API.STREAM.MSG.>"]}}, []),
        ({"publish": {"allow": ["$JS.API.STREAM.PURGE.OTHER", "$JS.API.STREAM.UPDATE.>"]}}, ["UPDATE"]),
    ],
)
def test_the_calls_that_a_user_may_make_are_named(permissions: dict[str, Any] | None, calls: list[str]) -> None:
    assert destructive_calls(permissions, "LOG") == calls
