"""A trained reranker as it lies in a folder: what was learned, and a manifest that says of what and how good it is.

    manifest.json   what it is, what it was trained on, and its figures on questions that it has not seen
    map.npy         of late interaction: float32 [bits, bits], what the question's token vectors are multiplied by
    model/          of a cross-encoder: as sentence-transformers keeps it

The digest is of every file but the manifest. Who serves a reranker names its digest, so other files under the same name
are never taken for it.
"""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from core.errors import Invalid, RerankerUnavailable
from core.trained import RerankerKind
from models.minilm import sha256_of
from models.reranker import CrossEncoderReranker, LateInteraction, Proposed, Question, Reranker

MANIFEST, MAP, MODEL = "manifest.json", "map.npy", "model"

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Manifest:
    """What lies in the folder."""

    kind: RerankerKind
    digest: str
    weight: float  # of its score against the fused one
    pool: int  # candidates that it looks at
    profile: str  # whose index it was proved behind
    base: str  # what it began as
    trained_on: Mapping[str, Any]  # the golden set, its digest, how many questions of either part, steps, seed
    held_out: Mapping[str, Any]  # figures on the part that it has not seen
    created: str  # ISO 8601, UTC


@dataclass(frozen=True, slots=True)
class Projected:
    """Late interaction whose question goes through a learned linear map first; stored codes stay what they are."""

    mapping: Floats  # [bits, bits], of a spectral norm of 1: no token vector becomes longer than it was
    late: LateInteraction = field(default_factory=LateInteraction)
    reads: Literal["text", "code"] = "code"

    def score(self, question: Question, passages: Sequence[Proposed]) -> list[float | None]:
        """As late interaction does."""
        mapped = replace(question, tokens=lambda: self._mapped(question.tokens()))
        return self.late.score(mapped, passages)

    def _mapped(self, tokens: npt.NDArray[Any]) -> Floats:
        return tokens.astype(np.float32) @ self.mapping if len(tokens) else np.empty((0, 0), np.float32)


def normed(mapping: npt.NDArray[np.floating[Any]]) -> Floats:
    """The map with a spectral norm of 1: MaxSim rounds to a grid that vectors of unit length fit, and blending looks
    at a score's place among others alone."""
    return np.asarray(mapping / np.linalg.norm(mapping, 2), np.float32)


def write_map(folder: Path, mapping: npt.NDArray[np.floating[Any]]) -> None:
    """What late interaction learned."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    np.save(folder / MAP, normed(mapping), allow_pickle=False)


def digest_of(folder: Path) -> str:
    """sha256 of the names and contents of every file but the manifest."""
    digest = hashlib.sha256()
    for file in sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / MANIFEST):
        digest.update(f"{file.relative_to(folder).as_posix()}\0{sha256_of(file)}\n".encode())
    return digest.hexdigest()


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Beside what it describes."""
    fresh = folder / f"{MANIFEST}.{os.getpid()}"
    fresh.write_text(json.dumps(asdict(manifest), indent=1) + "\n", "utf-8")
    fresh.rename(folder / MANIFEST)


def read_manifest(folder: Path) -> Manifest:
    """What the folder says of itself, its files being those that it speaks of. Raises Invalid."""
    try:
        raw = json.loads((folder / MANIFEST).read_text("utf-8"))
        manifest = Manifest(**{each.name: raw[each.name] for each in fields(Manifest)})
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Invalid(f"{folder} holds no trained reranker: `citadel train reranker` makes one ({error!r})") from error
    if digest_of(folder) != manifest.digest:
        raise Invalid(f"{folder}: the files are not those that its manifest speaks of: train again")
    return manifest


def open_trained(folder: Path, kind: RerankerKind, digest: str) -> Reranker:
    """What is served. Raises RerankerUnavailable unless these very files are there."""
    if not folder.is_dir() or digest_of(folder) != digest:
        raise RerankerUnavailable(
            f"{folder} has not the files of the tenant's reranker: copy them there from the host that trained it, or "
            "go back with `citadel train use default`"
        )
    if kind == "late":
        return Projected(np.load(folder / MAP, allow_pickle=False))
    return CrossEncoderReranker(str(folder / MODEL))
