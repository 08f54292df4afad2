"""Attachments: documents below the message that they came with, and always under its label set.

The foreign key keeps `documents.label_set_id` the parent's, whoever changes it. What else depends on labels follows
here, in the same transaction. A child has one version and never another: changed bytes are another child, so a wider
message never opens what an attachment of a narrower one said.
"""

import hashlib
from dataclasses import dataclass
from uuid import UUID

from store import changes, jobs, renames
from store.pool import Conn

NAME_LENGTH = 100  # characters of a file's name in the external id
PARENT_BYTES = 700  # of the parent's external id in it; a longer one is cut, and told apart by its hash

BELOW = """
    WITH RECURSIVE below (id, depth) AS (
        SELECT id, 1 FROM documents WHERE parent_id = %s
        UNION ALL SELECT d.id, b.depth + 1 FROM documents d JOIN below b ON d.parent_id = b.id
    ) SELECT id FROM below ORDER BY depth DESC, id
"""
HOLD = "SELECT FROM documents WHERE id = ANY(%s) FOR UPDATE"
ROOT = """
    WITH RECURSIVE up (id, parent_id, depth) AS (
        SELECT id, parent_id, 0 FROM documents WHERE id = %s
        UNION ALL SELECT d.id, d.parent_id, u.depth + 1 FROM documents d JOIN up u ON d.id = u.parent_id
    ) SELECT id, depth, (SELECT external_id FROM documents WHERE id = %s) FROM up ORDER BY depth DESC LIMIT 1
"""
CHILDREN = "SELECT id, external_id FROM documents WHERE parent_id = %s"
ADD = """
    INSERT INTO documents (tenant_id, source_id, external_id, label_set_id, title, uri, parent_id, latest_version)
    SELECT p.tenant_id, p.source_id, %(external_id)s, p.label_set_id, %(name)s, p.uri, p.id, 1
    FROM documents p WHERE p.id = %(parent)s
    ON CONFLICT (source_id, external_id) DO NOTHING RETURNING id, tenant_id
"""
ADD_VERSION = """
    INSERT INTO versions (document_id, version, tenant_id, label_set_id, content_hash, blob_key, size, mime_type,
                          filename, title)
    SELECT d.id, 1, d.tenant_id, d.label_set_id, %(digest)s, %(key)s, %(size)s, %(mime_type)s, %(name)s, %(name)s
    FROM documents d WHERE d.id = %(id)s
"""
FOLLOW = """
    UPDATE versions v SET label_set_id = d.label_set_id FROM documents d
    WHERE d.id = ANY(%s) AND v.document_id = d.id AND v.label_set_id <> d.label_set_id
    RETURNING d.id, d.label_set_id, d.current_version
"""


@dataclass(frozen=True, slots=True)
class KeptFile:
    """An attachment whose bytes are in the blob store."""

    name: str
    mime_type: str | None  # as the message declares it
    blob_key: str
    size: int  # bytes


@dataclass(frozen=True, slots=True)
class Tree:
    """What hangs below a topmost message, seen from one document of it."""

    parent_name: str  # the document's external id
    depth: int  # the topmost message's is 0
    members: int  # all below the topmost message, however deep


def external_id(parent: str, file: KeptFile) -> str:
    """The parent's name, what the bytes are, and the file's name; other bytes are another document."""
    return _below(parent, f"#{file.blob_key[:16]}/{file.name.replace('#', '_')[:NAME_LENGTH]}")


def children(conn: Conn, parent_id: UUID) -> dict[str, UUID]:
    """The attachments of this document itself, by external id."""
    return {name: child for child, name in conn.execute(CHILDREN, (parent_id,)).fetchall()}


def below(conn: Conn, document_id: UUID) -> list[UUID]:
    """All that hangs below a document, the deepest first, locked; whoever asks holds the document's row."""
    found = [child for (child,) in conn.execute(BELOW, (document_id,)).fetchall()]
    if found:
        conn.execute(HOLD, (found,))
    return found


def tree_of(conn: Conn, document_id: UUID) -> Tree:
    """Where a document that is to have attachments stands."""
    row = conn.execute(ROOT, (document_id, document_id)).fetchone()
    assert row is not None
    return Tree(row[2], int(row[1]), len(conn.execute(BELOW, (row[0],)).fetchall()))


def add(conn: Conn, parent_id: UUID, name: str, file: KeptFile) -> UUID | None:
    """A child with a job that will index it; None where something else has its name. The bytes are held."""
    values = {"external_id": name, "name": file.name, "parent": parent_id}
    row = conn.execute(ADD, values).fetchone()
    if row is None:
        return None
    digest = hashlib.sha256(f"{file.blob_key}\0{file.mime_type or ''}\0{file.name}".encode()).digest()
    conn.execute(ADD_VERSION, {"id": row[0], "digest": digest, "key": file.blob_key, "size": file.size,
                               "mime_type": file.mime_type, "name": file.name})  # fmt: skip
    jobs.add_index(conn, row[1], row[0], 1)
    return UUID(str(row[0]))


def follow(conn: Conn, tenant_id: UUID, document_id: UUID) -> None:
    """After a document came under another label set, what hangs below it: versions, vectors, a note for followers."""
    found = below(conn, document_id)
    for child, label_set_id, version in conn.execute(FOLLOW, (found,)).fetchall() if found else ():
        changes.move_vectors(conn, tenant_id, child, label_set_id)
        changes.log(conn, tenant_id, child, version, "relabel")


def rename(conn: Conn, document_id: UUID, name: str) -> None:
    """After a document came to another name, those of what hangs below it."""
    for before, child in children(conn, document_id).items():
        renamed = _below(name, before[before.rindex("#") :])
        renames.rename(conn, child, renamed)
        rename(conn, child, renamed)


def _below(parent: str, suffix: str) -> str:
    if len(parent.encode()) > PARENT_BYTES:
        digest = hashlib.sha256(parent.encode()).hexdigest()[:16]
        parent = f"{parent.encode()[: PARENT_BYTES - 20].decode(errors='ignore')}~{digest}"
    return parent + suffix
