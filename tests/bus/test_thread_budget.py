"""A thread's budget on the bus: it can't be exceeded, and what is refused says why."""

import asyncio

import pytest
from audit import check_books, history, kinds
from messages import register
from trunkline import errors
from trunkline.client import Gateway
from trunkline.host import Host
from trunkline_events.thread import RequestRefused, RouteDecided

pytest_plugins = ["gateway"]


async def test_what_the_budget_can_not_pay_is_refused_and_recorded(gw: Gateway) -> None:
    await gw.threads.configure(thread_id="t", budget={"limit_usd": "0.0001"})
    with pytest.raises(errors.BudgetExceeded) as caught:
        await gw.chat.create("echo", "hello", thread="t", max_tokens=1000)
    assert (caught.value.status, caught.value.code, caught.value.retryable) == (429, "budget_exceeded", False)
    told = caught.value.metadata
    assert (told["budget"], told["limit_usd"], told["settled_usd"]) == ("thread", "0.0001", "0")
    recorded = await history(gw, "t")
    assert kinds(recorded) == ["configured", "refused"]
    assert isinstance(recorded[-1].body, RequestRefused)
    assert recorded[-1].body.needed_nanos > 100_000


async def test_max_tokens_is_clamped_to_what_is_left_where_the_caller_set_none(gw: Gateway) -> None:
    await register(gw, {"input": "1.00", "output": "4.00"}, words="tokens:500")
    await gw.threads.configure(thread_id="t", budget={"limit_usd": "0.0005"})
    answer = await gw.chat.create("words", "hello", thread="t")
    decided = (await history(gw, "t"))[1].body
    assert isinstance(decided, RouteDecided)
    assert decided.max_tokens is not None
    assert answer.usage["completion_tokens"] == decided.max_tokens < 500
    assert answer.receipt.finish == "length"
    check_books(await history(gw, "t"))


async def test_a_caller_that_set_max_tokens_is_not_clamped_unless_it_says_so(gw: Gateway) -> None:
    await gw.threads.configure(thread_id="t", budget={"limit_usd": "0.0005"})
    with pytest.raises(errors.BudgetExceeded):
        await gw.chat.create("echo", "hello", thread="t", max_tokens=500)
    answer = await gw.chat.create("echo", "hello", thread="t", max_tokens=500, route={"clamp": True})
    assert answer.text == "hello"


async def test_many_at_once_on_two_processes_never_spend_more_than_there_is(gw: Gateway, bus_url: str) -> None:
    await gw.threads.configure(thread_id="t", budget={"limit_usd": "0.003"})
    second = await Host.start(bus_url, ("router", "provider"))
    try:
        answers = await asyncio.gather(
            *(gw.chat.create("echo", "hello " * 20, thread="t", max_tokens=40) for _ in range(40)),
            return_exceptions=True,
        )
    finally:
        await second.stop()
    served = [answer for answer in answers if not isinstance(answer, BaseException)]
    refused = [answer for answer in answers if isinstance(answer, BaseException)]
    assert served
    assert {type(error) for error in refused} <= {errors.BudgetExceeded, errors.Unavailable}
    recorded = await history(gw, "t")
    check_books(recorded)  # settled + reserved ≤ limit, at every event
    books = await gw.threads.get(thread_id="t")
    assert (books["open"], books["reserved_usd"]) == ([], "0")


async def test_the_callers_own_limit_keeps_a_dear_model_out(gw: Gateway) -> None:
    with pytest.raises(errors.NoRoute, match="max_cost_usd"):
        await gw.chat.create("echo", "hello", max_tokens=1000, route={"max_cost_usd": "0.0001"})
