"""What one would use instead: LlamaIndex's IngestionPipeline into its PGVectorStore, with the same model and files."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from models.minilm import wheel_folder


@dataclass(frozen=True, slots=True)
class Ingested:
    """One run."""

    documents: int
    chunks: int
    seconds: float


def ingest_with_llama_index(database_url: str, folder: Path, chunk_tokens: int, threads: int) -> Ingested:
    """Read, split, embed and store the markdown files of a folder, in this process; loading the model is not timed."""
    import torch
    from llama_index.core import SimpleDirectoryReader
    from llama_index.core.embeddings import BaseEmbedding
    from llama_index.core.ingestion import IngestionPipeline
    from llama_index.core.node_parser import SentenceSplitter
    from llama_index.vector_stores.postgres import PGVectorStore
    from sentence_transformers import SentenceTransformer

    torch.set_num_threads(threads)
    model = SentenceTransformer(str(wheel_folder()), device="cpu", local_files_only=True)

    class MiniLm(BaseEmbedding):
        """sentence-transformers as LlamaIndex's own wrapper calls it."""

        def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
            return model.encode(texts, normalize_embeddings=True, show_progress_bar=False).tolist()

        def _get_text_embedding(self, text: str) -> list[float]:
            return self._get_text_embeddings([text])[0]

        def _get_query_embedding(self, query: str) -> list[float]:
            return self._get_text_embedding(query)

        async def _aget_query_embedding(self, query: str) -> list[float]:
            return self._get_text_embedding(query)

    def tokens(text: str) -> Sequence[Any]:
        return model.tokenizer.encode(text, add_special_tokens=False)

    parts = urlsplit(database_url)
    store = PGVectorStore.from_params(
        host=parts.hostname, port=str(parts.port), user=parts.username, password=unquote(parts.password or ""),
        database=parts.path.lstrip("/"), table_name="bench", embed_dim=384,
    )  # fmt: skip
    splitter = SentenceSplitter(chunk_size=chunk_tokens, chunk_overlap=0, include_metadata=False, tokenizer=tokens)
    pipeline = IngestionPipeline(transformations=[splitter, MiniLm(embed_batch_size=32)], vector_store=store)
    model.encode(["warm"])
    started = time.perf_counter()
    documents = SimpleDirectoryReader(str(folder), recursive=True, required_exts=[".md"]).load_data()
    nodes = pipeline.run(documents=documents)
    return Ingested(len(documents), len(nodes), time.perf_counter() - started)
