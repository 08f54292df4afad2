"""Bytes to text when nobody says for sure which encoding they are in."""

import codecs
import re
from dataclasses import dataclass

from charset_normalizer import from_bytes

_BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_GUESS_BYTES = 64 * 1024  # charset_normalizer is quadratic in the candidates; a sample decides as well
_GUESS_LEAST = 16  # bytes beyond ASCII; from fewer, a guess finds Chinese in "Frösche"
_SAMPLE = 4096
_SHIFTED = ("iso-2022", "utf-7", "unicode-1-1-utf-7", "hz")  # made of ASCII bytes: only the declaration tells them
_CONTROLS = re.compile(rb"[\x00-\x06\x0e-\x1a\x1c-\x1f]")


@dataclass(frozen=True, slots=True)
class Decoded:
    """Text with the encoding it was read in, and whether that was a guess."""

    text: str
    encoding: str
    guessed: bool

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a reader of the text should know about its decoding."""
        return (f"the encoding is not stated; read as {self.encoding}",) if self.guessed else ()


def looks_like_text(content: bytes) -> bool:
    """Whether the first kilobytes are text in some encoding; compressed and executable bytes are not."""
    if marked_encoding(content) or wide_encoding(content):
        return True
    sample = content[:_SAMPLE]
    return b"\x00" not in sample and len(_CONTROLS.findall(sample)) * 100 <= len(sample)


def marked_encoding(content: bytes) -> str | None:
    """The encoding that a byte order mark states."""
    return next((name for mark, name in _BOMS if content.startswith(mark)), None)


def wide_encoding(content: bytes) -> str | None:
    """UTF-16 without a mark: in Western text every second byte is zero, and no pair is."""
    sample = content[: _SAMPLE - _SAMPLE % 2]
    even, odd = sample[0::2].count(0), sample[1::2].count(0)
    half = len(sample) // 2
    if half < 4 or min(even, odd) * 20 > half:
        return None
    if odd * 10 >= half * 4:
        return "utf-16-le"
    return "utf-16-be" if even * 10 >= half * 4 else None


def decode(content: bytes, declared: str | None = None) -> Decoded:
    """The text of bytes: by its mark, as UTF-8, as declared, or by a guess; never fails, and says when it guessed."""
    shifted = declared if declared and declared.lower().startswith(_SHIFTED) else None
    for encoding in (marked_encoding(content), shifted, wide_encoding(content), "utf-8", declared):
        text = _strictly(content, encoding)
        if text is not None and encoding is not None:
            return Decoded(text, encoding, guessed=False)
    beyond_ascii = sum(byte > 127 for byte in content[:_GUESS_BYTES])
    guess = from_bytes(content[:_GUESS_BYTES]).best() if beyond_ascii >= _GUESS_LEAST else None
    encoding = guess.encoding if guess else "cp1252"
    text = _strictly(content, encoding)
    if text is None:  # the sample decoded, a later byte does not
        text, encoding = content.decode("cp1252", errors="replace"), "cp1252"
    return Decoded(text, encoding, guessed=True)


def _strictly(content: bytes, encoding: str | None) -> str | None:
    try:
        return content.decode(encoding) if encoding else None
    except (UnicodeDecodeError, LookupError, ValueError):
        return None
