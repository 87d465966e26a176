"""Yesterday's bytes are read today, and what can't be read is handed on as Unknown.

tests/golden holds the bytes of every event version ever written. `python -m golden.examples` in tests/ writes those
that are missing and never changes one that is there.
"""

from typing import Any

import msgspec
import pytest
from golden.examples import EXAMPLES, FOLDER, file_of
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Struct
from trunkline_events.circuit import Closed, Reset
from trunkline_events.codec import CODEC, Codec
from trunkline_events.envelope import Unknown
from trunkline_events.thread import UsageRecorded

STORED = sorted(path.stem for path in FOLDER.glob("*.json"))


@pytest.mark.parametrize("name", sorted(CODEC.types))
def test_every_event_has_its_golden_bytes(name: str) -> None:
    assert name in EXAMPLES, f"add an example of {name} to tests/golden/examples.py"
    assert file_of(name).exists(), f"run `python -m golden.examples` in tests/: it writes {file_of(name).name}"


@pytest.mark.parametrize("name", STORED)
def test_bytes_once_stored_read_as_the_event_they_were(name: str) -> None:
    data = file_of(name).read_bytes()
    assert CODEC.decode(name, data) == EXAMPLES[name]
    assert CODEC.decode(None, data) == EXAMPLES[name], "the body says its type too"


@pytest.mark.parametrize("name", sorted(CODEC.types))
def test_what_is_written_today_is_read_today(name: str) -> None:
    event = EXAMPLES[name]
    data = CODEC.encode(event)
    assert CODEC.decode(CODEC.name(event), data) == event
    assert msgspec.json.decode(data)["type"] == name


@pytest.mark.parametrize("name", STORED)
def test_fields_that_a_newer_version_added_are_passed_over(name: str) -> None:
    fields = msgspec.json.decode(file_of(name).read_bytes())
    data = msgspec.json.encode({**fields, "added_later": {"deep": [1, 2]}})
    assert CODEC.decode(name, data) == EXAMPLES[name]


def test_an_event_of_an_unknown_type_is_unknown_under_its_name() -> None:
    data = b'{"type":"plugin.loaded.v9","x":1}'
    found = CODEC.decode("plugin.loaded.v9", data)
    assert isinstance(found, Unknown)
    assert (found.name, found.data) == ("plugin.loaded.v9", data)
    assert "plugin.loaded.v9" in found.problem


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"null",
        b"[]",
        b"{",
        b"{}",
        b"\xff\xfe",
        b'"\xff"',
        b'{"type":"circuit.reset.v1"}',
        b'{"type":"circuit.reset.v1","provider":1}',
        b'{"type":"circuit.closed.v1","provider":"p"}',
        b'{"type":"circuit.reset.v1","provider":"\xff"}',
        b'{"type":"circuit.reset.v1","provider":"p","x":' + b"[" * 20_000,
    ],
)
def test_a_malformed_body_is_unknown_under_the_name_of_its_header(data: bytes) -> None:
    found = CODEC.decode("circuit.reset.v1", data)
    assert isinstance(found, Unknown)
    assert (found.name, found.data) == ("circuit.reset.v1", data)
    assert found.problem


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b'{"type":1}', b"\xff", b"{" * 20_000])
def test_a_body_without_a_type_and_without_a_header_is_unknown_without_a_name(data: bytes) -> None:
    found = CODEC.decode(None, data)
    assert isinstance(found, Unknown)
    assert found.name == ""


@given(st.sampled_from([None, "", *sorted(CODEC.types)]), st.binary())
def test_no_bytes_at_all_make_decoding_raise(name: str | None, data: bytes) -> None:
    CODEC.decode(name, data)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_no_json_at_all_makes_decoding_raise(value: Any) -> None:
    fields = {"type": "thread.usage-recorded.v1", "request_id": value, "usage": value, "open": value}
    for data in (fields, value):
        assert isinstance(CODEC.decode("thread.usage-recorded.v1", msgspec.json.encode(data)), Unknown | UsageRecorded)


def test_an_event_that_was_never_registered_has_no_name() -> None:
    with pytest.raises(KeyError):
        CODEC.name(Third(total=1))


# -- upcasters: v1 {"amount": "3"} -> v2 {"amount": 3} -> v3 {"total": 3}


class Third(Struct, frozen=True, kw_only=True, tag_field="type", tag="till.counted.v3"):
    """What is written today."""

    total: int


def _to_second(fields: dict[str, Any]) -> dict[str, Any]:
    return {**fields, "amount": int(fields["amount"].strip())}


def _to_third(fields: dict[str, Any]) -> dict[str, Any]:
    return {"total": fields["amount"]}


TILL = Codec(
    {"till.counted.v3": Third},
    {"till.counted.v1": ("till.counted.v2", _to_second), "till.counted.v2": ("till.counted.v3", _to_third)},
)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("till.counted.v1", b'{"type":"till.counted.v1","amount":" 3"}'),
        ("till.counted.v2", b'{"type":"till.counted.v2","amount":3}'),
        ("till.counted.v3", b'{"type":"till.counted.v3","total":3}'),
    ],
)
def test_an_old_version_is_brought_up_to_date_step_by_step(name: str, data: bytes) -> None:
    assert TILL.decode(name, data) == Third(total=3)
    assert TILL.decode(None, data) == Third(total=3)


@pytest.mark.parametrize(
    "data",
    [
        b'{"amount":"x"}',
        b'{"amount":3}',
        b'{"amount":null}',
        b"{}",
        b"[]",
        b"{",
        b'{"amount":' + b"[" * 20_000,
    ],
)
def test_an_old_event_that_no_step_can_take_is_unknown(data: bytes) -> None:
    assert isinstance(TILL.decode("till.counted.v1", data), Unknown)


def test_a_step_to_a_version_that_nobody_registered_makes_the_event_unknown() -> None:
    codec = Codec({}, {"till.counted.v1": ("till.counted.v2", _to_second)})
    assert isinstance(codec.decode("till.counted.v1", b'{"amount":"3"}'), Unknown)


def test_what_a_step_makes_of_an_event_is_checked_like_any_other() -> None:
    assert isinstance(TILL.decode("till.counted.v2", b'{"amount":"three"}'), Unknown)


@pytest.mark.parametrize(
    ("steps", "circle"),
    [
        ({"a.v1": "a.v1"}, "a.v1 -> a.v1"),
        ({"a.v1": "a.v2", "a.v2": "a.v1"}, "a.v1 -> a.v2 -> a.v1"),
        ({"a.v0": "a.v1", "a.v1": "a.v2", "a.v2": "a.v1"}, "a.v0 -> a.v1 -> a.v2 -> a.v1"),
    ],
)
def test_steps_that_lead_in_a_circle_are_refused(steps: dict[str, str], circle: str) -> None:
    with pytest.raises(ValueError, match=circle):
        Codec({}, {name: (successor, dict) for name, successor in steps.items()})


class First(Struct, frozen=True, kw_only=True, tag_field="type", tag="till.counted.v1"):
    """What is still written, for readers that know nothing newer."""

    amount: str


def test_a_version_that_is_still_written_is_read_as_its_successor_already() -> None:
    codec = Codec({**TILL.types, "till.counted.v1": First}, TILL.upcasters)
    data = codec.encode(First(amount="3"))
    assert codec.name(First(amount="3")) == "till.counted.v1"
    assert codec.decode("till.counted.v1", data) == codec.decode(None, data) == Third(total=3)


def test_every_version_ever_written_can_be_read() -> None:
    assert set(STORED) <= CODEC.readable, "an event that was stored keeps its class or its upcaster for ever"
    assert TILL.readable == {"till.counted.v1", "till.counted.v2", "till.counted.v3"}


def test_events_that_differ_in_type_alone_are_told_apart() -> None:
    assert CODEC.decode(None, CODEC.encode(Closed(provider="p"))) == Closed(provider="p")
    assert CODEC.decode(None, CODEC.encode(Reset(provider="p"))) == Reset(provider="p")
