"""The application's role, as a hostile reader holds it who can send any SQL; and what a pooled connection keeps."""

import os
import random
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from core.errors import StoreUnavailable
from embedded.postgres import programs_folder
from store import access
from store.pool import Store, open_store, reading_tenant
from tests.conftest import World
from tests.integration.rows import CONTENT, TENANTS_OWN, count, on

# --- the application's role ---------------------------------------------------------------------------------------


@pytest.fixture
def app(world: World, app_url: str) -> Iterator[psycopg.Connection]:
    """The application's role, as somebody holds it who can send any SQL; one public document is stored."""
    world.groups({"group:g": ["user:ana"]}, {"user:ana": "internal"})
    world.add("d", "the text of a public document", ("public",))
    with psycopg.connect(app_url, autocommit=True) as conn:
        yield conn


def test_without_a_scope_there_are_no_rows(app: psycopg.Connection) -> None:
    for table in (*CONTENT, *TENANTS_OWN):
        assert count(app, table) == 0
    app.execute("SELECT set_config('citadel.tenant', '', false), set_config('citadel.label_sets', '', false)")
    for table in (*CONTENT, *TENANTS_OWN):
        assert count(app, table) == 0
    app.execute("SET row_security = off")
    for table in (*CONTENT, *TENANTS_OWN):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            count(app, table)


def test_half_a_scope_shows_no_content(world: World, app: psycopg.Connection) -> None:
    halves = [(str(world.tenant_id), empty) for empty in ("", "{}", "{NULL}")] + [("", "{1,2,3,4,5}")]
    for half in halves:
        app.execute("SELECT set_config('citadel.tenant', %s, false), set_config('citadel.label_sets', %s, false)", half)
        assert [count(app, table) for table in CONTENT] == [0] * len(CONTENT)
    app.execute("SELECT set_config('citadel.tenant', %s, false)", (str(world.tenant_id),))
    assert [count(app, table) for table in CONTENT] == [1] * len(CONTENT)  # with both halves, the public document


FORBIDDEN = [
    *(
        f"INSERT INTO {t} DEFAULT VALUES"
        for t in (*CONTENT, *TENANTS_OWN, "tenants", "api_keys", "identity_providers", "profiles")
    ),
    *(f"DELETE FROM {t}" for t in (*CONTENT, *TENANTS_OWN, "tenants", "api_keys", "audit")),  # noqa: S608
    *(f"TRUNCATE {t} CASCADE" for t in (*CONTENT, *TENANTS_OWN)),
    *(f"COPY {t} FROM STDIN" for t in (*CONTENT, *TENANTS_OWN)),
    *(f"ALTER TABLE {t} DISABLE ROW LEVEL SECURITY" for t in CONTENT),
    *(f"ALTER TABLE {t} NO FORCE ROW LEVEL SECURITY" for t in CONTENT),
    *(f"DROP POLICY reader ON {t}" for t in CONTENT),
    *(f"CREATE POLICY mine ON {t} USING (true)" for t in CONTENT),
    "UPDATE documents SET label_set_id = 1",
    "UPDATE versions SET text = ''",
    "UPDATE chunks SET text = ''",
    "UPDATE vectors_1 SET label_set_id = 1",
    "UPDATE tokens_1 SET code = ''",
    "UPDATE label_sets SET allow = '{public}'",
    "UPDATE memberships SET member = 'user:eve'",
    "UPDATE clearances SET classification = 'restricted'",
    "UPDATE tenants SET default_clearance = 'restricted'",
    "UPDATE api_keys SET scopes = '{operate}'",
    "UPDATE api_keys SET last_used_at = now()",
    "UPDATE identity_providers SET issuer = 'https://id.evil.example'",
    "DELETE FROM identity_providers",
    "UPDATE jobs SET state = 'done'",
    "UPDATE audit SET actor = 'nobody'",
    "SELECT * FROM audit",
    "SET ROLE citadel_owner",
    "SET ROLE citadel_maintenance",
    "SET SESSION AUTHORIZATION citadel_maintenance",
    "GRANT citadel_maintenance TO citadel_app",
    "ALTER ROLE citadel_app BYPASSRLS",
    "SET session_replication_role = replica",
    "CREATE TABLE mine (a int)",
    "CREATE FUNCTION mine() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    "CALL protect('documents', 'true')",
    "CALL add_tokens(1)",
    "SELECT add_profile('mine', 'm', 3, 'f32', 200, 'structure')",
    "COPY documents TO PROGRAM 'cat'",
    "COPY documents TO '/tmp/documents'",
    "COPY api_keys FROM '/etc/passwd'",
    "SELECT pg_read_file('/etc/passwd')",
]


def test_the_applications_role_may_not_write_nor_become_another(app: psycopg.Connection) -> None:
    for statement in FORBIDDEN:
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            app.execute(statement.encode())
            pytest.fail(f"allowed: {statement}")


def test_copy_out_is_under_the_policies_as_well(app: psycopg.Connection) -> None:
    for table in CONTENT:
        with app.cursor() as cursor, cursor.copy(on("COPY {} TO STDOUT", table)) as out:
            assert b"".join(bytes(part) for part in out) == b""


def test_statistics_tell_nothing_of_content(app: psycopg.Connection, database_url: str) -> None:
    with psycopg.connect(database_url, autocommit=True) as admin:
        admin.execute("ANALYZE")
        sampled = admin.execute("SELECT count(*) FROM pg_stats WHERE tablename = ANY(%s)", (list(CONTENT),)).fetchone()
    assert sampled and sampled[0] > 0
    told = {row[0] for row in app.execute("SELECT tablename FROM pg_stats WHERE schemaname = 'public'").fetchall()}
    assert not told & {*CONTENT, *TENANTS_OWN}


def dump(url: str, *options: str) -> subprocess.CompletedProcess[str]:
    """pg_dump of the data."""
    command = [str(programs_folder() / "pg_dump"), "--data-only", *options, url]
    return subprocess.run(command, capture_output=True, text=True, env={"PATH": os.defpath, "LC_ALL": "C"})


def test_a_dump_as_the_applications_role_is_refused(app: psycopg.Connection, app_url: str) -> None:
    assert dump(app_url).returncode != 0
    for table in CONTENT:
        done = dump(app_url, f"--table={table}")
        assert done.returncode != 0 and ("row-level security" in done.stderr or "sequence" in done.stderr)
        asked = dump(app_url, f"--table={table}", "--enable-row-security")
        assert "text of a public document" not in done.stdout + asked.stdout


def test_a_dump_as_maintenance_is_whole(app: psycopg.Connection, maintenance_url: str) -> None:
    done = dump(maintenance_url, "--enable-row-security")
    assert done.returncode == 0, done.stderr
    assert "text of a public document" in done.stdout


def test_force_holds_the_owner_as_well(app: psycopg.Connection, database_url: str) -> None:
    with psycopg.connect(database_url) as admin:
        admin.execute("SET ROLE citadel_owner")
        for table in CONTENT:
            assert count(admin, table) == 0


# --- pooled connections -------------------------------------------------------------------------------------------


def settings_of(store: Store) -> tuple[object, ...]:
    """What a fresh transaction on a pooled connection finds set."""
    query = "SELECT current_setting('citadel.tenant', true), current_setting('citadel.label_sets', true)"
    with store.app.connection() as conn:
        return conn.execute(query).fetchone() or ()


def test_a_pooled_connection_keeps_no_identity(world: World, app_url: str, maintenance_url: str) -> None:
    world.add("d", "text", ("public",))
    small = open_store(app_url, maintenance_url, size=1)
    try:
        with reading_tenant(small, world.tenant_id) as conn:
            access.enter_scope(conn, world.who("user:ana"))
            assert conn.execute("SELECT count(*) FROM documents").fetchone() == (1,)
        assert all(not value for value in settings_of(small))
        with pytest.raises(RuntimeError, match="midway"), reading_tenant(small, world.tenant_id) as conn:
            access.enter_scope(conn, world.who("user:ana"))
            raise RuntimeError("midway")
        assert all(not value for value in settings_of(small))
        with reading_tenant(small, None) as conn:
            assert conn.execute("SELECT count(*) FROM documents").fetchone() == (0,)
    finally:
        small.close()


def test_interleaved_principals_on_two_connections_see_no_foreign_row(
    world: World, app_url: str, maintenance_url: str
) -> None:
    people = [f"user:p{number}" for number in range(8)]
    for person in people:
        world.add(person, f"only for {person}", (person,))
    small = open_store(app_url, maintenance_url, size=2)
    fates = random.Random(3).choices(("read", "raise", "cancel"), (6, 2, 1), k=400)

    def one(number: int) -> set[str]:
        who = world.who(people[number % len(people)])
        try:
            with reading_tenant(small, world.tenant_id) as conn:
                access.enter_scope(conn, who)
                if fates[number] == "raise":
                    raise KeyError(number)
                if fates[number] == "cancel":
                    threading.Timer(0.005, conn.cancel).start()
                    conn.execute("SELECT pg_sleep(5)")
                return {row[0] for row in conn.execute("SELECT external_id FROM documents").fetchall()} - {who.subject}
        except KeyError:
            return set()
        except StoreUnavailable:  # the statement was cancelled
            assert fates[number] == "cancel"
            return set()

    try:
        with ThreadPoolExecutor(6) as threads:
            foreign = list(threads.map(one, range(len(fates))))
        assert foreign == [set()] * len(fates)
        assert all(not value for value in settings_of(small))
    finally:
        small.close()
