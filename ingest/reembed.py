"""Bring an index under a profile that is not the live one in line with the stored texts: no source is asked.

Killed at any moment it goes on where it was, for what is done stands in the index itself. What is written meanwhile is
published under the live profile alone and comes up as behind; what is relabelled or erased is so in every profile.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import islice
from typing import Any, Literal
from uuid import UUID

import numpy as np

from core.errors import Misconfigured
from core.records import Chunk, Profile
from ingest.chunk import ChunkBudget, chunk, embedded_text
from models.embedder import Embedder, check_model
from store import audit, kept_profiles
from store.audit import Actor
from store.kept_profiles import Stored
from store.pool import Conn, Store, writing

BATCH = 32  # documents, embedded together
LAST = 16  # documents that may be brought in while publications wait: some seconds

Progress = Callable[[int, int], None]  # (done, of how many)


@dataclass(frozen=True, slots=True)
class Target:
    """Whose index, and under which profile."""

    tenant_id: UUID
    profile: Profile
    embedder: Embedder


@dataclass(frozen=True, slots=True)
class Why:
    """What the audit says of a flip."""

    action: Literal["profile.promote", "profile.rollback"]
    by: Actor
    detail: Mapping[str, Any] = field(default_factory=dict)


def catch_up(store: Store, target: Target, progress: Progress = lambda done, of: None) -> int:
    """Bring in what is behind, and what falls behind meanwhile; returns how many documents that were.

    Raises ModelMismatch, NotFound when the profile is dropped meanwhile, and what the store and the model raise.
    """
    check_model(target.embedder, target.profile)
    done = 0
    left = total = _count(store, target)
    while left:
        before = done, left
        for batch in _batches(store, target):
            prepared = _prepared(target, batch)
            for each in prepared:
                with writing(store) as conn:  # one document a transaction: nobody waits long for one
                    done += kept_profiles.add(conn, target.tenant_id, target.profile.id, *each)
            progress(min(done, total), total)
        left = _count(store, target)
        if (done, left) == before:
            raise Misconfigured(
                f"{left} documents have no chunk under {target.profile.chunker!r}: name another chunker"
            )
        total = done + left
    return done


def flip(store: Store, target: Target, why: Why) -> int:
    """Make the profile the live one, with every document in it, and with the row of the audit that says so; returns
    how many the last step brought in.

    No version becomes current between the last look and the flip: what is being published waits, and then finds
    another profile live. Raises as `catch_up`.
    """
    brought = 0
    while True:
        brought += catch_up(store, target)
        with writing(store) as conn:
            kept_profiles.hold_publications(conn, target.tenant_id)
            if kept_profiles.count_behind(conn, target.tenant_id, target.profile.id) > LAST:
                continue
            rest = kept_profiles.behind(conn, target.tenant_id, target.profile.id, None, LAST)
            for each in _prepared(target, rest):
                brought += kept_profiles.add(conn, target.tenant_id, target.profile.id, *each)
            kept_profiles.flip(conn, target.tenant_id, target.profile.id)
            audit.add(conn, target.tenant_id, why.action, **asdict(why.by), resource=f"profile:{target.profile.name}",
                      detail=why.detail)  # fmt: skip
            return brought


def _count(store: Store, target: Target) -> int:
    with writing(store) as conn:
        return kept_profiles.count_behind(conn, target.tenant_id, target.profile.id)


def _batches(store: Store, target: Target) -> Iterator[list[Stored]]:
    last: Stored | None = None
    while True:
        with writing(store) as conn:
            batch = _next(conn, target, last)
        if not batch:
            return
        yield batch
        last = batch[-1]


def _next(conn: Conn, target: Target, last: Stored | None) -> list[Stored]:
    return kept_profiles.behind(conn, target.tenant_id, target.profile.id, last, BATCH)


def _prepared(
    target: Target, batch: Sequence[Stored]
) -> list[tuple[Stored, tuple[Chunk, ...], "np.ndarray[tuple[int, ...], np.dtype[np.float32]]", list[bytes]]]:
    """Each document with its chunks, their vectors and codes."""
    profile, budget = target.profile, ChunkBudget(chunk_tokens=target.profile.chunk_tokens)
    pieces = [chunk(each.parsed, each.title, profile.chunker, budget, target.embedder) for each in batch]
    texts = [embedded_text(each.parsed.text, piece) for each, own in zip(batch, pieces, strict=True) for piece in own]
    vectors, codes = target.embedder.embed_documents_with_tokens(texts)
    vector, code = iter(vectors), iter(codes)
    return [
        (each, own, np.array(list(islice(vector, len(own))), np.float32), list(islice(code, len(own))))
        for each, own in zip(batch, pieces, strict=True)
    ]
