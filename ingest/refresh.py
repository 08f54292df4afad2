"""Refresh a source: new, changed, moved, relabelled and deleted items each do exactly what they should.

What an item's fingerprint says unchanged is not even read. Bytes that appear under a new name while they vanish under
an old one are a move. What is missing from a complete enumeration is deleted, unless that is more than the source
allows in one refresh.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from core.errors import Invalid, MassDelete
from core.records import Source, Submission
from ingest.folder import DocumentSource, Listed
from store import documents, sources
from store.blobs import BlobStore
from store.pool import Store, writing
from store.sources import SeenDocument

Progress = Callable[[int, int], None]  # (done, total)


@dataclass(frozen=True, slots=True)
class RefreshReport:
    """What a refresh did: how many of each, and what could not be read."""

    counts: dict[str, int]  # new, changed, moved, relabelled, unchanged, unreadable, deleted
    problems: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What one item came to."""

    kind: str
    moved: UUID | None = None  # the document that only changed its name
    problem: str | None = None


def refresh(
    store: Store,
    blobs: BlobStore,
    source: Source,
    reader: DocumentSource,
    *,
    allow_mass_delete: bool = False,
    progress: Progress = lambda done, total: None,
) -> RefreshReport:
    """Bring the store in line with the source. Raises MassDelete after everything but the deletions is applied."""
    listing = reader.enumerate()
    with writing(store) as conn:
        seen = sources.seen(conn, source.id)
    missing = [seen[key] for key in seen.keys() - {item.external_id for item in listing}]
    movable = _by_bytes(missing)
    outcomes: list[_Outcome] = []
    for number, item in enumerate(listing, start=1):
        outcome = _bring_in(store, blobs, source, reader, item, seen.get(item.external_id), movable)
        if outcome.moved:
            missing = [document for document in missing if document.document_id != outcome.moved]
            movable = _by_bytes(missing)
        outcomes.append(outcome)
        progress(number, len(listing))
    deleted = _delete(store, blobs, source, missing, len(seen), allow_mass_delete)
    with writing(store) as conn:
        sources.succeeded(conn, source.id)
    counts = Counter(outcome.kind for outcome in outcomes) + Counter(deleted=deleted)
    return RefreshReport(dict(counts), tuple(o.problem for o in outcomes if o.problem))


def _bring_in(
    store: Store,
    blobs: BlobStore,
    source: Source,
    reader: DocumentSource,
    item: Listed,
    seen: SeenDocument | None,
    missing: Mapping[str, SeenDocument],
) -> _Outcome:
    if seen is not None and seen.fingerprint == item.fingerprint:
        return _Outcome("unchanged")
    try:
        submission = reader.fetch(item)
        key = blobs.put(submission.content)
        moved = missing.get(key) if seen is None else None
        return _commit(store, source, submission, key, item, seen, moved)
    except (OSError, Invalid) as error:  # this item alone: what is listed is never deleted
        return _Outcome("unreadable", problem=f"{item.external_id}: {error}")


def _commit(
    store: Store,
    source: Source,
    submission: Submission,
    key: str,
    item: Listed,
    seen: SeenDocument | None,
    moved: SeenDocument | None,
) -> _Outcome:
    with writing(store) as conn:
        if moved is not None:
            sources.rename(conn, moved.document_id, item.external_id)
        submitted = documents.submit(conn, source.tenant_id, source.id, submission, key)
        sources.set_fingerprint(conn, submitted.document_id, item.fingerprint)
    before = moved or seen
    if moved is not None:
        return _Outcome("moved", moved=moved.document_id)
    if before is None:
        return _Outcome("new")
    if submitted.unchanged:
        return _Outcome("unchanged")
    return _Outcome("relabelled" if submitted.version == before.latest_version else "changed")


def _by_bytes(missing: Sequence[SeenDocument]) -> dict[str, SeenDocument]:
    groups: dict[str, list[SeenDocument]] = defaultdict(list)
    for document in sorted(missing, key=lambda d: d.external_id):
        if document.blob_key:
            groups[document.blob_key].append(document)
    return {key: group[0] for key, group in groups.items()}


def _delete(
    store: Store, blobs: BlobStore, source: Source, gone: Sequence[SeenDocument], total: int, allow_mass_delete: bool
) -> int:
    if gone and len(gone) > source.max_deleted_share * total and not allow_mass_delete:
        raise MassDelete(
            f"{len(gone)} of {total} documents of source {source.name!r} are gone, more than its share of "
            f"{source.max_deleted_share:.0%}; nothing was deleted. If that is right: "
            f"citadel refresh {source.name} --allow-mass-delete"
        )
    for document in gone:
        with writing(store) as conn:
            unused = documents.delete(conn, source.tenant_id, document.document_id)
        for key in unused:
            blobs.delete(key)
    return len(gone)
