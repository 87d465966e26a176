"""Header blocks as they come off the wire."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trunkline_events.headers import parse


@pytest.mark.parametrize(
    ("block", "fields"),
    [
        (b"NATS/1.0\r\n\r\n", {}),
        (b"NATS/1.0\r\nA: b\r\nC: d: e\r\n\r\n", {"A": "b", "C": "d: e"}),
        (b"NATS/1.0\r\nA:b\r\nC: \t d \r\nD:\r\n\r\n", {"A": "b", "C": "d", "D": ""}),
        (b"NATS/1.0\r\nA: 1\r\nA: 2\r\n\r\n", {"A": "2"}),
        (b"NATS/1.0\r\nno colon\r\nA: \xff\r\n\r\n", {"A": "\ufffd"}),
        (b"NATS/1.0 503\r\n\r\n", {"Status": "503", "Description": ""}),
        (b"NATS/1.0 409 Consumer Deleted\r\n\r\n", {"Status": "409", "Description": "Consumer Deleted"}),
        (
            b"NATS/1.0 100 Idle Heartbeat\r\nNats-Last-Consumer: 7\r\nNats-Last-Stream: 9\r\n\r\n",
            {
                "Status": "100",
                "Description": "Idle Heartbeat",
                "Nats-Last-Consumer": "7",
                "Nats-Last-Stream": "9",
            },
        ),
        (b"", {}),
        (b"NATS/1.0", {}),
    ],
)
def test_a_block_is_read_line_by_line(block: bytes, fields: dict[str, str]) -> None:
    assert parse(block) == fields


@given(st.binary())
def test_no_bytes_make_reading_raise(block: bytes) -> None:
    parse(block)
