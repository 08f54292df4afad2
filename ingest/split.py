"""Splitting a span of text that is too long for a chunk, at the best places that it has."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from core.records import ElementKind
from ingest.outline import trim


class Tokenizer(Protocol):
    """What chunking asks of an embedder."""

    @property
    def max_tokens(self) -> int: ...

    def count_tokens(self, texts: Sequence[str]) -> list[int]: ...

    def token_offsets(self, text: str) -> list[tuple[int, int]]: ...


@dataclass(frozen=True, slots=True)
class Limit:
    """How much a span may hold."""

    tokens: int
    chars: int  # code points: a tokenizer may take any unknown word, however long, for one token


@dataclass(frozen=True, slots=True)
class Segment:
    """A span without white space at its ends, and its tokens, or an estimate above any limit."""

    start: int
    end: int
    tokens: int

    def fits(self, limit: Limit) -> bool:
        """Whether it stays within the limit."""
        return self.tokens <= limit.tokens and self.end - self.start <= limit.chars


@dataclass(frozen=True, slots=True)
class Source:
    """A text and the tokenizer that measures it."""

    text: str
    tokenizer: Tokenizer


Span = tuple[int, int]
_BLANK_LINE = re.compile(r"\n[^\S\n]*\n")
_LINE = re.compile(r"\n")
_WORD = re.compile(r"\S")
# A mark that ends a sentence, with closing quotes and brackets, before white space; the CJK marks need none.
_SENTENCE = re.compile(r"(?:[.!?\u2026]+[\"'\u201d\u2019)\]]*(?=\s))|(?:[\u3002\uff01\uff1f]+[\u300d\u300f\uff09]*)")
_PROSE = (_BLANK_LINE, _SENTENCE, _LINE)
_ROWS = (_LINE, _SENTENCE)
_CUTS: dict[ElementKind, tuple[re.Pattern[str], ...]] = {
    "heading": _PROSE,
    "paragraph": _PROSE,
    "list_item": _ROWS,
    "table": _ROWS,
    "code": (_BLANK_LINE, _LINE),
}


def measure(source: Source, spans: Sequence[Span], limit: Limit) -> list[Segment]:
    """The spans with their tokens; one with too many characters is not read: it does not fit however few it has."""
    short = [span for span in spans if span[1] - span[0] <= limit.chars]
    counts = iter(source.tokenizer.count_tokens([source.text[start:end] for start, end in short]))
    return [
        Segment(start, end, next(counts) if end - start <= limit.chars else limit.tokens + end - start)
        for start, end in spans
    ]


def split_span(source: Source, span: Span, kind: ElementKind, limit: Limit) -> list[Segment]:
    """The span as segments within the limit: rows, lines or sentences whole where they fit, else words, else pieces.

    Together they hold every character of it that is not white space, once.
    """
    return _split(source, span, _CUTS[kind], limit)


def pack(segments: Sequence[Segment], limit: Limit, aim: int) -> list[list[Segment]]:
    """Neighbours together: a group closes before it breaks the limit, and once it holds `aim` tokens."""
    groups: list[list[Segment]] = []
    tokens = 0
    for segment in segments:
        whole = replace(segment, start=groups[-1][0].start, tokens=tokens + segment.tokens) if groups else segment
        if groups and tokens < aim and whole.fits(limit):
            groups[-1].append(segment)
            tokens = whole.tokens
        else:
            groups.append([segment])
            tokens = segment.tokens
    return groups


def settle(source: Source, groups: Sequence[Sequence[Segment]], limit: Limit, slack: int = 0) -> list[Segment]:
    """Each group as one segment, measured anew, for tokens do not quite add up; a group over the limit is repacked."""
    spans = [(group[0].start, group[-1].end) for group in groups]
    settled: list[Segment] = []
    for group, whole in zip(groups, measure(source, spans, limit), strict=True):
        if whole.fits(limit) or len(group) == 1:
            settled.append(whole)
        else:
            missed = slack + max(1, whole.tokens - limit.tokens)
            tighter = replace(limit, tokens=limit.tokens - missed)
            settled += settle(source, pack(group, tighter, tighter.tokens), limit, missed)
    return settled


def fitting_end(source: Source, span: Span, limit: Limit) -> int:
    """The largest end, within one window, at which the span's beginning fits; after a whole word where one fits."""
    start = span[0]
    for window in (limit.chars // 4, limit.chars):  # prose ends in the first: 5 characters a token of 20
        end = min(span[1], start + window)
        offsets = source.tokenizer.token_offsets(source.text[start:end])
        if len(offsets) > limit.tokens:
            end = start + max(1, offsets[limit.tokens][0])
            break
    end = _whole_words(source.text, start, end, span[1])
    while end - start > 1 and source.tokenizer.count_tokens([source.text[start:end]])[0] > limit.tokens:
        end = start + (end - start) * 7 // 8  # half a word may take more tokens than its share of the whole
    return end


def _split(source: Source, span: Span, cuts: Sequence[re.Pattern[str]], limit: Limit) -> list[Segment]:
    (whole,) = measure(source, [span], limit)
    if whole.fits(limit):
        return [whole]
    if not cuts:
        return _split_words(source, span, limit)
    segments: list[Segment] = []
    for part in measure(source, _cut(source.text, span, cuts[0]), limit):
        segments += [part] if part.fits(limit) else _split(source, (part.start, part.end), cuts[1:], limit)
    return settle(source, pack(segments, limit, _even(segments, limit)), limit)


def _split_words(source: Source, span: Span, limit: Limit) -> list[Segment]:
    spans: list[Span] = []
    rest = _WORD.search(source.text, *span)
    while rest:
        end = fitting_end(source, (rest.start(), span[1]), limit)
        piece = trim(source.text, rest.start(), end)
        spans += [piece] if piece else []
        rest = _WORD.search(source.text, end, span[1])
    return measure(source, spans, limit)


def _cut(text: str, span: Span, mark: re.Pattern[str]) -> list[Span]:
    """The trimmed spans between the ends of the marks."""
    edges = [span[0], *(found.end() for found in mark.finditer(text, *span)), span[1]]
    pieces = (trim(text, start, end) for start, end in zip(edges, edges[1:], strict=False))
    return [piece for piece in pieces if piece]


def _even(segments: Sequence[Segment], limit: Limit) -> int:
    """The tokens at which a group may close so that all come out about as long, not the last a scrap."""
    total = sum(segment.tokens for segment in segments)
    return -(-total // max(1, -(-total // limit.tokens)))


def _whole_words(text: str, start: int, end: int, limit: int) -> int:
    """`end`, moved back behind the last white space when it stands inside a word; not when that gives up half of it."""
    if end >= limit or text[end].isspace() or text[end - 1].isspace():
        return end
    words = text[start:end]
    space = len(words) - len(words.rsplit(maxsplit=1)[-1])
    return start + space if space * 2 > len(words) else end
