"""What a failed command says, and its exit code: the one place that maps errors to codes.

Exit codes: 0 done · 1 failed · 2 usage · 3 not found · 4 not allowed · 5 budget · 6 unavailable or timed out ·
7 audit mismatch.
"""

import argparse
import errno

from trunkline_events.connection import Unreachable
from trunkline_events.log import LogError, LogUnavailable

from trunkline.cli.output import emit, say
from trunkline.embedded.errors import EmbeddedServerError
from trunkline.errors import BadImport, TrunklineError
from trunkline.settings import BadSettings

FAILED = 1
USAGE = 2
NOT_FOUND = 3
NOT_ALLOWED = 4
BUDGET = 5
UNAVAILABLE = 6
MISMATCH = 7

_EXIT = {
    "invalid_request": USAGE,
    "context_length_exceeded": FAILED,
    "content_filtered": FAILED,
    "unauthenticated": NOT_ALLOWED,
    "permission_denied": NOT_ALLOWED,
    "model_not_found": NOT_FOUND,
    "not_found": NOT_FOUND,
    "conflict": FAILED,
    "budget_exceeded": BUDGET,
    "rate_limited": UNAVAILABLE,
    "aborted": FAILED,
    "no_route": UNAVAILABLE,
    "unavailable": UNAVAILABLE,
    "stopping": UNAVAILABLE,
    "timeout": UNAVAILABLE,
}

_NEXT = {
    "invalid_request": "change what it names and send it again",
    "context_length_exceeded": "shorten the prompt, or choose a model with a larger context window",
    "content_filtered": "change the prompt, or choose another provider's model",
    "unauthenticated": "set TRUNKLINE_KEY to a valid key",
    "permission_denied": "use a key that allows this, in TRUNKLINE_KEY",
    "model_not_found": "see `trunkline models list`",
    "not_found": "list what there is with the verb `list`",
    "conflict": "look at what is there with the verb `get`",
    "budget_exceeded": (
        "raise the limit with `trunkline threads configure` or `trunkline budgets set`, "
        "or wait for what is reserved to be settled"
    ),
    "rate_limited": "wait a little, then send it again",
    "aborted": "send it again if it is still wanted",
    "provider_error": "see `trunkline providers check`, or choose another model with --model",
    "no_route": "see `trunkline models list` for what is enabled, or ask for less",
}
_TRY_AGAIN = "try again in a moment; `trunkline doctor` says what is wrong"


class UsageError(Exception):
    """The command makes no sense as given. The message says why."""


def exit_code(error: TrunklineError) -> int:
    """The exit code for what the gateway refused; a code that isn't ours counts by whether a retry may help."""
    return _EXIT.get(error.code, UNAVAILABLE if error.retryable else FAILED)


def report(error: Exception, args: argparse.Namespace) -> int | None:
    """Say what went wrong and what to do next; the exit code, or None for an error that nobody foresaw."""
    described = _describe(error, args)
    if described is None:
        return None
    code, name, message, hint = described
    say(f"trunkline: {message}" + ("" if "`trunkline" in message or not hint else f"\n  next: {hint}"))
    if getattr(args, "json", False):
        emit({"error": {"code": name, "message": message, **_facts(error)}})
    return code


def _describe(error: Exception, args: argparse.Namespace) -> tuple[int, str, str, str] | None:
    """Exit code, the code for programs, the message, and what to do next where the message doesn't say it."""
    match error:
        case TrunklineError():
            hint = _NEXT.get(error.code, _TRY_AGAIN)
            named = f" ({error.param})" if error.param and error.param not in error.message else ""
            return exit_code(error), error.code, f"{error.message}{named}", hint
        case UsageError():
            return USAGE, "usage", str(error), f"see `trunkline {args.command} --help`"
        case UnicodeEncodeError():
            return USAGE, "usage", "arguments and prompts must be valid UTF-8", "send them as UTF-8"
        case BadSettings():
            return USAGE, "settings", str(error), "mend that setting"
        case BadImport():
            return USAGE, "import", str(error), ""
        case Unreachable() | LogUnavailable():
            return UNAVAILABLE, "unavailable", str(error), _TRY_AGAIN
        case LogError() | EmbeddedServerError():
            return FAILED, "failed", str(error), ""
        case OSError() if error.filename is not None or error.errno == errno.ENOSPC:
            return (
                FAILED,
                "failed",
                f"{error.filename or 'the output'}: {error.strerror}",
                "free space or choose another file",
            )
    return None


def _facts(error: Exception) -> dict[str, object]:
    if not isinstance(error, TrunklineError):
        return {}
    return {
        "param": error.param,
        "request_id": error.request_id,
        "retryable": error.retryable,
        "metadata": error.metadata,
    }
