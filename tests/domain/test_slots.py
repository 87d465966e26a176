"""Slots of a provider instance, shared by the processes that serve it: never more than its limit, nobody left out."""

from hypothesis import given
from hypothesis import strategies as st
from trunkline_actors.slots import Holder, Leases, Standing, encode, gives_up, held, leased, read, wanted

NOW = 1_000.0
NAMES = ("p", "q", "r")


@given(
    st.integers(1, 9),
    st.lists(st.tuples(st.sampled_from(NAMES), st.integers(0, 12), st.floats(0, 3)), max_size=40),
)
def test_what_is_leased_never_adds_up_to_more_than_the_limit(limit: int, steps: list[tuple[str, int, float]]) -> None:
    leases, now = Leases(), NOW
    running = dict.fromkeys(NAMES, 0)
    for name, slots, passed in steps:
        now += passed
        alive = {who for who, one in leases.holders.items() if one.until > now}
        running = {who: count if who in alive else 0 for who, count in running.items()}
        leases = leased(leases, name, slots, min(running[name], held(leases, name)), limit, now, now + 5)
        running[name] = min(slots, held(leases, name))
        assert sum(one.slots for one in leases.holders.values() if one.until > now) <= limit
        assert read(encode(leases)) == leases


def test_a_process_keeps_what_it_uses_where_the_limit_was_lowered() -> None:
    leases = Leases({"p": Holder(4, NOW + 5)})
    assert held(leased(leases, "p", 4, 3, 2, NOW, NOW + 8), "p") == 3
    assert held(leased(leases, "q", 1, 0, 2, NOW, NOW + 8), "q") == 0


def test_slots_of_a_process_that_died_are_anybodys_when_its_lease_is_over() -> None:
    leases = Leases({"p": Holder(2, NOW + 5)})
    assert held(leased(leases, "q", 2, 0, 2, NOW + 4, NOW + 12), "q") == 0
    assert held(leased(leases, "q", 2, 0, 2, NOW + 6, NOW + 14), "q") == 2


def test_a_record_that_makes_no_sense_is_an_empty_one() -> None:
    assert read(b"\xff") == read(None) == read(b"[]") == Leases()


def test_a_process_alone_takes_what_it_needs_and_keeps_it_for_a_while() -> None:
    alone = Standing(running=2, waiting=3, held=2, claimants=0)
    assert (wanted(alone, 9), wanted(alone, 4)) == (5, 4)
    assert wanted(Standing(running=0, waiting=0, held=4, claimants=0), 9) == 4
    assert wanted(Standing(running=0, waiting=0, held=4, claimants=0, idle=True), 9) == 0


def test_who_holds_more_than_a_fair_share_gives_up_what_becomes_free() -> None:
    greedy = Standing(running=3, waiting=9, held=4, claimants=1)
    assert gives_up(greedy, 4)
    assert wanted(Standing(running=3, waiting=9, held=4, claimants=1, yielding=True), 4) == 3
    fair = Standing(running=1, waiting=9, held=2, claimants=1)
    assert not gives_up(fair, 4)
    assert not gives_up(Standing(running=3, waiting=9, held=4, claimants=0), 4)


def test_a_single_slot_goes_round() -> None:
    busy = Standing(running=0, waiting=1, held=1, claimants=1)
    assert gives_up(busy, 1)
    assert wanted(Standing(running=0, waiting=1, held=1, claimants=1, yielding=True), 1) == 0
    assert wanted(Standing(running=0, waiting=1, held=0, claimants=1), 1) == 1, "or nobody would take it"
