"""Rate limits as providers tell of them in headers: whether calls must pause, and for how long."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trunkline_actors.limits import LONGEST, pause_of, seconds_until

NOW = 1_795_262_400.0  # 2026-11-21 12:00:00 UTC


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1s", 1.0),
        ("6m0s", 360.0),
        ("20ms", 0.02),
        ("1m30.5s", 90.5),
        ("1h2m3s", 3723.0),
        ("2m59.56s", 179.56),
        ("7.66s", 7.66),
        ("1d", 86_400.0),
        ("12", 12.0),
        ("0.5", 0.5),
        ("1795262430", 30.0),
        ("1795262430000", 30.0),
        ("2026-11-21T12:00:30Z", 30.0),
        ("2026-11-21T13:00:30+01:00", 30.0),
        ("2026-11-21T11:00:00Z", 0.0),
    ],
)
def test_every_form_of_a_reset_is_read(text: str, seconds: float) -> None:
    found = seconds_until(text, NOW)
    assert found is not None
    assert math.isclose(found, seconds, abs_tol=1e-6)


@pytest.mark.parametrize("text", ["", "soon", "-1", "nan", "inf", "1x", "tomorrow 12:00"])
def test_a_reset_that_makes_no_sense_is_none(text: str) -> None:
    assert seconds_until(text, NOW) is None


@given(st.text(max_size=30))
def test_no_text_breaks_the_reading(text: str) -> None:
    found = seconds_until(text, NOW)
    assert found is None or found >= 0
    pause = pause_of({"x-ratelimit-remaining-requests": text, "x-ratelimit-reset-requests": text}, NOW)
    assert pause is None or 0 <= pause <= LONGEST


@pytest.mark.parametrize(
    ("headers", "pause"),
    [
        ({}, None),
        ({"x-ratelimit-remaining-requests": "1", "x-ratelimit-reset-requests": "6s"}, None),
        ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "6s"}, 6.0),
        ({"x-ratelimit-remaining-requests": "0"}, None),
        ({"x-ratelimit-remaining-requests": "many", "x-ratelimit-reset-requests": "6s"}, None),
        ({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "6m0s"}, LONGEST),
        (
            {
                "x-ratelimit-remaining-requests": "0",
                "x-ratelimit-reset-requests": "2s",
                "x-ratelimit-remaining-tokens": "0",
                "x-ratelimit-reset-tokens": "5s",
            },
            5.0,
        ),
        (
            {
                "anthropic-ratelimit-output-tokens-remaining": "0",
                "anthropic-ratelimit-output-tokens-reset": "2026-11-21T12:00:09Z",
                "anthropic-ratelimit-requests-remaining": "40",
                "anthropic-ratelimit-requests-reset": "2026-11-21T12:00:50Z",
            },
            9.0,
        ),
        ({"x-ratelimit-remaining": "0", "x-ratelimit-reset": "1795262410000"}, 10.0),
        ({"ratelimit-remaining": "0", "ratelimit-reset": "3"}, 3.0),
    ],
)
def test_calls_pause_until_the_last_limit_that_is_used_up_is_renewed(
    headers: dict[str, str], pause: float | None
) -> None:
    assert pause_of(headers, NOW) == pause
