"""The AsyncAPI document, 3.0: commands and chats on NATS, and the events, made from their types."""

import inspect
from typing import Any

import msgspec
from trunkline_events import subjects
from trunkline_events.codec import CODEC

from trunkline.gateway.bus_commands import COMMANDS
from trunkline.gateway.openapi import OpenAIError, anything

VERSION = "3.0.0"
_SCHEMA = "#/components/schemas/{name}"

_REQUEST_HEADERS = {
    "type": "object",
    "properties": {
        "Trunkline-Key": {"type": "string", "description": "API key, where keys are required"},
        "Trunkline-Request": {"type": "string", "description": "request id, and the idempotency key"},
        "Trunkline-Thread": {"type": "string", "description": "thread id"},
        "traceparent": {"type": "string", "description": "W3C trace context"},
    },
}
_EVENT_HEADERS = {
    "type": "object",
    "properties": {
        "Nats-Msg-Id": {"type": "string", "description": "the event's id"},
        "Nats-Sequence": {"type": "string", "description": "its position in the log"},
        "Trunkline-Type": {"type": "string", "description": "its name, as in the body"},
        "Trunkline-Time": {"type": "string", "description": "when it was decided"},
        "Trunkline-Actor": {"type": "string", "description": "by whom"},
        "Trunkline-Cause": {"type": "string", "description": "what led to it"},
    },
}
_CHATS = {
    subjects.CHAT: ("An OpenAI Chat Completions request", "A chat.completion, or its chunks and an empty message"),
    subjects.EMBEDDINGS: ("An OpenAI embeddings request", "OpenAI's answer"),
    subjects.ABORT: ("Which request to abort: `request_id`", "Once the call upstream is cut: `ok`"),
}


class _Document:
    def __init__(self) -> None:
        kinds: dict[int, Any] = {}
        for command in COMMANDS.values():
            takes = command.takes if isinstance(command.takes, tuple) else (command.takes,)
            kinds.update({id(one): one for one in (*takes, command.gives) if not isinstance(one, dict)})
        kinds.update({id(kind): kind for kind in (OpenAIError, *CODEC.types.values())})
        found, self.schemas = msgspec.json.schema_components(kinds.values(), schema_hook=anything, ref_template=_SCHEMA)
        self._known = dict(zip(kinds, found, strict=True))
        self.channels: dict[str, Any] = {}
        self.operations: dict[str, Any] = {}
        self.messages: dict[str, Any] = {
            "error": {
                "title": "An error",
                "summary": "With the status in `Nats-Service-Error-Code`, the text in `Nats-Service-Error`.",
                "payload": self.schema(OpenAIError),
            }
        }

    def schema(self, kind: Any) -> dict[str, Any]:
        if isinstance(kind, tuple):
            return {"anyOf": [self.schema(one) for one in kind]}
        found: dict[str, Any] = kind if isinstance(kind, dict) else self._known[id(kind)]
        return found

    def request(self, subject: str, takes: Any, gives: Any, summary: str, reply: str) -> None:
        """A subject that is asked, and what comes back on the inbox of whoever asks."""
        name = subject.removeprefix("trunkline.")
        self.messages[name] = {
            "title": name, "summary": summary, "headers": _REQUEST_HEADERS, "payload": self.schema(takes)
        }  # fmt: skip
        self.messages[f"{name}.reply"] = {
            "title": f"{name}.reply", "summary": reply, "payload": self.schema(gives)
        }  # fmt: skip
        self.channels[name] = {"address": subject, "messages": {name: _message(name)}}
        replies = (f"{name}.reply", "error")
        self.channels[f"{name}.reply"] = {"address": None, "messages": {one: _message(one) for one in replies}}
        self.operations[name] = {
            "action": "receive",
            "channel": {"$ref": f"#/channels/{name}"},
            "messages": [{"$ref": f"#/channels/{name}/messages/{name}"}],
            "reply": {
                "channel": {"$ref": f"#/channels/{name}.reply"},
                "messages": [{"$ref": f"#/channels/{name}.reply/messages/{one}"} for one in replies],
            },
        }

    def events(self, category: str) -> None:
        """The events of a category, as they are told once they are stored."""
        channel = f"events.{category}"
        names = [name for name in CODEC.types if name.startswith(f"{category}.")]
        for name in names:
            kind = CODEC.types[name]
            self.messages[name] = {
                "name": name,
                "title": name,
                "summary": inspect.cleandoc(kind.__doc__ or ""),
                "headers": _EVENT_HEADERS,
                "payload": self.schema(kind),
            }
        self.channels[channel] = {
            "address": f"{subjects.EVENTS}.{category}.{{id}}",
            "parameters": {"id": {"description": "the id; each byte outside [A-Za-z0-9_-] is =XX, upper-case hex"}},
            "messages": {name: _message(name) for name in names},
        }
        self.operations[channel] = {
            "action": "send",
            "channel": {"$ref": f"#/channels/{channel}"},
            "messages": [{"$ref": f"#/channels/{channel}/messages/{name}"} for name in names],
        }


def _message(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/messages/{name}"}


def document(version: str) -> dict[str, Any]:
    """The whole document, of a gateway of this version."""
    made = _Document()
    for subject, (asked, answered) in _CHATS.items():
        made.request(subject, {"type": "object"}, {"type": "object"}, asked, answered)
    for subject, command in COMMANDS.items():
        about = "" if isinstance(command.takes, tuple) else inspect.getdoc(command.takes) or ""
        told = "" if isinstance(command.gives, dict) else inspect.getdoc(command.gives) or ""
        made.request(subject, command.takes, command.gives, about or "The arguments", told or "The reply")
    for category in subjects.CATEGORIES:
        made.events(category)
    whole = {
        "asyncapi": VERSION,
        "info": {
            "title": "Trunkline on NATS",
            "version": version,
            "description": "Requests are NATS requests with JSON bodies; events are told once the log has stored them.",
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": "application/json",
        "servers": {"nats": {"host": "127.0.0.1:4222", "protocol": "nats"}},
        "channels": made.channels,
        "operations": made.operations,
        "components": {"messages": made.messages, "schemas": made.schemas},
    }
    # Through JSON, so that no part of it is the same object as another: YAML would write those as aliases.
    plain: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(whole))
    return plain
