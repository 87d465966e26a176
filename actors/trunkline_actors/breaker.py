"""The circuit breaker of one provider instance, as one of its processes works it."""

from trunkline_events.failure import Failure, FailureClass
from trunkline_events.registry import Provider

from trunkline_actors.dispatch import Dispatch
from trunkline_actors.mailbox import Spawn
from trunkline_actors.runtime import Runtime


class Breaker:
    """Lets attempts through, and records what their ends mean for the circuit."""

    def __init__(self, runtime: Runtime, provider: Provider, spawn: Spawn) -> None:
        self._runtime = runtime
        self._provider = provider
        self._spawn = spawn

    async def admit(self, dispatch: Dispatch) -> Failure | None:
        """Let an attempt through, as a probe where the circuit is open and it is time; else why not."""
        return None

    def ended(self, attempt_id: str, failure: FailureClass | None) -> None:
        """An attempt ended, well where `failure` is None: what that means for the circuit is recorded beside."""
