"""What a real client's calls cost counts for a test's budget, and over it nothing more is asked."""

import pytest
from trunkline import errors
from trunkline.client import Gateway
from trunkline.testing import CostTracker, OverBudget

pytest_plugins = ["gateway"]


async def test_chats_streams_and_embeddings_of_a_client_are_counted_until_it_is_let_go(gw: Gateway) -> None:
    await gw.models.update(id="echo", price={"input": "1000", "output": "1000"})
    await gw.models.register(id="embed", provider="scripted", upstream="echo", features=["embeddings"])
    before = (gw.chat, gw.embeddings)
    tracker = CostTracker()
    assert tracker.watch(gw) is gw
    one = await gw.chat.create("echo", "hello there")
    async with gw.chat.stream("echo", "hello there") as stream:
        async for _ in stream:
            pass
    assert one.cost == stream.cost != "0"
    assert float(tracker.spent_usd) == pytest.approx(2 * float(one.cost))
    await gw.embeddings.create("embed", "hello there")
    assert tracker.calls == 3
    with pytest.raises(errors.NotFound):
        await gw.chat.abort("nobody")
    tracker.limit(one.cost)
    with pytest.raises(OverBudget):
        await gw.chat.create("echo", "more")
    with pytest.raises(OverBudget):
        await gw.embeddings.create("embed", "more")
    with pytest.raises(OverBudget):
        gw.chat.stream("echo", "more")
    with pytest.raises(OverBudget):
        tracker.check()
    tracker.unwatch()
    assert (gw.chat, gw.embeddings) == before
    await gw.chat.create("echo", "more")
