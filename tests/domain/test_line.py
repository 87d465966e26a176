"""The line before a provider: never more inside than it allows, everybody in turn, nobody starved."""

from collections import Counter, deque

from hypothesis import given
from hypothesis import strategies as st
from trunkline_actors.line import Line

KEYS = ("a", "b", "c")
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("enter"), st.sampled_from(KEYS)),
        st.tuples(st.just("leave"), st.just("")),
        st.tuples(st.just("give up"), st.sampled_from(KEYS)),
        st.tuples(st.just("capacity"), st.integers(0, 4).map(str)),
    ),
    max_size=80,
)


@given(STEPS, st.integers(0, 4), st.integers(0, 12))
def test_nobody_is_starved_or_let_in_beyond_the_limit(steps: list[tuple[str, str]], capacity: int, most: int) -> None:
    line: Line[int] = Line(capacity, most)
    waiting: dict[str, deque[int]] = {key: deque() for key in KEYS}
    passed: Counter[str] = Counter()  # how often others were let in while this key waited
    key_of: dict[int, str] = {}
    inside = 0
    for number, (what, which) in enumerate(steps):
        if what == "enter":
            before = sum(map(len, waiting.values()))
            entered = line.enter(which, number)
            key_of[number] = which
            if entered == "in":
                assert not before, "nobody overtakes those who wait"
                inside += 1
                assert inside <= line.capacity
            elif entered == "waits":
                waiting[which].append(number)
            else:
                assert before >= most
        elif what == "leave" and inside:
            line.leave()
            inside -= 1
        elif what == "give up" and waiting[which]:
            assert line.give_up(which, waiting[which].pop())
            assert not line.give_up(which, -1)
        elif what == "capacity":
            line.capacity = int(which)
        room = max(0, line.capacity - inside)
        for who in line.admit():
            key = key_of[who]
            assert waiting[key].popleft() == who, "in order within a key"
            passed[key] = 0
            for other in KEYS:
                if other != key and waiting[other]:
                    passed[other] += 1
                    assert passed[other] < len(KEYS), "each other key has one turn before it"
            inside += 1
            room -= 1
        passed = Counter({key: count for key, count in passed.items() if waiting[key]})
        assert room == 0 or not any(waiting.values()), "no room is left while somebody waits"
        assert line.inside == inside
        assert line.waiting == sum(map(len, waiting.values())) <= most
        assert room >= 0


def test_a_key_with_a_thousand_waiting_delays_another_by_one() -> None:
    line: Line[str] = Line(1, 2_000)
    assert line.enter("busy", "first") == "in"
    for number in range(1_000):
        line.enter("busy", f"busy {number}")
    line.enter("quiet", "quiet")
    let_in = []
    for _ in range(3):
        line.leave()
        let_in += line.admit()
    assert let_in == ["busy 0", "quiet", "busy 1"]
