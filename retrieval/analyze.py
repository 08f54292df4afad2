"""Text to index terms: lower-cased words; identifiers such as `ERR-4012` or `10-K` count whole and in parts."""

import re
import unicodedata

_WORD = re.compile(r"[^\W_]+(?:[-./_'’][^\W_]+)*")
_PART = re.compile(r"[^\W_]+")


def terms(text: str) -> list[str]:
    """The terms of a text, in order, with repeats."""
    found: list[str] = []
    for word in _WORD.findall(unicodedata.normalize("NFKC", text).lower()):
        parts = _PART.findall(word)
        found.extend([word, *parts] if len(parts) > 1 else parts)
    return found
