"""Erasure: what is gone at once, what cannot come back, and that what is said to remain is what remains."""

import json
import threading
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from click.testing import CliRunner
from fsspec.implementations.local import LocalFileSystem  # type: ignore[import-untyped]

from cli.erase import prove
from cli.main import citadel
from core.errors import BlobUnavailable, CitadelError, LeaseLost, NotFound, VersionConflict
from core.feedback import Feedback, Missing
from core.records import Labels, SearchRequest, Submission
from embedded.server import Server
from eval.golden import GoldenQuery, GoldenSet, Judgement
from eval.record import keep_golden
from ingest.erase import erase, finish_erasures, replay
from ingest.parsers.plain import parse_text
from ingest.pipeline import Pipeline, index_versions
from ingest.submit import submit
from retrieval.lexical import RankBm25Index
from retrieval.search import Searcher, search
from retrieval.traced import keep_feedback
from store import audit, jobs
from store import erase as erasures
from store.answers import MAX_VALUE, RedisPlaces
from store.pool import writing
from store.traces import traces
from tests.conftest import World
from tests.integration.conftest import Site
from tests.integration.rows import fetch

CANARY = "zanzibar-canary-5417"
TEXT = f"A heading\n\nThe {CANARY} sings at dawn."


def forget(world: World, document_id: Any, **more: Any) -> Any:
    """Erase as a service of the tests."""
    return erase(world.store, world.blobs, world.tenant_id, document_id, by="service:test", **more)


def found(searcher: Searcher, world: World, query: str = CANARY, mode: Any = "hybrid") -> list[str]:
    """The external ids that a search finds."""
    answer = search(searcher, world.who("user:sam"), SearchRequest(query, mode=mode, top_k=20))
    return [passage.citation.external_id for passage in answer.passages]


# --- nothing of it is left ----------------------------------------------------------------------------------------


def test_no_query_no_table_no_blob_and_no_file_has_it(world: World, searcher: Searcher, tmp_path: Path) -> None:
    state = tmp_path / "state"
    (state / "logs").mkdir(parents=True)
    world.add("other", "An unrelated text.")
    first = world.add(f"{CANARY}.md", TEXT, title=f"About {CANARY}")
    world.add(f"{CANARY}.md", f"{TEXT} And at dusk.", title=f"About {CANARY}")
    third = world.submit(f"{CANARY}.md", f"{TEXT} And at night.")  # its job is open
    with writing(world.store) as conn:
        conn.execute("UPDATE jobs SET error = %s, detail = %s WHERE id = %s",
                     (f"near {CANARY}", json.dumps({"warnings": [CANARY]}), first.job_id))  # fmt: skip
    assert found(searcher, world)[0] == f"{CANARY}.md"
    before = prove(world.store, world.blobs, state, first.document_id, CANARY)
    assert (
        set(before.tables) == {"documents", "versions", "chunks", "vectors_1", "tokens_1", "jobs", "fingerprints"}
        and len(before.blobs) == 3
    )
    erased = forget(world, first.document_id)
    assert erased.finished and len(erased.blob_keys) == 3
    for mode in ("hybrid", "dense", "lexical"):
        assert f"{CANARY}.md" not in found(searcher, world, mode=mode)
    after = prove(world.store, world.blobs, state, first.document_id, CANARY, erased.blob_keys)
    assert after.holds(), after
    with writing(world.store) as conn:
        assert jobs.get(conn, third.job_id or first.document_id).detail == {"erased": True, "superseded": True}
        assert jobs.get(conn, third.job_id or first.document_id).state == "done"
        stone = erasures.tombstone(conn, world.tenant_id, first.document_id)
        key = audit.hash_key(conn, world.tenant_id)
        (source,) = conn.execute("SELECT id FROM sources").fetchone() or ()
    assert stone.finished and stone.erased_by == "service:test"
    assert stone.receipt["rows"] == {"versions": 3, "chunks": 1, "vectors": 1, "codes": 1}
    assert stone.receipt["blobs"] == {"deleted": 3, "shared": 0}
    assert stone.external_id_hash == audit.keyed_hash(key, "external_id", str(source), f"{CANARY}.md")
    (state / "logs" / "api.log").write_text(f"an unlucky line with {CANARY}\n")  # the search for it does find
    assert not prove(world.store, world.blobs, state, first.document_id, CANARY).holds()


def test_every_column_is_looked_at(world: World) -> None:
    """A planted string is found in each place that holds text, as it is, as JSON, in an array and as bytes."""
    canary = 'quoted "canary" \\ and ü'
    document = world.submit("d", "text").document_id
    plants = {
        "sources": ("UPDATE sources SET config = %s", json.dumps({"x": canary})),
        "memberships": ("INSERT INTO memberships SELECT id, 'user:a', %s FROM tenants", canary),
        "label_sets": ("UPDATE label_sets SET allow = ARRAY[%s]", canary),
        "documents": ("UPDATE documents SET metadata = %s", json.dumps({"a": [canary]})),
        "versions": ("UPDATE versions SET content_hash = convert_to(%s, 'UTF8')", canary),
        "tombstones": (
            "INSERT INTO tombstones SELECT gen_random_uuid(), tenant_id, id, '', now(), %s, NULL, '{}' FROM sources",
            canary,
        ),
    }
    for statement, value in plants.values():
        fetch(world, statement + " RETURNING 1", value)  # type: ignore[operator]
    audit.record(world.store, world.tenant_id, "submit", actor="service:test", detail={"x": canary})
    tables = prove(world.store, world.blobs, Path("absent"), document, canary).tables
    assert set(tables) == {*plants, *(t for t in tables if t.startswith("audit_log_2"))} and len(tables) == 7


def test_bytes_that_another_document_has_are_kept(world: World) -> None:
    one, two = world.add("one", TEXT), world.add("two", TEXT)
    (key,) = forget(world, one.document_id).blob_keys
    assert world.blobs.get(key) == TEXT.encode()
    with writing(world.store) as conn:
        assert erasures.tombstone(conn, world.tenant_id, one.document_id).receipt["blobs"] == {
            "deleted": 0,
            "shared": 1,
        }
    forget(world, two.document_id)
    assert not world.blobs.has(key)


def test_a_submission_of_the_same_bytes_meanwhile_keeps_them(world: World) -> None:
    """Between the two parts of an erasure, a submission found the bytes in the store and wrote none."""
    one = world.add("one", TEXT)
    with writing(world.store) as conn:
        taken = erasures.take_away(conn, world.tenant_id, one.document_id, "service:test")
    (key,) = taken.blob_keys
    done = threading.Event()
    with writing(world.store) as conn:
        conn.execute("SELECT pg_advisory_xact_lock_shared(hashtextextended(%s, 0))", (key,))  # as documents.submit
        finisher = threading.Thread(target=lambda: (finish_erasures(world.store, world.blobs, 0), done.set()))
        finisher.start()
        assert not done.wait(0.3)  # the erasure waits for the submission's commit
        conn.execute(
            "INSERT INTO documents (tenant_id, source_id, external_id, label_set_id)"
            " SELECT tenant_id, id, 'two', label_set_id FROM sources"
        )
        conn.execute(
            "INSERT INTO versions (document_id, version, tenant_id, label_set_id, content_hash, blob_key, size)"
            " SELECT id, 1, tenant_id, label_set_id, '', %s, 1 FROM documents",
            (key,),
        )
    finisher.join()
    assert done.is_set() and world.blobs.has(key)


def test_what_an_erasure_took_before_the_submission_is_written_again(world: World) -> None:
    one = world.add("one", TEXT)

    class Late:
        """A blob store whose bytes are erased right after they were found to be there."""

        erased = False

        def put(self, content: bytes) -> str:
            key = world.blobs.put(content)
            if not self.erased:
                Late.erased = True
                forget(world, one.document_id)
                assert not world.blobs.has(key)
            return key

        def get(self, key: str) -> bytes:
            return world.blobs.get(key)

        def delete(self, key: str) -> None:
            world.blobs.delete(key)

    submission = Submission("two", TEXT.encode(), Labels(("public",)), mime_type="text/plain")
    two = submit(world.store, Late(), world.tenant_id, submission, default_labels=False, expected=None)
    assert world.index(two)


def test_an_erasure_that_the_blob_store_interrupted_is_finished_by_the_schedule(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    document = world.add("d", TEXT)

    def away(*_: Any) -> None:
        raise OSError("no such host")

    with monkeypatch.context() as broken:
        broken.setattr(LocalFileSystem, "rm_file", away)
        erased = forget(world, document.document_id)
        assert not erased.finished
        with pytest.raises(BlobUnavailable):
            finish_erasures(world.store, world.blobs, 0)
    (key,) = erased.blob_keys
    assert world.blobs.has(key)
    with writing(world.store) as conn:
        assert not erasures.tombstone(conn, world.tenant_id, document.document_id).finished
    assert finish_erasures(world.store, world.blobs) == 0  # too young: it may be at work
    assert finish_erasures(world.store, world.blobs, 0) == 1
    assert not world.blobs.has(key) and finish_erasures(world.store, world.blobs, 0) == 0


def test_who_erases_and_what_is_on_record(world: World, neighbour: World) -> None:
    document = world.add("d", TEXT)
    with pytest.raises(VersionConflict):
        forget(world, document.document_id, expected=2)
    with pytest.raises(NotFound):
        forget(neighbour, document.document_id)
    forget(world, document.document_id, expected=1)
    with pytest.raises(NotFound):
        forget(world, document.document_id)
    with writing(world.store) as conn:
        (row,) = [r for r in audit.export(conn, world.tenant_id, None, None) if r.action == "delete"]
    assert (row.actor, row.resource) == ("service:test", f"document:{document.document_id}")
    assert row.detail == {"versions": 1, "chunks": 1, "vectors": 1, "codes": 1}
    assert fetch(world, "SELECT action FROM change_log ORDER BY seq DESC LIMIT 1") == [("delete",)]


# --- it does not come back ----------------------------------------------------------------------------------------


def test_a_job_in_flight_ends_superseded(world: World) -> None:
    document = world.submit("d", TEXT)
    lease = world.claim(document)
    forget(world, document.document_id)
    with pytest.raises(LeaseLost):
        world.publish(lease, parse_text(TEXT.encode()), None)
    with pytest.raises(LeaseLost), writing(world.store) as conn:
        jobs.fail(conn, lease, "corrupt_document", f"near {CANARY}")
    with writing(world.store) as conn:
        job = jobs.get(conn, lease.job.id)
        assert jobs.claim(conn, lease.job.id, 60) is None
    assert (job.state, job.detail, job.error) == ("done", {"erased": True, "superseded": True}, None)
    assert fetch(world, "SELECT FROM documents") == fetch(world, "SELECT FROM chunks") == []


def test_a_worker_that_publishes_at_that_moment_ends_superseded(world: World) -> None:
    """Between the two parts of an erasure, the job is still held."""
    document = world.submit("d", TEXT)
    lease = world.claim(document)
    with writing(world.store) as conn:
        erasures.take_away(conn, world.tenant_id, document.document_id, "service:test")
    assert not world.publish(lease, parse_text(TEXT.encode()), None)
    with writing(world.store) as conn:
        assert jobs.get(conn, lease.job.id).detail["superseded"]
    assert finish_erasures(world.store, world.blobs, 0) == 1
    assert fetch(world, "SELECT FROM chunks") == []


def test_the_pipeline_finds_the_document_gone(world: World, pipeline: Pipeline) -> None:
    document = world.submit("d", TEXT)
    lease = world.claim(document)
    with writing(world.store) as conn:
        erasures.take_away(conn, world.tenant_id, document.document_id, "service:test")
    index_versions(pipeline, [lease], lambda *leases: nullcontext())
    with writing(world.store) as conn:
        job = jobs.get(conn, lease.job.id)
    assert (job.state, job.detail) == ("done", {"superseded": True})


def test_erasing_and_publishing_at_once_never_deadlock_nor_leave_half(world: World) -> None:
    for n in range(15):
        document = world.submit(f"d{n}", f"{TEXT} {n}")
        lease = world.claim(document)
        errors: list[CitadelError] = []

        def publish(lease: Any = lease, n: int = n, errors: list[CitadelError] = errors) -> None:
            try:
                world.publish(lease, parse_text(f"{TEXT} {n}".encode()), None)
            except LeaseLost:
                pass
            except CitadelError as error:  # StoreUnavailable: a deadlock, among others
                errors.append(error)

        worker = threading.Thread(target=publish)
        worker.start()
        time.sleep(n * 0.001)
        forget(world, document.document_id)
        worker.join()
        assert not errors
    assert fetch(world, "SELECT FROM documents") == fetch(world, "SELECT FROM chunks") == []
    assert fetch(world, "SELECT FROM vectors_1") == []


def test_a_deletion_by_refresh_is_an_erasure(site: Site) -> None:
    site.write(".citadel.yaml", "version: 1\ndefault: {allow: [public]}\n")
    site.write("a.md", TEXT)
    site.write("b.md", "Other text.")
    site.refresh()
    document = site.documents()["a.md"].id
    (site.folder / "a.md").unlink()
    with writing(site.world.store) as conn:  # a report of an earlier refresh that names the file
        conn.execute("UPDATE jobs SET detail = %s WHERE kind = 'refresh'",
                     (json.dumps({"problems": ["a.md: cannot be read", "b.md: cannot be read"]}),))  # fmt: skip
    assert site.refresh().detail["counts"]["deleted"] == 1
    with writing(site.world.store) as conn:
        assert erasures.tombstone(conn, site.world.tenant_id, document).erased_by == "source:files"
    assert prove(site.world.store, site.world.blobs, Path("absent"), document, CANARY).holds()
    reports = fetch(
        site.world, "SELECT detail -> 'problems' FROM jobs WHERE kind = 'refresh' ORDER BY created_at LIMIT 1"
    )
    assert reports == [(["b.md: cannot be read"],)]


def test_a_restore_is_erased_again(world: World) -> None:
    document = world.add("d", TEXT)
    rows = {table: fetch(world, f"SELECT to_jsonb(t) FROM {table} t") for table in ("documents", "versions", "chunks")}  # type: ignore[arg-type]  # noqa: S608
    forget(world, document.document_id)
    with writing(world.store) as conn:  # the backup
        for table, ((row,),) in rows.items():
            conn.execute(
                f"INSERT INTO {table} OVERRIDING SYSTEM VALUE SELECT * FROM jsonb_populate_record(NULL::{table}, %s)",  # type: ignore[arg-type]  # noqa: S608
                (json.dumps(row),),
            )
        ids = [stone.document_id for stone in erasures.tombstones(conn, world.tenant_id)]
    world.blobs.put(TEXT.encode())
    assert ids == [document.document_id]
    assert replay(world.store, world.blobs, world.tenant_id, ids, by="service:test") == ids
    assert replay(world.store, world.blobs, world.tenant_id, ids, by="service:test") == []
    assert prove(world.store, world.blobs, Path("absent"), document.document_id, CANARY).holds()


# --- what is said to remain ---------------------------------------------------------------------------------------


def cached(index: RankBm25Index) -> bool:
    """Whether the engine holds the canary's terms."""
    lists = [*index._terms.values(), *(list(d) for t in index._tables.values() for d in t.bm25.doc_freqs)]
    return any("zanzibar" in terms or CANARY in terms for terms in lists)


def test_the_process_that_erases_forgets_at_once(world: World) -> None:
    index = RankBm25Index(world.store)
    searcher = Searcher(world.store, world.embedder, index)
    world.add("other", "An unrelated text at dawn.")
    document = world.add("d", TEXT)
    found(searcher, world)
    assert cached(index)
    index.forget(forget(world, document.document_id).chunk_ids)
    assert not cached(index)
    assert found(searcher, world, "dawn", "lexical") == ["other"]


def test_another_process_forgets_in_time_without_being_asked(world: World) -> None:
    index = RankBm25Index(world.store, keep_s=0.4, sweep_s=0.1)
    searcher = Searcher(world.store, world.embedder, index)
    world.add("other", "An unrelated text at dawn.")
    document = world.add("d", TEXT)
    found(searcher, world)
    forget(world, document.document_id)
    deadline = time.monotonic() + 0.4 + 0.1 + 0.5  # the bound, and half a second for a busy machine
    while cached(index) and time.monotonic() < deadline:
        found(searcher, world, "dawn")  # searches go on: they keep what is alive, not what is gone
        time.sleep(0.02)
    assert not cached(index)
    assert len(index._terms) == 1
    time.sleep(0.7)
    assert not index._terms and not index._tables  # nobody searches: all of it goes


def in_heap(admin: psycopg.Connection[Any], postgres: Server) -> bool:
    """Whether the file of the chunks, as it is on the disk, has the canary."""
    admin.execute("CHECKPOINT")
    (path,) = admin.execute("SELECT pg_relation_filepath('chunks')").fetchone() or ("",)
    return CANARY.encode() in (postgres.folder / str(path)).read_bytes()


@pytest.mark.parametrize("followed", [True, False])
def test_vacuum_overwrites_it_only_where_rows_move(
    world: World, postgres: Server, database_url: str, followed: bool
) -> None:
    """VACUUM moves a page's living rows together: over the dead one, or, when that was the page's last, not over it.

    VACUUM FULL leaves nothing in the table's file either way.
    """
    for n in range(5):
        world.add(f"other{n}", f"An unrelated text, number {n}.")
    document = world.add("d", TEXT)
    if followed:
        world.add("after", "A row that is put after it, and is longer than the one that it will be moved over to.")
    forget(world, document.document_id)
    with psycopg.connect(database_url, autocommit=True) as admin:
        assert in_heap(admin, postgres)
        admin.execute("VACUUM chunks")
        assert in_heap(admin, postgres) is not followed
        admin.execute("VACUUM FULL chunks")
        assert not in_heap(admin, postgres)


def test_statistics_hold_no_text(world: World, database_url: str) -> None:
    for n in range(5):
        world.add(f"d{n}", f"{TEXT} {n}", title=f"Title {n}")
    with psycopg.connect(database_url, autocommit=True) as admin:
        admin.execute("ANALYZE")
        told = admin.execute(
            "SELECT tablename, attname, s::text FROM pg_stats s WHERE schemaname = 'public'"
        ).fetchall()
    assert {(table, column) for table, column, row in told if CANARY in row} == set()
    assert any(table == "chunks" for table, _, _ in told)


# --- commands -----------------------------------------------------------------------------------------------------


@pytest.fixture
def run(database_url: str, app_url: str, maintenance_url: str, tmp_path: Path) -> Any:
    """`citadel …` on the test's database and blobs: (exit status, standard output)."""
    env = {"CITADEL_DATABASE_URL": database_url, "CITADEL_APP_DATABASE_URL": app_url,
           "CITADEL_MAINTENANCE_DATABASE_URL": maintenance_url, "CITADEL_STATE": str(tmp_path / "state"),
           "CITADEL_BLOB_URL": (tmp_path / "blobs").as_uri()}  # fmt: skip

    def call(*arguments: str) -> tuple[int, str]:
        done = CliRunner().invoke(citadel, list(arguments), env=env)
        return done.exit_code, done.stdout

    return call


@pytest.mark.parametrize("away", [False, True])
def test_what_redis_keeps_of_the_tenants_searches_goes_too(
    world: World, run: Any, redis_server: Server, monkeypatch: pytest.MonkeyPatch, away: bool
) -> None:
    places = RedisPlaces(redis_server.url, 64 * MAX_VALUE, 60)
    monkeypatch.setenv("CITADEL_REDIS_URL", "redis://127.0.0.1:1/0" if away else redis_server.url)
    monkeypatch.setenv("CITADEL_ANSWERS_BYTES", str(64 * MAX_VALUE))
    places.put(world.tenant_id, 3, b"sealed")
    status, _ = run("erase", str(world.add("one", TEXT).document_id))
    assert status == 0 and places.get(world.tenant_id, 3) == (b"sealed" if away else None)
    places.clear(world.tenant_id)


def test_the_commands(world: World, run: Any, tmp_path: Path) -> None:
    one, two = world.add("one", TEXT), world.add("two", "Another text.")
    status, printed = run("erase", str(one.document_id), "--verify", "--canary", CANARY, "--json")
    told = json.loads(printed)
    assert status == 0 and told["proof"] == {"tables": {}, "blobs": [], "files": []}
    assert told["tombstone"]["erased_by"] == "service:cli" and len(told["remains"]) == 10
    for word in ("VACUUM", "write-ahead log", "backups", "memory"):
        assert any(word in line for line in told["remains"])
    status, printed = run("erase", str(one.document_id), "--verify-only", "--canary", "Another text")
    assert status == 1 and "FOUND: 1 rows of chunks" in printed
    assert run("erase", str(one.document_id), "--verify-only", "--canary", CANARY)[0] == 0
    assert run("erase", str(one.document_id))[0] == 2
    assert run("erase", str(two.document_id), "--verify-only")[0] == 2
    status, printed = run("tombstones", "export")
    assert status == 0 and [json.loads(line)["document_id"] for line in printed.splitlines()] == [str(one.document_id)]
    assert CANARY not in printed and "one" not in json.loads(printed).values()
    file = tmp_path / "tombstones.jsonl"
    file.write_text(json.dumps({"document_id": str(two.document_id)}))
    status, printed = run("tombstones", "replay", str(file), "--json")
    assert (status, json.loads(printed)) == (0, {"erased": [str(two.document_id)]})
    assert fetch(world, "SELECT FROM documents") == []


def test_what_quotes_a_document_goes_with_it_though_it_was_moved(site: Site) -> None:
    world, owner = site.world, site.world.who("user:ana@acme.example")
    site.write(".citadel.yaml", "version: 1\ndefault: {allow: [public]}\n")
    site.write("old.txt", TEXT)
    site.write("other.txt", "Something else.")
    site.refresh()
    while site.index():
        pass
    queries = (GoldenQuery("one", "What sings?", owner.subject, (Judgement("old.txt", 2, CANARY),), ("old.txt",)),
               GoldenQuery("two", "What else?", owner.subject, (Judgement("other.txt", 1),)))  # fmt: skip
    keep_golden(world.store, world.tenant_id, GoldenSet("birds", "digest", queries))
    asked = search(site.searcher, owner, SearchRequest("something else", top_k=1, mode="lexical"))
    assert [p.citation.external_id for p in asked.passages] == ["other.txt"]
    told = Feedback(asked.request_id, missing=(Missing(document="old.txt"),), comment=CANARY)
    keep_feedback(world.store, owner, told, uuid4())

    (site.folder / "old.txt").rename(site.folder / "new.txt")
    assert site.refresh().detail["counts"]["moved"] == 1
    ((document_id,),) = fetch(world, "SELECT id FROM documents WHERE external_id = 'new.txt'")
    forget(world, document_id)
    with writing(world.store) as conn:
        assert traces(conn, document_id, CANARY) == {}
        assert traces(conn, document_id, "old.txt") == {}
