"""Any sentence-transformers model, by name or folder, with its prompts for queries and documents."""

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from core.errors import Misconfigured
from models.tokens import TokenCounter

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

_PRECISIONS = {"torch.float32": "f32", "torch.bfloat16": "bf16", "torch.float16": "f16"}
_NO_WINDOW = 1_000_000


def open_sentence_transformer(model: str, threads: int | None = None) -> "SentenceEmbedder":
    """The model of that name; a folder is never looked up on the network. `threads` holds for the whole process.

    Raises Misconfigured for a model that cannot be loaded or cannot tell where its tokens lie.
    """
    import torch
    from sentence_transformers import SentenceTransformer

    if threads:
        torch.set_num_threads(threads)
    try:
        loaded = SentenceTransformer(model, local_files_only=Path(model).is_dir())
    except (OSError, ValueError) as error:  # hub errors are OSErrors
        raise Misconfigured(
            f"the model {model!r} cannot be loaded: set CITADEL_MODEL to a folder that holds a sentence-transformers "
            f"model, or to one in the Hugging Face cache of this machine ({str(error).splitlines()[0][:200]})"
        ) from error
    return SentenceEmbedder(model, loaded)


class SentenceEmbedder:
    """A loaded model; one call at a time, for its tokenizer keeps state.

    It gives no token vectors: what its tokens mean, and whether they may be compared one by one, differs by model.
    """

    token_bits = 0

    def __init__(self, name: str, model: "SentenceTransformer") -> None:
        from tokenizers import Tokenizer

        backend = getattr(model.tokenizer, "backend_tokenizer", model.tokenizer)
        dimensions = model.get_embedding_dimension()
        if not isinstance(backend, Tokenizer) or dimensions is None:
            raise Misconfigured(f"the model {name!r} has no fast tokenizer or no fixed dimensions: name another")
        self.name = name
        self.dimensions = dimensions
        self.max_tokens = int(min(model.max_seq_length or _NO_WINDOW, _NO_WINDOW))  # None or inf: reads all
        dtype = str(next(model.parameters()).dtype)
        self.precision = _PRECISIONS.get(dtype, dtype)
        self._model = model
        self._counter = TokenCounter(Tokenizer.from_str(backend.to_str()))
        self._turn = threading.Lock()  # "Already borrowed" otherwise: encoding sets truncation and padding

    def embed_documents(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """float32 [len(texts), dimensions], rows of unit length, after the model's prompt for documents."""
        return self._encode(self._model.encode_document, texts)

    def embed_queries(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """float32 [len(texts), dimensions], rows of unit length, after the model's prompt for queries."""
        return self._encode(self._model.encode_query, texts)

    def embed_documents_with_tokens(self, texts: Sequence[str]) -> tuple[npt.NDArray[np.float32], list[bytes]]:
        """`embed_documents` and no codes."""
        return self.embed_documents(texts), []

    def embed_queries_with_tokens(
        self, texts: Sequence[str]
    ) -> tuple[npt.NDArray[np.float32], list[npt.NDArray[np.float32]]]:
        """`embed_queries` and no token vectors."""
        return self.embed_queries(texts), []

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text."""
        return self._counter.count(texts)

    def token_offsets(self, text: str) -> list[tuple[int, int]]:
        """The span of each token."""
        return self._counter.offsets(text)

    def _encode(self, encode: Callable[..., Any], texts: Sequence[str]) -> npt.NDArray[np.float32]:
        if not texts:
            return np.empty((0, self.dimensions), np.float32)
        with self._turn:
            vectors = encode([*texts], normalize_embeddings=True, show_progress_bar=False)
        return np.asarray(vectors, np.float32)
