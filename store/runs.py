"""Evaluation runs as they are kept: what was asked for, what was answered, what was measured."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from store.pool import Conn, one_row

COLUMNS = "SELECT id, name, golden_id, searched, config, key, summary, started_at, finished_at FROM eval_runs"
ADD = """
    INSERT INTO eval_runs (tenant_id, name, golden_id, searched, config, key) VALUES (%s, %s, %s, %s, %s, %s)
    RETURNING id
"""
UNFINISHED = (
    COLUMNS + " WHERE tenant_id = %s AND name = %s AND key = %s AND finished_at IS NULL ORDER BY started_at DESC"
)
NAMED = (
    COLUMNS
    + """
    WHERE tenant_id = %(tenant)s AND finished_at IS NOT NULL AND (name = %(name)s OR starts_with(id::text, %(name)s))
    ORDER BY finished_at DESC LIMIT 1
"""
)
LATEST_OF = (
    COLUMNS
    + """
    WHERE tenant_id = %s AND golden_id = %s AND id <> %s AND finished_at IS NOT NULL ORDER BY finished_at DESC LIMIT 1
"""
)
ALL = COLUMNS + " WHERE tenant_id = %s ORDER BY started_at DESC LIMIT %s"
ADD_ANSWER = """
    INSERT INTO eval_answers (run_id, tenant_id, query_id, ms, degraded, tokens)
    VALUES (%s, %s, %s, %s, %s, %s) ON CONFLICT DO NOTHING
"""
ADD_PASSAGES = """
    INSERT INTO eval_passages (run_id, tenant_id, query_id, rank, document_id, version, start_offset, end_offset, page,
                               score)
    SELECT %s, %s, p.query_id, p.rank, p.document_id, p.version, p.start, p."end", p.page, p.score
    FROM jsonb_to_recordset(%s) AS p (query_id text, rank int, document_id uuid, version int, start int, "end" int,
         page int, score float8)
    WHERE EXISTS (SELECT FROM documents d WHERE d.id = p.document_id)
"""
ADD_STAGES = """
    INSERT INTO eval_stages (run_id, tenant_id, query_id, document_id, dense, lexical, fused, answer)
    SELECT %s, %s, t.query_id, t.document_id, t.dense, t.lexical, t.fused, t.answer
    FROM jsonb_to_recordset(%s) AS t (query_id text, document_id uuid, dense int, lexical int, fused int, answer int)
    WHERE EXISTS (SELECT FROM documents d WHERE d.id = t.document_id)
"""
FINISH = "UPDATE eval_runs SET summary = %s, measured = %s, finished_at = now() WHERE tenant_id = %s AND id = %s"
VALUES = "SELECT measured FROM eval_runs WHERE id = %s"
ANSWERS = "SELECT query_id, ms, degraded, tokens FROM eval_answers WHERE run_id = %s"
PASSAGES = """
    SELECT p.query_id, p.rank, p.document_id, d.external_id, p.version, p.start_offset AS start, p.end_offset AS "end",
           p.page, p.score
    FROM eval_passages p JOIN documents d ON d.id = p.document_id
    WHERE p.run_id = %s AND (%s::text[] IS NULL OR p.query_id = ANY(%s)) ORDER BY p.query_id, p.rank
"""
STAGES = """
    SELECT t.query_id, t.document_id, d.external_id, t.dense, t.lexical, t.fused, t.answer
    FROM eval_stages t JOIN documents d ON d.id = t.document_id WHERE t.run_id = %s ORDER BY 1, 3
"""


@dataclass(frozen=True, slots=True)
class StoredRun:
    """A run without its answers."""

    id: UUID
    name: str
    golden_id: UUID
    searched: UUID  # the tenant whose documents were asked for
    config: dict[str, Any]
    key: str
    summary: dict[str, Any] | None  # None until every question is answered
    started_at: datetime
    finished_at: datetime | None


@dataclass(frozen=True, slots=True)
class StoredAnswer:
    """How one question was answered."""

    query_id: str
    ms: float | None  # None where kept legs answered
    degraded: tuple[str, ...]
    tokens: int


@dataclass(frozen=True, slots=True)
class StoredPassage:
    """A passage of an answer: where it stands, never what it says."""

    query_id: str
    rank: int
    document_id: UUID
    external_id: str
    version: int
    start: int
    end: int
    page: int | None
    score: float


@dataclass(frozen=True, slots=True)
class StoredStages:
    """Where a relevant document stood in each stage, from 1; None: not among its candidates."""

    query_id: str
    document_id: UUID
    external_id: str
    dense: int | None
    lexical: int | None
    fused: int | None
    answer: int | None


def begin(
    conn: Conn, tenant_id: UUID, name: str, golden_id: UUID, searched: UUID, config: Mapping[str, Any], key: str
) -> StoredRun:
    """The run of that name and key that was interrupted, or a new one."""
    with conn.cursor(row_factory=class_row(StoredRun)) as cursor:
        found = cursor.execute(UNFINISHED, (tenant_id, name, key)).fetchone()
        if found is None:
            conn.execute(ADD, (tenant_id, name, golden_id, searched, Jsonb(dict(config)), key))
            found = cursor.execute(UNFINISHED, (tenant_id, name, key)).fetchone()
        assert found is not None
        return found


def add_answers(
    conn: Conn,
    tenant_id: UUID,
    run_id: UUID,
    answers: Sequence[StoredAnswer],
    passages: Sequence[StoredPassage],
    stages: Sequence[StoredStages],
) -> None:
    """Keep what some questions were answered. What left the index meanwhile is not kept."""
    with conn.cursor() as cursor:
        cursor.executemany(ADD_ANSWER, [
            (run_id, tenant_id, a.query_id, a.ms, list(a.degraded), a.tokens) for a in answers
        ])  # fmt: skip
    for statement, rows in ((ADD_PASSAGES, passages), (ADD_STAGES, stages)):
        plain = [{name: _plain(getattr(row, name)) for name in row.__slots__} for row in rows]
        conn.execute(statement, (run_id, tenant_id, Jsonb(plain)))


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, UUID) else value


def finish(
    conn: Conn, tenant_id: UUID, run_id: UUID, summary: Mapping[str, Any], values: Mapping[str, Mapping[str, float]]
) -> None:
    """Every question is answered: what was measured of each, and of all."""
    measured = Jsonb({query_id: dict(of) for query_id, of in values.items()})
    conn.execute(FINISH, (Jsonb(dict(summary)), measured, tenant_id, run_id))


def named(conn: Conn, tenant_id: UUID, name: str) -> StoredRun:
    """The latest finished run of that name, or the one whose id begins so. Raises NotFound."""
    making = f"`citadel eval run … --name {name}` makes one"
    otherwise = f"there is no finished run {name!r}: `citadel eval list` shows them, {making}"
    return one_row(conn, StoredRun, NAMED, {"tenant": tenant_id, "name": name}, otherwise)


def latest_of(conn: Conn, tenant_id: UUID, golden_id: UUID, other_than: UUID) -> StoredRun:
    """The latest finished run of the golden set but this one. Raises NotFound."""
    otherwise = "there is no other finished run of the baseline's golden set: `citadel eval run` makes one"
    return one_row(conn, StoredRun, LATEST_OF, (tenant_id, golden_id, other_than), otherwise)


def listed(conn: Conn, tenant_id: UUID, limit: int = 50) -> list[StoredRun]:
    """The latest runs, newest first."""
    with conn.cursor(row_factory=class_row(StoredRun)) as cursor:
        return cursor.execute(ALL, (tenant_id, limit)).fetchall()


def answers(conn: Conn, run_id: UUID) -> dict[str, StoredAnswer]:
    """What has been answered so far, by question."""
    rows = conn.execute(ANSWERS, (run_id,)).fetchall()
    return {row[0]: StoredAnswer(row[0], row[1], tuple(row[2]), row[3]) for row in rows}


def passages(conn: Conn, run_id: UUID, query_ids: Sequence[str] | None = None) -> list[StoredPassage]:
    """The passages of all the questions or of some, in order; an erased document's are gone."""
    wanted = None if query_ids is None else list(query_ids)
    with conn.cursor(row_factory=class_row(StoredPassage)) as cursor:
        return cursor.execute(PASSAGES, (run_id, wanted, wanted)).fetchall()


def values(conn: Conn, run_id: UUID) -> dict[str, dict[str, float]]:
    """Question → measure → value, as it was measured then."""
    row = conn.execute(VALUES, (run_id,)).fetchone()
    return dict(row[0]) if row and row[0] else {}


def stages(conn: Conn, run_id: UUID) -> list[StoredStages]:
    """Where the relevant documents stood; an erased document's are gone."""
    with conn.cursor(row_factory=class_row(StoredStages)) as cursor:
        return cursor.execute(STAGES, (run_id,)).fetchall()
