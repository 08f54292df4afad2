"""What a kept answer rests on, and whether it still stands in another snapshot: exactly, and by the clock only in
that nothing stands for longer than changes are noted.

Triggers note each change of the documents under a label set; what changes answers without touching a document's row
must note it too, as `store.tokens.fill` does. A caller sees the notes of its own label sets alone, so
what it does not see neither ends an answer of its own nor is told by one that has ended.
"""

from dataclasses import dataclass
from uuid import UUID

from store.following import Position, includes
from store.pool import Conn, Store, writing

CALIBRATED = """coalesce((SELECT extract(epoch FROM at)::text FROM calibrations
                WHERE tenant_id = %(tenant)s AND profile_id = %(profile)s), '')"""
# The row of the highest xid stands for the log, as in `store.following`: a database that lacks it was restored.
STANDING = f"""
    SELECT pg_current_snapshot()::text, coalesce(l.seq, 0), coalesce(l.xid::text, '0'), {CALIBRATED},
           extract(epoch FROM now())::float8
    FROM (SELECT) here LEFT JOIN LATERAL
        (SELECT seq, xid FROM change_log WHERE tenant_id = %(tenant)s ORDER BY xid DESC LIMIT 1) l ON true
"""  # noqa: S608  the text is our own
STANDS = f"""
    SELECT pg_current_snapshot()::text,
           (%(seq)s = 0 OR EXISTS (SELECT FROM change_log WHERE seq = %(seq)s AND xid = %(xid)s::xid8))
           AND {CALIBRATED} = %(calibrated)s
           AND now() < to_timestamp(%(noted)s) + make_interval(hours => %(holds)s)
           AND NOT EXISTS (SELECT FROM label_set_changes WHERE tenant_id = %(tenant)s AND xid >= %(xmin)s::xid8
                           AND NOT pg_visible_in_snapshot(xid, %(snapshot)s::pg_snapshot))
"""  # noqa: S608
KEPT_HOURS = 24  # of notes: longer than anything stands, and the longest transaction
HOLDS_HOURS = 12  # that anything stands: in the hands of others a value outlives the time that it was kept for
TRIM = "DELETE FROM label_set_changes WHERE at < now() - make_interval(hours => %s)"


@dataclass(frozen=True, slots=True)
class Standing:
    """A snapshot of a tenant's index, and which calibration the dense leg went by."""

    position: Position
    calibrated: str  # when; empty: never
    noted: float  # seconds since 1970, by the clock that the notes of changes are kept by


def standing(conn: Conn, tenant_id: UUID, profile_id: int) -> Standing:
    """Where this transaction stands."""
    values = {"tenant": tenant_id, "profile": profile_id}
    row = conn.execute(STANDING, values).fetchone()
    assert row is not None
    return Standing(Position(*row[:3]), row[3], row[4])


def stands(conn: Conn, tenant_id: UUID, profile_id: int, at: Standing) -> bool:
    """Whether a search in this transaction, whose scope is set, finds what it found at `at` under the same scope.

    That is so when this transaction sees all that `at` saw, and of the documents under its label sets no change which
    `at` did not see. Nothing stands for longer than HOLDS_HOURS.
    """
    values = {
        "tenant": tenant_id, "profile": profile_id, "calibrated": at.calibrated, "seq": at.position.seq,
        "xid": at.position.xid, "xmin": at.position.xmin, "snapshot": at.position.snapshot, "noted": at.noted,
        "holds": HOLDS_HOURS,
    }  # fmt: skip
    row = conn.execute(STANDS, values).fetchone()
    return row is not None and bool(row[1]) and includes(row[0], at.position.snapshot)


def trim_changes(store: Store) -> int:
    """Upkeep: drop the notes that no kept answer is older than. Returns how many."""
    with writing(store) as conn:
        return conn.execute(TRIM, (KEPT_HOURS,)).rowcount
