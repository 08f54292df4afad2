"""The audit: what is written of every search and read, that nobody answers without, and that a change is noticed."""

import hashlib
import hmac
import json
import threading
from collections.abc import Iterator
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from typing import Any, LiteralString
from uuid import uuid4

import psycopg
import pytest
from click.testing import CliRunner
from fastapi.testclient import TestClient

from api.app import create_app
from api.service import Service
from cli.main import citadel
from core.errors import Invalid, StoreUnavailable
from core.records import Principal, SearchRequest
from retrieval.search import Searcher, search
from retrieval.trail import SHORT
from store import audit, chain, keys
from store.chain import Anchor, Verdict
from store.migrate import as_owner, create_database, migrate, read_migrations
from store.pool import writing
from tests.conftest import PASSWORDS, Api, World
from tests.integration.rows import fetch

QUERY = "what does the canary sing"


@pytest.fixture
def admin(database_url: str) -> Iterator[psycopg.Connection[Any]]:
    """The superuser, who may do anything to the rows."""
    with psycopg.connect(database_url, autocommit=True) as conn:
        yield conn


def rows(world: World, action: str) -> list[audit.AuditRow]:
    """The tenant's rows of an action."""
    with writing(world.store) as conn:
        return [row for row in audit.export(conn, world.tenant_id, None, None) if row.action == action]


def write(world: World, count: int) -> None:
    """So many rows."""
    for number in range(count):
        audit.record(world.store, world.tenant_id, "submit", actor="service:test", resource=f"document:{number}")


def verify(world: World, anchor: Anchor | None = None) -> Verdict:
    """A walk of the chain."""
    with writing(world.store) as conn:
        return chain.verify(conn, world.tenant_id, anchor)


def anchored(world: World) -> Anchor:
    """The head now."""
    with writing(world.store) as conn:
        return chain.head(conn, world.tenant_id)


# --- what a search and a read leave -------------------------------------------------------------------------------


def test_a_search_leaves_who_for_whom_what_and_through_which_label_sets(world: World, searcher: Searcher) -> None:
    world.groups({"group:staff": ["user:sam"]})
    seen = world.add("seen", "the canary sings", ("group:staff",))
    world.add("hidden", "the canary sings", ("group:board",))
    request_id = uuid4()
    principal = Principal(world.tenant_id, "user:sam", via="service:agent")
    search(searcher, principal, SearchRequest(QUERY), request_id)
    (row,) = rows(world, "search")
    assert (row.actor, row.acting_for, row.outcome, row.request_id) == ("service:agent", "user:sam", "ok", request_id)
    assert row.detail["documents"] == [f"{seen.document_id}@1"]
    (allowed,) = fetch(world, "SELECT id FROM label_sets WHERE allow = '{group:staff}'")
    digest = hashlib.sha256(str(allowed[0]).encode()).hexdigest()
    assert row.detail["label_sets"] == {"count": 1, "sha256": digest, "ids": [allowed[0]]}
    assert [(row.detail["epoch"],)] == fetch(world, "SELECT access_epoch FROM tenants")


def test_a_long_list_of_label_sets_is_told_by_digest_and_count(world: World, searcher: Searcher) -> None:
    world.groups({f"group:{n}": ["user:sam"] for n in range(SHORT + 1)})
    for n in range(SHORT + 1):
        world.submit(f"d{n}", "text", (f"group:{n}",))
    search(searcher, world.who("user:sam"), SearchRequest(QUERY))
    ids = [i for (i,) in fetch(world, "SELECT id FROM label_sets WHERE allow <> '{}' ORDER BY id")]
    (row,) = rows(world, "search")
    digest = hashlib.sha256(",".join(map(str, ids)).encode()).hexdigest()
    assert row.detail["label_sets"] == {"count": SHORT + 1, "sha256": digest}


def test_queries_are_keyed_hashes_until_the_tenant_asks_for_their_text(
    world: World, neighbour: World, searcher: Searcher
) -> None:
    request = SearchRequest(QUERY, queries=("a variant",))
    for keep in (False, True, False):
        with writing(world.store) as conn:
            audit.keep_queries(conn, world.tenant_id, keep)
        search(searcher, world.who("user:sam"), request)
    key = {tenant: key for tenant, key in fetch(world, "SELECT id, hash_key FROM tenants")}
    assert len(key[world.tenant_id]) == 32 and key[world.tenant_id] != key[neighbour.tenant_id]
    hashed = [
        {"hmac": hmac.new(key[world.tenant_id], b"query\0" + q.encode(), "sha256").hexdigest()}
        for q in (QUERY, "a variant")
    ]
    with_text = [h | {"text": q} for h, q in zip(hashed, (QUERY, "a variant"), strict=True)]
    assert [row.detail["queries"] for row in rows(world, "search")] == [hashed, with_text, hashed]


def test_a_refused_search_leaves_a_row(world: World, searcher: Searcher) -> None:
    with pytest.raises(Invalid):
        search(searcher, world.who("user:sam"), SearchRequest(" "))
    with pytest.raises(Invalid):
        search(searcher, world.who("user:sam"), SearchRequest(QUERY, filters={"no such field": 1}))
    assert [row.outcome for row in rows(world, "search")] == ["invalid", "invalid_filter"]


def test_no_search_is_answered_without_its_row(
    world: World, searcher: Searcher, admin: psycopg.Connection[Any]
) -> None:
    world.add("d", "the canary sings")
    search(searcher, world.who("user:sam"), SearchRequest(QUERY))
    admin.execute("REVOKE INSERT ON audit FROM citadel_maintenance")
    with pytest.raises(StoreUnavailable):
        search(searcher, world.who("user:sam"), SearchRequest(QUERY))
    admin.execute("GRANT INSERT ON audit TO citadel_maintenance")
    search(searcher, world.who("user:sam"), SearchRequest(QUERY))


def test_no_fusion_is_changed_without_its_row(api: Api, admin: psycopg.Connection[Any]) -> None:
    operator = api.key("operator", "operate")
    admin.execute("REVOKE INSERT ON audit FROM citadel_maintenance")
    answer = api.http.put("/v1/fusion", json={"method": "rrf", "dense_weight": 0.7}, headers=operator)
    assert answer.status_code >= 500
    admin.execute("GRANT INSERT ON audit TO citadel_maintenance")
    assert api.http.get("/v1/fusion", headers=operator).json()["method"] == "convex"


# --- over HTTP ----------------------------------------------------------------------------------------------------


class Broker:
    """A Redis that answers."""

    def queue_length(self) -> int:
        return 0


@pytest.fixture
def client(world: World, searcher: Searcher) -> Iterator[TestClient]:
    """The API over the world."""
    service = Service(world.store, world.blobs, searcher, Broker(), 2**20)
    with TestClient(create_app(lambda: nullcontext(service), 2**20)) as opened:
        yield opened


def key(world: World, *scopes: str) -> dict[str, str]:
    """The header of a new key."""
    with writing(world.store) as conn:
        return {"Authorization": "Bearer " + keys.create_key(conn, world.tenant_id, "-".join(scopes), scopes)}


def test_reads_leave_a_row_each(world: World, client: TestClient) -> None:
    seen = world.add("seen", "the canary sings").document_id
    world.groups({"group:board": []})
    hidden = world.add("hidden", "the canary sings", ("group:board",)).document_id
    ana = key(world, "search", "act_for") | {"X-Citadel-Act-For": "user:ana"}
    paths = ["", f"/{seen}", f"/{seen}/text?start=4&end=10", f"/{hidden}", f"/{hidden}/text"]
    answers = [client.get(f"/v1/documents{path}", headers=ana) for path in paths]
    assert [a.status_code for a in answers] == [200, 200, 200, 404, 404]
    found = [*rows(world, "list"), *rows(world, "read")]
    assert [(row.actor, row.acting_for) for row in found] == [("service:search-act_for", "user:ana")] * 5
    told = [(row.outcome, row.resource, row.detail.get("documents"), row.detail.get("part")) for row in found]
    assert told == [
        ("ok", None, [f"{seen}@1"], None),
        ("ok", f"document:{seen}", [f"{seen}@1"], "metadata"),
        ("ok", f"document:{seen}", [f"{seen}@1"], "text"),
        ("not_found", f"document:{hidden}", None, None),
        ("not_found", f"document:{hidden}", None, "text"),
    ]
    assert (found[2].detail["start"], found[2].detail["end"]) == (4, 10)
    assert all(row.detail["label_sets"]["count"] == 1 and row.request_id for row in found)


def test_denied_calls_leave_a_row(world: World, client: TestClient) -> None:
    ingest, reader = key(world, "ingest"), key(world, "search")
    assert client.post("/v1/search", json={"query": QUERY}, headers=ingest).status_code == 403
    named = reader | {"X-Citadel-Act-For": "user:ana"}
    assert client.post("/v1/search", json={"query": QUERY}, headers=named).status_code == 403
    assert client.get("/v1/sources", headers=reader).status_code == 403
    denied = rows(world, "request")
    assert [(row.actor, row.outcome, row.resource) for row in denied] == [
        ("service:ingest", "denied", "POST /v1/search"),
        ("service:search", "denied", "POST /v1/search"),
        ("service:search", "denied", "GET /v1/sources"),
    ]


def test_no_route_answers_content_without_its_row(
    world: World, client: TestClient, admin: psycopg.Connection[Any]
) -> None:
    document = world.add("d", "the canary sings").document_id
    reader = key(world, "search")
    admin.execute("REVOKE INSERT ON audit FROM citadel_maintenance")
    answers = [client.get(f"/v1/documents{path}", headers=reader) for path in ("", f"/{document}", f"/{document}/text")]
    answers.append(client.post("/v1/search", json={"query": QUERY}, headers=reader))
    for answer in answers:
        assert answer.status_code == 503 and "canary" not in answer.text and str(document) not in answer.text


# --- the chain ----------------------------------------------------------------------------------------------------


def test_a_chain_that_nobody_touched_holds(world: World, neighbour: World) -> None:
    assert verify(world) == Verdict(0, 1, 0)
    with pytest.raises(Invalid):
        anchored(world)
    write(world, 3)
    write(neighbour, 2)
    anchor = anchored(world)
    write(world, 2)
    assert verify(world, anchor) == Verdict(5, 1, 5, anchored=True)
    assert verify(neighbour) == Verdict(2, 1, 2)
    with pytest.raises(Invalid):
        verify(neighbour, anchor)


def test_the_first_hash_is_the_formula(world: World) -> None:
    """sha256 over 32 zero bytes and the fields as netstrings, `-` for null."""
    audit.record(world.store, world.tenant_id, "submit", actor="service:Zoë", detail={"b": [1, "ü"], "a": None})
    ((at, digest),) = fetch(world, "SELECT at, hash FROM audit_log")
    micros = round((at - datetime(1970, 1, 1, tzinfo=UTC)) / timedelta(microseconds=1))
    fields = [str(world.tenant_id), "1", str(micros), "submit", "service:Zoë", None, "ok", None, None,
              '{"a": null, "b": [1, "ü"]}']  # fmt: skip
    payload = b"".join(b"-," if f is None else f"{len(f.encode())}:{f},".encode() for f in fields)
    assert digest == hashlib.sha256(bytes(32) + payload).digest()


def test_writers_at_once_make_one_chain(world: World) -> None:
    threads = [threading.Thread(target=write, args=(world, 25)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert verify(world) == Verdict(200, 1, 200)


def test_a_row_that_was_rolled_back_leaves_no_gap(world: World) -> None:
    write(world, 1)
    with pytest.raises(RuntimeError), writing(world.store) as conn:
        audit.add(conn, world.tenant_id, "submit", actor="service:test")
        raise RuntimeError
    write(world, 1)
    assert verify(world) == Verdict(2, 1, 2)


def test_a_writer_chooses_neither_time_nor_place_nor_hash(world: World, app_url: str) -> None:
    write(world, 1)
    with psycopg.connect(app_url, autocommit=True) as app:
        app.execute(
            "INSERT INTO audit (tenant_id, seq, at, action, actor, outcome, hash)"
            " VALUES (%s, 77, '2020-01-01', 'search', 'service:eve', 'ok', 'forged')",
            (world.tenant_id,),
        )
    ((seq, at, digest),) = fetch(world, "SELECT seq, at, hash FROM audit_log WHERE actor = 'service:eve'")
    assert seq == 2 and at > datetime.now(UTC) - timedelta(minutes=1) and len(digest) == 32
    assert verify(world) == Verdict(2, 1, 2)


MONTHS = "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'audit_log'::regclass"
TABLES = ("audit", "audit_log", "audit_heads", "audit_bases")


def test_the_roles_may_only_add_rows(world: World, app_url: str, maintenance_url: str) -> None:
    write(world, 1)
    ((partition,),) = fetch(world, MONTHS)
    statements = [
        *(f"UPDATE {table} SET tenant_id = gen_random_uuid()" for table in (*TABLES, partition)),  # noqa: S608
        *(f"DELETE FROM {table}" for table in (*TABLES, partition)),  # noqa: S608
        *(f"TRUNCATE {table}" for table in (*TABLES[1:], partition)),
        *(f"DROP TABLE {table}" for table in (*TABLES[1:], partition)),
        *(f"INSERT INTO {table} SELECT * FROM {table}" for table in (*TABLES[1:], partition)),  # noqa: S608
        "DROP VIEW audit",
        "DROP TRIGGER append ON audit",
        "ALTER TABLE audit_log DETACH PARTITION " + partition,
        "CREATE OR REPLACE VIEW audit AS SELECT 1",
        "SELECT audit_partition(now())",
        "CREATE TEMP TABLE t (a int); CREATE TRIGGER t BEFORE INSERT ON t EXECUTE FUNCTION audit_append()",
    ]
    for url in (app_url, maintenance_url):
        with psycopg.connect(url, autocommit=True) as conn:
            for statement in statements:
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    conn.execute(statement.encode())
                    pytest.fail(f"allowed: {statement}")
    with psycopg.connect(app_url, autocommit=True) as app:
        for table in (*TABLES, partition):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                app.execute(f"SELECT * FROM {table}".encode())  # noqa: S608


REHASH = """
    DO $$
    DECLARE r audit_log; before bytea := (SELECT hash FROM audit_log WHERE seq = 2);
    BEGIN
        FOR r IN SELECT * FROM audit_log WHERE seq > 2 ORDER BY seq LOOP
            r.hash := audit_hash(before, r);
            UPDATE audit_log SET hash = r.hash WHERE seq = r.seq;
            before := r.hash;
        END LOOP;
        UPDATE audit_heads SET hash = before;
    END $$
"""
TAMPERED: list[tuple[LiteralString, int]] = [
    ("UPDATE audit_log SET actor = 'service:nobody' WHERE seq = 3", 3),
    ("UPDATE audit_log SET detail = '{\"x\": 1}' WHERE seq = 3", 3),
    ("UPDATE audit_log SET at = at + interval '1 microsecond' WHERE seq = 3", 3),
    ("UPDATE audit_log SET acting_for = 'user:ana' WHERE seq = 1", 1),
    ("UPDATE audit_log SET hash = sha256('x') WHERE seq = 5", 5),
    ("DELETE FROM audit_log WHERE seq = 3", 3),
    ("DELETE FROM audit_log WHERE seq = 1", 1),
    ("DELETE FROM audit_log WHERE seq > 3", 4),  # the head still names the row that was last
    ("DELETE FROM audit_log; DELETE FROM audit_heads", 1),
    ("UPDATE audit_log SET seq = 7 - seq WHERE seq IN (3, 4)", 3),
    ("UPDATE audit_log a SET resource = b.resource FROM audit_log b WHERE a.seq = 3 AND b.seq = 4", 3),
    ("INSERT INTO audit_log SELECT tenant_id, 3, at + interval '1 second', action, 'service:eve', acting_for, outcome,"
     " resource, request_id, detail, hash FROM audit_log WHERE seq = 3", 3),
    ("INSERT INTO audit_log SELECT tenant_id, 6, now() + interval '1 second', action, actor, acting_for, outcome,"
     " resource, request_id, detail, hash FROM audit_log WHERE seq = 5", 6),
    ("UPDATE audit_heads SET seq = 4", 5),
]  # fmt: skip


@pytest.mark.parametrize(("statement", "broken"), TAMPERED)
def test_the_first_row_that_a_superuser_changed_is_named(
    world: World, admin: psycopg.Connection[Any], statement: LiteralString, broken: int
) -> None:
    write(world, 4)
    anchor = anchored(world)
    write(world, 1)
    admin.execute(statement)
    verdict = verify(world, anchor)
    assert verdict.problem is not None and verdict.broken_seq == broken


CUT = """
    DELETE FROM audit_log WHERE seq > 3;
    UPDATE audit_heads SET (seq, at, hash) = (SELECT seq, at, hash FROM audit_log WHERE seq = 3)
"""
REWRITTEN = f"UPDATE audit_log SET actor = 'service:nobody' WHERE seq = 3; {REHASH}"  # noqa: S608


@pytest.mark.parametrize(("statement", "broken"), [(CUT, 4), (REWRITTEN, 4)])
def test_a_chain_that_was_written_anew_is_noticed_by_the_anchor_alone(
    world: World, admin: psycopg.Connection[Any], statement: LiteralString, broken: int
) -> None:
    write(world, 4)
    anchor = anchored(world)
    write(world, 1)
    admin.execute(statement)
    assert verify(world).problem is None  # as store/chain.py says
    verdict = verify(world, anchor)
    assert verdict.problem is not None and verdict.broken_seq == broken


# --- months -------------------------------------------------------------------------------------------------------

# As if the rows up to `seq` had been written that long ago: their hashes are those of rows of that time.
AGE = """
    DO $$
    DECLARE r audit_log; before bytea := decode(repeat('00', 32), 'hex');
    BEGIN
        CREATE TEMP TABLE aged ON COMMIT DROP AS SELECT * FROM audit_log ORDER BY seq;
        DELETE FROM audit_log;
        FOR r IN SELECT * FROM aged ORDER BY seq LOOP
            r.at := CASE WHEN r.seq <= 2 THEN r.at - interval '3 months'
                         WHEN r.seq <= 3 THEN r.at - interval '1 month' ELSE r.at END;
            r.hash := audit_hash(before, r);
            PERFORM audit_partition(r.at);
            INSERT INTO audit_log SELECT r.*;
            before := r.hash;
        END LOOP;
        UPDATE audit_heads SET hash = before;
    END $$
"""


def month(at: datetime) -> str:
    """The partition of that time."""
    return f"audit_log_{at.astimezone(UTC):%Y_%m}"


def test_retention_drops_whole_months_and_the_chain_goes_on(
    world: World, database_url: str, admin: psycopg.Connection[Any]
) -> None:
    write(world, 4)
    admin.execute(AGE)
    old, anchor = fetch(world, "SELECT at, hash FROM audit_log ORDER BY seq"), anchored(world)
    assert {name for (name,) in fetch(world, MONTHS)} == {month(at) for at, _ in old}
    assert verify(world, anchor).problem is None
    with as_owner(database_url) as conn:
        assert audit.retain(conn, 2, "service:test") == [month(old[0][0])]
    assert [seq for (seq,) in fetch(world, "SELECT seq FROM audit_log ORDER BY seq")] == [3, 4, 5]
    assert verify(world, anchor) == Verdict(3, 3, 5, anchored=True)
    (row,) = rows(world, "audit.retention")
    assert row.detail["base"] == {"seq": 2, "hash": old[1][1].hex()}
    with as_owner(database_url) as conn:
        assert audit.retain(conn, 2, "service:test") == []
    with as_owner(database_url) as conn:
        assert audit.retain(conn, 1, "service:test") == []  # last month is one whole month beside this one
    first = Anchor(world.tenant_id, 1, old[0][1], None)
    assert "proves nothing" in (verify(world, first).problem or "")
    base = Anchor(world.tenant_id, 2, old[1][1], None)
    assert verify(world, base).problem is None


def test_months_that_went_without_retention_are_noticed(world: World, admin: psycopg.Connection[Any]) -> None:
    write(world, 4)
    admin.execute(AGE)
    ((at, digest),) = fetch(world, "SELECT at, hash FROM audit_log WHERE seq = 2")
    admin.execute(f"DROP TABLE {month(at)}")
    assert verify(world).broken_seq == 1
    admin.execute("INSERT INTO audit_bases VALUES (%s, 2, %s, %s)", (world.tenant_id, at, digest))
    assert "no retention" in (verify(world).problem or "")


def test_a_month_begins_while_others_read_and_write(world: World, admin: psycopg.Connection[Any]) -> None:
    write(world, 1)
    ((at,),) = fetch(world, "SELECT at FROM audit_log")
    with writing(world.store) as conn:  # an export under way
        reading = audit.export(conn, world.tenant_id, None, None)
        next(reading)
        admin.execute("SET lock_timeout = '2s'")
        admin.execute("SELECT audit_partition(now() + interval '1 month')")
    later = at.replace(day=1) + timedelta(days=32)
    assert {name for (name,) in fetch(world, MONTHS)} == {month(at), month(later)}


def test_what_was_recorded_before_the_chain_begins_it(postgres: Any) -> None:
    """Migration 0002 on a database of 0001."""
    url = create_database(postgres.url, f"before_{uuid4().hex[:8]}")
    first = read_migrations()[0]
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute("CREATE EXTENSION vector; ALTER SCHEMA public OWNER TO citadel_owner; SET ROLE citadel_owner")
        conn.execute(first.text.encode())
        conn.execute("CREATE TABLE migrations (version int PRIMARY KEY, name text NOT NULL, sha256 text NOT NULL,"
                     " applied_at timestamptz NOT NULL DEFAULT now())")  # fmt: skip
        conn.execute("INSERT INTO migrations VALUES (1, %s, %s)", (first.name, first.sha256))
        tenant = uuid4()
        for at in ("2026-01-31 23:59:59Z", "2026-02-01 00:00:01Z", "2026-02-01 00:00:00Z"):
            conn.execute("INSERT INTO audit (tenant_id, at, action, actor, outcome) VALUES (%s, %s, 'read', 'a', 'ok')",
                         (tenant, at))  # fmt: skip
    migrate(url, PASSWORDS)
    with psycopg.connect(url) as conn:
        assert chain.verify(conn, tenant) == Verdict(3, 1, 3)
        assert conn.execute("SELECT count(*) FROM audit_log_2026_01").fetchone() == (1,)
        assert conn.execute("SELECT count(*) FROM audit_log_2026_02").fetchone() == (2,)


# --- commands -----------------------------------------------------------------------------------------------------

# Once shipped, a name keeps its meaning for ever: this list only grows.
NAMES = [
    "search", "read", "submit", "label.change", "delete", "refresh", "key.create", "key.revoke", "groups.change",
    "list", "request", "audit.retention", "audit.query_text",
]  # fmt: skip


def test_names_of_actions_are_never_removed() -> None:
    assert list(audit.ACTIONS[: len(NAMES)]) == NAMES


@pytest.fixture
def run(database_url: str, app_url: str, maintenance_url: str, tmp_path: Any) -> Any:
    """`citadel …` on the test's database: (exit status, standard output)."""
    env = {"CITADEL_DATABASE_URL": database_url, "CITADEL_APP_DATABASE_URL": app_url,
           "CITADEL_MAINTENANCE_DATABASE_URL": maintenance_url, "CITADEL_STATE": str(tmp_path / "state")}  # fmt: skip

    def call(*arguments: str) -> tuple[int, str]:
        done = CliRunner().invoke(citadel, list(arguments), env=env)
        return done.exit_code, done.stdout

    return call


def test_the_commands(world: World, run: Any, tmp_path: Any, admin: psycopg.Connection[Any]) -> None:
    write(world, 3)
    status, printed = run("audit", "anchor", "--json")
    told = json.loads(printed)
    assert status == 0 and (told["tenant"], told["seq"]) == (str(world.tenant_id), 3)
    assert [(told["hash"],)] == fetch(world, "SELECT encode(hash, 'hex') FROM audit_log WHERE seq = 3")
    file = tmp_path / "anchor.json"
    file.write_text(printed)
    status, printed = run("audit", "query-text", "on", "--json")
    assert (status, json.loads(printed)) == (0, {"query_text": "on"})
    assert run("audit", "verify", "--anchor", str(file))[0] == 0
    status, printed = run("audit", "retention", "--months", "1", "--json")
    assert (status, json.loads(printed)) == (0, {"dropped": []})
    status, printed = run("audit", "export", "--since", "2020-01-01", "--until", "2100-01-01")
    lines = [json.loads(line) for line in printed.splitlines()]
    assert [(line["seq"], line["action"]) for line in lines] == [
        (1, "submit"),
        (2, "submit"),
        (3, "submit"),
        (4, "audit.query_text"),
    ]
    assert set(lines[0]) == {
        "seq",
        "at",
        "tenant",
        "action",
        "actor",
        "acting_for",
        "outcome",
        "resource",
        "request_id",
        "detail",
        "hash",
    }
    assert run("audit", "export", "--until", "2020-01-01") == (0, "")
    admin.execute("UPDATE audit_log SET outcome = 'denied' WHERE seq = 2")
    status, printed = run("audit", "verify", "--anchor", str(file), "--json")
    assert status == 1 and json.loads(printed)["verdict"]["broken_seq"] == 2
    assert run("audit", "verify")[0] == 1
