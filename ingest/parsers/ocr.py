"""Pictures of text, read by tesseract's library within this process: no program could be started behind the walls."""

import ctypes
import re
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

from core.errors import OcrUnavailable
from ingest.confine import ParseLimits
from ingest.parsers.canonical import Piece, one_line

LIBRARIES = ("libtesseract.so.5", "libtesseract.so.4", "libtesseract.so")
DPI = 300  # tesseract's own advice
LEAST_DPI = 100  # below it print is too small to read
SURE = 60.0  # per cent; below it a word is flagged: of 40 pages 63 % of the wrong words, 1.1 % of the right ones
_LANGUAGES = re.compile(r"[A-Za-z0-9_]+(?:\+[A-Za-z0-9_]+)*")
_GREY = 1  # byte a point
_WORD_LEVEL = "5"  # of a line in tesseract's table: 1 is a page, 2 a block, 3 a paragraph, 4 a line
_COLUMNS = 12
_INSTALL = "install tesseract-ocr and tesseract-ocr-<language> where the workers run, or set CITADEL_OCR=off"


@dataclass(frozen=True, slots=True)
class Picture:
    """A page in grey, one byte a point, from its upper left corner."""

    width: int
    height: int
    stride: int  # bytes from a row to the next
    points: bytes
    dpi: int


Paint = Callable[[], Picture]  # when it is its turn: pages are large


@dataclass(frozen=True, slots=True)
class Scans:
    """What was read on pictures, by page, and what is to be said about it."""

    pieces: tuple[Piece, ...]
    warnings: tuple[str, ...]


def read_pictures(pictures: Sequence[tuple[int, Paint | None]], limits: ParseLimits) -> Scans:
    """The text on pages without any, by their numbers; None stands for one that is larger than is allowed.

    Every page has its own time, and all have together: what is not read within it is named in a warning. Raises
    OcrUnavailable when tesseract is not installed, or lacks a language.
    """
    large = [number for number, paint in pictures if paint is None]
    pieces: list[Piece] = []
    slow: list[int] = []
    until = time.monotonic() + limits.ocr_seconds
    with _Tesseract(limits.ocr_languages) as tesseract:
        for number, paint in pictures:
            left = min(limits.ocr_page_seconds, until - time.monotonic())
            table = tesseract.read(paint(), left) if paint and left > 0 else None
            if table is not None:
                pieces += _pieces(table, number)
            elif paint:
                slow.append(number)
    read = sorted({piece.page for piece in pieces if piece.page})
    said = (
        (read, "read by OCR, which makes mistakes"),
        (slow, f"not read by OCR within {limits.ocr_page_seconds:g} s a page and {limits.ocr_seconds:g} s for all"),
        (large, f"not read by OCR: of more than {limits.ocr_pixels} points (CITADEL_OCR_PIXELS)"),
    )
    return Scans(tuple(pieces), tuple(f"{pages_of(numbers)} {what}" for numbers, what in said if numbers))


def pages_of(numbers: Sequence[int]) -> str:
    """1, 2, 3, 7 as "pages 1-3, 7"."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    told = ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)
    return f"{'page' if len(numbers) == 1 else 'pages'} {told}"


class _Tesseract:
    """The library, opened with its languages; see its capi.h."""

    def __init__(self, languages: str) -> None:
        self._library = _library()
        if not _LANGUAGES.fullmatch(languages):
            raise OcrUnavailable(f"CITADEL_OCR_LANGUAGES is {languages!r}; write it as eng or eng+deu")
        self._api = self._library.TessBaseAPICreate()
        failed = self._library.TessBaseAPIInit3(self._api, None, languages.encode())
        missing = set(languages.split("+")) - (set() if failed else self._loaded())
        if missing:
            self._library.TessBaseAPIDelete(self._api)
            raise OcrUnavailable(f"tesseract lacks the language {' and '.join(sorted(missing))}: {_INSTALL}")

    def __enter__(self) -> "_Tesseract":
        return self

    def __exit__(self, *_: object) -> None:
        self._library.TessBaseAPIEnd(self._api)
        self._library.TessBaseAPIDelete(self._api)

    def read(self, picture: Picture, seconds: float) -> str | None:
        """The table of what stands on it, in tesseract's TSV; None when it takes longer."""
        monitor = self._library.TessMonitorCreate()
        try:
            self._library.TessBaseAPISetImage(
                self._api, picture.points, picture.width, picture.height, _GREY, picture.stride
            )
            self._library.TessBaseAPISetSourceResolution(self._api, picture.dpi)
            until = time.monotonic() + seconds
            self._library.TessMonitorSetDeadlineMSecs(monitor, max(1, int(seconds * 1000)))
            failed = self._library.TessBaseAPIRecognize(self._api, monitor)
            if failed or time.monotonic() > until:
                return None
            return self._table()
        finally:
            self._library.TessBaseAPIClear(self._api)
            self._library.TessMonitorDelete(monitor)

    def _loaded(self) -> set[str]:
        """The languages that were found: those beside the first may be missing without an error."""
        names = self._library.TessBaseAPIGetLoadedLanguagesAsVector(self._api)
        found = set(map(bytes.decode, takewhile(bool, names)))
        self._library.TessDeleteTextArray(names)
        return found

    def _table(self) -> str:
        address = self._library.TessBaseAPIGetTsvText(self._api, 0)
        try:
            return ctypes.string_at(address).decode("utf-8", "replace")
        finally:
            self._library.TessDeleteText(address)


def _library() -> Any:
    """The C library with the types of what is called of it. Raises OcrUnavailable."""
    for name in LIBRARIES:
        try:
            library = ctypes.CDLL(name)
        except OSError:
            continue
        pointer, number, texts = ctypes.c_void_p, ctypes.c_int, ctypes.POINTER(ctypes.c_char_p)
        for function, result, arguments in (
            ("TessBaseAPICreate", pointer, ()),
            ("TessBaseAPIInit3", number, (pointer, ctypes.c_char_p, ctypes.c_char_p)),
            ("TessBaseAPISetImage", None, (pointer, ctypes.c_char_p, number, number, number, number)),
            ("TessBaseAPISetSourceResolution", None, (pointer, number)),
            ("TessBaseAPIRecognize", number, (pointer, pointer)),
            ("TessBaseAPIGetTsvText", pointer, (pointer, number)),
            ("TessBaseAPIClear", None, (pointer,)),
            ("TessBaseAPIEnd", None, (pointer,)),
            ("TessBaseAPIDelete", None, (pointer,)),
            ("TessDeleteText", None, (pointer,)),
            ("TessDeleteTextArray", None, (texts,)),
            ("TessBaseAPIGetLoadedLanguagesAsVector", texts, (pointer,)),
            ("TessMonitorCreate", pointer, ()),
            ("TessMonitorDelete", None, (pointer,)),
            ("TessMonitorSetDeadlineMSecs", None, (pointer, number)),
        ):
            declared = getattr(library, function)
            declared.restype, declared.argtypes = result, arguments
        return library
    raise OcrUnavailable(f"tesseract is not installed: {_INSTALL}")


def _pieces(table: str, page: int) -> Iterator[Piece]:
    """A paragraph for each of tesseract's, in its reading order; words of low confidence are marked as doubtful."""
    paragraphs: dict[tuple[str, str], dict[str, list[tuple[str, bool]]]] = defaultdict(lambda: defaultdict(list))
    for row in table.splitlines():
        fields = row.split("\t")
        if len(fields) < _COLUMNS or fields[0] != _WORD_LEVEL:
            continue
        word = one_line(fields[11])
        if word:
            paragraphs[fields[2], fields[3]][fields[4]].append((word, float(fields[10]) < SURE))
    for lines in paragraphs.values():
        written, doubtful = "", []
        for words in lines.values():
            for place, (word, doubt) in enumerate(words):
                written += (" " if place else "\n") if written else ""
                if doubt:
                    doubtful.append((len(written), len(written) + len(word)))
                written += word
        yield Piece("paragraph", written, page=page, doubtful=tuple(doubtful))
