"""Fixtures for pytest, for who asks for them: `pytest_plugins = ["trunkline.testing.plugin"]`.

`cost_tracker` counts what the calls of a test cost. `@pytest.mark.cost_budget("0.01")`, or
`cost_tracker.limit("0.01")`, fails the test where that is more.
"""

from collections.abc import Generator

import pytest

from trunkline.testing.costs import LISTENERS, CostTracker

_TRACKER = pytest.StashKey[CostTracker]()


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "cost_budget(usd): the test fails where its calls cost more than so many dollars"
    )


@pytest.fixture
def cost_tracker(request: pytest.FixtureRequest) -> CostTracker:
    """Counts what the calls of this test cost, and fails it over a limit."""
    item: pytest.Item = request.node
    return item.stash[_TRACKER]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    marker = item.get_closest_marker("cost_budget")
    tracker = item.stash[_TRACKER] = CostTracker(*(marker.args if marker is not None else ()))
    LISTENERS.append(tracker.add_nanos)
    try:
        return (yield)
    finally:
        LISTENERS.remove(tracker.add_nanos)
        tracker.unwatch()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    result = yield
    item.stash[_TRACKER].check()
    return result
