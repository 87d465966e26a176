"""Thinking that a model wrote into its text, between `<think>` and `</think>`, taken out as pieces arrive. Pure."""

_OPEN, _CLOSE = "<think>", "</think>"


class ThinkSplitter:
    """Text in as it arrives, in any pieces; (thinking, text) out, each as soon as it is certain which of the two it is.

    Only what an answer begins with is thinking: a tag further on is something that the answer is about. White space
    around the block is dropped; without one, every character comes through.
    """

    def __init__(self) -> None:
        self._held = ""
        self._state = "start"

    def feed(self, piece: str) -> tuple[str, str]:
        """What is certain with this piece."""
        if self._state == "text":
            return "", piece
        self._held += piece
        thinking = ""
        if self._state == "start":
            begun = self._held.lstrip()
            if begun.startswith(_OPEN):
                self._state, self._held = "thinking", begun[len(_OPEN) :]
            elif _OPEN.startswith(begun):
                return "", ""
            else:
                self._state = "text"
                return "", self._all()
        if self._state == "thinking":
            thinking, closed, rest = self._held.partition(_CLOSE)
            if not closed:
                kept = _begun(thinking)
                thinking, self._held = thinking[: len(thinking) - kept], thinking[len(thinking) - kept :]
                return thinking, ""
            self._state, self._held = "after", rest
        text = self._held.lstrip()
        if text:
            self._state = "text"
        self._held = ""
        return thinking, text

    def finish(self) -> tuple[str, str]:
        """What was held back, now that nothing follows. Thinking that was never closed is thinking."""
        held = self._all()
        return (held, "") if self._state == "thinking" else ("", held)

    def _all(self) -> str:
        held, self._held = self._held, ""
        return held


def _begun(text: str) -> int:
    """How many characters at the end may be the beginning of the closing tag."""
    for size in range(min(len(text), len(_CLOSE) - 1), 0, -1):
        if _CLOSE.startswith(text[-size:]):
            return size
    return 0
