"""Migrations: they build schema.sql, run once, refuse what they do not know, and need no superuser."""

import threading
import uuid
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from core.errors import MigrationMismatch, Misconfigured
from embedded.check_schema import differences
from embedded.server import Server
from store import migrate, safety
from store.migrate import as_owner, create_database, role_url
from store.pool import open_store, reading_tenant, writing
from store.profiles import ensure_profile, ensure_tenant
from tests.conftest import FAKE_PROFILE, PASSWORDS


@pytest.fixture
def empty(postgres: Server) -> Iterator[str]:
    """An administrator's URL of an empty database."""
    name = f"empty_{uuid.uuid4().hex[:12]}"
    yield create_database(postgres.url, name)
    with psycopg.connect(postgres.url, autocommit=True) as conn:
        conn.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def test_the_migrations_build_the_schema(postgres: Server) -> None:
    assert differences(postgres.url) == []


def test_the_second_time_applies_nothing(empty: str) -> None:
    known = [m.name for m in migrate.read_migrations()]
    assert migrate.migrate(empty, PASSWORDS) == known
    assert migrate.migrate(empty, {}) == []
    with psycopg.connect(empty) as conn:
        assert migrate.pending(conn) == ()
        assert [row[0] for row in conn.execute("SELECT name FROM migrations ORDER BY version").fetchall()] == known


def test_two_at_once_apply_each_once(empty: str) -> None:
    applied: list[list[str]] = []
    threads = [threading.Thread(target=lambda: applied.append(migrate.migrate(empty, PASSWORDS))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(applied) == [[], [], [m.name for m in migrate.read_migrations()]]


def test_an_applied_migration_that_was_edited_is_refused(database_url: str) -> None:
    with as_owner(database_url) as conn:
        assert conn.execute("UPDATE migrations SET sha256 = repeat('0', 64) WHERE version = 1").rowcount == 1
    with pytest.raises(MigrationMismatch, match="migration 1"):
        migrate.migrate(database_url, {})
    with psycopg.connect(database_url) as conn, pytest.raises(MigrationMismatch):
        migrate.pending(conn)


def test_a_database_of_a_newer_release_is_refused(database_url: str) -> None:
    with as_owner(database_url) as conn:
        conn.execute("INSERT INTO migrations (version, name, sha256) VALUES (9999, 'later', 'x')")
    with pytest.raises(MigrationMismatch, match="9999"):
        migrate.migrate(database_url, {})


def test_a_missing_or_doubled_number_is_refused(tmp_path: Path) -> None:
    for names in (["0002_b.sql"], ["0001_a.sql", "0003_c.sql"], ["0001_a.sql", "0001_b.sql"]):
        folder = tmp_path / uuid.uuid4().hex
        folder.mkdir()
        for name in names:
            (folder / name).write_text("SELECT 1")
        with pytest.raises(MigrationMismatch, match="numbered"):
            migrate.read_migrations(folder)


def test_a_name_without_a_number_is_refused(tmp_path: Path) -> None:
    (tmp_path / "initial.sql").write_text("SELECT 1")
    with pytest.raises(MigrationMismatch, match="initial"):
        migrate.read_migrations(tmp_path)


def test_an_administrator_who_is_no_superuser_is_enough(postgres: Server) -> None:
    """CREATEROLE and a database of its own with the extension, as managed Postgres gives, are all it takes."""
    admin, name, password = f"dba_{uuid.uuid4().hex[:8]}", f"managed_{uuid.uuid4().hex[:8]}", uuid.uuid4().hex
    roles = {role: f"{role}_{uuid.uuid4().hex[:8]}" for role in ("citadel_owner", "citadel_app", "citadel_maintenance")}
    with psycopg.connect(postgres.url, autocommit=True) as conn:
        make = sql.SQL("CREATE ROLE {} LOGIN CREATEROLE PASSWORD {}")
        conn.execute(make.format(sql.Identifier(admin), sql.Literal(password)))
        conn.execute(sql.SQL("CREATE DATABASE {} OWNER {}").format(sql.Identifier(name), sql.Identifier(admin)))
        with psycopg.connect(f"{postgres.url.rpartition('/')[0]}/{name}", autocommit=True) as inside:
            inside.execute("CREATE EXTENSION vector")
        for role, aside in roles.items():  # as on a server that has never seen Citadel
            conn.execute(sql.SQL("ALTER ROLE {} RENAME TO {}").format(sql.Identifier(role), sql.Identifier(aside)))
        try:
            url = role_url(postgres.url.rpartition("/")[0] + f"/{name}", admin, password)
            works_for(url)
        finally:
            conn.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))
            for role, aside in roles.items():
                conn.execute(sql.SQL("DROP ROLE IF EXISTS {}").format(sql.Identifier(role)))
                conn.execute(sql.SQL("ALTER ROLE {} RENAME TO {}").format(sql.Identifier(aside), sql.Identifier(role)))
            conn.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(admin)))
            for role, secret in PASSWORDS.items():  # a renamed role has lost an md5 password, never a scram one
                conn.execute(sql.SQL("ALTER ROLE {} PASSWORD {}").format(sql.Identifier(role), sql.Literal(secret)))


def works_for(url: str) -> None:
    """Migrate, make a profile and a tenant, and be safe."""
    assert migrate.migrate(url, PASSWORDS) == [m.name for m in migrate.read_migrations()]
    assert migrate.migrate(url, PASSWORDS) == []
    with as_owner(url) as conn:
        profile = ensure_profile(conn, FAKE_PROFILE)
    app, maintenance = (role_url(url, role, PASSWORDS[role]) for role in ("citadel_app", "citadel_maintenance"))
    store = open_store(app, maintenance, size=1)
    try:
        with writing(store) as conn:
            tenant = ensure_tenant(conn, "default", profile.id)
        with reading_tenant(store, tenant) as conn:
            assert safety.violations(conn) == []
    finally:
        store.close()


def test_a_role_without_the_rights_is_told_what_it_lacks(postgres: Server, empty: str) -> None:
    with psycopg.connect(postgres.url, autocommit=True) as conn:
        conn.execute("CREATE ROLE plain LOGIN PASSWORD 'plain'")
        try:
            with pytest.raises(Misconfigured, match="CITADEL_DATABASE_URL"):
                migrate.migrate(role_url(empty, "plain", "plain"), PASSWORDS)
        finally:
            conn.execute("DROP ROLE plain")


def test_a_password_with_any_character_connects(database_url: str) -> None:
    odd = "p@ss:w/o?r#d %41 ü'\""
    try:
        migrate.migrate(database_url, {"citadel_app": odd})
        with psycopg.connect(role_url(database_url, "citadel_app", odd)) as conn:
            assert conn.execute("SELECT current_user").fetchone() == ("citadel_app",)
    finally:
        migrate.migrate(database_url, PASSWORDS)
