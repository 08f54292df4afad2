"""Readiness notices each way in which row-level security can be off."""

from collections.abc import Iterator

import psycopg
import pytest

from core.errors import UnsafeDatabase
from store import safety
from store.pool import reading_tenant
from tests.conftest import World

# Statement of an administrator → a word of the complaint.
MUTATIONS = {
    "ALTER TABLE documents DISABLE ROW LEVEL SECURITY": "documents",
    "ALTER TABLE chunks NO FORCE ROW LEVEL SECURITY": "chunks",
    "ALTER TABLE vectors_1 NO FORCE ROW LEVEL SECURITY": "vectors_1",
    "ALTER TABLE vectors_1 DISABLE ROW LEVEL SECURITY": "vectors_1",
    "DROP POLICY reader ON versions": "versions",
    "DROP POLICY reader ON vectors_1": "vectors_1",
    "ALTER TABLE tokens_1 NO FORCE ROW LEVEL SECURITY": "tokens_1",
    "ALTER TABLE tokens_1 DISABLE ROW LEVEL SECURITY": "tokens_1",
    "DROP POLICY reader ON tokens_1": "tokens_1",
    "ALTER POLICY reader ON tokens_1 USING (true)": "tokens_1",
    "ALTER POLICY reader ON tokens_1 USING (document_id IS NOT NULL)": "tokens_1",
    "CREATE TABLE tokens_9 (code bytea); GRANT SELECT ON tokens_9 TO citadel_app": "tokens_9",
    "ALTER POLICY reader ON documents USING (true)": "documents",
    "ALTER POLICY reader ON documents USING (1 = 1)": "documents",
    "ALTER POLICY reader ON documents USING (tenant_id IS NOT NULL)": "documents",
    "ALTER POLICY reader ON documents USING (tenant_id = (SELECT scope_tenant()))": "documents",
    "ALTER POLICY reader ON vectors_1 USING (tenant_id = (SELECT scope_tenant()))": "vectors_1",
    "ALTER POLICY reader ON chunks USING (document_id IS NOT NULL)": "chunks",
    "ALTER POLICY reader ON versions USING (EXISTS (SELECT FROM documents d WHERE d.id = document_id))": "versions",
    "ALTER POLICY reader ON documents TO PUBLIC": "documents",
    "ALTER POLICY maintenance ON documents TO citadel_maintenance, citadel_app": "documents",
    "ALTER POLICY maintenance ON documents RENAME TO reader2": "documents",
    "CREATE POLICY another ON chunks USING (true)": "chunks",
    "CREATE POLICY another ON chunks FOR SELECT TO citadel_app USING (true)": "chunks",
    "ALTER TABLE documents OWNER TO citadel_app": "documents",
    "ALTER TABLE jobs DISABLE ROW LEVEL SECURITY": "jobs",
    "CREATE VIEW leak AS SELECT * FROM chunks": "leak",
    "CREATE MATERIALIZED VIEW leak AS SELECT * FROM chunks": "leak",
    "CREATE SCHEMA s; CREATE VIEW s.leak AS SELECT * FROM chunks; GRANT USAGE ON SCHEMA s TO citadel_app; "
    "GRANT SELECT ON s.leak TO citadel_app": "leak",
    "CREATE FUNCTION leak() RETURNS SETOF text LANGUAGE sql SECURITY DEFINER AS 'SELECT text FROM chunks'": "leak",
    "CREATE TABLE vectors_9 (embedding halfvec(3)); GRANT SELECT ON vectors_9 TO citadel_app": "vectors_9",
    "ALTER POLICY reader ON jobs USING (tenant_id = (SELECT scope_tenant()) OR kind = 'refresh')": "jobs",
    "ALTER POLICY reader ON tombstones USING (true)": "tombstones",
    "ALTER TABLE golden_queries DISABLE ROW LEVEL SECURITY": "golden_queries",
    "ALTER POLICY reader ON eval_passages USING (true)": "eval_passages",
    "GRANT UPDATE ON audit_log TO citadel_app": "audit_log",
    "GRANT SELECT ON audit_heads TO citadel_app": "audit_heads",
    "ALTER POLICY reader ON documents USING (tenant_id = (SELECT scope_tenant()) AND "
    "(label_set_id IN (SELECT unnest(scope_label_sets())) OR title = 'x'))": "documents",
    "ALTER POLICY reader ON vectors_1 USING (tenant_id = (SELECT scope_tenant()) AND "
    "substring((SELECT scope_bits()) FROM label_set_id FOR 1) = B'1')": "vectors_1",
    "ALTER POLICY reader ON label_set_chunks USING (tenant_id = (SELECT scope_tenant()))": "label_set_chunks",
    "CREATE POLICY counting2 ON label_set_chunks FOR INSERT TO citadel_owner WITH CHECK (true)": "label_set_chunks",
    "DROP POLICY counting ON label_set_chunks; "
    "CREATE POLICY counting ON label_set_chunks TO citadel_owner USING (true)": "label_set_chunks",
    "ALTER POLICY reader ON label_set_changes USING (tenant_id = (SELECT scope_tenant()))": "label_set_changes",
    "ALTER POLICY parting ON fingerprints TO citadel_owner, citadel_app": "fingerprints",
    "DROP TRIGGER changes_update ON documents": "documents",
    "ALTER TABLE documents DISABLE TRIGGER part_copies": "documents",
    "ALTER POLICY reader ON fingerprints USING (tenant_id = (SELECT scope_tenant()))": "fingerprints",
    "ALTER TABLE fingerprint_bands NO FORCE ROW LEVEL SECURITY": "fingerprint_bands",
    "ALTER TABLE documents DISABLE TRIGGER changes_delete": "documents",
    "ALTER TABLE kept_profiles NO FORCE ROW LEVEL SECURITY": "kept_profiles",
    "ALTER POLICY reader ON kept_profiles USING (true)": "kept_profiles",
    "ALTER TABLE calibrations NO FORCE ROW LEVEL SECURITY": "calibrations",
    "DROP TRIGGER epoch_insert ON memberships": "memberships",
    "ALTER TABLE clearances DISABLE TRIGGER epoch_update_from": "clearances",
    "ALTER TABLE label_sets DISABLE TRIGGER USER": "label_sets",
    "ALTER TABLE classifications ENABLE REPLICA TRIGGER epoch_delete": "classifications",
    "ALTER TABLE tenants DISABLE TRIGGER epoch": "tenants",
    "ALTER TABLE memberships RENAME TO was_memberships": "memberships",
}


def complaints(world: World) -> list[str]:
    """What readiness finds, as the application's role."""
    with reading_tenant(world.store, None) as conn:
        return safety.violations(conn)


def test_the_schema_is_safe(world: World) -> None:
    assert complaints(world) == []
    with reading_tenant(world.store, None) as conn:
        safety.check(conn)


@pytest.fixture
def admin(database_url: str) -> Iterator[psycopg.Connection]:
    """A superuser's transaction, never committed."""
    with psycopg.connect(database_url) as conn:
        yield conn
        conn.rollback()


def test_each_mutation_is_noticed(admin: psycopg.Connection) -> None:
    unnoticed = []
    for statement, word in MUTATIONS.items():
        with admin.transaction(force_rollback=True):
            admin.execute(statement.encode())
            admin.execute("SET LOCAL SESSION AUTHORIZATION citadel_app")
            found = "; ".join(safety.violations(admin))
            if word not in found:
                unnoticed.append(statement)
    assert unnoticed == []


ROLES = {
    "ALTER ROLE citadel_app BYPASSRLS": "citadel_app",
    "ALTER ROLE citadel_app SUPERUSER": "citadel_app",
    "GRANT citadel_maintenance TO citadel_app": "citadel_app",
    "GRANT citadel_owner TO citadel_app": "citadel_app",
    "GRANT pg_write_all_data TO citadel_maintenance; GRANT citadel_maintenance TO citadel_app": "citadel_app",
}


def test_a_role_that_may_too_much_is_noticed(admin: psycopg.Connection) -> None:
    for statement, word in ROLES.items():
        with admin.transaction(force_rollback=True):
            admin.execute(statement.encode())
            admin.execute("SET LOCAL SESSION AUTHORIZATION citadel_app")
            assert word in "; ".join(safety.violations(admin)), statement


def test_other_roles_are_refused(database_url: str, maintenance_url: str) -> None:
    for url in (database_url, maintenance_url):
        with psycopg.connect(url) as conn, pytest.raises(UnsafeDatabase):
            safety.check(conn)
