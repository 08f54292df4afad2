"""Chunking: whole elements packed along headings to a token budget, each chunk exactly a span of the canonical text."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from core.errors import Misconfigured
from core.records import Chunk, ParsedDocument
from core.rows import row_range
from ingest.chunk_llama import node_segments
from ingest.flags import flagged
from ingest.outline import Part, Place, SheetRows, locate, outline, shared_headings
from ingest.split import Limit, Segment, Source, Tokenizer, fitting_end, measure, settle, split_span

STRUCTURE = "structure"

# Code points that one token may stand for: English prose has 4 to 5, but a tokenizer takes an unknown word of any
# length, or a run of spaces, for one or none.
CHARS_A_TOKEN = 20


@dataclass(frozen=True, slots=True)
class ChunkBudget:
    """How long a chunk may be, in the profile's tokens. The defaults and 2 special tokens stay within MiniLM's 256."""

    chunk_tokens: int = 200  # of the span
    prefix_tokens: int = 48  # of title, headings and table header, which are embedded in front of it
    special_tokens: int = 2  # what the model puts around both
    chunk_chars: int | None = None  # of the span, in code points; None: as many as its tokens take

    def __post_init__(self) -> None:
        if self.chunk_tokens < 16 or self.prefix_tokens < 0:
            raise Misconfigured(
                f"a chunk of {self.chunk_tokens} tokens is too short to say anything: allow at least 16"
            )

    @property
    def limit(self) -> Limit:
        """What a span may hold."""
        return Limit(self.chunk_tokens, self.chunk_chars or self.chunk_tokens * CHARS_A_TOKEN)

    @property
    def small(self) -> int:
        """Tokens below which a section is too short to stand alone beside one that has room for it."""
        return self.chunk_tokens // 4


def chunk(
    parsed: ParsedDocument, title: str | None, chunker: str, budget: ChunkBudget, tokenizer: Tokenizer
) -> tuple[Chunk, ...]:
    """The document's chunks by the profile's chunker: `structure`, or the name of a LlamaIndex node parser.

    Raises Misconfigured when chunk and prefix together are longer than the model's window, or for an unknown chunker.
    """
    whole = budget.chunk_tokens + budget.prefix_tokens + budget.special_tokens
    if whole > tokenizer.max_tokens:
        fitting = tokenizer.max_tokens - budget.prefix_tokens - budget.special_tokens
        raise Misconfigured(
            f"a chunk with its prefix has up to {whole} tokens, the model reads {tokenizer.max_tokens}: "
            f"set CITADEL_CHUNK_TOKENS to {fitting} or less"
        )
    if chunker == STRUCTURE:
        return flagged(chunk_document(parsed, title, budget, tokenizer), parsed.flags)
    source = Source(parsed.text, tokenizer)
    chunks = _chunks(source, outline(parsed), node_segments(source, chunker, budget.limit), title, budget)
    return flagged(chunks, parsed.flags)


def embedded_text(text: str, piece: Chunk) -> str:
    """What of a chunk of this canonical text is embedded: its prefix, and its span."""
    return f"{piece.embed_prefix}\n{text[piece.start : piece.end]}".lstrip()


def chunk_document(
    parsed: ParsedDocument, title: str | None, budget: ChunkBudget, tokenizer: Tokenizer
) -> tuple[Chunk, ...]:
    """Chunks in order, without overlap, holding every character that is not white space; none is over the budget.

    A heading opens a chunk; sections too small to stand alone go with their neighbours under the same heading. An
    element over the budget is split at rows, lines or sentences, then words, then anywhere.
    """
    parts = outline(parsed)
    source = Source(parsed.text, tokenizer)
    groups = list(_packed(source, parts, budget))
    return _chunks(source, parts, settle(source, groups, budget.limit), title, budget)


def _chunks(
    source: Source, parts: Sequence[Part], spans: Sequence[Segment], title: str | None, budget: ChunkBudget
) -> tuple[Chunk, ...]:
    """The spans as chunks, numbered, with the pages, headings and prefix that follow from the parts below them."""
    rows = SheetRows(source.text, parts)
    return tuple(
        _chunk(source, parts, ordinal, span, title, budget, rows.within(span.start, span.end))
        for ordinal, span in enumerate(spans)
    )


def _chunk(
    source: Source, parts: Sequence[Part], ordinal: int, span: Segment, title: str | None, budget: ChunkBudget,
    rows: tuple[int, int] | None,
) -> Chunk:  # fmt: skip
    place = locate(parts, span.start, span.end)
    where = () if rows is None else (row_range(*rows),)
    return Chunk(
        ordinal=ordinal,
        start=span.start,
        end=span.end,
        page_start=place.page_start,
        page_end=place.page_end,
        heading_path=(*(heading.title for heading in place.headings), *where),
        embed_prefix=_prefix(source, place, span, title, budget),
        tokens=span.tokens,
    )


def _prefix(source: Source, place: Place, span: Segment, title: str | None, budget: ChunkBudget) -> str:
    """Title > headings, then a table's header on a line of its own; nothing that already stands in the span."""
    text = source.text[span.start : span.end]
    names = [heading.title for heading in place.headings if not span.start <= heading.start < span.end]
    title = " ".join((title or "").split())
    if title and title not in [heading.title for heading in place.headings[:1]]:
        names.insert(0, title)
    lines = [" > ".join(names), *(context for context in place.contexts if context not in text)]
    prefix = "\n".join(line for line in lines if line)
    limit = Limit(budget.prefix_tokens, budget.prefix_tokens * CHARS_A_TOKEN)
    if not prefix or not limit.tokens:
        return ""
    return prefix[: fitting_end(Source(prefix, source.tokenizer), (0, len(prefix)), limit)].rstrip()


@dataclass(slots=True)
class _Group:
    """The chunk that is being filled."""

    segments: list[Segment] = field(default_factory=list)
    parts: list[Part] = field(default_factory=list)
    tokens: int = 0
    small_sections: bool = False  # it holds whole sections and nothing else, each of them small

    def add(self, segment: Segment, part: Part) -> None:
        self.segments.append(segment)
        self.parts.append(part)
        self.tokens += segment.tokens

    def takes(self, segment: Segment, limit: Limit) -> bool:
        start = self.segments[0].start if self.segments else segment.start
        return Segment(start, segment.end, self.tokens + segment.tokens).fits(limit)

    def only_headings(self) -> bool:
        return bool(self.parts) and all(part.kind == "heading" for part in self.parts)


def _packed(source: Source, parts: Sequence[Part], budget: ChunkBudget) -> Iterator[list[Segment]]:
    """Groups of segments that make a chunk each, by their measured tokens."""
    sized = list(zip(parts, measure(source, [(part.start, part.end) for part in parts], budget.limit), strict=True))
    group = _Group()
    for section in _sections(sized):
        if group.segments and not _joins(group, section, budget):
            yield group.segments
            group = _Group()
        small = sum(segment.tokens for _, segment in section) < budget.small
        group.small_sections = small and (group.small_sections or not group.segments)
        for part, segment in section:
            for piece in _pieces(source, group, part, segment, budget):
                if group.segments and not group.takes(piece, budget.limit):
                    yield group.segments
                    group = _Group()
                group.add(piece, part)
    if group.segments:
        yield group.segments


_Section = list[tuple[Part, Segment]]


def _sections(sized: Sequence[tuple[Part, Segment]]) -> list[_Section]:
    """A heading with what follows it up to the next heading of any level; first what stands before all headings."""
    sections: list[_Section] = []
    for part, segment in sized:
        if part.kind == "heading" or not sections:
            sections.append([])
        sections[-1].append((part, segment))
    return sections


def _joins(group: _Group, section: _Section, budget: ChunkBudget) -> bool:
    """Whether the section goes on in the group: after headings without text, or small beside small."""
    if group.only_headings():
        return True
    tokens = sum(segment.tokens for _, segment in section)
    whole = Segment(group.segments[0].start, section[-1][1].end, group.tokens + tokens)
    here = shared_headings(group.parts)
    first = section[0][0]
    related = first.headings[:-1] in (here, here[:-1]) and first.page == group.parts[-1].page  # slides stay apart
    return group.small_sections and tokens < budget.small and related and whole.fits(budget.limit)


def _pieces(source: Source, group: _Group, part: Part, segment: Segment, budget: ChunkBudget) -> list[Segment]:
    """The part as segments: whole where it fits into a chunk, and so that a heading does not stand without text."""
    limit = budget.limit
    if group.only_headings() and not group.takes(segment, limit) and limit.tokens - group.tokens >= budget.small:
        used = part.start - group.segments[0].start
        limit = Limit(limit.tokens - group.tokens, max(limit.chars - used, CHARS_A_TOKEN))
    return [segment] if segment.fits(limit) else split_span(source, (part.start, part.end), part.kind, limit)
