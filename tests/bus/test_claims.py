"""Request ids on a real bucket: claimed once whoever tries, and their answers kept."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from trunkline_actors.claims import MAX_ANSWER, Claim, Claims, Held, Taken, scope_of
from trunkline_events.connection import Connection
from trunkline_events.log import LogUnavailable
from trunkline_events.subjects import REQUESTS_BUCKET

pytest_plugins = ["gateway"]

NOW = 1_795_262_400.0


@pytest.fixture
async def claims(connection: Connection) -> AsyncIterator[Claims]:
    opened = await Claims.open(connection)
    yield opened
    await opened.close()


async def taken(claims: Claims, scope: str = "s") -> Taken:
    found = await claims.take(scope, NOW)
    assert isinstance(found, Taken), found
    return found


async def held(claims: Claims, scope: str = "s") -> Held:
    found = await claims.take(scope, NOW + 1)
    assert isinstance(found, Held), found
    return found


def answered(*messages: bytes) -> Claim:
    return Claim(state="answered", since=NOW, attempts=2, headers={"Trunkline-Event": "7"}, messages=list(messages))


async def test_a_fresh_id_is_ours_and_nobody_elses(claims: Claims) -> None:
    assert (await taken(claims)).attempts == 0
    found = await held(claims)
    assert found.claim == Claim(state="running", since=NOW)
    assert await claims.read("s") == found


async def test_ids_do_not_stand_in_each_others_way(claims: Claims) -> None:
    await taken(claims, "s")
    await taken(claims, "other")
    assert await claims.read("third") is None


async def test_of_many_who_claim_an_id_at_once_exactly_one_has_it(claims: Claims) -> None:
    outcomes = await asyncio.gather(*(claims.take("s", NOW) for _ in range(20)))
    assert sum(isinstance(one, Taken) for one in outcomes) == 1
    assert sum(isinstance(one, Held) for one in outcomes) == 19


async def test_an_answer_is_kept_as_it_was_given(claims: Claims) -> None:
    await taken(claims)
    claim = answered(b'{"a":1}', b"\xff\x00", b"")
    await claims.keep("s", claim)
    assert (await held(claims)).claim == claim


async def test_of_a_big_answer_only_the_receipt_is_kept(claims: Claims) -> None:
    whole = answered(b"x" * (MAX_ANSWER - 1), b"y")
    await claims.keep("s", whole)
    assert (await held(claims)).claim.messages == whole.messages
    await claims.keep("s", answered(b"x" * MAX_ANSWER, b"y"))
    claim = (await held(claims)).claim
    assert (claim.messages, claim.headers, claim.attempts) == (None, {"Trunkline-Event": "7"}, 2)


async def test_a_failed_run_leaves_its_id_and_the_count_of_its_attempts_to_the_next(claims: Claims) -> None:
    first = await taken(claims)
    await claims.keep("s", Claim(state="failed", since=NOW, attempts=3))
    again = await taken(claims)
    assert again.attempts == 3
    assert again.revision > first.revision
    assert (await held(claims)).claim == Claim(state="running", since=NOW, attempts=3)


async def test_of_many_who_want_what_a_failed_run_left_exactly_one_has_it(claims: Claims) -> None:
    await claims.keep("s", Claim(state="failed", since=NOW, attempts=1))
    outcomes = await asyncio.gather(*(claims.take("s", NOW) for _ in range(20)))
    assert [one.attempts for one in outcomes if isinstance(one, Taken)] == [1]
    assert {one.claim.state for one in outcomes if isinstance(one, Held)} == {"running"}


async def test_what_a_dead_run_holds_is_taken_over_once(claims: Claims) -> None:
    await taken(claims)
    found = await held(claims)
    outcomes = await asyncio.gather(*(claims.take_over("s", found, NOW + 2) for _ in range(5)))
    (over,) = [one for one in outcomes if one is not None]
    assert over.revision > found.revision
    assert await claims.take_over("s", found, NOW + 3) is None, "it has moved on since"


async def test_whoever_takes_over_looks_as_far_back_as_the_first_one_had_to(claims: Claims) -> None:
    await taken(claims)
    for later in (10, 200):  # beyond what the log knows of ids
        assert await claims.take_over("s", await held(claims), NOW + later) is not None
    assert (await held(claims)).claim.since == NOW
    await claims.keep("s", Claim(state="failed", since=NOW, attempts=3))
    again = await claims.take("s", NOW + 300)
    assert isinstance(again, Taken)
    assert (again.attempts, (await held(claims)).claim.since) == (3, NOW + 300)


async def test_nothing_of_a_claim_expires_before_its_day_is_over(connection: Connection, claims: Claims) -> None:
    bucket = await connection.nats.jetstream().key_value(REQUESTS_BUCKET)
    status = await bucket.status()
    assert status.ttl == 24 * 3600
    assert status.history == 1


async def test_a_bucket_that_is_there_is_opened_with_what_is_in_it(connection: Connection, claims: Claims) -> None:
    await taken(claims)
    again = await Claims.open(connection)
    await held(again)
    await again.close()


async def test_without_a_server_a_claim_is_unavailable_and_keeping_an_answer_is_given_up(
    connection: Connection, claims: Claims
) -> None:
    await connection.close()
    with pytest.raises(LogUnavailable):
        await claims.take("s", NOW)
    with pytest.raises(LogUnavailable):
        await claims.read("s")
    with pytest.raises(LogUnavailable):
        await claims.take_over("s", Held(answered(), 1), NOW)
    await claims.keep("s", answered())


def test_an_id_is_scoped_to_its_key_and_thread() -> None:
    names = [("k", "t", "r"), ("k", "t", "q"), ("k", "u", "r"), ("l", "t", "r"), ("", "", "r"), ("", "r", "")]
    scopes = [scope_of(*one) for one in names]
    assert len(set(scopes)) == len(names)
    assert all(len(scope) == 24 and set(scope) <= set("0123456789abcdef") for scope in scopes)
    assert scope_of("k", "t", "r") == scopes[0]
