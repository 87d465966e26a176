"""What a request looks like, in a few names that routing can go by: its length, kind and language. Pure, and light.

Hints are guesses from the newest words of the user. Each is one of a fixed set of names: nothing of a prompt is ever in
one, so they can be recorded. The JSON is passed over once by its parser; of the text itself at most LOOKED_AT
characters are looked at, half of them from its beginning and half from its end, however long it is.

    short long very-long     all messages, in bytes: up to 1,000; from 16,000; from 160,000 (about 40,000 tokens)
    code math creative translation summary extraction          what it is about, or asks for
    question:how … question:why                                the question it begins or ends with
    quick-question           a short question that asks for no reasoning
    images tools json multi-turn                               what comes with it
    lang:de lang:en … lang:other                               by script, else by the commonest words
"""

import re
from collections.abc import Collection, Iterable, Sequence
from typing import Any

import msgspec
from msgspec import Struct
from trunkline_events.policy import Policy
from trunkline_events.thread import Operation

from trunkline_actors.bounds import count_images

LOOKED_AT = 2_000
"""Characters of a text that are looked at."""
DECODED = 64 * 1024
"""Bytes of JSON text up to which it is decoded as a whole; of a longer one only its two ends are."""
MESSAGES = 256
"""Messages whose length is added up, the newest ones."""
PARTS = 64
"""Parts of a message that are looked at."""
SHORT, LONG, VERY_LONG = 1_000, 16_000, 160_000

HINTS: dict[str, list[str]] = {
    "code": ["reasoning", "precision"],
    "math": ["reasoning", "precision"],
    "question:why": ["reasoning"],
    "creative": ["creativity"],
    "extraction": ["precision"],
    "translation": ["precision"],
    "very-long": ["context"],
    "quick-question": ["speed"],
}
"""Which capabilities a hint asks for. A policy's own `hints` come before these, name by name."""


class _Message(Struct):
    role: str = ""
    content: msgspec.Raw = msgspec.Raw(b"null")


class _Format(Struct):
    type: str = "text"


class _Chat(Struct):
    messages: list[_Message]
    tools: list[msgspec.Raw] | None = None
    response_format: _Format | None = None


class _Embeddings(Struct):
    input: msgspec.Raw


class _Part(Struct):
    text: msgspec.Raw = msgspec.Raw(b"null")


_chat = msgspec.json.Decoder(_Chat)
_embeddings = msgspec.json.Decoder(_Embeddings)
_parts = msgspec.json.Decoder(list[_Part])
_text = msgspec.json.Decoder(str)
_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


def wanted(hints: Iterable[str], policy: Policy) -> list[str]:
    """The capabilities that these hints ask for under a policy, each once, in the order of the hints."""
    found = (name for hint in hints for name in policy.hints.get(hint, HINTS.get(hint, ())))
    return list(dict.fromkeys(found))


def analyze(body: bytes, operation: Operation) -> list[str]:
    """The hints of a request, in the order above; none for a body that can't be read. Never raises."""
    try:
        return _of_chat(body) if operation == "chat" else _of_embeddings(body)
    except _UNREADABLE:
        return []


def _of_embeddings(body: bytes) -> list[str]:
    given = bytes(_embeddings.decode(body).input)
    text = _excerpt(given)
    return [*_length(len(given)), *language(text, _WORD.findall(text.lower()))]


def _of_chat(body: bytes) -> list[str]:
    chat = _chat.decode(body)
    images = count_images(body) > 0
    size = sum(_size(bytes(message.content), images=images) for message in chat.messages[-MESSAGES:])
    text = _words_of(chat.messages[-MESSAGES:]).lower()
    words = _WORD.findall(text)
    about, asked = kinds(text, words), question(text)
    hints = [*_length(size), *about, *asked]
    if size <= SHORT and asked and not about and asked[0] not in _THOUGHTFUL:
        hints.append("quick-question")
    if images:
        hints.append("images")
    if chat.tools:
        hints.append("tools")
    if chat.response_format is not None and chat.response_format.type in ("json_object", "json_schema"):
        hints.append("json")
    if any(message.role == "assistant" for message in chat.messages[-MESSAGES:]):
        hints.append("multi-turn")
    return [*hints, *language(text, words)]


# -- the text ----------------------------------------------------------------------------------------------------------


def _words_of(messages: Sequence[_Message]) -> str:
    """Both ends of what the user said last, as one text."""
    said = next((message.content for message in reversed(messages) if message.role == "user"), None)
    if said is None:
        return ""
    content = bytes(said)
    if not content.startswith(b"["):
        return _excerpt(content)
    found: list[str] = []
    for part in _parts.decode(content)[:PARTS]:
        found.append(_excerpt(bytes(part.text)))
        if sum(map(len, found)) >= LOOKED_AT:
            break
    return _ends("\n".join(filter(None, found)))


def _excerpt(text: bytes) -> str:
    """Both ends of a text in JSON; nothing for anything but a text."""
    if not text.startswith(b'"'):
        return ""
    if len(text) <= DECODED:
        return _ends(_text.decode(text))
    half = LOOKED_AT // 2
    return f"{_piece(text[1 : 1 + half], at_end=False)}\n{_piece(text[-1 - half : -1], at_end=True)}"


def _ends(text: str) -> str:
    half = LOOKED_AT // 2
    return text if len(text) <= LOOKED_AT else f"{text[:half]}\n{text[-half:]}"


def _piece(cut: bytes, *, at_end: bool) -> str:
    """A piece of a text in JSON, which may have been cut within an escape or a character: those go at a space."""
    whole = cut.partition(b" ")[2] if at_end else cut.rpartition(b" ")[0]
    try:
        return str(_text.decode(b'"' + (whole or cut) + b'"'))
    except _UNREADABLE:
        return cut.decode("utf-8", "ignore")


def _size(content: bytes, *, images: bool) -> int:
    """How much text there is, in bytes; of parts that may be images only how many there are is known."""
    return 0 if images and content.startswith(b"[") else len(content)


def _length(size: int) -> list[str]:
    if size >= VERY_LONG:
        return ["very-long"]
    if size >= LONG:
        return ["long"]
    return ["short"] if size <= SHORT else []


# -- what it is about --------------------------------------------------------------------------------------------------

_TOPICS = {
    "code": (
        "python javascript typescript java rust golang sql regex bash compiler compile refactor stacktrace traceback"
        " algorithm docker kubernetes postgres json yaml html css api unittest pytest"
    ),
    "math": (
        "solve integral derivative equation equations theorem calculate algebra probability matrix berechne gleichung"
        " calcule calcula"
    ),
    "creative": (
        "poem haiku limerick sonnet story tale lyrics slogan slogans brainstorm gedicht märchen geschichte poème poema"
        " cuento"
    ),
    "translation": (
        "translate translation übersetze übersetzen übersetzung traduis traduire traduction traduce traducir traduci"
        " traduza vertaal"
    ),
    "summary": (
        "summarize summarise summary tldr zusammenfassen zusammenfassung résume résumer résumé resume resumir riassumi"
    ),
    "extraction": "extract extraction extrahiere extrahieren extrais extraire extrae extraer",
}
_ABOUT: dict[str, frozenset[str]] = {name: frozenset(words.split()) for name, words in _TOPICS.items()}
_SIGNS: dict[str, tuple[str, ...]] = {
    "code": ("```", "#include", "console.log", "def ", "();", "):\n", "=> {", "</", "import "),
    "math": ("\\frac", "\\int", "\\sum", "\\sqrt", "prove that"),
    "translation": ("翻译", "翻訳"),
    "summary": ("tl;dr",),
    "extraction": ("list all ", "list every ", "pull out "),
}
_FORMULA = re.compile(r"\d ?[*/^=+] ?\(?\d")
_QUESTION_WORDS = {
    "how": "how wie comment cómo",
    "why": "why warum pourquoi",
    "what": "what was qué",
    "who": "who wer qui quién",
    "when": "when wann quand cuándo",
    "where": "where wo où dónde",
    "which": "which welche welcher welches quel quelle cuál",
}
_QUESTIONS = {word: kind for kind, words in _QUESTION_WORDS.items() for word in words.split()}
_THOUGHTFUL = frozenset({"question:why", "question:how"})
_STARTS = (". ", "! ", "? ", ": ", "\n", "¿")


def kinds(lowered: str, words: Collection[str]) -> list[str]:
    """What a text is about, or asks for; several at once where it says so. `words` are those of the text."""
    found = []
    for name, about in _ABOUT.items():
        signs = _SIGNS.get(name, ())
        formula = name == "math" and _FORMULA.search(lowered)
        if formula or not about.isdisjoint(words) or any(sign in lowered for sign in signs):
            found.append(name)
    return found


def question(lowered: str) -> list[str]:
    """The kind of question that a text begins with, or that is the last one in it."""
    before, mark, _ = lowered.rpartition("?")
    places = [0]
    if mark:
        places.append(max(before.rfind(start) + len(start) for start in _STARTS))
    for place in places:
        first = _WORD.search(lowered, place, place + 16)
        if first is not None and first[0] in _QUESTIONS:
            return [f"question:{_QUESTIONS[first[0]]}"]
    return []


# -- its language ------------------------------------------------------------------------------------------------------

_SCRIPTS = (  # kana before Han: Japanese is written in both
    ("ja", re.compile("[\u3040-\u30ff]")),
    ("zh", re.compile("[\u4e00-\u9fff]")),
    ("ko", re.compile("[\uac00-\ud7af]")),
    ("ru", re.compile("[\u0400-\u04ff]")),
    ("ar", re.compile("[\u0600-\u06ff]")),
    ("he", re.compile("[\u0590-\u05ff]")),
    ("el", re.compile("[\u0370-\u03ff]")),
    ("hi", re.compile("[\u0900-\u097f]")),
    ("th", re.compile("[\u0e00-\u0e7f]")),
)
_COMMON = {
    "en": "the of and to in is that it for you with on are this what how can not be your from write please",
    "de": "der die das und ist nicht ich ein eine zu mit von auf den wie für es im bitte dem kannst über mir",
    "fr": "le la les et est pas je un une de des du que pour dans avec vous sur ce ne au comment",
    "es": "el los las y es no un una de que por para con en se del cómo lo mi como qué",
    "it": "gli e è non un una di che per con in del come sono mi della lo questo cosa",
    "pt": "o os as e é não um uma de que por para com em do da como se no na você",
    "nl": "de het een en is niet ik van te met op voor dat hoe zijn wat je aan er naar",
}
_LANGUAGES: dict[str, frozenset[str]] = {name: frozenset(words.split()) for name, words in _COMMON.items()}
_WORD = re.compile(r"[^\W\d_]+")
_WORDS, _SCRIPT_SAMPLE = 100, 400
_SHARE = 0.3
"""Of the letters of a sample, how many must be of a script for the text to be in it."""


def language(text: str, words: Sequence[str]) -> list[str]:
    """`lang:…` of a text with letters: by script, else by which language's commonest words it has most of."""
    sample = text[:_SCRIPT_SAMPLE]
    if not sample.isascii():
        letters = sum(map(str.isalpha, sample)) or 1
        for name, script in _SCRIPTS:
            if len(script.findall(sample)) >= _SHARE * letters:
                return [f"lang:{name}"]
    if not words:
        return []
    first = words[:_WORDS]
    found = {name: sum(map(common.__contains__, first)) for name, common in _LANGUAGES.items()}
    best = max(found, key=found.__getitem__)
    return [f"lang:{best if found[best] else 'other'}"]


def names(given: Any) -> list[str]:
    """Hints as an analyzer of somebody else's gave them, where they are what hints are. Raises ValueError.

    At most 32 names of at most 64 letters, digits and `:._-`, so that no text of a prompt gets into the log by them.
    """
    if not isinstance(given, list) or len(given) > _MOST_HINTS:
        raise ValueError(f"an analyzer gives a list of at most {_MOST_HINTS} names")
    for hint in given:
        if not isinstance(hint, str) or not _HINT.fullmatch(hint):
            raise ValueError("a hint is a name of 1 to 64 letters, digits and any of : . _ -")
    return list(dict.fromkeys(given))


_MOST_HINTS = 32
_HINT = re.compile(r"[A-Za-z0-9:._-]{1,64}")
