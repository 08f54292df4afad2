"""What a replica of the index needs of Postgres: where it stands, what changed since, and the texts.

A position is a snapshot, as Postgres writes it, and no number: what changed between two positions is exactly the rows
of the change log that one snapshot sees and the other does not, in whatever order their transactions committed. By
`seq` alone, a row that commits late is lost.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import numpy as np
from numpy.typing import NDArray
from psycopg import sql

from store.changes import vectors_table
from store.chunks import Scan
from store.pool import Conn, Store, writing

ONE_SNAPSHOT = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY"
NO_HURRY = "SET LOCAL idle_in_transaction_session_timeout = 0; SET LOCAL statement_timeout = 0"
# The live profile's replica, and those of the profiles that are kept beside it: a promotion finds its replica made.
TENANTS = """
    SELECT t.id, p.id, p.dimensions, t.hash_key
    FROM tenants t JOIN (SELECT id AS tenant_id, live_profile AS profile_id FROM tenants
                         UNION SELECT tenant_id, profile_id FROM kept_profiles) used ON used.tenant_id = t.id
    JOIN profiles p ON p.id = used.profile_id
"""
# The row of the highest xid stands for the log: a database that lacks it was restored, or is another.
POSITION = """
    SELECT pg_current_snapshot()::text, coalesce(l.seq, 0), coalesce(l.xid::text, '0')
    FROM (SELECT) here LEFT JOIN LATERAL
        (SELECT seq, xid FROM change_log WHERE tenant_id = %s ORDER BY xid DESC LIMIT 1) l ON true
"""
SAME_LOG = "SELECT %(seq)s = 0 OR EXISTS (SELECT FROM change_log WHERE seq = %(seq)s AND xid = %(xid)s::xid8)"
# Under row-level security a document that is not visible is not there.
CHANGED = """
    SELECT pg_current_snapshot()::text, t.hash_key,
           %(seq)s = 0 OR EXISTS (SELECT FROM change_log WHERE seq = %(seq)s AND xid = %(xid)s::xid8),
           c.document_id, d.current_version, d.label_set_id, d.id IS NOT NULL
    FROM tenants t
    LEFT JOIN (SELECT DISTINCT document_id FROM change_log
               WHERE tenant_id = %(tenant)s AND xid >= %(xmin)s::xid8
                 AND NOT pg_visible_in_snapshot(xid, %(snapshot)s::pg_snapshot)) c ON true
    LEFT JOIN documents d ON d.id = c.document_id
    WHERE t.id = %(tenant)s
"""
# For a position that is later than the transaction: what one of them sees and the other does not, told by a third.
BETWEEN = """
    SELECT DISTINCT document_id FROM change_log
    WHERE tenant_id = %(tenant)s AND xid >= least(%(xmin)s::xid8, pg_snapshot_xmin(%(other)s::pg_snapshot))
      AND NOT (pg_visible_in_snapshot(xid, %(snapshot)s::pg_snapshot)
               AND pg_visible_in_snapshot(xid, %(other)s::pg_snapshot))
"""
STATES = """
    SELECT c.id, d.current_version, d.label_set_id, d.id IS NOT NULL
    FROM unnest(%s::uuid[]) AS c (id) LEFT JOIN documents d ON d.id = c.id
"""
LAG = """
    SELECT coalesce(extract(epoch FROM now() - min(at)), 0)::float8 FROM change_log
    WHERE tenant_id = %(tenant)s AND xid >= %(xmin)s::xid8
      AND NOT pg_visible_in_snapshot(xid, %(snapshot)s::pg_snapshot)
"""
VISIBLE_SINCE = """
    SELECT count(DISTINCT d.id) FROM change_log c JOIN documents d ON d.id = c.document_id
    WHERE c.tenant_id = %(tenant)s AND c.xid >= %(xmin)s::xid8
      AND NOT pg_visible_in_snapshot(c.xid, %(snapshot)s::pg_snapshot)
"""
TEXTS = """
    SELECT c.id, c.document_id, c.version, c.embed_prefix, c.text, v.language
    FROM chunks c JOIN documents d ON d.id = c.document_id AND d.current_version = c.version
    LEFT JOIN versions v ON v.document_id = c.document_id AND v.version = c.version
    WHERE c.profile_id = %s AND c.document_id = ANY(%s) ORDER BY c.id LIMIT %s
"""
ALL_TEXTS = """
    SELECT c.id, c.document_id, c.version, c.embed_prefix, c.text, v.language
    FROM chunks c JOIN documents d ON d.id = c.document_id AND d.current_version = c.version
    LEFT JOIN versions v ON v.document_id = c.document_id AND v.version = c.version
    WHERE c.profile_id = %s AND c.tenant_id = %s ORDER BY c.id
"""
# By chunk: the table has those of current versions alone.
ALL_VECTORS = "SELECT chunk_id, embedding FROM {} WHERE tenant_id = %s ORDER BY chunk_id"
VECTORS = "SELECT chunk_id, embedding FROM {} WHERE document_id = ANY(%s) ORDER BY chunk_id"
LABELS = "SELECT id, label_set_id FROM documents WHERE tenant_id = %s AND current_version IS NOT NULL"
# As one value of 16 bytes each: thousands of them as rows would cost ten times as much.
MATCHING = """
    SELECT string_agg(uuid_send(d.id), '') FROM documents d
    WHERE d.tenant_id = %(tenant)s AND d.label_set_id = ANY(%(label_sets)s::int[]) AND {}
"""
FETCHED = 2000  # chunks at a time

Halves = NDArray[np.float16]
ChunkText = tuple[int, UUID, int, str, str, str | None]  # id, document, version, embed_prefix, text, its language


@dataclass(frozen=True, slots=True)
class Position:
    """What a snapshot saw of a tenant's change log."""

    snapshot: str  # xmin:xmax:xip,… as pg_current_snapshot() is printed
    seq: int = 0  # of the row with the highest xid; 0: there was none
    xid: str = "0"

    @property
    def xmin(self) -> str:
        """Transactions below it were over."""
        return self.snapshot.split(":")[0]


@dataclass(frozen=True, slots=True)
class Tenant:
    """Whose index is followed, and under which key its terms are kept."""

    id: UUID
    profile_id: int
    dimensions: int
    hash_key: bytes


@dataclass(frozen=True, slots=True)
class Now:
    """A document as this transaction sees it."""

    version: int | None  # None: nothing of it is indexed
    label_set_id: int


@dataclass(frozen=True, slots=True)
class Changes:
    """What a transaction sees that a position did not."""

    snapshot: str  # the transaction's own
    hash_key: bytes
    same_log: bool  # False: the position is of another database, or of one that was restored since
    documents: dict[UUID, Now | None]  # None: gone, or not for this reader


def includes(later: str, earlier: str) -> bool:
    """Whether a snapshot saw all that another did. Snapshots are taken one after another, and xmax never goes back."""
    xmax, earlier_xmax = (int(snapshot.split(":")[1]) for snapshot in (later, earlier))
    running, earlier_running = (set(snapshot.split(":")[2].split(",")) - {""} for snapshot in (later, earlier))
    return xmax > earlier_xmax or (xmax == earlier_xmax and running <= earlier_running)


@contextmanager
def following(store: Store) -> Iterator[Conn]:
    """One read-only snapshot as the maintenance role, for as long as a bulk load takes to analyse. Raises
    StoreUnavailable."""
    with writing(store) as conn:
        conn.execute(ONE_SNAPSHOT)
        conn.execute(NO_HURRY)
        yield conn


def tenants(conn: Conn) -> list[Tenant]:
    """Every tenant, once for each of the profiles that its index is kept under."""
    return [Tenant(*row) for row in conn.execute(TENANTS).fetchall()]


def position(conn: Conn, tenant_id: UUID) -> Position:
    """Where this transaction stands."""
    row = conn.execute(POSITION, (tenant_id,)).fetchone()
    assert row is not None
    return Position(*row)


def changed_since(conn: Conn, tenant_id: UUID, at: Position) -> Changes:
    """What this transaction sees that the position did not; the documents as whoever reads may see them."""
    rows = conn.execute(CHANGED, _since(tenant_id, at)).fetchall()
    snapshot, hash_key, same_log = rows[0][:3] if rows else (at.snapshot, b"", False)
    documents = {row[3]: Now(row[4], row[5]) if row[6] else None for row in rows if row[3] is not None}
    return Changes(snapshot, hash_key, same_log, documents)


def changed_between(now: Conn, conn: Conn, tenant_id: UUID, at: Position, changes: Changes) -> Changes:
    """The same for a position that is later than the transaction of `changes`; `now` is later than both."""
    values = {**_since(tenant_id, at), "other": changes.snapshot}
    ids = [document_id for (document_id,) in now.execute(BETWEEN, values).fetchall()]
    rows = conn.execute(STATES, (ids,)).fetchall()
    same_log = now.execute(SAME_LOG, _since(tenant_id, at)).fetchone()
    documents = {row[0]: Now(row[1], row[2]) if row[3] else None for row in rows}
    return Changes(changes.snapshot, changes.hash_key, bool(same_log and same_log[0]), documents)


def lag_s(conn: Conn, tenant_id: UUID, at: Position) -> float:
    """The age in seconds of the first change that the position did not see; 0 when it saw all."""
    row = conn.execute(LAG, _since(tenant_id, at)).fetchone()
    assert row is not None
    return float(row[0])


def visible_since(conn: Conn, tenant_id: UUID, at: Position) -> int:
    """How many documents that this transaction's scope shows changed since the position."""
    row = conn.execute(VISIBLE_SINCE, _since(tenant_id, at)).fetchone()
    assert row is not None
    return int(row[0])


def texts(conn: Conn, profile_id: int, document_ids: Sequence[UUID], limit: int | None = None) -> list[ChunkText]:
    """The chunks of the documents' current versions."""
    return conn.execute(TEXTS, (profile_id, list(document_ids), limit)).fetchall() if document_ids else []


def all_texts(conn: Conn, profile_id: int, tenant_id: UUID) -> Iterator[ChunkText]:
    """The chunks of all current versions of a tenant, read as they are taken."""
    with conn.cursor("all_texts") as cursor:
        cursor.itersize = FETCHED
        yield from cursor.execute(ALL_TEXTS, (profile_id, tenant_id))


def all_vectors(conn: Conn, tenant: Tenant, chunk_ids: NDArray[np.int64]) -> Halves:
    """The vector [dimensions] of each of these chunks of the tenant; nan where there is none."""
    with conn.cursor("all_vectors", binary=True) as cursor:
        cursor.itersize = FETCHED
        cursor.execute(sql.SQL(ALL_VECTORS).format(vectors_table(tenant.profile_id)), (tenant.id,))
        return _placed(cursor, chunk_ids, tenant.dimensions)


def vectors(
    conn: Conn, profile_id: int, document_ids: Sequence[UUID], chunk_ids: NDArray[np.int64], dimensions: int = 0
) -> Halves:
    """The same for chunks of these documents; without `dimensions`, of as many as there are."""
    statement = sql.SQL(VECTORS).format(vectors_table(profile_id))
    rows = conn.execute(statement, (list(document_ids),), binary=True).fetchall()
    return _placed(rows, chunk_ids, dimensions or (rows[0][1].dimensions() if rows else 0))


def labels(conn: Conn, tenant_id: UUID) -> dict[UUID, int]:
    """The label set of every document that has something indexed."""
    return dict(conn.execute(LABELS, (tenant_id,)).fetchall())


def matching(conn: Conn, scan: Scan) -> bytes:
    """Ids, of 16 bytes each, of the documents that the scan's filter takes."""
    assert scan.where is not None
    values = {"tenant": scan.scope.tenant_id, "label_sets": scan.scope.array}
    row = conn.execute(sql.SQL(MATCHING).format(scan.where), values, binary=True).fetchone()
    return bytes(row[0]) if row and row[0] is not None else b""


def _placed(rows: Iterable[tuple[int, Any]], chunk_ids: NDArray[np.int64], dimensions: int) -> Halves:
    found = np.full((len(chunk_ids), dimensions), np.nan, np.float16)
    place = {chunk_id: row for row, chunk_id in enumerate(chunk_ids.tolist())}
    for chunk_id, vector in rows:
        if chunk_id in place:
            found[place[chunk_id]] = vector.to_numpy()
    return found


def _since(tenant_id: UUID, at: Position) -> dict[str, object]:
    return {"tenant": tenant_id, "xmin": at.xmin, "snapshot": at.snapshot, "seq": at.seq, "xid": at.xid}
