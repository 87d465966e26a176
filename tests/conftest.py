"""No fixture is shared by all tests. pytest-randomly shuffles them, since none may lean on another: `-p no:randomly`
keeps the written order, `--randomly-seed=last` repeats the last one.
"""

import signal

import pytest
from hypothesis import settings

# No deadline: other tests run beside. Thirty examples, since seeds differ; what matters most has its own number.
settings.register_profile("beside others", max_examples=30, deadline=None)
settings.load_profile("beside others")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # begun by a shell in the background; Ctrl-C is to be tested
    signal.signal(signal.SIGINT, signal.default_int_handler)

LONG = {
    *("test_log_cluster.py", "test_money.py", "test_cluster.py", "test_kill.py", "test_degraded.py", "test_plugins.py"),
    *("test_standstill.py", "test_log_kill.py", "test_standby.py", "test_statistics.py", "test_cli_secrets.py"),
    *("test_cli_projections.py", "test_redecide.py", "test_slices_kill.py", "test_local_models_cli.py", "test_up.py"),
    *("test_recorder_faults.py", "test_log_paused.py", "test_breakers.py", "test_keeper.py"),
    *("test_deploy_roles.py", "test_deploy_limits.py", "test_deploy.py", "test_parking_kill.py", "test_http_health.py"),
}
"""Modules of few tests that take long: begun last, they would keep one worker busy while others have nothing left."""


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The long ones first; the rest stays as it was shuffled."""
    items.sort(key=lambda item: item.path.name not in LONG)
