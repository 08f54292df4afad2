"""Chunks and questions of real public text with their embeddings, kept on disk, to hold synthetic vectors against.

The text is `../shared/data`, chunked and embedded as ingestion does it.
"""

import hashlib
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from core.errors import Unparseable
from core.records import ParsedDocument
from ingest.chunk import ChunkBudget, chunk
from ingest.parse import parse
from ingest.parsers.plain import parse_text
from models.embedder import Embedder, open_embedder
from models.minilm import NAME

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
TYPES = {".md": "text/markdown", ".pdf": "application/pdf", ".html": "text/html", ".txt": "text/plain"}
FOLDERS = ("enterprise", "retrieval/sec-10q/pdf", "retrieval/chroma-chunking/corpora", "documents")
BEIR = ("retrieval/scifact", "retrieval/cranfield")
BLOCK = 512


@dataclass(frozen=True, slots=True)
class RealVectors:
    """Unit vectors [n, dimensions] of chunks, and of questions that were asked of some of them."""

    chunks: npt.NDArray[np.float32]
    questions: npt.NDArray[np.float32]


def real_vectors(cache: Path, cap: int) -> RealVectors | None:
    """Embeddings of up to `cap` chunks (0: all), from the folder `cache` when they are there; None without the data."""
    if not DATA.is_dir():
        return None
    cache.mkdir(parents=True, exist_ok=True)
    embedder = open_embedder(NAME, cache / "models")
    kept = cache / f"chunks-{hashlib.sha256(f'{embedder.name}/{embedder.precision}'.encode()).hexdigest()[:8]}.npz"
    if not kept.is_file():
        chunks = _embed(embedder, list(_texts(embedder)))
        np.savez(kept, chunks=chunks.astype(np.float16), questions=embedder.embed_queries(list(_questions())))
    with np.load(kept) as found:
        chunks, questions = found["chunks"].astype(np.float32), found["questions"].astype(np.float32)
    order = np.random.default_rng(0).permutation(len(chunks))[: cap or None]
    return RealVectors(chunks[order], questions)


def _embed(embedder: Embedder, texts: list[str]) -> npt.NDArray[np.float32]:
    parts = []
    for start in range(0, len(texts), BLOCK):
        parts.append(embedder.embed_documents(texts[start : start + BLOCK]))
        print(f"embedded {start + len(parts[-1]):,} of {len(texts):,} chunks", file=sys.stderr)
    return np.concatenate(parts)


def _texts(embedder: Embedder) -> Iterator[str]:
    """Each once, as ingestion embeds them."""
    seen: set[str] = set()
    for title, parsed in _documents():
        for piece in chunk(parsed, title or parsed.title, "structure", ChunkBudget(), embedder):
            text = f"{piece.embed_prefix}\n{parsed.text[piece.start : piece.end]}".lstrip()
            if text not in seen:
                seen.add(text)
                yield text


def _documents() -> Iterator[tuple[str | None, ParsedDocument]]:
    for folder in FOLDERS:
        for file in sorted((DATA / folder).rglob("*")):
            if file.suffix in TYPES and file.is_file():
                try:
                    yield None, parse(file.read_bytes(), TYPES[file.suffix])
                except Unparseable:
                    continue
    for row in _rows("corpus.jsonl"):
        if row["text"].strip():
            yield row.get("title") or None, parse_text(row["text"].encode())


def _questions() -> Iterator[str]:
    return (row["text"] for row in _rows("queries.jsonl"))


def _rows(name: str) -> Iterator[dict[str, str]]:
    for folder in BEIR:
        with (DATA / folder / name).open(encoding="utf-8") as lines:
            yield from (json.loads(line) for line in lines if line.strip())
