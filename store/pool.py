"""Connections to Postgres: two pools of two roles, and the transactions that content is read and written in.

A reader's transaction is one snapshot, read-only, and carries the caller's scope as transaction-local settings, which
the row-level policies compare with. Nothing about the caller outlives the transaction.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar
from uuid import UUID

import psycopg
from pgvector.psycopg import register_vector
from psycopg import ClientCursor, Connection
from psycopg.rows import class_row
from psycopg_pool import ConnectionPool, PoolTimeout

from core.errors import Invalid, NotFound, StatementTimeout, StoreUnavailable
from core.records import AccessScope
from store.scopes import ScopeCache

Conn = Connection[tuple[Any, ...]]
Record = TypeVar("Record")

STATEMENT_TIMEOUT_S = 60
# Each side asks a silent other one whether it is there, and takes 15 s without an answer for a no: a host that lost its
# power within a commit holds its rows for half a minute, and a worker that was cut off does not wait for hours.
ALIVE = {"keepalives_idle": 15, "keepalives_interval": 5, "keepalives_count": 3}
UNANSWERED_MS = 30_000
SESSION = " ".join((
    f"-c statement_timeout={STATEMENT_TIMEOUT_S}s -c lock_timeout=10s -c idle_in_transaction_session_timeout=60s",
    *(f"-c tcp_{name}={value}" for name, value in ALIVE.items()),
    f"-c tcp_user_timeout={UNANSWERED_MS}",  # of what was sent last: who has that unanswered is asked nothing more
))  # fmt: skip
CONNECTING = {"options": SESSION, "connect_timeout": 10, "tcp_user_timeout": UNANSWERED_MS, **ALIVE}

SETTINGS = ("citadel.tenant", "citadel.label_sets", "citadel.label_base", "citadel.label_bits")
# All of it each time: no part of an earlier scope may stay beside a later one's.
MAKE_SETTINGS = """
    set_config('citadel.tenant', %(citadel.tenant)s, true),
    set_config('citadel.label_sets', %(citadel.label_sets)s, true),
    set_config('citadel.label_base', %(citadel.label_base)s, true),
    set_config('citadel.label_bits', %(citadel.label_bits)s, true)
"""
SET_SCOPE = f"SELECT {MAKE_SETTINGS}"
NOTHING = dict.fromkeys(SETTINGS, "")  # as settings: sees nothing

# Several statements in one message: values are bound by the driver, as literals.
START = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
START_TENANT = f"{START}; {SET_SCOPE}"
START_VIEW = (
    f"{START}; SET TRANSACTION SNAPSHOT %(snapshot)s; {SET_SCOPE}, set_config('statement_timeout', %(timeout)s, true)"
)
TOO_MUCH = (psycopg.errors.ProgramLimitExceeded, psycopg.errors.StatementTooComplex)
# A round trip each: half of what the driver's own savepoint in a pipeline costs, which is mostly its own work.
BEGIN_PART = "SAVEPOINT part; SELECT set_config('statement_timeout', %s, true)"
UNDO_PART = "ROLLBACK TO SAVEPOINT part; RELEASE SAVEPOINT part"  # and the time limit with it
END_PART = "SET LOCAL statement_timeout TO DEFAULT; RELEASE SAVEPOINT part"


@dataclass(frozen=True, slots=True)
class View:
    """One caller's sight of one moment: every leg of a search reads through the same."""

    scope: AccessScope
    snapshot: str


@dataclass(frozen=True, slots=True)
class Store:
    """Postgres as the two roles see it."""

    app: ConnectionPool[Conn]  # reads, under row-level security
    maintenance: ConnectionPool[Conn]  # writes, workers
    scopes: ScopeCache = field(default_factory=ScopeCache)  # what readers' scopes came to

    def close(self) -> None:
        """Close every connection."""
        self.app.close()
        self.maintenance.close()


def open_store(app_url: str, maintenance_url: str, size: int = 16) -> Store:
    """Open both pools, each of at most `size` connections. A pool connects on first use, so that a process which only
    writes needs no app_url."""
    return Store(_pool(app_url, size, _configure_reader), _pool(maintenance_url, size, _configure))


def _pool(url: str, size: int, configure: Callable[[Conn], None]) -> ConnectionPool[Conn]:
    return ConnectionPool(
        url,
        min_size=0,
        max_size=size,
        timeout=10,
        open=True,
        configure=configure,
        kwargs=CONNECTING,
    )


def _configure(conn: Conn) -> None:
    register_vector(conn)
    conn.commit()


def _configure_reader(conn: Conn) -> None:
    """Its transactions are begun by the statement that says what they see, and end with their block."""
    _configure(conn)
    conn.autocommit = True


@contextmanager
def reading(store: Store, view: View, timeout_s: float | None = None) -> Iterator[Conn]:
    """The view's snapshot and scope on another connection, for a leg that runs beside others.

    The transaction that exported the snapshot must still be open. A statement that outlasts `timeout_s` is ended.
    Raises StoreUnavailable.
    """
    timeout_ms = max(1, int(1000 * (STATEMENT_TIMEOUT_S if timeout_s is None else timeout_s)))
    values = {"snapshot": view.snapshot, "timeout": f"{timeout_ms}ms", **scope_settings(view.scope)}
    with _translated(), store.app.connection() as conn:
        ClientCursor(conn).execute(START_VIEW, values)
        yield conn


@contextmanager
def within(conn: Conn, timeout_s: float) -> Iterator[None]:
    """A part of a transaction that the rest can do without: a statement that outlasts `timeout_s` is ended, and what
    fails is undone alone. Raises StoreUnavailable."""
    with _translated():
        ClientCursor(conn).execute(BEGIN_PART, (f"{max(1, int(timeout_s * 1000))}ms",))
        try:
            yield
        except BaseException:
            conn.execute(UNDO_PART)
            raise
        conn.execute(END_PART)


@contextmanager
def reading_tenant(store: Store, tenant_id: UUID | None) -> Iterator[Conn]:
    """One read-only snapshot of a tenant's access tables and jobs; content stays out of sight until a scope is set.

    Raises StoreUnavailable.
    """
    values = NOTHING if tenant_id is None else NOTHING | {"citadel.tenant": str(tenant_id)}
    with _translated(), store.app.connection() as conn:
        ClientCursor(conn).execute(START_TENANT, values)
        yield conn


@contextmanager
def reading_alone(store: Store) -> Iterator[Conn]:
    """Statements that are a snapshot each, in one round trip; what a scope protects is out of sight.

    Raises StoreUnavailable.
    """
    with _translated(), store.app.connection() as conn:
        yield conn


def set_scope(conn: Conn, scope: AccessScope) -> None:
    """From here to its end, this transaction sees what the scope shows."""
    conn.execute(SET_SCOPE, scope_settings(scope))


def scope_settings(scope: AccessScope) -> dict[str, str]:
    """What a transaction that sees the scope is set to, in whichever form is the shorter."""
    form = ("", str(scope.base), scope.bits) if scope.dense else (scope.array, "", "")
    return dict(zip(SETTINGS, (str(scope.tenant_id), *form), strict=True))


def export_snapshot(conn: Conn) -> str:
    """A name under which other transactions can read exactly what this one reads."""
    row = conn.execute("SELECT pg_export_snapshot()", prepare=True).fetchone()
    assert row is not None
    return str(row[0])


@contextmanager
def writing(store: Store) -> Iterator[Conn]:
    """One read-committed transaction as the maintenance role. Raises StoreUnavailable."""
    with _translated(), store.maintenance.connection() as conn, conn.transaction():
        yield conn


@contextmanager
def writing_alone(store: Store) -> Iterator[Conn]:
    """Statements that are committed each by itself as the maintenance role, in one round trip. Raises
    StoreUnavailable."""
    with _translated(), store.maintenance.connection() as conn:
        conn.autocommit = True
        try:
            yield conn
        finally:
            if not conn.closed:
                conn.autocommit = False


@contextmanager
def alone(store: Store) -> Iterator[Conn]:
    """A connection of maintenance in no transaction, and without a limit of time. Raises StoreUnavailable."""
    with _translated(), store.maintenance.connection() as conn:
        conn.autocommit = True
        try:
            conn.execute("SET statement_timeout = 0")
            yield conn
        finally:
            if not conn.closed:
                conn.execute("RESET statement_timeout")
                conn.autocommit = False


@contextmanager
def trying(store: Store) -> Iterator[Conn]:
    """As `writing`, and rolled back at its end: for what a change would come to."""
    with _translated(), store.maintenance.connection() as conn, conn.transaction(force_rollback=True):
        yield conn


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except TOO_MUCH as error:  # operational to the driver, but no later call will do better
        raise Invalid(f"more than the database takes: {str(error).splitlines()[0]}") from error
    except psycopg.errors.QueryCanceled as error:  # the statement's own fault, perhaps: it does count as an attempt
        raise StatementTimeout(f"Postgres did not finish: {str(error).splitlines()[0]}") from error
    except psycopg.errors.ReadOnlySqlTransaction as error:  # as on a standby, until its failover is done
        raise StoreUnavailable(f"Postgres takes no writes: {str(error).splitlines()[0]}") from error
    except (psycopg.OperationalError, PoolTimeout) as error:
        raise StoreUnavailable(f"Postgres did not answer: {str(error).splitlines()[0]}") from error
    except psycopg.DataError as error:
        raise Invalid(f"a value that the database does not take: {str(error).splitlines()[0]}") from error


def one_row(
    conn: Conn, record: type[Record], statement: str, values: Sequence[Any] | Mapping[str, Any], otherwise: str
) -> Record:
    """The record that the statement finds. Raises NotFound, which says `otherwise`."""
    with conn.cursor(row_factory=class_row(record)) as cursor:
        found = cursor.execute(statement, values).fetchone()
    if found is None:
        raise NotFound(otherwise)
    return found
