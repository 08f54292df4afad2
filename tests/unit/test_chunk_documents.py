"""Chunks of real files: every format that is parsed, with the tokenizer of the default model."""

import random
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from core.errors import Unparseable
from core.records import Chunk, ParsedDocument
from ingest.chunk import ChunkBudget, chunk_document
from ingest.parse import parse
from ingest.sniff import sniff
from models.minilm import MAX_TOKENS, TOKENIZER, wheel_folder
from models.tokens import TokenCounter

DOCUMENTS = Path(__file__).parents[2].parent / "shared" / "data" / "documents"
SUFFIXES = (".md", ".txt", ".html", ".pdf", ".docx", ".pptx", ".xlsx", ".csv", ".eml", ".msg", ".json")


class MiniLmTokens:
    """The default model's tokenizer without the model."""

    max_tokens = MAX_TOKENS

    def __init__(self) -> None:
        counter = TokenCounter(Tokenizer.from_file(str(wheel_folder() / TOKENIZER)))
        self.count_tokens, self.token_offsets = counter.count, counter.offsets


@pytest.mark.skipif(not DOCUMENTS.is_dir(), reason="the public documents in ../shared/data are not here")
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_chunks_of_real_files_lose_nothing_and_fit_the_models_window(suffix: str) -> None:
    files = sorted(path for path in DOCUMENTS.rglob(f"*{suffix}") if path.stat().st_size < 300_000)
    parsed = [document for file in random.Random(0).sample(files, min(12, len(files))) if (document := read(file))]
    assert parsed
    tokenizer = MiniLmTokens()
    for document in parsed:
        chunks = chunk_document(document, document.title, ChunkBudget(), tokenizer)
        texts = [document.text[piece.start : piece.end] for piece in chunks]
        assert "".join("".join(texts).split()) == "".join(document.text.split())
        embedded = [f"{piece.embed_prefix}\n{text}" for piece, text in zip(chunks, texts, strict=True)]
        assert max(tokenizer.count_tokens(embedded)) + 2 <= MAX_TOKENS
        known = {element.page for element in document.elements} - {None}
        assert {page for piece in chunks for page in (piece.page_start, piece.page_end)} - {None} <= known
        assert known <= {page for piece in chunks for page in pages(piece)}


def pages(piece: Chunk) -> range:
    """The pages of a chunk."""
    return range(piece.page_start or 0, (piece.page_end or 0) + 1)


def read(file: Path) -> ParsedDocument | None:
    """The file parsed, or None when it is refused."""
    content = file.read_bytes()
    try:
        return parse(content, sniff(content, file.name))
    except Unparseable:
        return None
