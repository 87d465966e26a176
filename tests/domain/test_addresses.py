"""Addresses of NATS servers: what of them may be shown, and what to do where none answers."""

import pytest
from trunkline_events.connection import Unreachable, without_password


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("nats://127.0.0.1:4222", "nats://127.0.0.1:4222"),
        ("nats://actor:sesame@h:4222", "nats://h:4222"),
        ("actor:sesame@h:4222", "h:4222"),
        ("nats://a:sesame@h1:1,nats://b:sesame@h2:2", "nats://h1:1,nats://h2:2"),
        ("tls://sesame@h", "tls://h"),
    ],
)
def test_no_password_is_shown(url: str, shown: str) -> None:
    assert without_password(url) == shown
    assert "sesame" not in str(Unreachable(url, "connection refused"))


def test_what_to_do_depends_on_why_nobody_answers() -> None:
    assert "start one with `trunkline up`" in str(Unreachable("nats://h", "connection refused"))
    assert "give the user and password" in str(Unreachable("nats://h", "'Authorization Violation'"))
