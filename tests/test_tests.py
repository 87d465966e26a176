"""What the tests themselves keep to."""

from pathlib import Path

TESTS = Path(__file__).parent


def test_no_two_test_modules_share_a_name() -> None:
    """Pytest imports them by their names alone, and would refuse the second."""
    names = sorted(path.name for path in TESTS.rglob("test_*.py"))
    assert sorted(set(names)) == names
