"""Log lines: JSON, and only fields that may be shown."""

import json
import logging
from collections.abc import Iterator

import pytest
import structlog
from trunkline import telemetry

CANARY = "sk-canary-1234"


@pytest.fixture(autouse=True)
def plain_logging() -> Iterator[None]:
    """Logging as it was, afterwards."""
    handlers, level = logging.root.handlers[:], logging.root.level
    yield
    structlog.reset_defaults()
    logging.root.handlers[:] = handlers
    logging.root.setLevel(level)


def lines(capture: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    return [json.loads(line) for line in capture.readouterr().err.splitlines()]


def test_a_line_is_json_with_the_fields_that_were_given(capsys: pytest.CaptureFixture[str]) -> None:
    telemetry.configure("info")
    structlog.get_logger().info("attempt.failed", request="r1", thread="t1", model="m", provider="p", trace="abc")
    [line] = lines(capsys)
    assert line["event"] == "attempt.failed"
    assert [line[name] for name in ("request", "thread", "model", "provider", "trace")] == ["r1", "t1", "m", "p", "abc"]


def test_a_field_that_nobody_declared_is_dropped(capsys: pytest.CaptureFixture[str]) -> None:
    telemetry.configure("info")
    structlog.get_logger().warning("x.y", prompt=CANARY, authorization=CANARY, headers={"a": CANARY}, request="r")
    [line] = lines(capsys)
    assert CANARY not in json.dumps(line)
    assert line["request"] == "r"


def test_an_exception_is_told_by_type_and_place_and_never_by_its_words(capsys: pytest.CaptureFixture[str]) -> None:
    telemetry.configure("info")
    try:
        int(f"{CANARY} is no number")
    except ValueError:
        structlog.get_logger().exception("x.failed")
    [line] = lines(capsys)
    assert CANARY not in json.dumps(line)
    assert line["error"] == "ValueError"
    assert str(line["where"]).startswith("test_telemetry.py:")


def test_what_libraries_log_is_told_without_their_words(capsys: pytest.CaptureFixture[str]) -> None:
    telemetry.configure("info")
    logging.getLogger("httpx2").warning("sent Authorization: %s", CANARY)
    [line] = lines(capsys)
    assert CANARY not in json.dumps(line)
    assert line["logger"] == "httpx2"


def test_lines_below_the_level_are_not_written(capsys: pytest.CaptureFixture[str]) -> None:
    telemetry.configure("warning")
    structlog.get_logger().info("x.y")
    assert lines(capsys) == []
