"""Keeps this host's replicas in step with Postgres: one process a host, as the maintenance role.

A step takes a snapshot, asks what changed since the replica's own, and publishes a replica of the new one. What is
missing, damaged or of another database is made anew from Postgres. Nothing else is kept: every file may be deleted.
"""

import fcntl
import json
import logging
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from uuid import UUID

import numpy as np

from core.errors import CitadelError, ReplicaUnavailable
from retrieval.matrix import matrix_of, rows_of, stacked
from retrieval.replica import Part, Replica, Stored, folder_of, is_replica, publish, read, stamp, stamps, sweep
from retrieval.segment import Pairs, build, entries_of, hasher, in_joined, joined, pairs, without
from store import following
from store.following import Changes, Now, Tenant
from store.pool import Conn, Store

log = logging.getLogger("citadel.follower")

POLL_S = 0.5
ERASE_AFTER_S = 5.0  # from the step that sees a deletion to the one that rewrites the segment; several in one go
MOST_DEAD = 0.2  # of a segment's documents, before it is rewritten
GROWTH = 2  # a segment is at least so many times as large as the one after it, or they become one
STATUS = "follower.json"
LOCK = "follower.lock"


class Follower:
    """Writes the replicas of all tenants below `root`. Not for two processes at once: see `only_one`."""

    def __init__(self, store: Store, root: Path, erase_after_s: float = ERASE_AFTER_S, vectors: bool = True) -> None:
        self._store, self._root, self._erase_after_s, self._vectors = store, root, erase_after_s, vectors
        self._held: dict[tuple[UUID, int], tuple[Stored, list[tuple[int, ...]]]] = {}

    def run(self, going: Callable[[], bool]) -> None:
        """Step, twice a second, while `going`; what fails for a passing reason is tried again."""
        while going():
            try:
                self.step()
            except (CitadelError, OSError) as error:
                log.warning("the replicas stay as they are: %s", error)
            time.sleep(POLL_S)

    def step(self) -> None:
        """Bring every tenant's replica to now. Raises StoreUnavailable and OSError; each replica is whole then too."""
        self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
        with following.following(self._store) as conn:
            tenants = following.tenants(conn)
        self._forget_all_but({(tenant.id, tenant.profile_id) for tenant in tenants})
        failed = [error for tenant in tenants if (error := self._tried(tenant))]
        if failed:
            raise failed[0]
        unfinished = self._root / f"{STATUS}.unfinished"
        unfinished.write_text(json.dumps({"at": time.time()}))
        unfinished.replace(self._root / STATUS)

    def _tried(self, tenant: Tenant) -> Exception | None:
        """Follow; what goes wrong with one tenant's replica must not keep the others' back."""
        try:
            self._follow(tenant)
        except (CitadelError, OSError) as error:
            log.warning("the replica of tenant %s stays as it is: %s", tenant.id, error)
            return error
        return None

    def _follow(self, tenant: Tenant) -> None:
        key, folder = (tenant.id, tenant.profile_id), folder_of(self._root, tenant.id, tenant.profile_id)
        stored = self._current(key, folder)
        with following.following(self._store) as conn:
            as_wanted = stored and all((part.matrix is not None) == self._vectors for part in stored.replica.parts)
            wanted = self._advanced(conn, tenant, stored.replica) if stored and as_wanted else None
            if wanted is None:
                log.info("making the replica of tenant %s anew", tenant.id)
                stored, wanted = None, self._anew(conn, tenant)
        wanted = tidied(wanted, time.time())
        if stored is None or wanted is not stored.replica:
            stored = publish(folder, wanted, stored)
            self._held[key] = stored, stamps(folder, stored)

    def _anew(self, conn: Conn, tenant: Tenant) -> Replica:
        at = following.position(conn, tenant.id)
        segment = build(entries_of(following.all_texts(conn, tenant.profile_id, tenant.id)), hasher(tenant.hash_key))
        if not len(segment):
            return Replica(at, ())
        matrix = matrix_of(following.all_vectors(conn, tenant, segment.chunk_ids)) if self._vectors else None
        return Replica(at, (Part(segment, _in_order(segment.documents, following.labels(conn, tenant.id)), matrix),))

    def _advanced(self, conn: Conn, tenant: Tenant, replica: Replica) -> Replica | None:
        """The replica at this transaction's snapshot; None when it cannot be had from this one."""
        changes = following.changed_since(conn, tenant.id, replica.position)
        if not (changes.same_log and following.includes(changes.snapshot, replica.position.snapshot)):
            return None
        if not changes.documents:
            return replica
        erase_by = time.time() + self._erase_after_s
        parts = [_moved(part, changes, erase_by) for part in replica.parts]
        if new := _not_in(parts, changes):
            parts.append(self._part_of(conn, tenant, new))
        return Replica(following.position(conn, tenant.id), tuple(parts))

    def _part_of(self, conn: Conn, tenant: Tenant, new: dict[UUID, Now]) -> Part:
        entries = entries_of(following.texts(conn, tenant.profile_id, list(new)))
        segment = build(entries, hasher(tenant.hash_key))
        label_sets = {document_id: now.label_set_id for document_id, now in new.items()}
        placed = _in_order(segment.documents, label_sets)
        if not self._vectors:
            return Part(segment, placed)
        halves = following.vectors(conn, tenant.profile_id, list(new), segment.chunk_ids, tenant.dimensions)
        return Part(segment, placed, matrix_of(halves))

    def _current(self, key: tuple[UUID, int], folder: Path) -> Stored | None:
        """What was published last, from this process's memory as long as nobody touched the files."""
        try:
            if key not in self._held:
                stored = read(folder)
                sweep(folder, stored.files)
                self._held[key] = stored, stamps(folder, stored)
            stored, seen = self._held[key]
            if stamps(folder, stored) == seen:
                return stored
            log.warning("somebody changed the files in %s", folder)
        except ReplicaUnavailable as error:
            if stamp(folder):  # else there is none yet
                log.warning("%s", error)
        self._held.pop(key, None)
        return None

    def _forget_all_but(self, keys: set[tuple[UUID, int]]) -> None:
        for key in self._held.keys() - keys:
            del self._held[key]
        folders = {str(folder_of(self._root, *key)) for key in keys}
        for folder in self._root.glob("*/*"):
            if str(folder) not in folders and is_replica(folder):
                shutil.rmtree(folder)
                if not any(folder.parent.iterdir()):
                    folder.parent.rmdir()


@contextmanager
def only_one(root: Path, going: Callable[[], bool]) -> Iterator[bool]:
    """Wait to be this host's one follower; False when `going` ended first."""
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (root / LOCK).open("w") as file:
        held = _locked(file.fileno())
        while not held and going():
            time.sleep(POLL_S)
            held = _locked(file.fileno())
        yield held


def status_at(root: Path) -> float | None:
    """When a follower last ended a step on this host, in seconds of the epoch; None when there is no sign of one."""
    try:
        return float(json.loads((root / STATUS).read_text())["at"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def tidied(replica: Replica, now: float) -> Replica:
    """The replica with what left taken out where it is time to, and segments of like size made one."""
    parts = [part for part in replica.parts if len(part.segment)]
    parts = [_swept(part) if _to_sweep(part, now) else part for part in parts]
    parts = [part for part in parts if len(part.segment)]
    while len(parts) > 1 and len(parts[-2].segment.rows) < GROWTH * len(parts[-1].segment.rows):
        parts[-2:] = [_as_one([_swept(part) for part in parts[-2:]])]
    same = len(parts) == len(replica.parts) and all(a is b for a, b in zip(parts, replica.parts, strict=True))
    return replica if same else replace(replica, parts=tuple(parts))


def _moved(part: Part, changes: Changes, erase_by: float) -> Part:
    """The part with the changed documents' label sets; -1 for those that left, or have another version."""
    ids = list(changes.documents)
    places = part.segment.find(pairs(ids))
    labels, deadline = part.labels.copy(), part.erase_by
    for document_id, place in zip(ids, places.tolist(), strict=True):
        now = changes.documents[document_id]
        if place >= 0 and now is None:
            labels[place], deadline = -1, deadline or erase_by
        elif place >= 0 and now is not None and labels[place] >= 0:
            labels[place] = now.label_set_id if now.version == part.segment.versions[place] else -1
    unmoved = deadline == part.erase_by and np.array_equal(labels, part.labels)
    return part if unmoved else replace(part, labels=labels, erase_by=deadline)


def _not_in(parts: Iterable[Part], changes: Changes) -> dict[UUID, Now]:
    """The changed documents whose current version is in none of the parts."""
    there = {each: now for each, now in changes.documents.items() if now is not None and now.version is not None}
    ids = list(there)
    for part in parts:
        for document_id, place in zip(ids, part.segment.find(pairs(ids)).tolist(), strict=True):
            if place >= 0 and part.labels[place] >= 0:
                there.pop(document_id, None)
    return there


def _in_order(documents: Pairs, label_sets: dict[UUID, int]) -> "np.ndarray[tuple[int], np.dtype[np.int32]]":
    ids = (UUID(int=(high << 64) | low) for high, low in zip(*documents.tolist(), strict=True))
    return np.array([label_sets[document_id] for document_id in ids], np.int32)


def _to_sweep(part: Part, now: float) -> bool:
    dead = 1 - float(np.mean(part.alive()))
    return dead > MOST_DEAD or (part.erase_by is not None and now >= part.erase_by)


def _swept(part: Part) -> Part:
    alive = part.alive()
    matrix = rows_of(part.matrix, alive[part.segment.document]) if part.matrix is not None else None
    return Part(without(part.segment, alive), part.labels[alive], matrix)


def _as_one(parts: list[Part]) -> Part:
    segments = [part.segment for part in parts]
    vectors = [part.matrix for part in parts if part.matrix is not None]
    matrix = stacked(vectors) if len(vectors) == len(parts) else None
    return Part(joined(segments), in_joined(segments, [part.labels for part in parts]), matrix)


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
