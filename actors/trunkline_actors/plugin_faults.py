"""What is told of an error a plugin raised: its class and place, and no foreign text, which may hold a secret."""

import traceback

from trunkline_events.failure import Failure, FailureClass, UpstreamError
from trunkline_events.plugin import Stage

from trunkline_actors.adapters import faults
from trunkline_actors.adapters.kinds import BadSettings

NEXT = "see `trunkline plugins list` and the log of its process"

_OURS = frozenset({"trunkline", "trunkline_actors"})


class Hung(Exception):
    """Foreign code did not come back in time, and was left alone. See where it waits."""


class Stopped(Exception):
    """Foreign code wanted to end the process, or cancelled itself. The text is the class of what it raised."""


class WrongType(TypeError):
    """A plugin returned something else than the protocol says. Whoever wrote it has to mend that."""


def failure_of(stage: Stage, error: BaseException, plugin: str, duty: str = "") -> Failure:
    """What attempts fail with: `plugin` names the plugin in a sentence, `duty` what it was asked to do."""
    if stage != "call" and isinstance(error, UpstreamError) and isinstance(error.failure, Failure):
        return error.failure
    if isinstance(error, Hung):
        return Failure(kind=FailureClass.TIMEOUT, message=f"{plugin} hung at its {stage}; {NEXT}")
    if isinstance(error, WrongType):
        return _internal(f"{plugin} broke the protocol: `{duty or error}` gave something else than it says")
    if isinstance(error, BadSettings) or (_root(error) in _OURS and not isinstance(error, Stopped | UpstreamError)):
        return _internal(faults.safe(str(error)))
    what = f"in `{duty}`" if duty else f"at its {stage}"
    missing = f", {error.name}" if isinstance(error, ImportError) and error.name else ""
    return _internal(f"{plugin} failed {what} ({name_of(error)}{missing}); {NEXT}")


def name_of(error: BaseException) -> str:
    """The class of an error."""
    return str(error) if isinstance(error, Stopped) else type(error).__name__


def place_of(error: BaseException) -> str:
    """Where it was raised: the file and the line, and nothing that it was about."""
    frames = traceback.extract_tb(error.__traceback__, limit=-1)
    return f"{frames[-1].filename.rpartition('/')[2]}:{frames[-1].lineno}" if frames else ""


def _root(error: BaseException) -> str:
    return type(error).__module__.partition(".")[0]


def _internal(message: str) -> Failure:
    return Failure(kind=FailureClass.INTERNAL, message=message)
