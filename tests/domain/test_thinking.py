"""Thinking inside `<think>` tags: split the same way however the text arrives."""

from hypothesis import given
from hypothesis import strategies as st
from trunkline_actors.adapters.thinking import ThinkSplitter

WHOLES = {
    "<think>Let me see.</think>\n\nParis.": ("Let me see.", "Paris."),
    "  \n<think>\na<b</think>c</think>": ("\na<b", "c</think>"),
    "<think></think>": ("", ""),
    "<think>never closed </thin": ("never closed </thin", ""),
    "no tag at all": ("", "no tag at all"),
    "  two spaces": ("", "  two spaces"),
    " \n ": ("", " \n "),
    "The tag <think>is</think> only a word here": ("", "The tag <think>is</think> only a word here"),
    "<thin": ("", "<thin"),
    "<thinking>is another tag": ("", "<thinking>is another tag"),
    "": ("", ""),
}


def split(pieces: list[str]) -> tuple[str, str]:
    splitter = ThinkSplitter()
    given = [*(splitter.feed(piece) for piece in pieces), splitter.finish()]
    return "".join(thinking for thinking, _ in given), "".join(text for _, text in given)


def test_a_leading_block_is_thinking_and_nothing_else_is() -> None:
    assert {whole: split([whole]) for whole in WHOLES} == WHOLES


def test_a_cut_at_every_position_changes_nothing() -> None:
    for whole, wanted in WHOLES.items():
        for first in range(len(whole) + 1):
            for second in range(first, len(whole) + 1):
                assert split([whole[:first], whole[first:second], whole[second:]]) == wanted, (whole, first, second)


@given(st.lists(st.sampled_from(["<think>", "</think>", "<", "</", "think>", " ", "\n", "a", "ü", "<th", "ink>"])))
def test_pieces_say_what_the_whole_says(pieces: list[str]) -> None:
    assert split(pieces) == split(["".join(pieces)])


@given(st.text(), st.text())
def test_no_character_of_thought_or_answer_is_lost(thought: str, text: str) -> None:
    if "</think>" not in thought:
        assert split([f"<think>{thought}</think>{text}"]) == (thought, text.lstrip())


def test_what_is_certain_is_told_at_once() -> None:
    splitter = ThinkSplitter()
    told = [splitter.feed(piece) for piece in ("<think>a", "b", "c<", "d", "</think>", " ", "e", " f")]
    assert told == [("a", ""), ("b", ""), ("c", ""), ("<d", ""), ("", ""), ("", ""), ("", "e"), ("", " f")]
