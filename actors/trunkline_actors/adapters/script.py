"""The scripts of the scripted upstream: its model name says what it answers. Pure.

    echo                 the last user message's text
    say                  "Hello from the scripted provider."          say:<text>           that text
    think:<text>         that text as reasoning_content, then `say`'s sentence
    tokens:<n>           n tokens at once                             tokens:<n>@<rate>    n tokens at <rate> a second
    tool                 one call of the request's first tool, with {"query": <last user text>}; `say`'s sentence where
                         there are no tools; once the last message is a tool's, that message's text
    fail:<class>         fails, with a failure class of trunkline_events.failure
    fail:<class>:<s>     the same, with retry_after = s seconds
    cut:<k>              a stream of exactly k chunks, then a cut connection; not streamed: a cut connection
    stall                never answers, until cancelled or timed out  stall:<k>            k chunks of a stream, then so

Anything else fails with `model_not_found`. A token is a word with the spaces before it; input tokens are the words of
all messages. A limit (`call.max_tokens`, else the body's) ends the answer (thinking comes first) with finish
`length`; `cut` and `stall` know no limit.
The first chunk holds the role, the last the finish reason; a usage chunk follows where the caller asked for one.
Embeddings: any script but fail, cut and stall gives a unit vector per input, made from its hash: the same each time,
of 8 dimensions or as many as the body's `dimensions` says, as floats or base64.
"""

import math
import re
from functools import lru_cache

import msgspec
from msgspec import Struct
from trunkline_events.failure import Failure, FailureClass, UpstreamError
from trunkline_events.usage import Usage

_SENTENCE = "Hello from the scripted provider."
_MOST_TOKENS = 1_000_000
_TOKEN = re.compile(r"\s*\S+(?:\s+\Z)?")


class _Part(Struct):
    text: str = ""


class _Message(Struct):
    role: str = "user"
    content: str | list[_Part] | None = None


class _Named(Struct, frozen=True):
    name: str = "tool"


class _Tool(Struct):
    function: _Named = _Named()


class Request(Struct):
    """What a script looks at in a chat request."""

    messages: list[_Message] = []
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    tools: list[_Tool] | None = None


class Function(Struct, frozen=True):
    """A tool call: the tool, and its arguments as JSON text."""

    name: str
    arguments: str


class Play(Struct):
    """What a script comes to. `chunks` is where a stream ends badly: in a cut, or (`stalls`) in silence."""

    text: str = ""
    thinking: str = ""
    tool: Function | None = None
    rate: float = math.inf
    chunks: int | None = None
    stalls: bool = False


def read_script(script: str, request: Request) -> Play:
    """What a script comes to. Raises UpstreamError where it says `fail`, ValueError where it is no script."""
    verb, colon, rest = script.partition(":")
    match verb, bool(colon):
        case "echo", False:
            return Play(_last_user_text(request))
        case "say", _:
            return Play(rest if colon else _SENTENCE)
        case "think", True:
            return Play(_SENTENCE, thinking=rest)
        case "tokens", True:
            count, paced, rate = rest.partition("@")
            return Play(_words(int(count)), rate=_positive(rate) if paced else math.inf)
        case "tool", False:
            return _tools(request)
        case "fail", True:
            kind, _, delay = rest.partition(":")
            after = _positive(delay) if delay else None
            raise UpstreamError(Failure(kind=FailureClass(kind), message="the script says so", retry_after=after))
        case ("cut", True) | ("stall", _):
            chunks = int(rest) if colon else 0
            return Play(_words(chunks), chunks=chunks, stalls=verb == "stall")
        case _:
            raise ValueError(script)


def _tools(request: Request) -> Play:
    if request.messages and request.messages[-1].role == "tool":
        return Play(_text(request.messages[-1]))
    if not request.tools:
        return Play(_SENTENCE)
    arguments = msgspec.json.encode({"query": _last_user_text(request)}).decode()
    return Play(tool=Function(request.tools[0].function.name, arguments))


def limited(request: Request, play: Play, limit: int | None) -> tuple[Play, Usage, str]:
    """The play cut to the limit (None: the request's own), what it costs, and its finish reason."""
    most = limit or request.max_completion_tokens or request.max_tokens or math.inf
    thought, spoken = len(play.thinking.split()), len(play.text.split())
    finish = "stop"
    if play.tool:
        finish, spoken = "tool_calls", len(play.tool.arguments.split())
    elif play.chunks is None and thought + spoken > most:
        finish, thought = "length", min(thought, int(most))
        spoken = min(spoken, int(most) - thought)
        play = Play("".join(tokens(play.text)[:spoken]), "".join(tokens(play.thinking)[:thought]), rate=play.rate)
    asked = sum([len(_text(message).split()) for message in request.messages])
    return play, Usage(input_tokens=asked, output_tokens=thought + spoken, reasoning_tokens=thought), finish


def _last_user_text(request: Request) -> str:
    return next((_text(message) for message in reversed(request.messages) if message.role == "user"), "")


def _text(message: _Message) -> str:
    if isinstance(message.content, str):
        return message.content
    return " ".join([part.text for part in message.content or () if part.text])


def tokens(text: str) -> list[str]:
    """The tokens of a text; joined they are the text again."""
    return _TOKEN.findall(text) or ([text] if text else [])


@lru_cache(maxsize=32)
def _words(count: int) -> str:
    if not 0 <= count <= _MOST_TOKENS:
        raise ValueError(count)
    return " ".join([f"w{number}" for number in range(1, count + 1)])


def _positive(text: str) -> float:
    number = float(text)
    if not 0 < number < math.inf:
        raise ValueError(text)
    return number
