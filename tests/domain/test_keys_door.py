"""The door of one process: from what it knows, and never by waiting for anybody."""

from typing import Any

import pytest
from given import NOON
from trunkline_actors import keys, keys_door
from trunkline_actors.keys import Fresh, Issue
from trunkline_actors.keys_door import Door
from trunkline_events.key import KeyIssued, KeyRevoked
from trunkline_events.refusal import Refused
from trunkline_projections.keys import EMPTY, Key, Keys, evolve

PEPPER = bytes(range(32))
TEXT = "tl-" + "a" * 43


def keys_with(*texts: str, **given: Any) -> Keys:
    state = EMPTY
    for number, text in enumerate(texts, 1):
        fresh = Fresh(digest=keys.digest_of(PEPPER, text), pepper=keys.name_of(PEPPER))
        event = keys.issue(state, Issue(**given), f"k{number}", fresh, NOON)
        assert isinstance(event, KeyIssued)
        state = evolve(state, event, number, NOON)
    return state


class Process:
    """A door with the keys and the time it goes by."""

    def __init__(self, state: Keys, pepper: bytes | None = PEPPER) -> None:
        self.state = state
        self.now = NOON
        self.door = Door(lambda: self.state, lambda: self.now)
        if pepper is not None:
            self.door.use(pepper)

    def code(self, text: str, need: keys.Access = "chat") -> str:
        admitted = self.door.admit(text, need)
        return admitted.code if isinstance(admitted, Refused) else admitted.id


def test_a_process_that_could_not_read_the_pepper_says_so_and_never_that_a_key_is_wrong() -> None:
    process = Process(keys_with(TEXT), pepper=None)
    assert process.code(TEXT) == process.code("tl-" + "b" * 43) == "unavailable"
    process.door.required = True
    refused = process.door.on_bus(TEXT, "chat")
    assert isinstance(refused, Refused)
    assert refused.code == "unavailable"


def test_what_is_remembered_of_a_key_ends_with_the_next_change_of_keys_and_with_time() -> None:
    process = Process(keys_with(TEXT, expires_in_s=60))
    assert process.code(TEXT) == process.code(TEXT) == "k1"
    process.now += 60
    assert process.code(TEXT) == "unauthenticated"
    process.now -= 60
    process.state = evolve(process.state, KeyRevoked(id="k1"), 2, NOON)
    assert process.code(TEXT) == "unauthenticated"


def test_only_so_many_keys_are_remembered_and_no_wrong_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys_door, "REMEMBERED", 2)
    texts = [f"tl-{letter * 43}" for letter in "abc"]
    process = Process(keys_with(*texts))
    for text in (texts[0], texts[1], texts[0], texts[2]):
        assert process.code(text).startswith("k")
    assert list(process.door._known) == [texts[0], texts[2]]
    for number in range(10):
        process.code(f"tl-{number:043}")
    assert len(process.door._known) == 2


def test_the_gateways_own_key_opens_the_bus_and_not_http() -> None:
    process = Process(EMPTY)
    own = keys.own_key(PEPPER)
    admitted = process.door.on_bus(own, "admin")
    assert isinstance(admitted, Key)
    assert admitted.id == keys.OURSELVES
    assert process.code(own, "admin") == "unauthenticated"
    assert process.door.who(own) == keys.OURSELVES


@pytest.mark.parametrize("required", [False, True])
def test_who_asks_on_the_bus_without_a_key_of_ours(required: bool) -> None:
    process = Process(keys_with(TEXT))
    process.door.required = required
    for text in (None, "", "sk-of-elsewhere", "tl-" + "b" * 43):
        asked = process.door.on_bus(text, "admin")
        assert (asked is None) is not required
        assert required is (isinstance(asked, Refused) and asked.code == "unauthenticated")
    lacking = process.door.on_bus(TEXT, "admin")
    assert isinstance(lacking, Refused)
    assert lacking.code == "permission_denied"
