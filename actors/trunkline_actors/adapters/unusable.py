"""What stands in for the adapter of a provider that has no key to call with: every call fails, saying what to do."""

from collections.abc import AsyncGenerator

from trunkline_events.failure import Failure, FailureClass, UpstreamError

from trunkline_actors.adapters import Answer, Call, Chunk, End


class Unusable:
    """An adapter that calls nobody. `reason` is what each attempt fails with, of class `auth`."""

    def __init__(self, reason: str) -> None:
        self.reason = reason

    def _error(self) -> UpstreamError:
        return UpstreamError(Failure(kind=FailureClass.AUTH, message=self.reason))

    async def complete(self, call: Call) -> Answer:
        """Fail."""
        raise self._error()

    async def stream(self, call: Call) -> AsyncGenerator[Chunk | End, None]:
        """Fail."""
        if self.reason:
            raise self._error()
        yield End(usage=None, finish="stop")  # pragma: no cover - it makes this a generator

    async def embed(self, call: Call) -> Answer:
        """Fail."""
        raise self._error()

    async def check(self) -> None:
        """Fail."""
        raise self._error()

    async def close(self) -> None:
        """Nothing to let go of."""
