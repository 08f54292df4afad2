"""Roles, extension, migrations: from an empty database to one that this code can use."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, urlsplit

import psycopg
from psycopg import sql

from core.errors import MigrationMismatch, Misconfigured
from store.pool import Conn

MIGRATIONS = Path(__file__).parent / "migrations"
ROLES = {"citadel_owner": "NOLOGIN", "citadel_app": "LOGIN", "citadel_maintenance": "LOGIN"}
LOCK = 0x43495441  # one migrator at a time

ROLE_EXISTS = "SELECT FROM pg_roles WHERE rolname = %s"
# To vacuum and reindex what the owner has, from Postgres 17 on; an administrator who may not grant it does both alone.
MAY_MAINTAIN = """
    DO $$ BEGIN
        IF (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) OR EXISTS (
            SELECT FROM pg_auth_members WHERE roleid = to_regrole('pg_maintain') AND admin_option
            AND pg_has_role(current_user, member, 'USAGE')) THEN
            IF to_regrole('pg_maintain') IS NOT NULL THEN
                GRANT pg_maintain TO citadel_maintenance;
            END IF;
        END IF;
    END $$
"""
OWN_SCHEMA = "ALTER SCHEMA public OWNER TO citadel_owner"
LEDGER = """
    CREATE TABLE IF NOT EXISTS migrations (
        version int PRIMARY KEY,
        name text NOT NULL,
        sha256 text NOT NULL,
        applied_at timestamptz NOT NULL DEFAULT now()
    )
"""
APPLIED = "SELECT version, sha256 FROM migrations ORDER BY version"
RECORD = "INSERT INTO migrations (version, name, sha256) VALUES (%s, %s, %s)"
READABLE = "GRANT SELECT ON migrations TO citadel_app, citadel_maintenance"


@dataclass(frozen=True, slots=True)
class Migration:
    """One numbered file."""

    version: int
    name: str
    text: str

    @property
    def sha256(self) -> str:
        """Of the file's text; a migration that was applied never changes."""
        return hashlib.sha256(self.text.encode()).hexdigest()


def read_migrations(folder: Path = MIGRATIONS) -> tuple[Migration, ...]:
    """The migrations in order. Raises MigrationMismatch where a number is missing or given twice."""
    files = sorted(folder.glob("*.sql"))
    if unnumbered := [p.name for p in files if not p.name.split("_")[0].isdecimal()]:
        raise MigrationMismatch(f"migrations have names such as 0002_what.sql, not {unnumbered}")
    found = [Migration(int(p.name.split("_")[0]), p.stem, p.read_text()) for p in files]
    if [m.version for m in found] != list(range(1, len(found) + 1)):
        raise MigrationMismatch(f"migrations are not numbered 1 to {len(found)}: {[m.name for m in found]}")
    return tuple(found)


def migrate(admin_url: str, passwords: dict[str, str]) -> list[str]:
    """Bring the database up to this code and return the names of what was applied.

    `admin_url` connects as a role that may create roles and the extension; `passwords` maps a role's name to the
    password to give it. Raises MigrationMismatch when an applied migration differs, Misconfigured when the
    administrator may not do what is needed.
    """
    try:
        with psycopg.connect(admin_url, autocommit=True) as conn:
            conn.execute("SELECT pg_advisory_lock(%s)", (LOCK,))
            _prepare(conn, passwords)
            conn.execute("SET ROLE citadel_owner")
            return _apply(conn, read_migrations())
    except psycopg.errors.InsufficientPrivilege as error:
        raise Misconfigured(
            f"{error}: CITADEL_DATABASE_URL must name a role that may create roles and the extension `vector`"
        ) from error


def create_database(server_url: str, name: str) -> str:
    """The URL of the database of that name on this server, made when absent."""
    with psycopg.connect(server_url, autocommit=True) as conn:
        if conn.execute("SELECT FROM pg_database WHERE datname = %s", (name,)).fetchone() is None:
            conn.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    return urlsplit(server_url)._replace(path=f"/{name}").geturl()


def role_url(admin_url: str, role: str, password: str) -> str:
    """The same database for another role."""
    parts = urlsplit(admin_url)
    place = parts.netloc.rpartition("@")[2]
    return parts._replace(netloc=f"{role}:{quote(password, safe='')}@{place}").geturl()


@contextmanager
def as_owner(admin_url: str) -> Iterator[Conn]:
    """A transaction as the owner, for what only the owner may make."""
    with psycopg.connect(admin_url) as conn:
        conn.execute("SET ROLE citadel_owner")
        yield conn


def pending(conn: Conn) -> tuple[str, ...]:
    """The names of migrations that this database lacks. Raises MigrationMismatch when it is newer or differs."""
    applied: dict[int, str] = dict(conn.execute(APPLIED).fetchall())
    known = read_migrations()
    _check_applied(applied, known)
    return tuple(m.name for m in known if m.version not in applied)


def prepare_roles(admin_url: str, passwords: dict[str, str]) -> None:
    """What a migration expects to find: the roles, the extension, and a schema that belongs to the owner."""
    with psycopg.connect(admin_url, autocommit=True) as conn:
        _prepare(conn, passwords)


def _prepare(conn: Conn, passwords: dict[str, str]) -> None:
    _make_roles(conn, passwords)
    conn.execute("CREATE EXTENSION IF NOT EXISTS vector")
    conn.execute(OWN_SCHEMA)


def _make_roles(conn: Conn, passwords: dict[str, str]) -> None:
    for role, login in ROLES.items():
        name = sql.Identifier(role)
        if conn.execute(ROLE_EXISTS, (role,)).fetchone() is None:
            conn.execute(sql.SQL("CREATE ROLE {} {} NOSUPERUSER NOBYPASSRLS").format(name, sql.SQL(login)))
        if passwords.get(role):
            conn.execute(sql.SQL("ALTER ROLE {} PASSWORD {}").format(name, sql.Literal(passwords[role])))
    conn.execute("GRANT citadel_owner TO CURRENT_USER")
    conn.execute(MAY_MAINTAIN)


def _apply(conn: Conn, migrations: tuple[Migration, ...]) -> list[str]:
    conn.execute(LEDGER)
    conn.execute(READABLE)
    applied: dict[int, str] = dict(conn.execute(APPLIED).fetchall())
    _check_applied(applied, migrations)
    done = []
    for migration in migrations:
        if migration.version not in applied:
            with conn.transaction():
                conn.execute(migration.text.encode())
                conn.execute(RECORD, (migration.version, migration.name, migration.sha256))
            done.append(migration.name)
    return done


def _check_applied(applied: dict[int, str], known: tuple[Migration, ...]) -> None:
    ours = {m.version: m.sha256 for m in known}
    for version, sha256 in applied.items():
        if ours.get(version) != sha256:
            raise MigrationMismatch(
                f"migration {version} in the database is not the one in this code: "
                "run the release that made it, or restore the file"
            )
