"""Server-sent events, whatever the network does to their bytes."""

import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trunkline_actors.adapters import sse
from trunkline_actors.adapters.sse import EventDecoder, EventTooLarge

NEWLINES = ("\n", "\r\n", "\r")
LINE = st.text(st.characters(codec="utf-8", exclude_characters="\r\n"))


def payloads_of(*pieces: bytes) -> list[bytes]:
    decoder = EventDecoder()
    return [payload for piece in pieces for payload in decoder.feed(piece)] + decoder.finish()


@pytest.mark.parametrize("newline", NEWLINES)
def test_every_kind_of_line_ending_is_read(newline: str) -> None:
    stream = "data: one\n\ndata:two\n\n".replace("\n", newline).encode()
    assert payloads_of(stream) == [b"one", b"two"]


def test_comments_other_fields_and_events_without_data_are_dropped() -> None:
    stream = b": keep-alive\n\nevent: ping\nid: 7\nretry: 10\n\ndata:\n\ndata\n\nevent: chunk\ndata: x\n: y\n\n\n\n"
    assert payloads_of(stream) == [b"x"]


def test_several_data_lines_are_one_payload() -> None:
    assert payloads_of(b"data: {\ndata:  1\ndata: }\n\n") == [b"{\n 1\n}"]


def test_a_byte_order_mark_is_no_part_of_the_first_line() -> None:
    assert payloads_of(b"\xef\xbb", b"\xbfdata: x\n\n") == [b"x"]


def test_a_last_event_needs_no_empty_line() -> None:
    assert payloads_of(b"data: x\n") == [b"x"]
    assert payloads_of(b"data: x\n\ndata: [DONE]") == [b"x", b"[DONE]"]


def test_an_unfinished_line_is_dropped_since_it_may_be_cut() -> None:
    assert payloads_of(b'data: x\n\ndata: {"id') == [b"x"]


def test_an_event_without_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "_EVENT_LIMIT", 10)
    with pytest.raises(EventTooLarge, match="more than 10 bytes"):
        payloads_of(b"data: 12345", b"678901")
    with pytest.raises(EventTooLarge):
        payloads_of(b"data: 123456\n", b"data: 789012\n")
    assert payloads_of(b"data:1\n\n", b"data:2\n\n", b": 3456\n\n", b"data:7\n\n") == [b"1", b"2", b"7"]


@pytest.mark.parametrize("line", [b"data:\n", b"event:\n", b": ping\n"])
def test_lines_without_a_value_count_as_well(line: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "_EVENT_LIMIT", 1000)
    with pytest.raises(EventTooLarge):
        payloads_of(line * 200)


def test_a_long_line_in_very_many_pieces_is_read_in_time_that_grows_with_its_length() -> None:
    """Copied anew with each piece it would be a terabyte, and this would never end."""
    text = b"x" * 15_000_000
    pieces = [text[start : start + 100] for start in range(0, len(text), 100)]
    assert payloads_of(b"data: ", *pieces, b"\n\n") == [text]


@given(
    events=st.lists(st.lists(LINE, min_size=1, max_size=3), max_size=4),
    newline=st.sampled_from(NEWLINES),
    cuts=st.lists(st.integers(0, 200), max_size=8),
)
def test_any_split_of_the_bytes_gives_the_same_payloads(events: list[list[str]], newline: str, cuts: list[int]) -> None:
    lines = [line for event in events for line in (*[f"data: {text}" for text in event], ": comment", "")]
    stream = "".join(line + newline for line in lines).encode()
    edges = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    pieces = [stream[start:end] for start, end in pairwise(edges)]
    wanted = ["\n".join(event).encode() for event in events]
    assert payloads_of(*pieces) == [payload for payload in wanted if payload]
    assert payloads_of(*[stream[i : i + 1] for i in range(len(stream))]) == [p for p in wanted if p]


def read_at_once(stream: bytes) -> list[bytes]:
    """The same by the standard's own steps, for a stream that is there as a whole."""
    *lines, rest = re.split(rb"\r\n|\r|\n", stream.removeprefix(b"\xef\xbb\xbf"))
    lines += [rest, b""] if rest.replace(b" ", b"") == b"data:[DONE]" else [b""]
    payloads: list[bytes] = []
    data: list[bytes] = []
    for line in lines:
        if line.startswith(b"data:"):
            data.append(line[5:].removeprefix(b" "))
        elif not line:
            payloads.append(b"\n".join(data))
            data = []
    return [payload for payload in payloads if payload]


FRAGMENTS = [
    b"data:",
    b"data: x",
    b"data",
    b"[DONE]",
    b" ",
    b"\n",
    b"\r",
    b"\r\n",
    b": c",
    b"event: y",
    b"\xef\xbb\xbf",
    b"\xc3",
]


@given(stream=st.lists(st.sampled_from(FRAGMENTS), max_size=30).map(b"".join), cuts=st.lists(st.integers(0, 120)))
def test_any_bytes_in_any_pieces_are_read_as_they_would_be_at_once(stream: bytes, cuts: list[int]) -> None:
    edges = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    assert payloads_of(*[stream[start:end] for start, end in pairwise(edges)]) == read_at_once(stream)
