"""Attachments become documents below their message: what a new version adds and takes away."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from uuid import UUID

from core.attachments import Attachment, AttachmentCode, RefusedAttachment
from core.records import Lease, ParsedDocument
from ingest.confine import ParseLimits
from ingest.parsers.attached import TOO_DEEP, TOO_MANY, told
from ingest.submit import hold_bytes
from store import attachments, erase, jobs
from store.attachments import KeptFile, Tree
from store.blobs import BlobStore
from store.pool import Conn

BY = "service:worker"  # whom the audit names for an attachment that a new version lacks


@dataclass(frozen=True, slots=True)
class Carried:
    """An attachment on its way: its bytes, and where the blob store has them."""

    file: KeptFile
    content: bytes


def keep(blobs: BlobStore, files: Sequence[Attachment]) -> list[Carried]:
    """The files' bytes in the blob store, before anything refers to them. Raises BlobUnavailable."""
    return [
        Carried(KeptFile(_name(file.name), file.mime_type, blobs.put(file.content), len(file.content)), file.content)
        for file in files
    ]


def bring_in(
    conn: Conn, blobs: BlobStore, lease: Lease, carried: Sequence[Carried], parsed: ParsedDocument, limits: ParseLimits
) -> None:
    """In the transaction that published a version: a child for each new attachment, and none for those that are gone.

    A child's bytes never change, so what is there already stays as it is. What is refused stands on the job.
    """
    document_id = lease.job.document_id
    assert document_id is not None
    before = attachments.children(conn, document_id)
    if not (before or carried or parsed.refused):
        return
    stay, refused = _add_new(conn, blobs, document_id, before, carried, limits)
    for name in sorted(before.keys() - stay):
        erase.take_away(conn, lease.job.tenant_id, before[name], BY)
    if not_taken := told([*parsed.refused, *refused]):
        jobs.add_detail(conn, lease.job.id, {"refused": [asdict(each) for each in not_taken]})


def _add_new(
    conn: Conn, blobs: BlobStore, parent_id: UUID, before: dict[str, UUID], carried: Sequence[Carried],
    limits: ParseLimits,
) -> tuple[set[str], list[RefusedAttachment]]:  # fmt: skip
    """The names of the children that are right now, and what could become none."""
    tree = attachments.tree_of(conn, parent_id)
    names: set[str] = set()
    refused: list[RefusedAttachment] = []
    for each in carried:
        name = attachments.external_id(tree.parent_name, each.file)
        if name in before or name in names:
            names.add(name)
            continue
        refusal = _no_room(tree, len(names - before.keys()), limits)
        if refusal is None:
            hold_bytes(conn, blobs, each.file.blob_key, each.content)
            added = attachments.add(conn, parent_id, name, each.file)
            refusal = None if added else ("attachment_name_taken", _TAKEN)
        if refusal is None:
            names.add(name)
        else:
            refused.append(RefusedAttachment(each.file.name, *refusal))
    return names, refused


_TAKEN = "a document that is no attachment of this message has its name: rename that one"


def _no_room(tree: Tree, added: int, limits: ParseLimits) -> tuple[AttachmentCode, str] | None:
    if tree.depth >= limits.attachment_depth:
        return "attachment_depth", TOO_DEEP.format(limits.attachment_depth)
    if tree.members + added >= limits.attachments:
        return "attachment_count", TOO_MANY.format(limits.attachments)
    return None


def _name(name: str) -> str:
    """A file's name without any path; never empty."""
    return name.replace("\\", "/").rsplit("/", 1)[-1].replace("\0", "").strip()[:255] or "attachment"
