"""The legs of a search: what is near and what has the words, of this host's replica, or else of Postgres."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from core.errors import NotYetIndexed
from core.records import Candidate, Principal, Profile, SearchRequest
from retrieval.dense import nearest_each, nearest_in
from retrieval.lexical import LexicalIndex, Sight
from retrieval.stages import Proposed
from store import access
from store.chunks import Scan
from store.pool import Conn, Store, View, export_snapshot, reading, reading_tenant, within

POOL = 200  # candidates a leg proposes: hundreds, so that fusion and reranking have something to choose from
LOOK_S = 1.0  # where asking what changed takes longer, a replica is far behind: the legs go to Postgres, each by itself
POLL_S = 0.05

Embed = Callable[[], list[NDArray[np.float32]]]


@dataclass(frozen=True, slots=True)
class Ground:
    """What the legs of one search look at."""

    scan: Scan
    view: View  # whose snapshot has a name where a leg needs a connection of its own
    sight: Sight | None  # None: there is no replica, or none that is fit for this search
    has_vectors: bool  # whether the dense leg can go by it


def await_words(store: Store, index: LexicalIndex, principal: Principal, request: SearchRequest, wait_s: float) -> None:
    """Wait, for `at_least`, until the lexical leg has all that the caller may see. Raises NotYetIndexed.

    Whatever was committed before a search began is in its snapshot: which position was asked for does not matter, and
    an answer that depended on it would tell which positions others' changes have.
    """
    give_up = time.monotonic() + wait_s
    while request.at_least is not None and request.mode != "dense":
        with reading_tenant(store, principal.tenant_id) as conn:
            access.enter_scope(conn, principal, store.scopes)
            if index.reaches(conn, principal.tenant_id):
                return
        if time.monotonic() > give_up:
            raise NotYetIndexed(f"position {request.at_least} is not in every leg yet: ask again in a second")
        time.sleep(POLL_S)


def look(conn: Conn, lexical: LexicalIndex, scan: Scan) -> Sight | None:
    """Ask once, in the search's own transaction, for what both legs need of it; what fails there leaves it whole.

    None where nothing is kept on this host. Raises ReplicaUnavailable and StoreUnavailable.
    """
    with within(conn, LOOK_S):
        return lexical.look(conn, scan)


def ground(conn: Conn, scan: Scan, profile: Profile, sight: Sight | None) -> Ground:
    """What the legs look at. Raises StoreUnavailable."""
    whole = sight is not None and sight.has_vectors(profile.dimensions)
    return Ground(scan, View(scan.scope, "" if whole else export_snapshot(conn)), sight, whole)


def dense(store: Store, ground: Ground, embed: Embed, timeout_s: float) -> Proposed:
    """The nearest chunks. Raises StoreUnavailable."""
    vectors = embed()
    if ground.sight is not None and ground.has_vectors:
        found = nearest_in(ground.sight, vectors)
    else:
        with reading(store, ground.view, timeout_s) as conn:
            found = nearest_each(conn, ground.scan, vectors)
    return Proposed(best_of(found.lists), found.detail())


def lexical(index: LexicalIndex, ground: Ground, questions: Sequence[str], timeout_s: float) -> Proposed:
    """The chunks that have the words. Raises StoreUnavailable and ReplicaUnavailable."""
    if ground.sight is not None:
        return Proposed(best_of(ground.sight.by_words(questions, POOL)))
    return Proposed(best_of([index.search(each, ground.view, ground.scan, POOL, timeout_s) for each in questions]))


def best_of(lists: list[list[Candidate]]) -> list[Candidate]:
    """One list of several queries' answers: each chunk with its best score."""
    if len(lists) == 1:
        return lists[0]
    best: dict[int, float] = {}
    for candidate in (candidate for each in lists for candidate in each):
        best[candidate.chunk_id] = max(candidate.score, best.get(candidate.chunk_id, float("-inf")))
    ordered = sorted(best.items(), key=lambda item: (-item[1], item[0]))
    return [Candidate(chunk_id, score) for chunk_id, score in ordered[:POOL]]
