"""Searches whose question is kept, as a sample or for the feedback that was given: what was asked, answered and said.

Words come here redacted. Everything is the operator's: no reader of the application sees any of it. An erasure takes a
search away that was answered from the document, or whose feedback names or quotes it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from psycopg.types.json import Jsonb

from core.errors import NotFound
from core.feedback import Feedback, Missing
from store.documents import Span
from store.pool import Conn, one_row

TRACING = "SELECT trace_rate AS rate, trace_days AS days, feedback_days FROM tenants WHERE id = %s"
SET_TRACING = "UPDATE tenants SET trace_rate = %s, trace_days = %s, feedback_days = %s WHERE id = %s"
# The search of that id, if these asked it; its audit row tells of which versions, and where, its passages were.
FIND = """
    SELECT at, detail FROM audit_log
    WHERE request_id = %s AND action = 'search' AND tenant_id = %s AND actor = %s
      AND acting_for IS NOT DISTINCT FROM %s AND outcome = 'ok'
"""
# Held until the commit: an erasure waits, and then finds what was kept meanwhile.
HOLD = "SELECT id FROM documents WHERE tenant_id = %s AND id = ANY(%s) ORDER BY id FOR KEY SHARE"
PASSAGES = """
    SELECT %(request)s, %(tenant)s, w.marker, w.document, w.version, w.start, w.stop, w.used
    FROM unnest(%(documents)s::uuid[], %(versions)s::int[], %(starts)s::int[], %(ends)s::int[], %(used)s::boolean[])
         WITH ORDINALITY AS w (document, version, start, stop, used, marker)
"""
# One statement, so that it is one transaction. Nothing is kept when a document is gone, or is being erased just now.
SAMPLE = f"""
    WITH there AS (SELECT id FROM documents WHERE tenant_id = %(tenant)s AND id = ANY(%(documents)s)
                   ORDER BY id FOR KEY SHARE SKIP LOCKED),
         kept AS (INSERT INTO asked (request_id, tenant_id, subject, query, at)
                  SELECT %(request)s, %(tenant)s, %(subject)s::text, %(query)s::text, now()
                  WHERE NOT EXISTS (SELECT unnest(%(documents)s::uuid[]) EXCEPT SELECT id FROM there)
                  ON CONFLICT DO NOTHING RETURNING request_id)
    INSERT INTO asked_passages (request_id, tenant_id, marker, document_id, version, start_offset, end_offset, used)
    SELECT p.* FROM kept, ({PASSAGES}) AS p (request_id, tenant_id, marker, document_id, version, start, stop, used)
"""  # noqa: S608  the text is our own
KEEP = """
    INSERT INTO asked (request_id, tenant_id, subject, query, at) VALUES (%s, %s, %s, %s, %s)
    ON CONFLICT (request_id) DO UPDATE SET query = coalesce(excluded.query, asked.query)
"""
KEEP_PASSAGES = f"""
    INSERT INTO asked_passages (request_id, tenant_id, marker, document_id, version, start_offset, end_offset, used)
    {PASSAGES}
    ON CONFLICT (request_id, marker) DO UPDATE SET used = excluded.used
"""  # noqa: S608
KEEP_FEEDBACK = """
    INSERT INTO feedback (request_id, tenant_id, helpful, missing, comment) VALUES (%s, %s, %s, %s, %s)
    ON CONFLICT (request_id) DO UPDATE SET helpful = excluded.helpful, missing = excluded.missing,
        comment = excluded.comment, at = now()
"""
# Under the document's lock, which `HOLD` waits for. What was redacted of a quote stands for anything.
SCRUB = r"""
    DELETE FROM asked a WHERE a.tenant_id = %(tenant)s AND (
        EXISTS (SELECT FROM asked_passages p WHERE p.request_id = a.request_id AND p.document_id = %(document)s)
        OR EXISTS (
            SELECT FROM feedback f CROSS JOIN LATERAL jsonb_array_elements(f.missing) AS m (said)
            WHERE f.request_id = a.request_id AND (m.said ->> 'document' = %(name)s OR EXISTS (
                SELECT FROM versions v WHERE v.document_id = %(document)s AND v.text LIKE
                    '%%' || regexp_replace(regexp_replace(m.said ->> 'text', '([\\%%_])', '\\\1', 'g'),
                                          '\[[a-z]+\]', '%%', 'g') || '%%'))))
"""
# Newest first, those with feedback before the others.
LISTED = """
    SELECT a.request_id, a.subject, a.query, a.at, f.helpful, coalesce(f.missing, '[]') AS missing, f.comment,
           f.request_id IS NOT NULL AS told,
           (SELECT coalesce(jsonb_agg(jsonb_build_array(p.document_id, p.version, p.start_offset, p.end_offset, p.used)
                                      ORDER BY p.marker), '[]')
            FROM asked_passages p WHERE p.request_id = a.request_id) AS passages
    FROM asked a LEFT JOIN feedback f USING (request_id)
    WHERE a.tenant_id = %s AND (%s::timestamptz IS NULL OR a.at >= %s)
    ORDER BY f.request_id IS NULL, coalesce(f.at, a.at) DESC LIMIT %s
"""
# As the transaction's scope shows them: what a passage says, and whether that still stands in its document.
SHOWN = """
    SELECT w.place, d.external_id, said.text, d.current_version = w.version,
           CASE WHEN said.text <> '' THEN
               (length(now.text) - length(replace(now.text, said.text, ''))) / length(said.text) ELSE 0 END,
           coalesce((SELECT c.heading_path FROM chunks c
                     WHERE c.document_id = w.id AND c.version = w.version AND c.start_offset <= w.start
                     ORDER BY c.start_offset DESC LIMIT 1), '{}')
    FROM unnest(%s::uuid[], %s::int[], %s::int[], %s::int[]) WITH ORDINALITY AS w (id, version, start, stop, place)
    JOIN documents d ON d.id = w.id
    JOIN versions v ON v.document_id = w.id AND v.version = w.version AND v.text IS NOT NULL
    JOIN versions now ON now.document_id = w.id AND now.version = d.current_version
    CROSS JOIN LATERAL (SELECT substr(v.text, w.start + 1, w.stop - w.start)) AS said (text)
"""
COUNTS = """
    SELECT count(*) FILTER (WHERE f.request_id IS NULL), count(f.request_id), count(*) FILTER (WHERE a.query IS NULL)
    FROM asked a LEFT JOIN feedback f USING (request_id) WHERE a.tenant_id = %s
"""
IS_DUE = """
    WHERE t.id = a.tenant_id AND CASE
        WHEN EXISTS (SELECT FROM feedback f WHERE f.request_id = a.request_id)
        THEN a.at < now() - make_interval(days => t.feedback_days)
        ELSE a.at < now() - make_interval(days => t.trace_days) END
"""
EXPIRE = "DELETE FROM asked a USING tenants t" + IS_DUE  # noqa: S608  the text is our own
COUNT_DUE = "SELECT count(*) FROM asked a, tenants t" + IS_DUE  # noqa: S608
FORGET = "DELETE FROM asked WHERE tenant_id = %s AND (%s::text IS NULL OR subject = %s)"


@dataclass(frozen=True, slots=True)
class Tracing:
    """Which of a tenant's questions are kept, and for how long."""

    rate: float = 0.0  # share of the searches
    days: int = 30
    feedback_days: int = 365  # of those that got feedback


@dataclass(frozen=True, slots=True)
class Found:
    """A search that was answered, as the audit tells of it."""

    at: datetime
    passages: tuple[Span, ...]  # by their markers from 1
    query_hash: str  # HMAC of the question
    query: str | None  # where the audit keeps words


@dataclass(frozen=True, slots=True)
class Asked:
    """A kept search, and what was said of its answer."""

    request_id: UUID
    subject: str
    query: str | None  # None: its words are not known
    at: datetime
    passages: tuple[Span, ...]  # by their markers from 1
    used: tuple[int, ...]  # markers
    told: bool  # whether there is feedback
    helpful: bool | None
    missing: tuple[Missing, ...]
    comment: str | None


@dataclass(frozen=True, slots=True)
class Shown:
    """What a kept passage says, as somebody may read it now."""

    external_id: str
    text: str
    current: bool  # whether its version still is
    times: int  # that the text stands in the current version
    heading: tuple[str, ...]  # () where its chunks are gone


@dataclass(frozen=True, slots=True)
class Counts:
    """How much a tenant keeps."""

    sampled: int
    feedback: int
    wordless: int  # of which the words are not known


def tracing_of(conn: Conn, tenant_id: UUID) -> Tracing:
    """What the tenant keeps. Raises NotFound."""
    return one_row(conn, Tracing, TRACING, (tenant_id,), "there is no such tenant")


def set_tracing(conn: Conn, tenant_id: UUID, tracing: Tracing) -> None:
    """For every search from now on, and for what is kept already at the next upkeep."""
    conn.execute(SET_TRACING, (tracing.rate, tracing.days, tracing.feedback_days, tenant_id))


def sample(conn: Conn, tenant_id: UUID, request_id: UUID, subject: str, query: str, passages: Sequence[Span]) -> None:
    """Keep a search that was just answered, unless a document of its answer is about to go. In no transaction."""
    conn.execute(SAMPLE, {"subject": subject, "query": query, **_columns(tenant_id, request_id, passages, ())})


def find(conn: Conn, tenant_id: UUID, request_id: UUID, actor: str, acting_for: str | None) -> Found:
    """The search of that id which they asked, and which was answered. Raises NotFound, whatever else has the id."""
    row = conn.execute(FIND, (request_id, tenant_id, actor, acting_for)).fetchone()
    if row is None:
        raise NotFound("there is no search of yours with this request id")
    question = row[1]["queries"][0]
    return Found(row[0], _spans(row[1]), question["hmac"], question.get("text"))


def keep_feedback(conn: Conn, tenant_id: UUID, subject: str, found: Found, feedback: Feedback) -> None:
    """Keep it in the place of what was said before of the same answer. Of an answer from what is erased by now no word
    is kept, for any may quote it."""
    wanted = {passage.document_id for passage in found.passages}
    there = {row[0] for row in conn.execute(HOLD, (tenant_id, sorted(wanted))).fetchall()}
    kept = [passage for passage in found.passages if passage.document_id in there]
    whole = there == wanted
    conn.execute(KEEP, (feedback.request_id, tenant_id, subject, feedback.query if whole else None, found.at))
    if whole:
        conn.execute(KEEP_PASSAGES, _columns(tenant_id, feedback.request_id, kept, feedback.used))
    missing = [_plain(each) for each in feedback.missing if whole]
    comment = feedback.comment if whole else None
    conn.execute(KEEP_FEEDBACK, (feedback.request_id, tenant_id, feedback.helpful, Jsonb(missing), comment))


def scrub(conn: Conn, tenant_id: UUID, document_id: UUID, name: str) -> None:
    """Take away what may quote a document that is about to be erased; its row is locked."""
    conn.execute(SCRUB, {"tenant": tenant_id, "document": document_id, "name": name})


def listed(conn: Conn, tenant_id: UUID, since: datetime | None, limit: int) -> list[Asked]:
    """Kept searches, those with feedback first, and then the newest."""
    rows = conn.execute(LISTED, (tenant_id, since, since, limit)).fetchall()
    return [_asked(*row) for row in rows]


def shown(conn: Conn, passages: Sequence[Span]) -> dict[Span, Shown]:
    """Those of the passages that this transaction's scope shows."""
    columns = ([p.document_id for p in passages], [p.version for p in passages],
               [p.start for p in passages], [p.end for p in passages])  # fmt: skip
    rows = conn.execute(SHOWN, columns).fetchall()
    return {passages[place - 1]: Shown(name, text, current, times, tuple(heading))
            for place, name, text, current, times, heading in rows}  # fmt: skip


def counts(conn: Conn, tenant_id: UUID) -> Counts:
    """How many searches are kept."""
    row = conn.execute(COUNTS, (tenant_id,)).fetchone()
    assert row is not None
    return Counts(*row)


def expire(conn: Conn) -> int:
    """Delete what no tenant keeps any longer; how many searches that were."""
    return conn.execute(EXPIRE).rowcount


def count_due(conn: Conn) -> int:
    """How many searches `expire` would delete."""
    row = conn.execute(COUNT_DUE).fetchone()
    return int(row[0]) if row else 0


def forget(conn: Conn, tenant_id: UUID, subject: str | None) -> int:
    """Delete what is kept of one person's searches, or of everybody's; how many those were."""
    return conn.execute(FORGET, (tenant_id, subject, subject)).rowcount


def _columns(tenant_id: UUID, request_id: UUID, passages: Sequence[Span], used: Sequence[int]) -> dict[str, Any]:
    return {
        "request": request_id, "tenant": tenant_id, "documents": [p.document_id for p in passages],
        "versions": [p.version for p in passages], "starts": [p.start for p in passages],
        "ends": [p.end for p in passages], "used": [marker in used for marker in range(1, len(passages) + 1)],
    }  # fmt: skip


def _spans(detail: dict[str, Any]) -> tuple[Span, ...]:
    """As `retrieval/trail.py` writes them: a place in the list of documents, a start and an end."""
    versions = [told.rsplit("@", 1) for told in detail["documents"]]
    return tuple(
        Span(UUID(versions[place][0]), int(versions[place][1]), start, end)
        for place, start, end in detail.get("spans", ())
    )


def _asked(
    request_id: UUID, subject: str, query: str | None, at: datetime, helpful: bool | None,
    missing: list[dict[str, str]], comment: str | None, told: bool, passages: list[list[Any]],
) -> Asked:  # fmt: skip
    spans = tuple(Span(UUID(document), version, start, end) for document, version, start, end, _ in passages)
    used = tuple(marker for marker, passage in enumerate(passages, start=1) if passage[4])
    return Asked(request_id, subject, query, at, spans, used, told, helpful,
                 tuple(Missing(**each) for each in missing), comment)  # fmt: skip


def _plain(missing: Missing) -> dict[str, str]:
    return {key: value for key, value in (("document", missing.document), ("text", missing.text)) if value is not None}
