"""Refresh a source: new, changed, moved, relabelled and deleted items each do exactly what they should.

The source's listing is written down first, then worked through in batches: a worker that dies is followed by one that
goes on where it was. What an item's fingerprint says unchanged is not even read. Bytes that appear under a new name
while they vanish under an old one are a move. What is missing from a complete listing is deleted, unless something of
the source could not be read, or that is more than the source allows in one refresh.
"""

import hashlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from uuid import UUID, uuid4

from core.errors import Invalid, MassDelete, NotFound, Overloaded, SourceUnavailable
from core.records import Labels, Source, Submission
from ingest.erase import erase
from ingest.source import DocumentSource, Listed
from ingest.sources.front_matter import labels_within
from ingest.sources.rule_files import STATE as RULE_FILES
from ingest.submit import check_external_id, hold_bytes
from ingest.sweep import delete_unused
from store import documents, listings, sources
from store.blobs import BlobStore
from store.listings import ListedDocument
from store.pool import Conn, Store, writing

Progress = Callable[[int], None]  # items done
Hold = Callable[[Conn], None]  # raises LeaseLost, so that the transaction changes nothing

BATCH = 200  # items between two notes of how far it is


@dataclass(frozen=True, slots=True)
class RefreshReport:
    """What a refresh did: how many of each, and what could not be read."""

    counts: dict[str, int]  # new, changed, moved, relabelled, unchanged, unreadable, deleted
    problems: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What one item came to."""

    kind: str
    problem: str | None = None
    outage: bool = False  # the source did not hand it over: nobody knows what else it lacks


@dataclass(frozen=True, slots=True)
class _Into:
    """Where a refresh writes, and under which lease."""

    store: Store
    blobs: BlobStore
    source: Source
    hold: Hold
    permissions_only: bool = False


@dataclass(slots=True)
class _Tally:
    """What the items came to so far."""

    counts: Counter[str] = field(default_factory=Counter)

    def of(self, outcomes: list[_Outcome]) -> None:
        self.counts.update(outcome.kind for outcome in outcomes)
        self.counts["outages"] += sum(outcome.outage for outcome in outcomes)


def refresh(
    store: Store,
    blobs: BlobStore,
    source: Source,
    reader: DocumentSource,
    *,
    run: UUID | None = None,
    permissions_only: bool = False,
    allow_mass_delete: bool = False,
    hold: Hold = lambda conn: None,
    progress: Progress = lambda done: None,
) -> RefreshReport:
    """Bring the store in line with the source; every write is made under `hold`.

    The same `run` goes on where it was. With `permissions_only` the labels alone follow: nothing is fetched, added or
    deleted. Raises MassDelete after everything but the deletions is applied, and what `enumerate` and `hold` raise.
    """
    into = _Into(store, blobs, source, hold, permissions_only)
    with writing(store) as conn:
        hold(conn)
        listing = listings.begin(conn, source, run or uuid4())
    tally = _Tally(Counter(listing.counts))
    if not listing.ended:
        _list(into, reader, listing.cursor, tally)
    _work(into, reader, listing.done_to, tally, progress)
    if not permissions_only:
        _delete_missing(into, tally, allow_mass_delete)
    return _end(into, tally)


def _list(into: _Into, reader: DocumentSource, cursor: str | None, tally: _Tally) -> None:
    """Write down what there is."""
    complete, state = False, {}
    for page in reader.enumerate(cursor):
        named, problems = _named(page.items)
        tally.counts["unreadable"] += len(problems)
        with writing(into.store) as conn:
            into.hold(conn)
            rows = [(item.external_id, item.fingerprint, item.note) for item in named]
            listings.add(conn, into.source, rows, page.cursor, (*page.problems, *problems), tally.counts)
        complete, state = page.complete, dict(page.state)
    with writing(into.store) as conn:
        into.hold(conn)
        listings.end(conn, into.source.id, complete, state)
        if complete:  # from here on labels follow these, however the refresh ends
            sources.remember(conn, into.source.id, {key: state[key] for key in (RULE_FILES,) if key in state})


def _named(items: tuple[Listed, ...]) -> tuple[list[Listed], list[str]]:
    """Items whose names can be kept, and what is wrong with the others."""
    named, problems = [], []
    for item in items:
        try:
            check_external_id(item.external_id)
            named.append(item)
        except Invalid as error:
            problems.append(_problem(item.external_id, error))
    return named, problems


def _work(into: _Into, reader: DocumentSource, done_to: str | None, tally: _Tally, progress: Progress) -> None:
    while True:
        with writing(into.store) as conn:
            batch = listings.batch(conn, into.source.id, done_to, BATCH)
        if not batch:
            return
        outcomes: list[_Outcome] = []
        try:
            for row in batch:
                outcomes.append(_bring_in(into, reader, row))
                progress(tally.counts.total() + len(outcomes))
        except Overloaded:  # it goes on when there is room
            _note(into, batch[: len(outcomes)], outcomes, tally)
            raise
        _note(into, batch, outcomes, tally)
        done_to = batch[-1].external_id


def _note(into: _Into, done: list[ListedDocument], outcomes: list[_Outcome], tally: _Tally) -> None:
    tally.of(outcomes)
    problems = [outcome.problem for outcome in outcomes if outcome.problem]
    with writing(into.store) as conn:
        into.hold(conn)
        listings.advance(conn, into.source.id, done[-1].external_id, tally.counts, problems)


def _bring_in(into: _Into, reader: DocumentSource, row: ListedDocument) -> _Outcome:
    item = Listed(row.external_id, row.fingerprint, row.note)
    if into.permissions_only and row.document_id is None:
        return _Outcome("skipped")
    labels = None
    try:
        labels = reader.permissions(item)
        mark = _mark(labels)
        if into.permissions_only or (row.fingerprint is not None and row.seen_fingerprint == row.fingerprint):
            return _Outcome("unchanged") if row.permissions == mark else _relabel(into, row, labels, mark)
        submission = reader.fetch(item, labels)
        key = into.blobs.put(submission.content)
        return _commit(into, submission, key, row, mark)
    except (OSError, Invalid, SourceUnavailable) as error:  # this item alone: what is listed is never deleted
        if row.document_id is not None and labels is not None:
            _close(into, row.document_id, labels)
        outage = isinstance(error, OSError | SourceUnavailable) and not isinstance(error, FileNotFoundError)
        return _Outcome("unreadable", _problem(row.external_id, error), outage)


def _relabel(into: _Into, row: ListedDocument, labels: Labels, mark: str) -> _Outcome:
    """Other permissions, the same content: of a file that says more about itself, that goes on."""
    assert row.document_id is not None
    own = labels_within(into.source.kind, row.external_id, row.blob_key, into.blobs.get)
    with writing(into.store) as conn:
        into.hold(conn)
        moved = documents.relabel(conn, into.source.tenant_id, row.document_id, own or labels)
        sources.set_permissions(conn, row.document_id, mark)
    return _Outcome("relabelled" if moved else "unchanged")


def _commit(into: _Into, submission: Submission, key: str, row: ListedDocument, mark: str) -> _Outcome:
    with writing(into.store) as conn:
        into.hold(conn)
        hold_bytes(conn, into.blobs, key, submission.content)
        moved = _moved_from(conn, into, key, row) if row.document_id is None else None
        if moved is not None:
            sources.rename(conn, moved, row.external_id, submission.filename)
        submitted = documents.submit(conn, into.source.tenant_id, into.source.id, submission, key)
        sources.set_marks(conn, submitted.document_id, row.fingerprint, mark)
    if row.blob_key not in (None, key) and submitted.version == row.latest_version:  # its bytes before, for good
        delete_unused(into.store, into.blobs, [str(row.blob_key)])
    if moved is not None:
        return _Outcome("moved")
    if row.document_id is None:
        return _Outcome("new")
    if submitted.unchanged:
        return _Outcome("unchanged")
    return _Outcome("relabelled" if submitted.version == row.latest_version else "changed")


def _moved_from(conn: Conn, into: _Into, key: str, row: ListedDocument) -> UUID | None:
    """The missing document that this one was: the same bytes, under a name that says to read them the same way."""
    if not listings.head(conn, into.source.id).complete:
        return None
    wanted = PurePosixPath(row.external_id).suffix.lower()
    candidates = listings.moved_from(conn, into.source.id, key)
    return next((i for i, name in candidates if PurePosixPath(name).suffix.lower() == wanted), None)


def _close(into: _Into, document_id: UUID, labels: Labels) -> None:
    """The text that is read until the item can be read again must not be open to more people than its path is now."""
    with writing(into.store) as conn:
        into.hold(conn)
        documents.narrow_labels(conn, into.source.tenant_id, document_id, labels)
        sources.read_again(conn, document_id)


def _delete_missing(into: _Into, tally: _Tally, allow_mass_delete: bool) -> None:
    source = into.source
    with writing(into.store) as conn:
        into.hold(conn)
        complete = listings.head(conn, source.id).complete and not tally.counts["outages"]
        gone, total = listings.missing(conn, source.id) if complete else (0, 0)
    if gone and gone > source.max_deleted_share * total and not allow_mass_delete:
        _end(into, tally, complete=False)
        raise MassDelete(
            f"{gone} of {total} documents of source {source.name!r} are gone, more than its share of "
            f"{source.max_deleted_share:.0%}; nothing was deleted. If that is right: "
            f"citadel refresh {source.name} --allow-mass-delete"
        )
    while complete:
        with writing(into.store) as conn:
            found = listings.missing_ids(conn, source.id, BATCH)
        if not found:
            return
        tally.counts["deleted"] += sum(_delete_one(into, document_id) for document_id in found)


def _delete_one(into: _Into, document_id: UUID) -> bool:
    """Whether this was who deleted it."""
    try:
        erase(
            into.store, into.blobs, into.source.tenant_id, document_id, by=f"source:{into.source.name}", hold=into.hold
        )
    except NotFound:
        return False
    return True


def _end(into: _Into, tally: _Tally, *, complete: bool = True) -> RefreshReport:
    """Note how fresh the source's documents are now, and forget the listing."""
    with writing(into.store) as conn:
        into.hold(conn)
        listing = listings.head(conn, into.source.id)
        problems = list(listing.problems)
        if into.permissions_only and listing.complete and not tally.counts["unreadable"]:
            sources.permitted(conn, into.source.id, listing.began_at)
        elif complete and listing.complete and not tally.counts["outages"]:
            sources.succeeded(conn, into.source.id, listing.began_at, listing.state)
        elif complete and not into.permissions_only:
            problems.insert(0, "not everything could be read, so nothing was deleted")
        listings.drop(conn, into.source.id)
    told = {kind: n for kind, n in tally.counts.items() if n and kind not in ("outages", "skipped")}
    return RefreshReport(told, tuple(problems))


def _mark(labels: Labels) -> str:
    return hashlib.sha256(repr(labels).encode()).hexdigest()[:16]


def _problem(external_id: str, error: Exception) -> str:
    return f"{external_id.encode(errors='backslashreplace').decode()}: {error}"
