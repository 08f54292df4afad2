"""Who sees what: the definition against a reference evaluator, and the database against a hostile reader's role."""

import os
import random
import subprocess
import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import LiteralString

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg import sql

from core.errors import NotFound, StoreUnavailable
from core.labels import make_labels
from core.records import AccessScope, Labels, Principal, SearchRequest
from embedded.postgres import programs_folder
from retrieval.search import Searcher, search
from store import access, chunks, documents
from store.pool import Store, open_store, reading_tenant, set_scope, writing
from store.profiles import SCALE, ensure_tenant
from tests.conftest import World

CONTENT = ("documents", "versions", "chunks", "vectors_1")
DOCUMENT_OF: dict[str, LiteralString] = {
    "documents": "SELECT id FROM documents",
    "versions": "SELECT document_id FROM versions",
    "chunks": "SELECT document_id FROM chunks",
    "vectors_1": "SELECT document_id FROM vectors_1",
}
TENANTS_OWN = ("memberships", "clearances", "label_sets", "sources", "change_log", "jobs")

# --- the definition of visible ------------------------------------------------------------------------------------

PEOPLE = ("user:a", "user:b", "user:stranger", "service:s")
GROUPS = ("group:a", "group:b", "group:c", "group:d")
MEMBERS = (*PEOPLE[:2], *GROUPS, "public")
ANY_LABEL = (*PEOPLE, *GROUPS, "public")


@dataclass(frozen=True, slots=True)
class Graph:
    """A tenant's grants: (member, group) pairs and clearances."""

    memberships: frozenset[tuple[str, str]]
    clearances: dict[str, str]


def held_by(graph: Graph, subject: str) -> set[str]:
    """Reference: the subject, `public`, and whatever is reached over memberships, by a fixed point."""
    held = {subject, "public"}
    while more := {group for member, group in graph.memberships if member in held} - held:
        held |= more
    return held


def may_see(graph: Graph, who: Principal, labels: Labels) -> bool:
    """Reference: an allowed label held and within the ceiling, no denied one held, cleared by subject and key."""
    held = held_by(graph, who.subject)
    usable = held if who.ceiling is None else held & set(who.ceiling)
    limits = [graph.clearances.get(who.subject, "internal")]
    limits += [] if who.max_classification is None else [who.max_classification]
    cleared = all(limit in SCALE and SCALE.index(labels.classification) <= SCALE.index(limit) for limit in limits)
    return bool(usable & set(labels.allow)) and not held & set(labels.deny) and cleared


graphs = st.builds(
    Graph,
    st.frozensets(st.tuples(st.sampled_from(MEMBERS), st.sampled_from(GROUPS)), max_size=10),
    st.dictionaries(st.sampled_from((*PEOPLE, "group:a")), st.sampled_from(SCALE), max_size=4),
)
label_sets = st.builds(
    make_labels,
    st.lists(st.sampled_from(ANY_LABEL), max_size=3),
    st.lists(st.sampled_from(ANY_LABEL), max_size=2),
    st.sampled_from(SCALE),
)
principals = st.builds(
    Principal,
    st.just(uuid.UUID(int=0)),
    st.sampled_from(PEOPLE),
    st.none() | st.lists(st.sampled_from(ANY_LABEL), max_size=4).map(tuple),
    st.none() | st.sampled_from((*SCALE, "no such class")),
)


def test_visible_agrees_with_the_reference_on_random_graphs(world: World) -> None:
    seen, hidden = 0, 0

    @settings(max_examples=200, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(
        graphs, st.lists(label_sets, min_size=2, max_size=8, unique=True), st.lists(principals, min_size=3, max_size=8)
    )
    def agrees(graph: Graph, wanted: list[Labels], askers: list[Principal]) -> None:
        nonlocal seen, hidden
        with writing(world.store) as conn:
            tenant = ensure_tenant(conn, uuid.uuid4().hex, world.profile.id)
            members = {g: [m for m, above in graph.memberships if above == g] for g in GROUPS}
            access.replace_groups(conn, tenant, members, graph.clearances)
            ids = {access.intern_labels(conn, tenant, labels): labels for labels in wanted}
        for asker in askers:
            with reading_tenant(world.store, tenant) as conn:
                found = access.visible_label_sets(conn, replace(asker, tenant_id=tenant))
            expected = {i for i, labels in ids.items() if may_see(graph, asker, labels)}
            assert set(found) == expected, (graph, asker)
            seen, hidden = seen + len(expected), hidden + len(ids) - len(expected)

    agrees()
    assert seen > 50 and hidden > 50  # the graphs are not such that everything, or nothing, is visible


def test_rows_follow_the_definition(world: World) -> None:
    chance = random.Random(7)
    graph = Graph(
        frozenset({("user:a", "group:a"), ("group:a", "group:b"), ("group:b", "group:a"), ("user:b", "group:c")}),
        {"user:b": "restricted"},
    )
    world.groups({g: [m for m, above in graph.memberships if above == g] for g in GROUPS}, graph.clearances)
    stored = {}
    for number in range(25):
        labels = make_labels(chance.sample(ANY_LABEL, 2), chance.sample(ANY_LABEL, number % 2), chance.choice(SCALE))
        world.add(f"d{number}", f"text {number}", labels.allow, deny=labels.deny, classification=labels.classification)
        stored[f"d{number}"] = labels
    for subject in PEOPLE:
        expected = {name for name, labels in stored.items() if may_see(graph, world.who(subject), labels)}
        assert names_seen(world, world.scope(subject)) == {table: expected for table in CONTENT}


def on(statement: LiteralString, table: str) -> sql.Composed:
    """The statement about that table."""
    return sql.SQL(statement).format(sql.Identifier(table))


def rows_of(conn: psycopg.Connection, table: str) -> int:
    """How many rows the connection's role counts."""
    row = conn.execute(on("SELECT count(*) FROM {}", table)).fetchone()
    assert row is not None
    return int(row[0])


def names_seen(world: World, scope: AccessScope) -> dict[str, set[str]]:
    """For each table of content, the external ids of the documents whose rows the application's role reads."""
    with writing(world.store) as conn:
        names = dict(conn.execute("SELECT id, external_id FROM documents").fetchall())
    with reading_tenant(world.store, scope.tenant_id) as conn:
        set_scope(conn, scope)
        rows = {t: conn.execute(DOCUMENT_OF[t]).fetchall() for t in CONTENT}
    return {table: {names[key] for (key,) in found} for table, found in rows.items()}


def test_deny_beats_allow_and_any_way_to_hold_it_counts(world: World) -> None:
    world.groups({"group:staff": ["user:ana", "group:ops"], "group:ops": ["user:ben"], "group:left": ["group:ops"]})
    world.add("d", "secret plan", ("group:staff", "user:ben"), deny=("group:left",))
    assert names_seen(world, world.scope("user:ana"))["documents"] == {"d"}
    assert names_seen(world, world.scope("user:ben"))["documents"] == set()


def test_a_ceiling_does_not_hide_a_denied_label(world: World) -> None:
    world.groups({"group:staff": ["user:ana"], "group:left": ["user:ana"]})
    world.add("d", "secret plan", ("group:staff",), deny=("group:left",))
    assert not seen_by(world, Principal(world.tenant_id, "user:ana", ceiling=("group:staff",)))


def test_a_stranger_holds_itself_and_public_only(world: World) -> None:
    world.groups({"group:staff": ["user:ana"]}, {"user:ana": "restricted"})
    world.add("public", "for all", ("public",))
    world.add("own", "for the stranger", ("user:stranger",))
    world.add("staff", "for staff", ("group:staff",))
    world.add("confidential", "for all who are cleared", ("public",), classification="confidential")
    world.add("nobody", "for nobody", ())
    assert seen_by(world, world.who("user:stranger")) == {"public", "own"}
    assert seen_by(world, world.who("user:ana")) == {"public", "staff", "confidential"}


def seen_by(world: World, who: Principal) -> set[str]:
    """External ids of the documents that the principal can list."""
    with reading_tenant(world.store, who.tenant_id) as conn:
        access.enter_scope(conn, who)
        return {row[0] for row in conn.execute("SELECT external_id FROM documents").fetchall()}


def test_an_operators_bypass_stays_within_the_keys_ceiling_and_clearance(world: World) -> None:
    world.add("hr", "salaries", ("group:hr",))
    world.add("it", "passwords", ("group:it",), classification="restricted")
    world.add("nobody", "unlabelled", ())
    operator = Principal(world.tenant_id, "service:op", bypass=True)
    assert seen_by(world, operator) == {"hr", "it", "nobody"}
    assert seen_by(world, replace(operator, ceiling=("group:hr",))) == {"hr"}
    assert seen_by(world, replace(operator, ceiling=())) == set()
    assert seen_by(world, replace(operator, max_classification="internal")) == {"hr", "nobody"}
    assert seen_by(world, replace(operator, max_classification="no such class")) == set()


def test_a_revocation_holds_at_the_next_search(world: World, searcher: Searcher) -> None:
    world.groups({"group:staff": ["user:ana"]})
    world.add("d", "the marmalade memo", ("group:staff",))
    ask = SearchRequest("marmalade memo")
    assert search(searcher, world.who("user:ana"), ask).passages
    world.groups({"group:staff": ["user:ben"]})
    assert not search(searcher, world.who("user:ana"), ask).passages
    world.add("d2", "another marmalade memo", ("group:staff",))  # new content does not reopen what was closed
    assert not search(searcher, world.who("user:ana"), ask).passages
    assert len(search(searcher, world.who("user:ben"), ask).passages) == 2


def test_the_epoch_moves_when_a_grant_changes(world: World) -> None:
    before = world.scope("user:ana").epoch
    world.groups({"group:staff": ["user:ana"]})
    assert world.scope("user:ana").epoch == before + 1


# --- tenants ------------------------------------------------------------------------------------------------------


def test_another_tenant_sees_nothing(world: World, neighbour: World) -> None:
    world.add("d", "ours", ("public",))
    assert seen_by(world, world.who("user:ana")) == {"d"}
    for who in (neighbour.who("user:ana"), replace(neighbour.who("service:op"), bypass=True)):
        assert seen_by(neighbour, who) == set()


def test_label_sets_of_another_tenant_in_the_setting_show_nothing(world: World, neighbour: World) -> None:
    world.add("ours", "our text", ("public",))
    neighbour.add("theirs", "their text", ("public",))
    every = tuple(range(1, 50))
    for who, other in ((world, "theirs"), (neighbour, "ours")):
        seen = names_seen(world, AccessScope(who.tenant_id, "user:ana", every, 1))
        assert all(len(names) == 1 and other not in names for names in seen.values()), seen


def test_a_tenants_own_tables_show_no_row_of_another(world: World, neighbour: World) -> None:
    for each in (world, neighbour):
        each.groups({"group:g": ["user:ana"]}, {"user:ana": "public"})
        each.add("d", "text")
    with reading_tenant(world.store, world.tenant_id) as conn:
        for table in TENANTS_OWN:
            owners = conn.execute(on("SELECT DISTINCT tenant_id FROM {}", table)).fetchall()
            assert owners == [(world.tenant_id,)], table


def test_a_writer_reaches_no_document_of_another_tenant(world: World, neighbour: World) -> None:
    theirs = neighbour.add("d", "their text").document_id
    with pytest.raises(NotFound), writing(world.store) as conn:
        documents.change_labels(conn, world.tenant_id, theirs, Labels(("public",)))
    with pytest.raises(NotFound), writing(world.store) as conn:
        documents.delete(conn, world.tenant_id, theirs)
    assert seen_by(neighbour, neighbour.who("user:ana")) == {"d"}


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
        assert rows_of(app, table) == 0
    app.execute("SELECT set_config('citadel.tenant', '', false), set_config('citadel.label_sets', '', false)")
    for table in (*CONTENT, *TENANTS_OWN):
        assert rows_of(app, table) == 0
    app.execute("SET row_security = off")
    for table in (*CONTENT, *TENANTS_OWN):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            rows_of(app, table)


def test_half_a_scope_shows_no_content(world: World, app: psycopg.Connection) -> None:
    halves = [(str(world.tenant_id), empty) for empty in ("", "{}", "{NULL}")] + [("", "{1,2,3,4,5}")]
    for half in halves:
        app.execute("SELECT set_config('citadel.tenant', %s, false), set_config('citadel.label_sets', %s, false)", half)
        assert [rows_of(app, table) for table in CONTENT] == [0, 0, 0, 0]
    app.execute("SELECT set_config('citadel.tenant', %s, false)", (str(world.tenant_id),))
    assert [rows_of(app, table) for table in CONTENT] == [1, 1, 1, 1]  # with both halves, the public document


FORBIDDEN = [
    *(f"INSERT INTO {t} DEFAULT VALUES" for t in (*CONTENT, *TENANTS_OWN, "tenants", "api_keys", "profiles")),
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
    "UPDATE label_sets SET allow = '{public}'",
    "UPDATE memberships SET member = 'user:eve'",
    "UPDATE clearances SET classification = 'restricted'",
    "UPDATE tenants SET default_clearance = 'restricted'",
    "UPDATE api_keys SET scopes = '{operate}'",
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
            assert rows_of(admin, table) == 0


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


# --- late copies --------------------------------------------------------------------------------------------------


def test_a_wider_version_does_not_open_the_older_text(world: World) -> None:
    submitted = world.add("memo", "the salaries are: one million", ("group:hr",))
    world.add("memo", "the salaries are redacted", ("public",))
    assert read_text(world, "user:ana", submitted.document_id, None) == "the salaries are redacted"
    assert read_text(world, "user:ana", submitted.document_id, 1) is None
    world.groups({"group:hr": ["user:hana"]})
    assert read_text(world, "user:hana", submitted.document_id, 1) == "the salaries are: one million"


def test_a_narrower_version_closes_the_older_text(world: World) -> None:
    submitted = world.add("memo", "the plan", ("public",))
    world.add("memo", "the plan, with names", ("group:hr",))
    assert read_text(world, "user:ana", submitted.document_id, 1) is None


def read_text(world: World, subject: str, document_id: uuid.UUID, version: int | None) -> str | None:
    """The version's text as that subject reads it; None when there is none for it."""
    with reading_tenant(world.store, world.tenant_id) as conn:
        access.enter_scope(conn, world.who(subject))
        try:
            return documents.read_text(conn, document_id, version, 0, None).text
        except NotFound:
            return None


def test_ids_alone_open_nothing(world: World) -> None:
    hidden = world.add("d", "hidden text", ("user:ben",))
    with writing(world.store) as conn:
        ids = [row[0] for row in conn.execute("SELECT id FROM chunks").fetchall()]
        table = f"vectors_{world.profile.id}"
    with reading_tenant(world.store, world.tenant_id) as conn:
        access.enter_scope(conn, world.who("user:ana"))
        assert chunks.read_rows(conn, ids) == {}
        assert chunks.indexed_texts(conn, ids) == []
        assert rows_of(conn, table) == 0
    assert read_text(world, "user:ana", hidden.document_id, 1) is None
    assert ids
