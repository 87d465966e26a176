"""The page on testing: what it shows to be tests are tests, and pass."""

import re
from pathlib import Path

import pytest
from trunkline import testing

pytest_plugins = ["pytester"]

PAGE = (Path(__file__).parents[2] / "docs" / "testing.md").read_text(encoding="utf-8")


def test_the_tests_of_the_page_pass(pytester: pytest.Pytester) -> None:
    conftest, *modules = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    pytester.makeconftest(conftest)
    pytester.makepyfile(**{f"test_shown_{place}": module for place, module in enumerate(modules)})
    options = ("-p", "no:cacheprovider", "--strict-markers", "-o", "asyncio_mode=auto")
    result = pytester.runpytest_inprocess(*options, "-o", "asyncio_default_fixture_loop_scope=function")
    result.assert_outcomes(passed=13)


def test_all_that_is_public_is_told() -> None:
    told = set(re.findall(r"\w+", PAGE))
    assert set(testing.__all__) - {"Given", "Outcome", "Reply", "OverBudget", "CostTracker", "VirtualTime"} <= told
