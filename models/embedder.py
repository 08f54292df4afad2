"""The seam of what turns text into vectors, and the choice of what stands behind it."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from core.errors import ModelMismatch
from core.records import Profile
from models import minilm
from models.fake_embedder import FakeEmbedder
from models.openvino_encoder import open_minilm
from models.sentence_embedder import open_sentence_transformer

FAKE = re.compile(r"fake(?:-([0-9]{2,4}))?")


class Embedder(Protocol):
    """Texts to vectors. A vector depends on its text alone; every method may be called by many threads at once."""

    @property
    def name(self) -> str:
        """What a profile records as its model."""

    @property
    def dimensions(self) -> int:
        """The length of a vector."""

    @property
    def precision(self) -> str:
        """What the model computes in: f32, bf16 or f16. It is part of the profile."""

    @property
    def max_tokens(self) -> int:
        """The model's window in tokens, special ones included; what is beyond it does not reach the vector."""

    @property
    def token_bits(self) -> int:
        """Bits of a token's code (`models.token_codes`); 0: the model gives no token vectors."""

    def embed_documents(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """float32 [len(texts), dimensions], each row of unit length, in the order of the texts."""

    def embed_queries(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """As `embed_documents`, for what is asked; the same vectors unless the model has a prompt for queries."""

    def embed_documents_with_tokens(self, texts: Sequence[str]) -> tuple[npt.NDArray[np.float32], list[bytes]]:
        """`embed_documents`, and of the same pass each text's code; no codes at all where `token_bits` is 0.

        A text of no tokens has an empty code.
        """

    def embed_queries_with_tokens(
        self, texts: Sequence[str]
    ) -> tuple[npt.NDArray[np.float32], list[npt.NDArray[np.float32]]]:
        """`embed_queries`, and of the same pass each text's rotated token vectors, float32 [tokens, token_bits], of
        unit length; none at all where `token_bits` is 0.
        """

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """The tokens of each text, without special tokens and without a limit."""

    def token_offsets(self, text: str) -> list[tuple[int, int]]:
        """The half-open span of each token in code points of the text, in order."""


def open_embedder(model: str, cache_dir: Path, threads: int | None = None, precision: str | None = None) -> Embedder:
    """The embedder that `model` names: `all-MiniLM-L6-v2` (from its wheel), `fake`, or any sentence-transformers model.

    `cache_dir` keeps the converted model; `threads` are those of one forward pass (None: the library's choice);
    `precision` is the profile's, None where there is no profile yet: then bf16 where the processor computes in it.
    Raises Misconfigured for a model that is not there, ModelMismatch for one that is not what it should be.
    """
    embedder: Embedder
    if fake := FAKE.fullmatch(model):
        embedder = FakeEmbedder(int(fake[1] or FakeEmbedder.dimensions))
    elif model in (minilm.NAME, minilm.HUB_NAME):
        embedder = open_minilm(cache_dir, threads, precision)
    else:
        embedder = open_sentence_transformer(model, threads)
    if precision not in (None, embedder.precision):
        raise ModelMismatch(
            f"{model!r} computes in {embedder.precision}, the profile says {precision}: make a profile for it"
        )
    return embedder


def check_model(embedder: Embedder, profile: Profile) -> None:
    """Raises ModelMismatch unless the profile's vectors are this embedder's."""
    if (embedder.name, embedder.dimensions, embedder.precision) != (
        profile.model,
        profile.dimensions,
        profile.precision,
    ):
        raise ModelMismatch(
            f"this process has the model {embedder.name!r} in {embedder.precision}, the profile {profile.name!r} wants "
            f"{profile.model!r} in {profile.precision}"
        )
