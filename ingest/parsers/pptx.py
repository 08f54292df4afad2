"""PowerPoint: `unstructured` reads the shapes of each slide; charts, diagrams and notes, which it skips, are added."""

import io
from collections.abc import Iterator

import pptx
from pptx.slide import Slide

from core.records import ParsedDocument
from ingest.parsers.archive import office_parts, repack
from ingest.parsers.canonical import Piece, assemble
from ingest.parsers.drawing import drawing_pieces
from ingest.parsers.offline import prepare
from ingest.parsers.partition import pieces_of

MIME_TYPE = "application/vnd.openxmlformats-officedocument.presentationml.presentation"


def parse_pptx(content: bytes) -> ParsedDocument:
    """Slide by slide, its number as page: its title as heading, its shapes from top to bottom, then its notes."""
    prepare()
    from unstructured.partition.pptx import partition_pptx

    parts = office_parts(content)
    package = repack(parts)
    presentation = pptx.Presentation(io.BytesIO(package))
    shapes = list(pieces_of(partition_pptx(file=io.BytesIO(package), languages=[""]), paged=True))
    pieces: list[Piece] = []
    for page, slide in enumerate(presentation.slides, start=1):
        pieces += (piece for piece in shapes if piece.page == page)
        pieces += drawing_pieces(parts, str(slide.part.partname).lstrip("/"), page)
        pieces += _notes(slide, page)
    return assemble(pieces, MIME_TYPE, presentation.core_properties.title)


def _notes(slide: Slide, page: int) -> Iterator[Piece]:
    frame = slide.notes_slide.notes_text_frame if slide.has_notes_slide else None
    if frame is not None and frame.text.strip():
        yield Piece("paragraph", f"Notes: {frame.text.strip()}", page=page)
