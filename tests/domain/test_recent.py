"""What is remembered of answers: for a minute, and no more than fits."""

from trunkline_actors.recent import KEPT_S, MOST_BYTES, Recent


def test_an_answer_is_remembered_for_a_minute() -> None:
    recent = Recent()
    recent.add("r", {"a": "1"}, [b"x"], 100.0)
    said = recent.get("r", 100.0 + KEPT_S - 0.1)
    assert said is not None
    assert (said.fields, said.messages) == ({"a": "1"}, [b"x"])
    assert recent.get("r", 100.0 + KEPT_S) is None
    assert recent.get("other", 100.0) is None


def test_the_oldest_makes_room() -> None:
    recent = Recent()
    large = b"x" * (MOST_BYTES // 2)
    for number in range(3):
        recent.add(str(number), {}, [large], 100.0 + number)
    assert [recent.get(str(number), 103.0) is not None for number in range(3)] == [False, True, True]


def test_said_again_it_takes_the_place_of_what_it_was() -> None:
    recent = Recent()
    for _ in range(5):
        recent.add("r", {}, [b"x" * (MOST_BYTES // 2)], 100.0)
    recent.add("other", {}, None, 100.0)
    assert recent.get("r", 100.0) is not None
    assert recent.get("other", 100.0) is not None
