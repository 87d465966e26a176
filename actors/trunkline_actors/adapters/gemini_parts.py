"""One candidate of Gemini's: its parts, and why it stopped. Pure."""

from typing import Any

from msgspec import Raw, Struct
from trunkline_events.failure import FailureClass

from trunkline_actors.adapters.faults import upstream_error


class _FunctionCall(Struct):
    name: str = ""
    args: Raw = Raw()
    id: str | None = None


class _Blob(Struct, rename="camel"):
    mime_type: str = ""
    data: str = ""


class _Part(Struct, rename="camel"):
    text: str | None = None
    thought: bool | None = None
    thought_signature: str | None = None
    function_call: _FunctionCall | None = None
    inline_data: _Blob | None = None


class _Content(Struct):
    parts: list[_Part] | None = None


class Candidate(Struct, rename="camel"):
    """A candidate, or the piece of it that an event of a stream has."""

    content: _Content | None = None
    finish_reason: str | None = None
    index: int | None = None


class Gathered(Struct):
    """The parts of a candidate by their kind; `calls` and `images` are OpenAI's shapes.

    `size` counts the UTF-8 bytes generated: text, thinking, arguments.
    """

    text: str = ""
    thinking: str = ""
    calls: list[dict[str, Any]] = []
    images: list[dict[str, Any]] = []
    signature: str | None = None
    size: int = 0


# Stopped by a filter of Google's: by the prompt, the answer, or who asks for what in which language.
# fmt: off
_FILTERED = {
    "SAFETY", "RECITATION", "LANGUAGE", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII", "ESCALATION", "IMAGE_SAFETY",
    "IMAGE_PROHIBITED_CONTENT", "IMAGE_RECITATION",
}
# fmt: on
BLOCKED = _FILTERED | {"BLOCKED_REASON_UNSPECIFIED", "OTHER", "MODEL_ARMOR", "JAILBREAK"}
"""Why a prompt may have been blocked, by Google's names. What else an upstream says of it is not repeated."""
_SILENT = {"FINISH_REASON_UNSPECIFIED", "OTHER", "IMAGE_OTHER", "NO_IMAGE", "MODEL_ARMOR"}
_FAILED = {
    "MALFORMED_FUNCTION_CALL": FailureClass.INTERNAL,
    "UNEXPECTED_TOOL_CALL": FailureClass.INTERNAL,
    "TOO_MANY_TOOL_CALLS": FailureClass.INTERNAL,
    "MALFORMED_RESPONSE": FailureClass.INTERNAL,
    "MISSING_THOUGHT_SIGNATURE": FailureClass.INVALID_REQUEST,
    "PUP_LIMITED_DISABLED": FailureClass.AUTH,
}
_FINISHES = {"STOP": "stop", "MAX_TOKENS": "length", "CONTINUATION": "length"}


def gather(candidate: Candidate, ident: str, calls_before: int) -> Gathered:
    """The parts of a candidate. A call without an id gets `call_<ident>_<its number>`, the calls before counted."""
    found = Gathered()
    if candidate.content is None:
        return found
    for part in candidate.content.parts or ():
        if (called := part.function_call) is not None:
            arguments = bytes(called.args).decode() if called.args and called.args != b"null" else "{}"
            name = called.id or f"call_{ident}_{calls_before + len(found.calls)}"
            call: dict[str, Any] = {"id": name, "type": "function"}
            call["function"] = {"name": called.name, "arguments": arguments}
            if part.thought_signature is not None:
                call["extra_content"] = {"google": {"thought_signature": part.thought_signature}}
            found.calls.append(call)
            found.size += len(called.args) if called.args else 2
            continue
        if part.thought_signature is not None:
            found.signature = part.thought_signature
        if part.text:
            found.size += len(part.text) if part.text.isascii() else len(part.text.encode())
            if part.thought:
                found.thinking += part.text
            else:
                found.text += part.text
        elif (image := part.inline_data) is not None and not part.thought:
            url = f"data:{image.mime_type};base64,{image.data}"
            found.images.append({"type": "image_url", "image_url": {"url": url}})
            found.size += len(image.data)
    return found


def finish_reason(reason: str, anything: bool, calls: bool) -> str:
    """OpenAI's finish reason for one of Gemini's. `anything`: something was generated before; `calls`: a call was.

    Raises UpstreamError for a reason that is a failure: a filter that let nothing through, a call that can't be read.
    """
    if reason in _FAILED:
        raise upstream_error(_FAILED[reason], f"upstream stopped ({reason})", 200)
    if reason in _FILTERED:
        if not anything:
            raise upstream_error(FailureClass.CONTENT_FILTER, f"upstream filtered the answer ({reason})", 200)
        return "content_filter"
    if reason not in _FINISHES and not anything:
        why = f" ({reason})" if reason in _SILENT else ""
        raise upstream_error(FailureClass.INTERNAL, f"upstream answered nothing{why}", 200)
    finish = _FINISHES.get(reason, "stop")
    return "tool_calls" if calls and finish == "stop" else finish
