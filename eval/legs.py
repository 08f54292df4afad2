"""What each leg of the search proposes for each question: asked once, kept, and fused as often as one likes.

A leg is asked through the search itself, as the question's principal, in the mode of that leg alone and for its whole
pool. So fusing what is kept here gives what a hybrid search fuses, chunk for chunk; a test holds the two together.
"""

import gzip
import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from uuid import UUID

import models
import retrieval
from core.errors import DeadlineExceeded
from core.records import Candidate, FusedCandidate, Mode, Place, Principal, SearchRequest
from eval.golden import GoldenQuery, GoldenSet
from eval.run import Search
from retrieval.legs import POOL

LEGS: tuple[Mode, Mode] = ("dense", "lexical")
FUSION = "fuse.py"  # what may change without a leg being asked again


@dataclass(frozen=True, slots=True)
class Answers:
    """Ranked chunks by question, best first, and where they lie."""

    found: Mapping[str, tuple[FusedCandidate, ...]]  # question id → at most POOL chunks, with the scores they got
    places: Mapping[int, Place]

    def leg(self, name: str, query_id: str) -> list[Candidate]:
        """The question's chunks with their scores in the leg."""
        return [Candidate(c.chunk_id, getattr(c, name)) for c in self.found[query_id]]


def ask_all(
    search: Search,
    tenant_id: UUID,
    golden: GoldenSet,
    request: SearchRequest,
    progress: Callable[[int], None] = lambda answered: None,
) -> Answers:
    """The pool that each question of the set gets by this request, chunk by chunk; its own query is not looked at.

    Raises DeadlineExceeded when an answer went without a stage: it would measure something else.
    """
    found: dict[str, tuple[FusedCandidate, ...]] = {}
    places: dict[int, Place] = {}
    for number, query in enumerate(golden.queries, start=1):
        found[query.id], lie = _ask(
            search, tenant_id, query, replace(request, query=query.query, top_k=POOL, as_ranked=True)
        )
        places |= lie
        progress(number)
    return Answers(found, places)


def _ask(
    search: Search, tenant_id: UUID, query: GoldenQuery, request: SearchRequest
) -> tuple[tuple[FusedCandidate, ...], dict[int, Place]]:
    answer = search(Principal(tenant_id, query.subject, via="service:eval"), request)
    if answer.degraded:
        raise DeadlineExceeded(
            f"the answer to {query.id!r} went without {', '.join(answer.degraded)}: set CITADEL_SEARCH_DEADLINE_S "
            "higher, or measure when the machine has less to do"
        )
    cited = {passage.scores.chunk_id: passage.citation for passage in answer.passages}
    places = {chunk_id: Place(c.external_id, c.start, c.end) for chunk_id, c in cited.items()}
    return tuple(passage.scores for passage in answer.passages), places


# --- kept ---------------------------------------------------------------------------------------------------------


def cache_key(known: Mapping[str, Any], golden: GoldenSet, request: SearchRequest, *, fused: bool) -> str:
    """sha256 of everything that the answers follow from.

    `known` is what only the caller can tell: tenant, position of the index, model, engine. With it go the questions
    and who asks each of them, the request, and the code of the search: without that of the fusion, unless `fused`.
    """
    asked = [(query.id, query.subject, query.query) for query in golden.queries]
    parts = {**known, "asked": asked, "request": repr(request), "pool": POOL, "code": code_hash(fused=fused)}
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def code_hash(*, fused: bool) -> str:
    """sha256 of the code that answers are made by."""
    digest = hashlib.sha256()
    for package in (retrieval, models):
        for file in sorted(Path(str(package.__file__)).parent.glob("*.py")):
            if fused or file.name != FUSION:
                digest.update(file.read_bytes())
    return digest.hexdigest()


def kept(folder: Path, key: str, ask: Callable[[], Answers]) -> Answers:
    """The answers kept under the key; asked for, and kept, when there are none."""
    path = folder / f"{key}.json.gz"
    if path.is_file():
        return _loaded(path)
    answers = ask()
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    fresh = path.with_name(f"{path.name}.{os.getpid()}")
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(gzip.compress(json.dumps(_plain(answers)).encode(), 3))
    fresh.rename(path)
    return answers


def _plain(answers: Answers) -> dict[str, Any]:
    """Rows of chunk id and scores, and of chunk id and place."""
    found = {
        query_id: [(c.chunk_id, c.fused, c.dense, c.lexical, c.rerank) for c in candidates]
        for query_id, candidates in answers.found.items()
    }
    return {"found": found, "places": [(i, p.external_id, p.start, p.end) for i, p in answers.places.items()]}


def _loaded(path: Path) -> Answers:
    with gzip.open(path, "rt") as file:
        raw = json.load(file)
    found = {query_id: tuple(FusedCandidate(*row) for row in rows) for query_id, rows in raw["found"].items()}
    return Answers(found, {row[0]: Place(*row[1:]) for row in raw["places"]})


def ordered(answers: Answers, candidates: Sequence[FusedCandidate]) -> list[Place]:
    """Where the candidates lie, in their order."""
    return [answers.places[candidate.chunk_id] for candidate in candidates]
