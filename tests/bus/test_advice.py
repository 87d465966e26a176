"""`routing.recommend` and `routing.log`: whom a request would be sent to, and whom those of late were sent to."""

import pytest
from trunkline import errors
from trunkline.client import Gateway

pytest_plugins = ["gateway"]


async def test_a_recommendation_is_what_a_request_would_get_with_costs_and_reasons(gw: Gateway) -> None:
    told = await gw.routing.recommend(input_tokens=2_000, max_tokens=100)
    answer = await gw.chat.create("auto", "hi")
    assert answer.receipt is not None
    assert told["model"] == answer.receipt.model == "tokens"
    echo = next(one for one in told["candidates"] if one["model"] == "echo")
    assert (echo["reason"], echo["typical_cost_usd"], echo["match"]) == ("cheapest first", "0.0024", 1.0)
    assert (told["policy_version"], told["rule"], told["override"], told["left_out"]) == (0, None, None, {})


async def test_a_recommendation_keeps_to_wishes_policy_and_thread(gw: Gateway) -> None:
    await gw.models.register(id="able", provider="scripted", upstream="echo", capabilities={"reasoning": 0.5})
    told = await gw.routing.recommend(route={"capabilities": {"reasoning": 0.4}}, limit=1)
    assert [(one["model"], one["match"]) for one in told["candidates"]] == [("able", 0.5)]
    await gw.policy.publish(policy={"rules": [{"name": "all", "use": ["slow"]}]})
    told = await gw.routing.recommend()
    assert (told["model"], told["rule"], told["policy_version"]) == ("slow", "all", 1)
    await gw.threads.configure(thread_id="t", preferences={"avoid": ["slow"]})
    with pytest.raises(errors.TrunklineError, match="to be avoided") as caught:
        await gw.routing.recommend(thread_id="t")
    assert caught.value.code == "no_route"


async def test_a_recommendation_heeds_what_a_request_may_cost_and_whose_key_it_has(gw: Gateway) -> None:
    cheap = {"optimize": "quality", "max_cost_usd": "0.0001"}
    told = await gw.routing.recommend(model="echo", route={"fallbacks": ["tokens"], **cheap}, max_tokens=1_000)
    assert told["model"] == "tokens"
    assert told["candidates"][0]["reason"] == "asked for, but over budget"
    with pytest.raises(errors.TrunklineError, match="more than its max_cost_usd"):
        await gw.routing.recommend(model="echo", route=cheap, max_tokens=1_000)
    await gw.policy.publish(policy={"rules": [{"name": "theirs", "when": {"key": "abc*"}, "use": ["slow"]}]})
    assert (await gw.routing.recommend(key="abcd"))["rule"] == "theirs"
    assert (await gw.routing.recommend())["rule"] is None


@pytest.mark.parametrize(
    ("asked", "param"),
    [
        ({"limit": 0}, "limit"),
        ({"input_tokens": -1}, "input_tokens"),
        ({"route": {"attempts": 99}}, "route.attempts"),
        ({"route": {"optimize": "luck"}}, "route.optimize"),
        ({"nonsense": 1}, None),
        ({"route": {"max_cost_usd": "dear"}}, "route.max_cost_usd"),
    ],
)
async def test_a_bad_question_is_refused(gw: Gateway, asked: dict[str, object], param: str | None) -> None:
    with pytest.raises(errors.InvalidRequest) as caught:
        await gw.routing.recommend(**asked)
    assert caught.value.param == param


async def test_decisions_are_listed_oldest_first_and_in_pages(gw: Gateway) -> None:
    for number in range(5):
        await gw.chat.create("echo", "hi", thread="t" if number % 2 else None, request_id=f"r{number}")
    told = await gw.routing.log(limit=2)
    assert [one["request_id"] for one in told["decisions"]] == ["r3", "r4"]
    earlier = await gw.routing.log(limit=2, before=told["before"])
    assert [one["request_id"] for one in earlier["decisions"]] == ["r1", "r2"]
    first = await gw.routing.log(limit=2, before=earlier["before"])
    assert ([one["request_id"] for one in first["decisions"]], first["before"]) == (["r0"], None)
    of_thread = await gw.routing.log(thread_id="t")
    assert [one["request_id"] for one in of_thread["decisions"]] == ["r1", "r3"]
    assert of_thread["decisions"][0]["candidates"][0]["reason"] == "asked for"
    with pytest.raises(errors.InvalidRequest):
        await gw.routing.log(limit=0)
