"""Refresh a source: new, changed, moved, relabelled and deleted items each do exactly what they should.

What an item's fingerprint says unchanged is not even read. Bytes that appear under a new name while they vanish under
an old one are a move. What is missing from a complete enumeration is deleted, unless that is more than the source
allows in one refresh.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from uuid import UUID

from core.errors import Invalid, MassDelete, NotFound
from core.records import Source, Submission
from ingest.erase import erase
from ingest.folder import DocumentSource, Listed
from ingest.submit import hold_bytes
from store import documents, sources
from store.blobs import BlobStore
from store.pool import Conn, Store, writing
from store.sources import SeenDocument

Progress = Callable[[int, int], None]  # (done, total)
Hold = Callable[[Conn], None]  # raises LeaseLost, so that the transaction changes nothing
_Likeness = tuple[str, str]  # what is the same before and after a move: the bytes, and how a name says to read them


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


@dataclass(frozen=True, slots=True)
class _Into:
    """Where a refresh writes, and under which lease."""

    store: Store
    blobs: BlobStore
    source: Source
    hold: Hold


def refresh(
    store: Store,
    blobs: BlobStore,
    source: Source,
    reader: DocumentSource,
    *,
    allow_mass_delete: bool = False,
    hold: Hold = lambda conn: None,
    progress: Progress = lambda done, total: None,
) -> RefreshReport:
    """Bring the store in line with the source; every write is made under `hold`.

    Raises MassDelete after everything but the deletions is applied, and what `enumerate` and `hold` raise.
    """
    into = _Into(store, blobs, source, hold)
    with writing(store) as conn:
        seen = sources.seen(conn, source.id)  # before the listing: what is added meanwhile is not missing from it
    listing = reader.enumerate()
    missing = [seen[key] for key in seen.keys() - {item.external_id for item in listing}]
    movable = _by_likeness(missing)
    outcomes: list[_Outcome] = []
    for number, item in enumerate(listing, start=1):
        outcome = _bring_in(into, reader, item, seen.get(item.external_id), movable)
        if outcome.moved:
            missing = [document for document in missing if document.document_id != outcome.moved]
            movable = _by_likeness(missing)
        outcomes.append(outcome)
        progress(number, len(listing))
    deleted = _delete(into, missing, len(seen), allow_mass_delete)
    with writing(store) as conn:
        hold(conn)
        sources.succeeded(conn, source.id)
    counts = Counter(outcome.kind for outcome in outcomes) + Counter(deleted=deleted)
    return RefreshReport(dict(counts), tuple(o.problem for o in outcomes if o.problem))


def _bring_in(
    into: _Into,
    reader: DocumentSource,
    item: Listed,
    seen: SeenDocument | None,
    movable: Mapping[_Likeness, SeenDocument],
) -> _Outcome:
    if seen is not None and seen.fingerprint == item.fingerprint:
        return _Outcome("unchanged")
    try:
        submission = reader.fetch(item)
        key = into.blobs.put(submission.content)
        moved = movable.get(_likeness(key, item.external_id)) if seen is None else None
        return _commit(into, submission, key, item, seen, moved)
    except (OSError, Invalid) as error:  # this item alone: what is listed is never deleted
        if seen is not None:
            _close(into, seen, item)
        name = item.external_id.encode(errors="backslashreplace").decode()
        return _Outcome("unreadable", problem=f"{name}: {error}")


def _commit(
    into: _Into, submission: Submission, key: str, item: Listed, seen: SeenDocument | None, moved: SeenDocument | None
) -> _Outcome:
    with writing(into.store) as conn:
        into.hold(conn)
        hold_bytes(conn, into.blobs, key, submission.content)
        if moved is not None:
            sources.rename(conn, moved.document_id, item.external_id, submission.filename)
        submitted = documents.submit(conn, into.source.tenant_id, into.source.id, submission, key)
        sources.set_fingerprint(conn, submitted.document_id, item.fingerprint)
    if moved is not None:
        return _Outcome("moved", moved=moved.document_id)
    if seen is None:
        return _Outcome("new")
    if submitted.unchanged:
        return _Outcome("unchanged")
    return _Outcome("relabelled" if submitted.version == seen.latest_version else "changed")


def _close(into: _Into, seen: SeenDocument, item: Listed) -> None:
    """The text that is read until the item can be read again must not be open to more people than its path is now."""
    with writing(into.store) as conn:
        into.hold(conn)
        documents.narrow_labels(conn, into.source.tenant_id, seen.document_id, item.labels)
        sources.set_fingerprint(conn, seen.document_id, None)  # to be read again, whatever it looks like then


def _by_likeness(missing: Sequence[SeenDocument]) -> dict[_Likeness, SeenDocument]:
    groups: dict[_Likeness, list[SeenDocument]] = defaultdict(list)
    for document in sorted(missing, key=lambda d: d.external_id):
        if document.blob_key:
            groups[_likeness(document.blob_key, document.external_id)].append(document)
    return {likeness: group[0] for likeness, group in groups.items()}


def _likeness(blob_key: str, external_id: str) -> _Likeness:
    return blob_key, PurePosixPath(external_id).suffix.lower()


def _delete(into: _Into, gone: Sequence[SeenDocument], total: int, allow_mass_delete: bool) -> int:
    source = into.source
    if gone and len(gone) > source.max_deleted_share * total and not allow_mass_delete:
        raise MassDelete(
            f"{len(gone)} of {total} documents of source {source.name!r} are gone, more than its share of "
            f"{source.max_deleted_share:.0%}; nothing was deleted. If that is right: "
            f"citadel refresh {source.name} --allow-mass-delete"
        )
    return sum(_delete_one(into, document.document_id) for document in gone)


def _delete_one(into: _Into, document_id: UUID) -> bool:
    """Whether this was who deleted it."""
    try:
        erase(
            into.store, into.blobs, into.source.tenant_id, document_id, by=f"source:{into.source.name}", hold=into.hold
        )
    except NotFound:
        return False
    return True
