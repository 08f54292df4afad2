"""An immutable piece of an inverted index, as arrays. It holds no words: terms are hashes under the tenant's key."""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from itertools import islice
from typing import Any
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from retrieval.analyze import index_terms
from store.following import ChunkText

Hash = Callable[[str], int]
Pairs = NDArray[np.uint64]  # [2, n]: the two halves of document ids

MOST = np.iinfo(np.uint16).max
BATCH = 20_000  # chunks that are inverted at a time: two million postings, sorted in 0.2 s


@dataclass(frozen=True, slots=True)
class Entry:
    """A chunk to index."""

    chunk_id: int
    document_id: UUID
    version: int
    terms: Sequence[str]


def entries_of(texts: Iterable[ChunkText]) -> Iterator[Entry]:
    """The chunks with what they are found by."""
    for chunk_id, document_id, version, prefix, text, language in texts:
        yield Entry(chunk_id, document_id, version, index_terms(prefix, text, language))


@dataclass(frozen=True, slots=True)
class Segment:
    """v terms, p postings, n chunks (rows) of d documents; a document's chunks are all of one version."""

    terms: NDArray[np.uint64]  # [v] hashes, ascending
    starts: NDArray[np.int64]  # [v + 1] where each term's postings begin
    rows: NDArray[np.int32]  # [p] ascending within a term
    frequencies: NDArray[np.uint16]  # [p]
    lengths: NDArray[np.int32]  # [n] terms of the chunk, with repeats
    chunk_ids: NDArray[np.int64]  # [n]
    document: NDArray[np.int32]  # [n] place in `documents`
    documents: Pairs  # [2, d] ascending
    versions: NDArray[np.int32]  # [d]

    def __len__(self) -> int:
        return len(self.chunk_ids)

    def spans(self, hashes: NDArray[np.uint64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Where the postings of each of these terms begin and end; the same place for a term that is not here."""
        if not len(self.terms):
            return np.zeros(len(hashes), np.int64), np.zeros(len(hashes), np.int64)
        at = np.minimum(np.searchsorted(self.terms, hashes), len(self.terms) - 1)
        there = self.terms[at] == hashes
        return self.starts[at], np.where(there, self.starts[at + 1], self.starts[at])

    def find(self, documents: Pairs) -> NDArray[np.int64]:
        """The place of each of these documents, or -1."""
        found = np.full(documents.shape[1], -1, np.int64)
        if not self.documents.shape[1]:
            return found
        left = np.searchsorted(self.documents[0], documents[0])
        for step in range(self._twins()):
            at = np.minimum(left + step, self.documents.shape[1] - 1)
            hit = (self.documents[0][at] == documents[0]) & (self.documents[1][at] == documents[1])
            found[hit] = at[hit]
        return found

    def _twins(self) -> int:
        """The most documents whose ids begin alike: one, but for an accident of 64 random bits."""
        alike = self.documents[0][1:] == self.documents[0][:-1]
        return 1 if not alike.any() else int(np.bincount(np.cumsum(~alike)).max()) + 1


def hasher(key: bytes) -> Hash:
    """Terms to 64 bits under a key of up to 64 bytes; two of a million terms collide with a chance of 3 in 10^8."""
    known: dict[str, int] = {}

    def hash_of(term: str) -> int:
        if term not in known:
            digest = hashlib.blake2b(term.encode(errors="surrogatepass"), digest_size=8, key=key).digest()
            known[term] = int.from_bytes(digest, "little")
        return known[term]

    return hash_of


def pairs(document_ids: Iterable[UUID]) -> Pairs:
    """Document ids as arrays compare them."""
    return split(b"".join(document_id.bytes for document_id in document_ids))


def split(ids: bytes) -> Pairs:
    """The same of ids of 16 bytes each, one after another."""
    return np.ascontiguousarray(np.frombuffer(ids, ">u8").reshape(-1, 2).T.astype(np.uint64))


def build(entries: Iterable[Entry], hash_of: Hash) -> Segment:
    """A segment of these chunks."""
    pieces = [_inverted(batch, hash_of) for batch in _batches(entries)]
    return joined(pieces) if len(pieces) != 1 else pieces[0]


def arrays_of(segment: Segment) -> dict[str, NDArray[Any]]:
    """The segment's arrays by name."""
    return {field.name: getattr(segment, field.name) for field in fields(Segment)}


def joined(segments: Sequence[Segment]) -> Segment:
    """One segment of several; rows keep their order, and a document that is in two is of one version."""
    documents, places = _joined_documents(segments)
    terms = np.unique(np.concatenate([s.terms for s in segments])) if segments else np.empty(0, np.uint64)
    at = [np.searchsorted(terms, s.terms) for s in segments]
    counts = np.zeros(len(terms), np.int64)
    for segment, where in zip(segments, at, strict=True):
        counts[where] += np.diff(segment.starts)
    starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])
    rows, frequencies = np.empty(starts[-1], np.int32), np.empty(starts[-1], np.uint16)
    free, first_row = starts[:-1].copy(), 0
    for segment, where in zip(segments, at, strict=True):
        many = np.diff(segment.starts)
        target = np.repeat(free[where] - segment.starts[:-1], many) + np.arange(len(segment.rows))
        rows[target], frequencies[target] = segment.rows + first_row, segment.frequencies
        free[where] += many
        first_row += len(segment)
    return Segment(
        terms,
        starts,
        rows,
        frequencies,
        _together([s.lengths for s in segments], np.int32),
        _together([s.chunk_ids for s in segments], np.int64),
        _together([place[s.document] for s, place in zip(segments, places, strict=True)], np.int32),
        documents,
        _in_places([s.versions for s in segments], places, np.int32),
    )


def in_joined(segments: Sequence[Segment], values: Sequence[NDArray[np.int32]]) -> NDArray[np.int32]:
    """Values by document of each segment, in the places that the documents have in the joined one."""
    return _in_places(values, _joined_documents(segments)[1], np.int32)


def without(segment: Segment, alive: NDArray[np.bool_]) -> Segment:
    """The segment with these of its documents [d] alone; nothing of the others is left in it."""
    if alive.all():
        return segment
    kept_rows = alive[segment.document]
    kept = kept_rows[segment.rows]
    before = np.concatenate([np.zeros(1, np.int64), np.cumsum(kept)])[segment.starts]
    used = np.diff(before) > 0
    return Segment(
        segment.terms[used],
        np.concatenate([before[:-1][used], before[-1:]]),
        (np.cumsum(kept_rows) - 1)[segment.rows[kept]].astype(np.int32),
        segment.frequencies[kept],
        segment.lengths[kept_rows],
        segment.chunk_ids[kept_rows],
        (np.cumsum(alive) - 1)[segment.document[kept_rows]].astype(np.int32),
        np.ascontiguousarray(segment.documents[:, alive]),
        segment.versions[alive],
    )


def _batches(entries: Iterable[Entry]) -> Iterator[list[Entry]]:
    waiting = iter(entries)
    while batch := list(islice(waiting, BATCH)):
        yield batch


def _inverted(entries: Sequence[Entry], hash_of: Hash) -> Segment:
    versions = {entry.document_id: entry.version for entry in entries}
    ordered = sorted(versions, key=lambda document_id: document_id.bytes)
    place = {document_id: number for number, document_id in enumerate(ordered)}
    numbers: dict[str, int] = {}
    term_of: list[int] = []
    row_of: list[int] = []
    times: list[int] = []
    for row, entry in enumerate(entries):
        counted = Counter(entry.terms)
        term_of += [numbers.setdefault(term, len(numbers)) for term in counted]
        row_of += [row] * len(counted)
        times += counted.values()
    # Two terms of one hash, should that ever be, would be one term here and in questions alike.
    terms, number_to_place = np.unique(np.array([hash_of(term) for term in numbers], np.uint64), return_inverse=True)
    by_term = number_to_place[np.array(term_of, np.int64)].astype(np.int64)
    order = np.argsort(by_term, kind="stable")
    return Segment(
        terms,
        np.searchsorted(by_term[order], np.arange(len(terms) + 1)).astype(np.int64),
        np.array(row_of, np.int32)[order],
        np.minimum(np.array(times, np.int64), MOST).astype(np.uint16)[order],
        np.array([len(entry.terms) for entry in entries], np.int32),
        np.array([entry.chunk_id for entry in entries], np.int64),
        np.array([place[entry.document_id] for entry in entries], np.int32),
        pairs(ordered),
        np.array([versions[document_id] for document_id in ordered], np.int32),
    )


def _joined_documents(segments: Sequence[Segment]) -> tuple[Pairs, list[NDArray[np.int64]]]:
    """All documents in order, and of each segment's the places among them; those of a batch may go on in the next."""
    if not segments:
        return np.empty((2, 0), np.uint64), []
    every = np.concatenate([s.documents for s in segments], axis=1)
    order = np.lexsort((every[1], every[0]))
    ordered = every[:, order]
    new = np.ones(ordered.shape[1], bool)
    new[1:] = (ordered[:, 1:] != ordered[:, :-1]).any(axis=0)
    place = np.empty(ordered.shape[1], np.int64)
    place[order] = np.cumsum(new) - 1
    borders = np.cumsum([s.documents.shape[1] for s in segments])[:-1]
    return np.ascontiguousarray(ordered[:, new]), list(np.split(place, borders))


def _in_places(
    values: Sequence[NDArray[Any]], places: Sequence[NDArray[np.int64]], kind: type[np.int32]
) -> NDArray[np.int32]:
    found = np.zeros(max((int(place.max(initial=-1)) + 1 for place in places), default=0), kind)
    for value, place in zip(values, places, strict=True):
        found[place] = value
    return found


def _together(parts: Sequence[NDArray[Any]], kind: type[np.generic]) -> NDArray[Any]:
    return np.concatenate([np.empty(0, kind), *parts]).astype(kind, copy=False)
