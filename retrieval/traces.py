"""Does a replica on this host still hold an erased document?"""

import time
from collections.abc import Sequence
from pathlib import Path
from uuid import UUID

import numpy as np

from core.errors import ReplicaUnavailable
from retrieval.analyze import LANGUAGES, stems, terms
from retrieval.follower import status_at
from retrieval.replica import read
from retrieval.segment import Segment, hasher, pairs

POLL_S = 0.5
FRESH_S = 15.0  # a follower that made no step for so long will not rewrite anything


def traces(root: Path, tenant_id: UUID, document_id: UUID, key: bytes, canary: str | None) -> list[str]:
    """Folders of the tenant's replicas that hold the document's id, or a chunk with all words of the canary, also
    where no search looks any more; a replica that cannot be read is named too, for nothing is known of it."""
    found = []
    for folder in sorted((root / str(tenant_id)).glob("*")):
        try:
            segments = [part.segment for part in read(folder, vectors=False).replica.parts]
        except ReplicaUnavailable:
            found.append(f"{folder} (cannot be read)")
            continue
        if any((s.find(pairs([document_id])) >= 0).any() or (canary and _has(s, key, canary)) for s in segments):
            found.append(str(folder))
    return found


def traces_in_time(
    root: Path, tenant_id: UUID, document_id: UUID, key: bytes, canary: str | None, wait_s: float
) -> list[str]:
    """The same after the follower had time to rewrite what it holds; at once where none is running."""
    give_up = time.monotonic() + wait_s
    while True:
        found = traces(root, tenant_id, document_id, key, canary)
        at = status_at(root)
        if not found or at is None or time.time() - at > FRESH_S or time.monotonic() > give_up:
            return found
        time.sleep(POLL_S)


def _has(segment: Segment, key: bytes, canary: str) -> bool:
    words = terms(canary)
    return bool(words) and any(_in_one_row(segment, key, stems(words, language)) for language in LANGUAGES)


def _in_one_row(segment: Segment, key: bytes, words: Sequence[str]) -> bool:
    hash_of = hasher(key)
    starts, ends = segment.spans(np.array(sorted({hash_of(word) for word in words}), np.uint64))
    rows = [segment.rows[start:end] for start, end in zip(starts, ends, strict=True)]
    shared = rows[0]
    for more in rows[1:]:
        shared = np.intersect1d(shared, more, assume_unique=True)
    return len(shared) > 0
