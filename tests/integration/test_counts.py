"""The kept counts of chunks by label set are those of the rows, whatever was done, and whoever folds meanwhile."""

import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait

import psycopg
import pytest
from psycopg import sql

from core.records import Labels
from embedded.server import Server
from ingest.erase import erase
from store import access, calibrations, documents, migrate, vectors
from store.chunks import Scan
from store.migrate import as_owner, create_database
from store.pool import reading_tenant, writing
from tests.conftest import PASSWORDS, World
from tests.integration.rows import fetch

KEPT = "SELECT label_set_id, sum(chunks)::int FROM label_set_chunks GROUP BY 1 HAVING sum(chunks) <> 0 ORDER BY 1"
COUNTED = "SELECT label_set_id, count(*)::int FROM vectors_1 GROUP BY 1 ORDER BY 1"
LONG = " ".join(f"word{number}" for number in range(900))  # some five chunks


def kept(world: World) -> list[tuple[int, int]]:
    """The counts, after it was seen that they are those of the rows."""
    found = fetch(world, KEPT)
    assert found == fetch(world, COUNTED)
    return [(int(label_set), int(n)) for label_set, n in found]


def total(world: World) -> int:
    return sum(n for _, n in kept(world))


def visible(world: World, subject: str) -> int:
    """What a search of theirs would be routed by."""
    with reading_tenant(world.store, world.tenant_id) as conn:
        scope = access.enter_scope(conn, world.who(subject))
        return vectors.outlook(conn, Scan(scope, world.profile.id)).visible


def test_counts_follow_every_write(world: World) -> None:
    first = world.add("a", LONG, ("public",))
    chunks = total(world)
    assert chunks > 3 and visible(world, "user:ana") == chunks
    world.add("b", LONG, ("user:ana",))
    assert (visible(world, "user:ana"), visible(world, "user:ben")) == (2 * chunks, chunks)
    world.add("a", "one chunk now", ("public",))  # a new version takes the place of the old
    assert total(world) == chunks + 1
    with writing(world.store) as conn:
        documents.change_labels(conn, world.tenant_id, first.document_id, Labels(("user:ben",)))
    assert (visible(world, "user:ana"), visible(world, "user:ben")) == (chunks, 1)
    label_set = next(each for each, n in kept(world) if n == 1)
    with writing(world.store) as conn:
        access.relabel_set(conn, world.tenant_id, label_set, Labels(("public",)))
    assert visible(world, "user:ana") == chunks + 1
    assert calibrations.keep_counts(world.store) > 0
    assert visible(world, "user:ana") == total(world) == chunks + 1
    assert calibrations.keep_counts(world.store) == 0  # nothing new
    erase(world.store, world.blobs, world.tenant_id, first.document_id, by="service:test")
    assert visible(world, "user:ana") == total(world) == chunks
    with writing(world.store) as conn:  # by foreign keys alone
        conn.execute("DELETE FROM documents")
    assert total(world) == 0
    calibrations.keep_counts(world.store)
    assert fetch(world, "SELECT * FROM label_set_chunks") == []


def test_another_tenant_is_not_counted(world: World, neighbour: World) -> None:
    neighbour.add("n", LONG, ("public",))
    world.add("a", "text", ("public",))
    assert visible(world, "user:ana") == 1
    with reading_tenant(world.store, world.tenant_id) as conn:
        access.enter_scope(conn, world.who("user:ana"))
        assert conn.execute("SELECT sum(chunks) FROM label_set_chunks").fetchone() == (1,)


def test_a_rolled_back_write_counts_for_nothing(world: World) -> None:
    world.add("a", "text", ("public",))
    with pytest.raises(ZeroDivisionError), writing(world.store) as conn:
        conn.execute("DELETE FROM documents")
        raise ZeroDivisionError
    assert total(world) == 1


def test_publishing_and_folding_at_once(world: World) -> None:
    """Four threads publish, move and erase under the same label sets while two fold: nothing lost or counted twice."""
    stop = threading.Event()

    def write(name: str) -> None:
        for number in range(6):
            done = world.add(f"{name}{number}", LONG, ("public",))
            with writing(world.store) as conn:
                documents.change_labels(conn, world.tenant_id, done.document_id, Labels(("user:ana",)))
            if number % 3 == 0:
                erase(world.store, world.blobs, world.tenant_id, done.document_id, by="service:test")

    def fold() -> None:
        while not stop.is_set():
            calibrations.keep_counts(world.store)

    with ThreadPoolExecutor(6) as threads:
        folders = [threads.submit(fold) for _ in range(2)]
        writers = [threads.submit(write, name) for name in "abcd"]
        wait(writers)
        stop.set()
    for done in (*writers, *folders):
        done.result()
    calibrations.keep_counts(world.store)
    assert visible(world, "user:ana") == total(world) > 0
    assert fetch(world, "SELECT count(*) FROM label_set_chunks") == [(len(kept(world)),)]


@pytest.fixture
def before(postgres: Server) -> Iterator[str]:
    """A database as the release before left it: migrations 1 to 4, a profile, and vectors."""
    name = f"before_{uuid.uuid4().hex[:12]}"
    url = create_database(postgres.url, name)
    migrate.prepare_roles(url, PASSWORDS)
    with as_owner(url) as conn:
        migrate._apply(conn, migrate.read_migrations()[:4])
        conn.execute("SELECT add_profile('p', 'm', 3, 'f32', 200, 'structure')")
    with psycopg.connect(url) as admin:
        admin.execute("SET session_replication_role = replica")  # vectors alone: no foreign keys
        for tenant, label_set, count in (("a", 1, 3), ("a", 2, 2), ("b", 3, 4)):
            admin.execute(
                "INSERT INTO vectors_1 SELECT %s * 100 + i, md5(%s)::uuid, gen_random_uuid(), %s, '[1,0,0]'::halfvec "
                "FROM generate_series(1, %s) i", (label_set, tenant, label_set, count))  # fmt: skip
    yield url
    with psycopg.connect(postgres.url, autocommit=True) as conn:
        conn.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def test_an_upgrade_counts_what_is_there(before: str) -> None:
    assert "0005_routing" in migrate.migrate(before, {})
    with psycopg.connect(before) as admin:
        assert admin.execute(KEPT).fetchall() == [(1, 3), (2, 2), (3, 4)]
        forced = "SELECT bool_and(relforcerowsecurity) FROM pg_class WHERE relname IN ('vectors_1', 'label_set_chunks')"
        assert admin.execute(forced).fetchone() == (True,)
