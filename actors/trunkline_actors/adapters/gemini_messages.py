"""OpenAI's messages as Gemini's system instruction and contents. Pure.

Thought signatures (opaque, signed by Google, asked for with the next request) travel where Google's own OpenAI endpoint
puts them: in `extra_content.google.thought_signature` of a tool call, or of the message for its text.
"""

from typing import Any
from urllib.parse import urlsplit

import msgspec
from msgspec import Raw
from trunkline_events.failure import FailureClass, UpstreamError

from trunkline_actors.adapters.faults import upstream_error

Fields = dict[str, Any]

# Gemini 3 refuses a call it didn't sign; this is Google's documented stand-in for calls that another model made.
_UNSIGNED = "skip_thought_signature_validator"
_IMAGE_TYPES = {
    "png": "image/png",
    "jpg": "image/jpeg",
    "jpeg": "image/jpeg",
    "webp": "image/webp",
    "gif": "image/gif",
    "heic": "image/heic",
    "heif": "image/heif",
}


def refused(field: str, why: str) -> UpstreamError:
    """The error for a request that Gemini can't be sent, naming the field."""
    return upstream_error(FailureClass.INVALID_REQUEST, f"{field}: {why}")


def contents_of(messages: Any, *, signed: bool) -> tuple[list[Fields], list[Fields]]:
    """The parts of the system instruction, and the contents. Raises UpstreamError (invalid request).

    System and developer messages join the system instruction, wherever they stand. Results of tools that follow each
    other are one content, as Gemini wants the results of parallel calls. `signed`: calls must carry a signature.
    """
    if not isinstance(messages, list):
        raise refused("messages", "give a list of messages")
    system: list[Fields] = []
    contents: list[Fields] = []
    names: dict[str, str] = {}  # of the calls so far, by id
    results: list[Fields] | None = None  # the parts of the content that the next result joins
    for at, message in enumerate(messages):
        where = f"messages[{at}]"
        role = message.get("role") if isinstance(message, dict) else None
        if role == "tool":
            if results is None:
                results = []
                contents.append({"role": "user", "parts": results})
            results.append(_result(message, names, where))
            continue
        results = None
        if role in ("system", "developer"):
            system += [{"text": text} for text in _texts(message.get("content"), f"{where}.content")]
        elif role == "user":
            contents.append({"role": "user", "parts": _parts(message.get("content"), f"{where}.content")})
        elif role == "assistant":
            if parts := _said(message, names, where, signed=signed):
                contents.append({"role": "model", "parts": parts})
        else:
            raise refused(f"{where}.role", "use system, developer, user, assistant or tool")
    if not contents:
        raise refused("messages", "Gemini needs a message besides the system's")
    return system, contents


def _said(message: Fields, names: dict[str, str], where: str, *, signed: bool) -> list[Fields]:
    texts = _texts(message.get("content"), f"{where}.content")
    parts: list[Fields] = [{"text": text} for text in texts if text]
    if (signature := _signature(message)) is not None:
        if not parts:
            parts.append({"text": ""})
        parts[-1]["thoughtSignature"] = signature
    calls = message.get("tool_calls") or []
    if not isinstance(calls, list):
        raise refused(f"{where}.tool_calls", "give a list of calls")
    for at, call in enumerate(calls):
        function = call.get("function") if isinstance(call, dict) else None
        if not isinstance(function, dict) or not isinstance(name := function.get("name"), str):
            raise refused(f"{where}.tool_calls[{at}]", "Gemini takes calls of functions")
        said = function.get("arguments") or "{}"
        args = json_object(said) if isinstance(said, str) else None
        if args is None:
            raise refused(f"{where}.tool_calls[{at}].function.arguments", "give a JSON object")
        called: Fields = {"name": name, "args": args}
        if isinstance(ident := call.get("id"), str):
            names[ident] = name
            called["id"] = ident
        part: Fields = {"functionCall": called}
        # Of parallel calls Google signs the first alone.
        if (signature := _signature(call) or (_UNSIGNED if signed and at == 0 else None)) is not None:
            part["thoughtSignature"] = signature
        parts.append(part)
    return parts


def _result(message: Fields, names: dict[str, str], where: str) -> Fields:
    ident = message.get("tool_call_id")
    if not isinstance(ident, str) or ident not in names:
        raise refused(f"{where}.tool_call_id", "no call before has this id, and Gemini needs the name of its function")
    text = "".join(_texts(message.get("content"), f"{where}.content"))
    # A result is an object in Gemini; any other goes under the key that its reference names for that.
    response: object = json_object(text)
    return {"functionResponse": {"id": ident, "name": names[ident], "response": response or {"output": text}}}


def _signature(holder: Fields) -> str | None:
    extra = holder.get("extra_content")
    google = extra.get("google") if isinstance(extra, dict) else None
    signature = google.get("thought_signature") if isinstance(google, dict) else None
    return signature if isinstance(signature, str) else None


def _texts(content: Any, where: str) -> list[str]:
    """The texts of a message that can hold nothing else."""
    if content is None:
        return []
    if isinstance(content, str):
        return [content]
    if not isinstance(content, list):
        raise refused(where, "give a text or a list of parts")
    texts = []
    for at, part in enumerate(content):
        kind = part.get("type") if isinstance(part, dict) else None
        if kind not in ("text", "refusal") or not isinstance(part.get(kind), str):
            raise refused(f"{where}[{at}]", "Gemini takes only text here")
        texts.append(part[kind])
    return texts


def _parts(content: Any, where: str) -> list[Fields]:
    """The parts of a user's message."""
    if isinstance(content, str):
        return [{"text": content}]
    if not isinstance(content, list) or not content:
        raise refused(where, "give a text or a list of parts")
    return [_part(part, f"{where}[{at}]") for at, part in enumerate(content)]


def _part(part: Any, where: str) -> Fields:
    kind = part.get("type") if isinstance(part, dict) else None
    held = part.get(kind) if kind else None
    if kind == "text" and isinstance(held, str):
        return {"text": held}
    if kind == "image_url":
        url = held.get("url") if isinstance(held, dict) else held
        return _media(url, f"{where}.image_url.url")
    if kind == "input_audio" and isinstance(held, dict):
        return {"inlineData": {"mimeType": f"audio/{held.get('format')}", "data": held.get("data")}}
    if kind == "file" and isinstance(held, dict):
        if held.get("file_data") is None:
            raise refused(f"{where}.file", "give the file itself as file_data, a data URL")
        return _media(held["file_data"], f"{where}.file.file_data")
    raise refused(f"{where}.type", "Gemini takes text, image_url, input_audio and file")


def _media(url: Any, where: str) -> Fields:
    if isinstance(url, str) and url.startswith("data:"):
        head, comma, data = url.partition(",")
        media, *parameters = head.removeprefix("data:").split(";")
        if comma and media and "base64" in parameters:
            return {"inlineData": {"mimeType": media, "data": data}}
        raise refused(where, "a data URL has to name its media type and be base64")
    if isinstance(url, str) and url.startswith(("https://", "gs://")):
        # Google fetches it; the type is told where the name shows it, and found by Google where not.
        media = _IMAGE_TYPES.get(urlsplit(url).path.rpartition(".")[2].lower(), "")
        return {"fileData": {"mimeType": media, "fileUri": url} if media else {"fileUri": url}}
    raise refused(where, "Gemini takes a data URL, or an https address that Google can reach")


def json_object(text: str) -> Raw | None:
    """The text as it is, if it is a JSON object."""
    data = text.encode()
    try:
        msgspec.json.decode(data, type=dict[str, Raw])
    except (ValueError, RecursionError):
        return None
    return Raw(data)
