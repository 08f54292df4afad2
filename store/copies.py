"""Documents that say the same: families of exact and near copies, each within one label set of a tenant.

A document's fingerprint stands under its label set. A trigger takes it out of its family in whatever transaction puts
the document under other labels or another version; with the document it goes. So whoever sees one document of a family
sees them all, and no family tells of a document that is hidden.
"""

from dataclasses import dataclass
from typing import Any
from uuid import UUID

import numpy as np
from psycopg.rows import class_row

from core.copies import Copies, Fingerprint
from store.pool import Conn

ALIKE = 0.9  # resemblance from which two texts are near copies
CANDIDATES = 256  # documents with a band in common that are looked at: more would be of few families
MOST_TOLD = 100  # copies that are counted for a citation

ADD = """
    INSERT INTO fingerprints (document_id, tenant_id, label_set_id, version, text_hash, signature)
    SELECT d.id, d.tenant_id, d.label_set_id, d.current_version, %(hash)s, %(signature)s
    FROM documents d WHERE d.id = %(document)s
    ON CONFLICT (document_id) DO NOTHING
"""
ADD_BANDS = """
    INSERT INTO fingerprint_bands (document_id, tenant_id, label_set_id, band)
    SELECT f.document_id, f.tenant_id, f.label_set_id, unnest(%s::bigint[]) FROM fingerprints f WHERE f.document_id = %s
"""
OWN = "SELECT tenant_id, label_set_id, text_hash, signature FROM fingerprints WHERE document_id = %s FOR UPDATE"
# Two copies that are published at once would not see each other. Nobody waits: upkeep links what could not be.
TAKE_TURN = "SELECT pg_try_advisory_xact_lock(hashtextextended('copies:' || %s::text, 0))"
EXACT = """
    SELECT family FROM fingerprints
    WHERE tenant_id = %(tenant)s AND label_set_id = %(labels)s AND text_hash = %(hash)s AND document_id <> %(document)s
      AND linked_at IS NOT NULL
    LIMIT 1
"""
BANDS = "SELECT coalesce(array_agg(band), '{}') FROM fingerprint_bands WHERE document_id = %s"
# Of each family that has a document with a band in common, the one that was there first stands for it: a text joins
# what it resembles, and not what resembles something that it resembles.
NEAR = """
    SELECT g.family, first.signature
    FROM (SELECT DISTINCT f.family FROM (
              SELECT DISTINCT b.document_id FROM fingerprint_bands b
              WHERE b.tenant_id = %(tenant)s AND b.label_set_id = %(labels)s AND b.band = ANY(%(bands)s)
              LIMIT %(limit)s) c
          JOIN fingerprints f ON f.document_id = c.document_id AND f.document_id <> %(document)s
               AND f.linked_at IS NOT NULL) g
    CROSS JOIN LATERAL (SELECT f.signature FROM fingerprints f
                        WHERE f.tenant_id = %(tenant)s AND f.family = g.family AND f.linked_at IS NOT NULL
                        ORDER BY f.linked_at, f.document_id LIMIT 1) first
    WHERE first.signature IS NOT NULL
"""
JOIN = """
    UPDATE fingerprints SET family = coalesce(%s, family), linked_at = clock_timestamp() WHERE document_id = %s
"""
UNLINKED = "SELECT document_id FROM fingerprints WHERE linked_at IS NULL ORDER BY document_id LIMIT %s"
WITHOUT = """
    SELECT d.id, v.text FROM documents d JOIN versions v ON v.document_id = d.id AND v.version = d.current_version
    WHERE v.text IS NOT NULL AND NOT EXISTS (SELECT FROM fingerprints f WHERE f.document_id = d.id)
    LIMIT %s FOR UPDATE OF d SKIP LOCKED
"""
COUNT_WAITING = """
    SELECT (SELECT count(*) FROM fingerprints WHERE linked_at IS NULL)
         + (SELECT count(*) FROM documents d WHERE d.current_version IS NOT NULL
            AND NOT EXISTS (SELECT FROM fingerprints f WHERE f.document_id = d.id))
"""
# Under row-level security, of both; and a row that no longer is as its document's, were there one, counts for nothing.
# `+ 0` keeps the planner from reading all that is under the label set: 15 ms a document, of 2,000, instead of 0.1.
OTHERS = """
    FROM fingerprints o JOIN documents d ON d.id = o.document_id AND d.label_set_id + 0 = o.label_set_id
        AND d.current_version = o.version
"""
TOLD = f"""
    SELECT f.document_id, f.family, (
        SELECT count(*) FROM (SELECT {OTHERS} WHERE o.tenant_id = f.tenant_id AND o.family = f.family
                              AND o.label_set_id + 0 = f.label_set_id AND o.document_id <> f.document_id
                              LIMIT {MOST_TOLD}) counted)
    FROM fingerprints f WHERE f.document_id = ANY(%s)
"""  # noqa: S608
FAMILIES = f"""
    SELECT o.family, count(*) AS documents, count(DISTINCT o.text_hash) AS texts, l.allow, l.deny, l.classification,
           (array_agg(s.name || '/' || d.external_id ORDER BY s.name, d.external_id))[:%(shown)s::int] AS names
    {OTHERS} JOIN label_sets l ON l.id = o.label_set_id JOIN sources s ON s.id = d.source_id
    WHERE o.tenant_id = %(tenant)s
    GROUP BY o.family, l.id HAVING count(*) > 1 ORDER BY count(*) DESC, o.family LIMIT %(limit)s
"""  # noqa: S608


@dataclass(frozen=True, slots=True)
class Family:
    """Documents of one label set that say the same."""

    family: UUID
    documents: int
    texts: int  # different ones: 1 where all are exact copies
    allow: tuple[str, ...]
    deny: tuple[str, ...]
    classification: str
    names: tuple[str, ...]  # source/external id, of the first of them


def keep(conn: Conn, document_id: UUID, found: Fingerprint) -> bool:
    """Keep the fingerprint of the document's current text, and link it; whether it could be linked now."""
    values = {"document": document_id, "hash": found.text_hash, "signature": found.signature}
    if conn.execute(ADD, values).rowcount == 0:
        return False
    if found.bands:
        conn.execute(ADD_BANDS, (list(found.bands), document_id))
    return link(conn, document_id)


def link(conn: Conn, document_id: UUID) -> bool:
    """Put the document into the family that it belongs to, of its own label set; False while another is at that."""
    row = conn.execute(OWN, (document_id,)).fetchone()
    if row is None or not _first(conn, TAKE_TURN, (row[1],)):
        return False
    tenant_id, label_set_id, text_hash, signature = row
    values = {"tenant": tenant_id, "labels": label_set_id, "hash": text_hash, "document": document_id,
              "limit": CANDIDATES}  # fmt: skip
    family = _first(conn, EXACT, values)
    if family is None and signature is not None:
        values["bands"] = _first(conn, BANDS, (document_id,))
        near = [(resemblance(signature, other), found) for found, other in conn.execute(NEAR, values).fetchall()]
        family = max(((alike, found) for alike, found in near if alike >= ALIKE), default=(0.0, None))[1]
    conn.execute(JOIN, (family, document_id))
    return True


def resemblance(one: bytes, other: bytes) -> float:
    """An estimate of the Jaccard coefficient of two texts' shingles."""
    return float(np.mean(np.frombuffer(one, "<u4") == np.frombuffer(other, "<u4")))


def unlinked(conn: Conn, limit: int) -> list[UUID]:
    """Documents that were not compared with others yet, of all tenants."""
    return [document_id for (document_id,) in conn.execute(UNLINKED, (limit,)).fetchall()]


def without(conn: Conn, limit: int) -> list[tuple[UUID, str]]:
    """Documents that have no fingerprint, with their texts; their rows are locked."""
    return [(document_id, text) for document_id, text in conn.execute(WITHOUT, (limit,)).fetchall()]


def count_waiting(conn: Conn) -> int:
    """How many documents are not linked, of all tenants."""
    return int(_first(conn, COUNT_WAITING, ()) or 0)


def told(conn: Conn, document_ids: list[UUID]) -> dict[UUID, Copies]:
    """Of each document its family, and how many others of it this transaction's scope shows."""
    rows = conn.execute(TOLD, (document_ids,), prepare=True).fetchall()
    return {document_id: Copies(family, count) for document_id, family, count in rows}


def families(conn: Conn, tenant_id: UUID, limit: int, shown: int) -> list[Family]:
    """The largest families, of what this transaction's scope shows."""
    with conn.cursor(row_factory=class_row(Family)) as cursor:
        return cursor.execute(FAMILIES, {"tenant": tenant_id, "limit": limit, "shown": shown}).fetchall()


def _first(conn: Conn, statement: str, values: Any) -> Any:
    row = conn.execute(statement, values).fetchone()
    return None if row is None else row[0]
