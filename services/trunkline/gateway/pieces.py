"""The answer of a chat as parts that follow one another, as Messages and Responses tell it. Pure.

Chat Completions has one message with fields; the others have a list of blocks or items, each begun, added to and
ended before the next begins. `Parts` makes the second of the first: every piece goes to its part as it comes, and what
comes for a later part while a call of a tool has not got all of its arguments waits for it.
"""

from collections import deque
from typing import Any, Literal, Protocol

import msgspec
from msgspec import Raw, Struct
from trunkline_actors.adapters.anthropic_turns import FORMAT

from trunkline.gateway.voices import unreadable

Kind = Literal["thinking", "redacted", "text", "refusal", "call"]

_MALFORMED = (ValueError, RecursionError)


class Function(Struct):
    """The function that is called, or a piece of it."""

    name: str | None = None
    arguments: str | None = None


class ToolCall(Struct):
    """A call of a tool, or a piece of one: `index` is its number among the calls of the answer."""

    index: int | None = None
    id: str | None = None
    function: Function | None = None


class Detail(Struct):
    """One of `reasoning_details`, see `anthropic_answer`: `index` is its place among all parts of the answer."""

    type: str = ""
    text: str | None = None
    signature: str | None = None
    data: str | None = None
    format: str | None = None
    index: int | None = None


class Text(Struct):
    """A part of content; some providers give texts in parts."""

    text: str | None = None


class Said(Struct):
    """A message, or what a chunk adds to one."""

    content: str | list[Text] | None = None
    reasoning_content: str | None = None
    reasoning_details: list[Detail] | None = None
    refusal: str | None = None
    tool_calls: list[ToolCall] | None = None


class Choice(Struct):
    """`message` of a whole answer, `delta` of a chunk."""

    delta: Said | None = None
    message: Said | None = None
    finish_reason: str | None = None


class Tokens(Struct):
    """Details of token counts."""

    cached_tokens: int | None = None
    cache_write_tokens: int | None = None
    reasoning_tokens: int | None = None


class Counts(Struct):
    """Token counts as OpenAI tells them."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: Tokens | None = None
    completion_tokens_details: Tokens | None = None


class Frame(Struct):
    """A chat completion, or a chunk of it."""

    id: str | None = None
    created: float | None = None
    model: str | None = None
    choices: list[Choice] | None = None
    usage: Counts | None = None


_decode_frame = msgspec.json.Decoder(Frame).decode
_decode_object = msgspec.json.Decoder(dict[str, Raw]).decode


def read_frame(data: bytes) -> Frame:
    """A chat completion or a chunk. Raises ProviderError where it is none."""
    try:
        return _decode_frame(data)
    except _MALFORMED as error:
        raise unreadable("chat completion") from error


class Spent(Struct, frozen=True):
    """Token counts: `input` is all of it, `written` what of it was written to the provider's cache."""

    input: int = 0
    cached: int = 0
    written: int = 0
    output: int = 0
    thought: int = 0


def spent(counts: Counts | None) -> Spent:
    """The counts of an answer; zeros where it has none."""
    if counts is None:
        return Spent()
    asked, told = counts.prompt_tokens_details or Tokens(), counts.completion_tokens_details or Tokens()
    total = counts.prompt_tokens or 0
    cached = min(asked.cached_tokens or 0, total)
    written = min(asked.cache_write_tokens or 0, total - cached)
    return Spent(total, cached, written, counts.completion_tokens or 0, told.reasoning_tokens or 0)


class Part(Struct):
    """A part of an answer: `number` is its place, `held` what waits to be told, `said` what was."""

    kind: Kind
    number: int
    call_id: str = ""
    name: str = ""
    signature: str = ""
    held: list[str] = []
    said: list[str] = []
    ended: bool = False

    @property
    def text(self) -> str:
        """All that was told of it."""
        return "".join(self.said)

    def complete(self) -> bool:
        """Whether a later part may be told: a call of a tool needs all of its arguments before."""
        return self.kind != "call" or (
            bool(self.said) and self.said[-1].rstrip()[-1:] in ("", "}") and is_object(self.text)
        )


def _joined(content: list[Text] | None) -> str:
    return "".join(part.text or "" for part in content or ())


def is_object(text: str) -> bool:
    """Whether a text is a JSON object."""
    if not text.rstrip().endswith("}"):
        return False
    try:
        _decode_object(text)
    except _MALFORMED:
        return False
    return True


class Teller(Protocol):
    """Writes down what happens to parts."""

    def begin(self, part: Part) -> None:
        """A part begins; its names are known, its text is not."""
        ...

    def add(self, part: Part, piece: str) -> None:
        """A part gets longer by a piece, which isn't empty."""
        ...

    def finish(self, part: Part) -> None:
        """A part has got everything."""
        ...


class Parts:
    """Sorts what chunks add into parts, and has them told one after another."""

    def __init__(self, teller: Teller) -> None:
        self.all: list[Part] = []
        self.called = False
        """Whether a tool was called."""
        self._teller = teller
        self._waiting: deque[Part] = deque()  # the first of them is being told
        self._calls: dict[int, Part] = {}

    def feed(self, said: Said) -> None:
        """What a chunk adds."""
        if said.reasoning_content:
            self._say("thinking", said.reasoning_content)
        for detail in said.reasoning_details or ():
            self._sign(detail)
        if content := said.content if isinstance(said.content, str) else _joined(said.content):
            self._say("text", content)
        if said.refusal:
            self._say("refusal", said.refusal)
        for at, call in enumerate(said.tool_calls or ()):
            self._call(at if call.index is None else call.index, call)

    def end(self) -> None:
        """There is no more: tell what waits."""
        while self._waiting:
            self._next()

    def _say(self, kind: Kind, piece: str) -> None:
        last = self._waiting[-1] if self._waiting else None
        if last is None or last.kind != kind or last.signature:
            last = self._begin(kind)
        self._add(last, piece)

    def _sign(self, detail: Detail) -> None:
        if detail.format not in (None, FORMAT):
            return
        if detail.type == "reasoning.encrypted" and detail.data:
            self._add(self._begin("redacted"), detail.data)
        elif detail.type == "reasoning.text" and detail.signature:
            # In a stream its text came already, in pieces; but for thinking that isn't to be shown.
            last = self._waiting[-1] if self._waiting else None
            if last is None or last.kind != "thinking" or last.signature:
                last = self._begin("thinking")
                if detail.text:
                    self._add(last, detail.text)
            last.signature = detail.signature

    def _call(self, index: int, piece: ToolCall) -> None:
        function = piece.function or Function()
        part = self._calls.get(index)
        if part is None:
            self.called = True
            # Names come with the first piece of a call: with that it is begun.
            part = self._calls[index] = self._begin("call", piece.id or f"call_{index}", function.name or "")
        if function.arguments:
            self._add(part, function.arguments)

    def _begin(self, kind: Kind, call_id: str = "", name: str = "") -> Part:
        part = Part(kind, len(self.all), call_id, name, held=[], said=[])
        self.all.append(part)
        self._waiting.append(part)
        if len(self._waiting) == 1:
            self._teller.begin(part)
        else:
            self._advance()
        return part

    def _add(self, part: Part, piece: str) -> None:
        if self._waiting and part is self._waiting[0]:
            part.said.append(piece)
            self._teller.add(part, piece)
            if len(self._waiting) > 1:
                self._advance()
        elif not part.ended:
            part.held.append(piece)
        # Else its arguments were whole already: what comes after a JSON object is white space.

    def _advance(self) -> None:
        while len(self._waiting) > 1 and self._waiting[0].complete():
            self._next()

    def _next(self) -> None:
        ended = self._waiting.popleft()
        ended.ended = True
        self._teller.finish(ended)
        if self._waiting:
            part = self._waiting[0]
            self._teller.begin(part)
            for piece in part.held:
                part.said.append(piece)
                self._teller.add(part, piece)
            part.held = []


class _Silent:
    def begin(self, part: Part) -> None:
        pass

    def add(self, part: Part, piece: str) -> None:
        pass

    def finish(self, part: Part) -> None:
        pass


def parts_of(message: Said) -> list[Part]:
    """The parts of a whole message, signed thinking where it stood."""
    details = message.reasoning_details or []
    signed = [one for one in details if one.format in (None, FORMAT) and (one.signature or one.data)]
    texts = Said(
        reasoning_content=None if any(one.signature for one in signed) else message.reasoning_content,
        content=message.content,
        refusal=message.refusal,
        tool_calls=message.tool_calls,
    )
    parts = Parts(_Silent())
    parts.feed(texts)
    parts.end()
    found = parts.all
    for leading, detail in enumerate(sorted(signed, key=lambda one: one.index or 0)):
        alone = Parts(_Silent())
        alone.feed(Said(reasoning_details=[detail]))
        alone.end()
        at = leading if detail.index is None else detail.index
        found[at:at] = alone.all
    for number, part in enumerate(found):
        part.number = number
    return found


def arguments_of(part: Part) -> dict[str, Any]:
    """The arguments of a call; what the model wrote under `unparsed_arguments` where that is no JSON object."""
    text = part.text
    if not text.strip():
        return {}
    return msgspec.json.decode(text, type=dict[str, Any]) if is_object(text) else {"unparsed_arguments": text}
