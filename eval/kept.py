"""What legs, the model and late interaction gave for questions, kept in a file, so that another fusion or blend asks
none of them again.

A kept leg proposes chunk ids, and a kept score is looked up for a chunk that was read. Everything else is the search's
own, every time: who may see what, fusion, reading under row-level security, blending, assembly. So what is kept can
neither leak nor outlive a grant.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from math import isnan, nan
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from core.config import Settings
from core.records import Candidate, Mode, Profile
from models.embedder import Embedder
from models.reranker import Proposed, Question, Reranker
from retrieval.legs import Ground
from retrieval.search import Leg, Searcher
from retrieval.stages import Proposed as FromLeg

BEHIND = ("fuse.py", "rerank.py", "assemble.py", "search.py", "trail.py", "stages.py")  # what changes no leg

LATE_CODE = ("reranker.py", "token_codes.py", "maxsim.py")  # what scores follow from

Asked = tuple[str, str, str]  # leg, subject, question


def engine_of(settings: Settings) -> dict[str, Any]:
    """What of the settings the legs follow from."""
    return {"model": settings.model, "lexical": settings.lexical, "k1": settings.bm25_k1, "b": settings.bm25_b,
            "reranker": settings.reranker}  # fmt: skip


def behind_of(settings: Settings) -> dict[str, Any]:
    """What of the settings the answers behind the legs follow from."""
    return {"pool": settings.pool, "late_weight": settings.late_weight, "late_pool": settings.late_pool}


class Kept:
    """Candidates by leg, asker and question; vectors by question; tokens by text. Shared by a run's threads."""

    def __init__(self) -> None:
        self.legs: dict[Asked, list[Candidate]] = {}
        self.questions: dict[str, tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]] = {}
        self.counts: dict[str, int] = {}  # by the sha256 of the text
        self.scores: dict[str, dict[int, float]] = {}  # by question and chunk; nan: it has none
        self.changed = False

    def has(self, mode: Mode, subject: str, question: str) -> bool:
        """Whether no leg of the mode needs to be asked."""
        wanted = ("dense", "lexical") if mode == "hybrid" else (mode,)
        return all((leg, subject, question) in self.legs for leg in wanted)

    def leg(self, leg: str, subject: str, question: str) -> list[Candidate]:
        """What the leg proposed; nothing when it was not asked."""
        return self.legs.get((leg, subject, question), [])

    def asking(self, legs: Mapping[str, Leg]) -> dict[str, Leg]:
        """The legs, which are asked only for what is not kept."""
        return {name: self._asking(name, leg) for name, leg in legs.items()}

    def _asking(self, name: str, leg: Leg) -> Leg:
        def propose(searcher: Searcher, ground: Ground, questions: tuple[str, ...], timeout_s: float) -> FromLeg:
            key = (name, ground.scan.scope.subject, questions[0])
            if key not in self.legs:
                self.legs[key] = leg(searcher, ground, questions, timeout_s).candidates
                self.changed = True
            return FromLeg(self.legs[key])

        return propose


class KeptScores:
    """What a reranker makes of stored codes; it is asked only for a passage whose score is not kept."""

    def __init__(self, kept: Kept, reranker: Reranker) -> None:
        self._kept, self._reranker = kept, reranker

    def missing(self, question: str, chunk_ids: Iterable[int]) -> list[int]:
        """Those whose score is not kept."""
        known = self._kept.scores.get(question, {})
        return [chunk_id for chunk_id in chunk_ids if chunk_id not in known]

    def scores(self, question: Question, chunk_ids: Sequence[int], codes: Mapping[int, bytes]) -> list[float | None]:
        """Of these chunks; `codes` has those of the missing ones, as far as there are any."""
        known = self._kept.scores.setdefault(question.text, {})
        if missing := self.missing(question.text, chunk_ids):
            found = self._reranker.score(question, [Proposed("", codes.get(chunk_id)) for chunk_id in missing])
            known.update((i, nan if score is None else score) for i, score in zip(missing, found, strict=True))
            self._kept.changed = True
        return [None if isnan(known[chunk_id]) else known[chunk_id] for chunk_id in chunk_ids]


class KeptEmbedder:
    """A profile's embedder, which is opened only for a text that is not kept."""

    def __init__(self, profile: Profile, kept: Kept, open_it: Callable[[], Embedder]) -> None:
        self.name, self.dimensions, self.precision = profile.model, profile.dimensions, profile.precision
        self._kept, self._open = kept, open_it

    @cached_property
    def _real(self) -> Embedder:
        return self._open()

    @property
    def max_tokens(self) -> int:
        """The model's window."""
        return self._real.max_tokens

    @property
    def token_bits(self) -> int:
        """Bits of a token's code."""
        return self._real.token_bits

    def embed_documents(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """The model's, always."""
        return self._real.embed_documents(texts)

    def embed_documents_with_tokens(self, texts: Sequence[str]) -> tuple[npt.NDArray[np.float32], list[bytes]]:
        """The model's, always."""
        return self._real.embed_documents_with_tokens(texts)

    def embed_queries(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Kept ones, else the model's."""
        return self.embed_queries_with_tokens(texts)[0]

    def embed_queries_with_tokens(
        self, texts: Sequence[str]
    ) -> tuple[npt.NDArray[np.float32], list[npt.NDArray[np.float32]]]:
        """Kept ones, else the model's."""
        if missing := [text for text in dict.fromkeys(texts) if text not in self._kept.questions]:
            vectors, tokens = self._real.embed_queries_with_tokens(missing)
            tokens = tokens or [np.empty((0, 0), np.float32)] * len(missing)
            self._kept.questions |= dict(zip(missing, zip(vectors, tokens, strict=True), strict=True))
            self._kept.changed = True
        found = [self._kept.questions[text] for text in texts]
        return np.stack([vector for vector, _ in found]), [tokens for _, tokens in found]

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Kept ones, else the model's."""
        keys = [hashlib.sha256(text.encode()).hexdigest() for text in texts]
        if missing := {key: text for key, text in zip(keys, texts, strict=True) if key not in self._kept.counts}:
            self._kept.counts |= dict(zip(missing, self._real.count_tokens(list(missing.values())), strict=True))
            self._kept.changed = True
        return [self._kept.counts[key] for key in keys]

    def token_offsets(self, text: str) -> list[tuple[int, int]]:
        """The model's, always."""
        return self._real.token_offsets(text)


# --- the file -----------------------------------------------------------------------------------------------------


def kept_key(known: Mapping[str, Any], folder: Path) -> str:
    """sha256 of what legs and scores follow from: `known` has tenant, index, grants, profile, engine; `folder` the
    code of the search, beside which the models' lies."""
    digest = hashlib.sha256(json.dumps(known, sort_keys=True, default=str).encode())
    for file in (*sorted(folder.glob("*.py")), *(folder.parent / "models" / name for name in LATE_CODE)):
        if file.name not in BEHIND:
            digest.update(file.read_bytes())
    return digest.hexdigest()


def load(path: Path) -> Kept:
    """What the file holds; nothing when there is none."""
    kept = Kept()
    if not path.is_file():
        return kept
    with np.load(path, allow_pickle=False) as arrays:
        index = json.loads(bytes(arrays["index"]))
        ids, scores, place = arrays["ids"].tolist(), arrays["scores"].tolist(), 0
        for leg, subject, question, size in index["legs"]:
            rows = zip(ids[place : place + size], scores[place : place + size], strict=True)
            kept.legs[leg, subject, question] = [Candidate(chunk_id, score) for chunk_id, score in rows]
            place += size
        vectors, tokens, place = arrays["vectors"], arrays["tokens"], 0
        for row, (question, size) in enumerate(index["questions"]):
            kept.questions[question] = (vectors[row], tokens[place : place + size])
            place += size
        kept.counts = index["counts"]
        scored, scores, place = arrays["scored"].tolist(), arrays["late"].tolist(), 0
        for question, size in index["scored"]:
            end = place + size
            kept.scores[question] = dict(zip(scored[place:end], scores[place:end], strict=True))
            place = end
    return kept


def save(path: Path, kept: Kept) -> None:
    """Write the file anew, for its owner alone."""
    index = {
        "legs": [(*key, len(found)) for key, found in kept.legs.items()],
        "questions": [(question, len(tokens)) for question, (_, tokens) in kept.questions.items()],
        "counts": kept.counts,
        "scored": [(question, len(of)) for question, of in kept.scores.items()],
    }
    scores = [each for of in kept.scores.values() for each in of.items()]
    candidates = [candidate for found in kept.legs.values() for candidate in found]
    bits = max((tokens.shape[1] for _, tokens in kept.questions.values()), default=0)
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    fresh = path.with_name(f"{path.name}.{os.getpid()}")
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        np.savez(
            file,
            index=np.frombuffer(json.dumps(index).encode(), np.uint8),
            ids=np.array([c.chunk_id for c in candidates], np.int64),
            scores=np.array([c.score for c in candidates], np.float64),
            scored=np.array([chunk_id for chunk_id, _ in scores], np.int64),
            late=np.array([score for _, score in scores], np.float64),
            vectors=np.array([vector for vector, _ in kept.questions.values()], np.float32),
            tokens=np.concatenate(
                [np.empty((0, bits), np.float16)]
                + [tokens.reshape(len(tokens), bits).astype(np.float16) for _, tokens in kept.questions.values()]
            ),
        )
    fresh.rename(path)
