"""Times as text, as we write them and as others do."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trunkline_events.times import format_time, parse_time, time_or_none


@given(st.integers(0, 4_000_000_000_000_000))
def test_a_time_as_we_write_it_is_read_to_the_microsecond(micros: int) -> None:
    text = format_time(micros / 1_000_000)
    assert format_time(parse_time(text)) == text


@pytest.mark.parametrize(
    "text", ["2026-11-21T12:00:00Z", "2026-11-21T12:00:00.5+02:00", "2026-11-21T12:00:00.123456+00:00"]
)
def test_a_time_as_others_write_it_is_read_too(text: str) -> None:
    assert time_or_none(text) == datetime.fromisoformat(text).astimezone(UTC).timestamp()


@pytest.mark.parametrize("text", [None, "", "yesterday", "2026-11-21T12:00:00.12x456Z", "2026-99-21T12:00:00.123456Z"])
def test_what_is_no_time_is_none(text: str | None) -> None:
    assert time_or_none(text) is None
