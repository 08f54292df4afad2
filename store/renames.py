"""A document under another name, and what names it: an erasure finds by its name what quotes it."""

from uuid import UUID

from store.pool import Conn

BEFORE = "SELECT tenant_id, external_id FROM documents WHERE id = %s"
RENAME = "UPDATE documents SET external_id = %s, updated_at = now() WHERE id = %s"
# Where another document of the tenant has the old name too, it may be the one that is meant.
UNNAMED = """
    AND NOT EXISTS (SELECT FROM sources s JOIN documents d ON d.source_id = s.id AND d.external_id = %(old)s
                    WHERE s.tenant_id = %(tenant)s)
"""
JUDGEMENTS = f"""
    UPDATE golden_queries SET line = line || jsonb_build_object(
        'relevant', (SELECT coalesce(jsonb_agg(CASE WHEN j ->> 'document' = %(old)s
                         THEN j || jsonb_build_object('document', %(new)s::text) ELSE j END), '[]')
                     FROM jsonb_array_elements(line -> 'relevant') j),
        'forbidden', (SELECT coalesce(jsonb_agg(CASE WHEN f = %(old)s THEN %(new)s::text ELSE f END), '[]')
                      FROM jsonb_array_elements_text(line -> 'forbidden') f))
    WHERE tenant_id = %(tenant)s AND (line -> 'forbidden' ? %(old)s
        OR line -> 'relevant' @> jsonb_build_array(jsonb_build_object('document', %(old)s::text))) {UNNAMED}
"""  # noqa: S608
FEEDBACK = f"""
    UPDATE feedback SET missing = (
        SELECT jsonb_agg(CASE WHEN m ->> 'document' = %(old)s THEN m || jsonb_build_object('document', %(new)s::text)
                              ELSE m END) FROM jsonb_array_elements(missing) m)
    WHERE tenant_id = %(tenant)s
      AND missing @> jsonb_build_array(jsonb_build_object('document', %(old)s::text)) {UNNAMED}
"""  # noqa: S608


def rename(conn: Conn, document_id: UUID, name: str) -> None:
    """The document has another external id from this commit on, also in judgements and feedback."""
    row = conn.execute(BEFORE, (document_id,)).fetchone()
    conn.execute(RENAME, (name, document_id))
    if row is not None and row[1] != name:
        named = {"tenant": row[0], "old": row[1], "new": name}
        for statement in (JUDGEMENTS, FEEDBACK):
            conn.execute(statement, named)
