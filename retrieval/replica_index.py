"""This host's replica, made exact for the moment that a search looks at: BM25, and the nearest vectors.

A replica is as old as its follower's last step. So a search asks, in its own snapshot and under row-level security,
which documents changed since: those that left or moved out of sight are taken out of the replica's rows, those that
came into sight are put in, and what is new is read from Postgres and scored beside the rest, as long as it is little.
"""

import os
import threading
import time
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from core.errors import ReplicaUnavailable
from core.records import Candidate
from retrieval.analyze import query_terms
from retrieval.bm25 import Field, Seen, field_of, seen
from retrieval.follower import status_at
from retrieval.lexical import Bm25
from retrieval.matrix import Threads, matrix_of
from retrieval.replica import Part, Stored, folder_of, read, stamp
from retrieval.segment import Pairs, Segment, pairs, split
from retrieval.sight import Fresh, ReplicaSight
from store import following, profiles
from store.chunks import Scan
from store.following import Changes, Now, Position, includes
from store.pool import Conn, Store, View, reading, reading_tenant

WATCH_S = 0.5  # between looks for a newer replica
SETTLED_S = 10.0  # that a replica is held after the next has come, for searches that began before that was made
IDLE_S = 600.0  # that nobody asks, before a tenant's replica leaves the memory
FRESH_CHUNKS = 2000  # that a search reads and analyses itself: some 0.1 ms each
FRESH_DOCUMENTS = 32  # visible ones changed since the replica, so that `at_least` need not wait for it
CACHED_ROWS = 8_000_000  # of all scopes' fields together: 9 bytes each
LATE_S = 15.0  # without a step, before readiness says that the follower is away

Key = tuple[UUID, int]  # tenant and profile


@dataclass(frozen=True, slots=True)
class _Known:
    """What a scope shows of a replica, before anything changed."""

    documents: Sequence[NDArray[np.bool_]]  # by part
    parts: Sequence[Seen]
    field: Field


@dataclass(slots=True)
class _Held:
    """A replica in memory, and what callers see of it by their label sets."""

    stored: Stored
    since: float = field(default_factory=time.monotonic)
    known: OrderedDict[tuple[int, ...], _Known] = field(default_factory=OrderedDict)

    @property
    def parts(self) -> tuple[Part, ...]:
        return self.stored.replica.parts

    @property
    def rows(self) -> int:
        return sum(len(part.segment) for part in self.parts)


class ReplicaIndex:
    """Searches the replicas below `root`, which a follower writes. Holds no words: terms are hashes under a key."""

    def __init__(
        self, store: Store, root: Path, bm25: Bm25 | None = None, watch_s: float = WATCH_S, vectors: bool = True
    ) -> None:
        self._store, self._root, self._bm25, self._watch_s = store, root, bm25 or Bm25(), watch_s
        self._vectors, self._threads = vectors, Threads(os.cpu_count() or 1)
        self._lock, self._reading = threading.Lock(), threading.Lock()
        self._held: dict[Key, tuple[_Held, ...]] = {}  # newest first
        self._stamps: dict[Key, tuple[int, ...]] = {}
        self._asked: dict[Key, float] = {}  # when last
        self._closed = threading.Event()
        self._watcher: threading.Thread | None = None

    def look(self, conn: Conn, scan: Scan) -> ReplicaSight:
        """What this transaction shows of the replica in memory. Raises ReplicaUnavailable when this host's replica is
        missing, not read yet, or so far behind that an answer would lack something."""
        key = (scan.scope.tenant_id, scan.profile_id)
        if self._watch_s and key not in self._held:
            self._asked[key] = time.monotonic()
            self._watch()
            raise ReplicaUnavailable("the replica is being read")
        return self._looked(conn, scan, self._newest(key))

    def search(self, query: str, view: View, scan: Scan, k: int, timeout_s: float) -> list[Candidate]:
        """The k visible chunks of largest BM25. Raises StoreUnavailable, and ReplicaUnavailable when this host's
        replica is missing, or so far behind that the answer would lack something."""
        if not query_terms(query):
            return []
        newest = self._newest((scan.scope.tenant_id, scan.profile_id))
        with reading(self._store, view, timeout_s) as conn:
            sight = self._looked(conn, scan, newest)
        return sight.by_words([query], k)[0]

    def forget(self, chunk_ids: Iterable[int]) -> None:
        """Nothing: no search keeps a text, and what the follower rewrites is let go of within `watch_s`."""

    def reaches(self, conn: Conn, tenant_id: UUID) -> bool:
        """Whether a search that starts now has every change of what this transaction's scope shows, or goes without its
        lexical leg for want of a replica."""
        at = self._position(conn, tenant_id)
        return at is None or following.visible_since(conn, tenant_id, at) <= FRESH_DOCUMENTS

    def lag_s(self, conn: Conn, tenant_id: UUID) -> float:
        """Seconds since the first change that this process's replica does not have; nan when it has no replica."""
        at = self._position(conn, tenant_id)
        return float("nan") if at is None else following.lag_s(conn, tenant_id, at)

    def _position(self, conn: Conn, tenant_id: UUID) -> Position | None:
        """Of the newest replica of the tenant's live profile; None when this process has none."""
        try:
            return self._newest((tenant_id, profiles.live_profile(conn, tenant_id).id))[0].stored.replica.position
        except ReplicaUnavailable:
            return None

    def state(self) -> str:
        """`ok`, or what is wrong on this host, whoever asks."""
        at = status_at(self._root)
        if at is None:
            return "no follower has run here: start `citadel follow`"
        return "ok" if time.time() - at < LATE_S else "the follower has stopped"

    def close(self) -> None:
        """End the thread that watches for newer replicas."""
        self._closed.set()
        self._threads.close()

    def refresh(self) -> None:
        """Take up newer replicas of what is held, and let go of older ones' terms. What cannot be read is left out."""
        for key, at in list(self._asked.items()):
            if time.monotonic() - at > IDLE_S:
                self._held.pop(key, None)
                self._asked.pop(key, None)
                continue
            try:
                self._read(key)
            except ReplicaUnavailable:  # the one in memory is whole; its searches tell when it is too far behind
                continue

    def _newest(self, key: Key) -> Sequence[_Held]:
        """What is held, newest first. Raises ReplicaUnavailable."""
        self._asked[key] = time.monotonic()
        held = self._held.get(key)
        if not self._watch_s or held is None:
            try:
                held = self._read(key)
            except ReplicaUnavailable:
                if held is None:
                    raise
        self._watch()
        return held

    def _read(self, key: Key) -> tuple[_Held, ...]:
        folder = folder_of(self._root, *key)
        with self._reading:
            now, held = stamp(folder), self._held.get(key, ())
            if not held or now != self._stamps.get(key):
                held = (_Held(read(folder, held[0].stored if held else None, self._vectors)), *held)
                self._stamps[key] = now
                with self._lock:
                    for older in held[1:]:
                        older.known.clear()
            since = time.monotonic() - SETTLED_S
            self._held[key] = held = (held[0], *(old for new, old in pairwise(held) if new.since > since))
            return held

    def _watch(self) -> None:
        if self._watch_s and self._watcher is None:
            with self._lock:
                if self._watcher is None:
                    self._watcher = threading.Thread(target=self._look, name="replicas", daemon=True)
                    self._watcher.start()

    def _look(self) -> None:
        while not self._closed.wait(self._watch_s):
            self.refresh()

    def _fitting(self, conn: Conn, scan: Scan, held: Sequence[_Held]) -> tuple[_Held, Changes]:
        """The newest replica that saw nothing that this transaction does not see, and what changed since.

        When there is only a newer one, for this process had none when the search began: that, and what changed before.
        """
        tenant_id, found = scan.scope.tenant_id, held[0]
        for found in held:
            position = found.stored.replica.position
            changes = following.changed_since(conn, tenant_id, position)
            if includes(changes.snapshot, position.snapshot):
                break
        else:
            with reading_tenant(self._store, tenant_id) as now:
                changes = following.changed_between(now, conn, tenant_id, position, changes)
        if not changes.same_log:
            raise ReplicaUnavailable("the replica is of another database, or of one since restored")
        return found, changes

    def _looked(self, conn: Conn, scan: Scan, newest: Sequence[_Held]) -> ReplicaSight:
        """What the scan's caller sees in this transaction."""
        held, changes = self._fitting(conn, scan, newest)
        known = self._known(held, scan.scope.label_set_ids)
        taken = None if scan.where is None else following.matching(conn, scan)
        fresh = {each: now for each, now in changes.documents.items() if now is not None and now.version is not None}
        parts = []
        for part, documents, before in zip(held.parts, known.documents, known.parts, strict=True):
            sight = _corrected(part, documents, changes, fresh)
            if taken is not None:
                sight &= _among(part.segment, split(taken))
            parts.append(before if np.array_equal(sight, documents) else seen(part.segment, sight))
        beside = self._beside(conn, scan, fresh, taken)
        same = not beside.texts and all(new is before for new, before in zip(parts, known.parts, strict=True))
        matrices = [part.matrix if self._vectors else None for part in held.parts]
        return ReplicaSight(list(zip(parts, matrices, strict=True)), known.field if same else None, beside,
                            changes.hash_key, self._bm25, self._threads)  # fmt: skip

    def _known(self, held: _Held, label_sets: tuple[int, ...]) -> _Known:
        """What the replica has under these label sets; kept, for most callers ask again."""
        with self._lock:
            if label_sets in held.known:
                held.known.move_to_end(label_sets)
                return held.known[label_sets]
        most = max([0, *label_sets, *(int(part.labels.max(initial=0)) for part in held.parts)])
        shown = np.zeros(most + 2, bool)
        shown[list(label_sets)] = True  # the last stays False: it is where -1 points to
        documents = [shown[part.labels] for part in held.parts]
        parts = [seen(part.segment, each) for part, each in zip(held.parts, documents, strict=True)]
        known = _Known(documents, parts, field_of(parts, self._bm25))
        with self._lock:
            held.known[label_sets] = known
            while len(held.known) > max(1, CACHED_ROWS // max(1, held.rows)):
                held.known.popitem(last=False)
        return known

    def _beside(self, conn: Conn, scan: Scan, fresh: Mapping[UUID, Now], taken: bytes | None) -> Fresh:
        """What the replica does not have yet, read by this search. Raises ReplicaUnavailable."""
        if taken is not None and fresh:
            among = {taken[at : at + 16] for at in range(0, len(taken), 16)}
            fresh = {document_id: now for document_id, now in fresh.items() if document_id.bytes in among}
        texts = following.texts(conn, scan.profile_id, list(fresh), FRESH_CHUNKS + 1)
        if len(texts) > FRESH_CHUNKS:
            raise ReplicaUnavailable(f"more than {FRESH_CHUNKS} visible chunks are not in the replica yet")
        if not (texts and self._vectors):
            return Fresh(texts)
        ids = np.array([chunk_id for chunk_id, *_ in texts], np.int64)
        return Fresh(texts, matrix_of(following.vectors(conn, scan.profile_id, list(fresh), ids)))


def _corrected(part: Part, sight: NDArray[np.bool_], changes: Changes, fresh: dict[UUID, Now]) -> NDArray[np.bool_]:
    """The sight of the part's documents [d] as of now; takes those that it has out of `fresh`."""
    ids = list(changes.documents)
    corrected = sight.copy()
    for document_id, place in zip(ids, part.segment.find(pairs(ids)).tolist(), strict=True):
        if place >= 0:
            now = changes.documents[document_id]
            there = part.labels[place] >= 0 and now is not None and now.version == part.segment.versions[place]
            corrected[place] = there
            if there:
                fresh.pop(document_id, None)
    return corrected


def _among(segment: Segment, documents: Pairs) -> NDArray[np.bool_]:
    """Which of the segment's documents [d] are among these."""
    among = np.zeros(segment.documents.shape[1], bool)
    places = segment.find(documents)
    among[places[places >= 0]] = True
    return among
