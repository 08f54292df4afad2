"""A scope that is kept between transactions: every change of a grant ends it, and new label sets are in it at once."""

import threading
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, LiteralString
from uuid import UUID, uuid4

import psycopg
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from core.errors import InvalidLabel, NotFound
from core.labels import make_labels
from core.records import AccessScope, Labels, Principal, SearchRequest
from retrieval.search import Searcher, search
from store import access, documents
from store.pool import Conn, reading_tenant, set_scope, writing
from store.profiles import SCALE, ensure_tenant
from store.scopes import Resolved, ScopeCache
from tests.conftest import World
from tests.integration.rows import CONTENT, count
from tests.integration.test_access import GROUPS, MEMBERS, PEOPLE, Graph, may_see

ANA = "user:ana"


def kept(world: World, who: Principal | None = None, cache: ScopeCache | None = None) -> AccessScope:
    """The principal's scope, by what the store keeps."""
    with reading_tenant(world.store, world.tenant_id) as conn:
        return access.enter_scope(conn, who or world.who(ANA), cache or world.store.scopes)


def intern(world: World, *allow: str) -> int:
    """A label set's id."""
    with writing(world.store) as conn:
        return access.intern_labels(conn, world.tenant_id, make_labels(allow))


# --- what is kept -------------------------------------------------------------------------------------------------


def test_a_kept_scope_asks_the_definition_no_second_time(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = intern(world, ANA)
    assert kept(world).label_set_ids == (mine,)
    asked: list[int] = []
    resolve = access.visible_label_sets
    monkeypatch.setattr(access, "visible_label_sets", lambda *a: asked.append(1) or resolve(*a))  # type: ignore[func-returns-value]
    assert kept(world).label_set_ids == (mine,)
    assert not asked
    world.groups({"group:x": ["user:y"]})
    kept(world)
    assert asked


def test_a_scope_does_not_outlive_its_database(world: World, searcher: Searcher, database_url: str) -> None:
    """Restored under a running process, to before the last label set: its id is another one's then."""
    kept(world)
    lost = intern(world, ANA, "group:late")
    assert kept(world).label_set_ids == (lost,)
    with psycopg.connect(database_url) as conn:
        conn.execute("SET session_replication_role = replica")  # no trigger moves the epoch
        conn.execute("DELETE FROM label_sets WHERE id = %s", (lost,))
        conn.execute("SELECT setval(pg_get_serial_sequence('label_sets', 'id'), %s, false)", (lost,))
        conn.commit()
    assert intern(world, "user:ben") == lost
    world.add("bens", "the text of ben", ("user:ben",))
    assert search(searcher, world.who(ANA), SearchRequest("text")).passages == ()
    assert kept(world).label_set_ids == ()


def test_principals_that_differ_in_anything_share_no_scope(world: World) -> None:
    world.groups({"group:staff": [ANA]}, {ANA: "confidential"})
    intern(world, "group:staff")
    with writing(world.store) as conn:
        access.intern_labels(conn, world.tenant_id, make_labels([ANA], [], "confidential"))
    ana = world.who(ANA)
    different = [ana, replace(ana, ceiling=("group:staff",)), replace(ana, ceiling=()), world.who("user:ben"),
                 replace(ana, max_classification="internal"), replace(ana, bypass=True, ceiling=(ANA,)),
                 replace(ana, max_classification="no such class")]  # fmt: skip
    fresh = [world.scope_of(who).label_set_ids for who in different]
    assert len(set(fresh)) >= 4
    for _ in range(2):
        assert [kept(world, who).label_set_ids for who in different] == fresh


def test_tenants_with_the_same_names_share_no_scope(world: World, neighbour: World) -> None:
    ours, theirs = intern(world, ANA), intern(neighbour, ANA)
    for _ in range(2):
        assert kept(world).label_set_ids == (ours,)
        assert kept(neighbour, cache=world.store.scopes).label_set_ids == (theirs,)


def test_what_a_transaction_resolves_of_its_own_changes_is_not_kept(world: World) -> None:
    """Its epoch may come again, with other grants, once it is rolled back."""
    intern(world, "group:staff")
    kept(world)
    with pytest.raises(RuntimeError), writing(world.store) as conn:
        access.replace_groups(conn, world.tenant_id, {"group:staff": [ANA]}, {})
        assert access.enter_scope(conn, world.who(ANA), world.store.scopes).label_set_ids
        raise RuntimeError
    cached = world.store.scopes.get(world.who(ANA))
    assert cached is not None and cached.scope.label_set_ids == ()
    assert world.store.scopes.size()[0] == 1


def test_a_scope_of_an_older_epoch_never_replaces_a_newer_one() -> None:
    cache, who = ScopeCache(), Principal(UUID(int=1), ANA)
    newer = Resolved(AccessScope(who.tenant_id, ANA, (2,), 8), 1)
    cache.put(who, newer)
    cache.put(who, Resolved(AccessScope(who.tenant_id, ANA, (1, 2), 7), 1))
    assert cache.get(who) is newer


def test_the_cache_is_bounded_and_drops_what_was_not_used_for_longest() -> None:
    cache = ScopeCache(max_ids=1000)
    people = [Principal(UUID(int=1), f"user:p{n}") for n in range(30)]
    for person in people:
        cache.get(people[0])
        cache.put(person, Resolved(AccessScope(person.tenant_id, person.subject, tuple(range(80)), 1), 1))
    scopes, ids = cache.size()
    assert ids <= 1000 and 5 < scopes < 30
    assert cache.get(people[0]) and cache.get(people[-1]) and not cache.get(people[5])
    cache.put(people[0], Resolved(AccessScope(UUID(int=1), "user:p0", tuple(range(5000)), 1), 1))
    assert cache.size() == (0, 0)  # too large to keep at all


# --- new label sets, in whatever order they commit ----------------------------------------------------------------


@pytest.fixture
def writers(maintenance_url: str) -> Iterator[list[psycopg.Connection[Any]]]:
    """Two transactions of one's own."""
    opened = [psycopg.connect(maintenance_url) for _ in range(2)]
    yield opened
    for conn in opened:
        conn.close()


def test_a_label_set_that_commits_after_a_later_one_is_found(world: World, writers: list[Conn]) -> None:
    first, second = writers
    lower = access.intern_labels(first, world.tenant_id, make_labels([ANA]))
    higher = access.intern_labels(second, world.tenant_id, make_labels([ANA, "group:x"]))
    assert lower < higher
    assert kept(world).label_set_ids == ()
    second.commit()
    assert kept(world).label_set_ids == (higher,)
    assert kept(world).label_set_ids == (higher,)
    first.commit()
    assert kept(world).label_set_ids == (lower, higher)


def test_an_older_snapshot_takes_nothing_from_what_a_newer_one_resolved(world: World, writers: list[Conn]) -> None:
    kept(world)
    with reading_tenant(world.store, world.tenant_id) as older:
        older.execute("SELECT 1 FROM tenants")  # its snapshot is taken
        mine = intern(world, ANA)
        assert kept(world).label_set_ids == (mine,)
        access.enter_scope(older, world.who(ANA), world.store.scopes)
    found = world.store.scopes.get(world.who(ANA))
    assert found is not None and found.scope.label_set_ids == (mine,)
    assert kept(world).label_set_ids == (mine,)


def test_many_writers_and_readers_at_once_lose_no_label_set(world: World) -> None:
    """Each reader, at any time, has in its kept scope exactly what the definition gives in the same snapshot."""
    stop, wrong = threading.Event(), []

    def write(number: int) -> None:
        for step in range(40):
            intern(world, ANA if step % 2 else "user:ben", f"group:{number}-{step}")

    def read() -> None:
        while not stop.is_set():
            with reading_tenant(world.store, world.tenant_id) as conn:
                scope = access.enter_scope(conn, world.who(ANA), world.store.scopes)
                fresh = access.visible_label_sets(conn, world.who(ANA))
                if not set(fresh) <= set(scope.label_set_ids):
                    wrong.append((fresh, scope))

    readers = [threading.Thread(target=read) for _ in range(3)]
    writers = [threading.Thread(target=write, args=(n,)) for n in range(4)]
    for thread in (*readers, *writers):
        thread.start()
    for thread in writers:
        thread.join()
    stop.set()
    for thread in readers:
        thread.join()
    assert not wrong
    assert len(kept(world).label_set_ids) == 4 * 20


# --- the two forms of a scope -------------------------------------------------------------------------------------


@pytest.mark.parametrize("ids", [(5,), (1, 2, 3), (7, 8, 9, 15, 16, 17), (3, 4000), tuple(range(2, 900, 3))])
def test_both_forms_show_the_same_label_sets(world: World, ids: tuple[int, ...]) -> None:
    scope = AccessScope(world.tenant_id, ANA, ids, 1)
    shown = ("SELECT n FROM generate_series(-20, 4100) n WHERE n IN (SELECT unnest(scope_label_sets())) OR"
             " substring((SELECT scope_bits()) FROM n - (SELECT scope_base()) + 1 FOR 1) = B'1'")  # fmt: skip
    with reading_tenant(world.store, world.tenant_id) as conn:
        for form in ((scope.array, "", ""), ("", str(scope.base), scope.bits)):
            names = ("citadel.label_sets", "citadel.label_base", "citadel.label_bits")
            for name, value in zip(names, form, strict=True):
                conn.execute("SELECT set_config(%s, %s, true)", (name, value))
            assert tuple(n for (n,) in conn.execute(shown).fetchall()) == ids


def test_a_scope_set_after_another_leaves_nothing_of_it(world: World) -> None:
    for number in range(40):
        world.add(f"d{number}", f"text {number}", (f"user:u{number}",))
    with writing(world.store) as conn:
        ids = [row[0] for row in conn.execute("SELECT DISTINCT label_set_id FROM documents ORDER BY 1")]
    dense, sparse = (AccessScope(world.tenant_id, ANA, tuple(each), 1) for each in (ids, [ids[0], ids[0] + 10**6]))
    nothing = AccessScope(world.tenant_id, ANA, (), 1)
    assert dense.dense and not sparse.dense and not nothing.dense
    with reading_tenant(world.store, world.tenant_id) as conn:
        for scope, rows in ((dense, 40), (sparse, 1), (dense, 40), (nothing, 0), (sparse, 1), (nothing, 0)):
            set_scope(conn, scope)
            assert [count(conn, table) for table in CONTENT] == [rows] * len(CONTENT)


def test_all_documents_of_a_label_set_follow_its_one_row(world: World, searcher: Searcher, database_url: str) -> None:
    ask = SearchRequest("marmalade memo", top_k=20)
    world.groups({"group:a": [ANA], "group:b": ["user:ben"]})
    for number in range(12):
        world.add(f"d{number}", f"the marmalade memo number {number}", ("group:a",))
    world.add("other", "another marmalade memo", ("group:b",))
    shared, other = intern(world, "group:a"), intern(world, "group:b")
    assert len(search(searcher, world.who(ANA), ask).passages) == 12
    with psycopg.connect(database_url) as admin:
        rows = "SELECT xmin::text, ctid::text FROM {} ORDER BY 1, 2"
        before = {t: admin.execute(rows.format(t).encode()).fetchall() for t in CONTENT}
        with writing(world.store) as conn:
            assert access.relabel_set(conn, world.tenant_id, shared, make_labels(["group:b"])) == 12
        assert {t: admin.execute(rows.format(t).encode()).fetchall() for t in CONTENT} == before
    assert not search(searcher, world.who(ANA), ask).passages
    assert len(search(searcher, world.who("user:ben"), ask).passages) == 13
    assert intern(world, "group:b") == other  # sets of equal labels stand beside each other
    assert intern(world, "group:a") not in (shared, other)  # what is submitted under the old labels has those


def test_a_label_set_is_only_changed_by_its_tenant_and_to_labels_on_its_scale(world: World, neighbour: World) -> None:
    mine = intern(world, ANA)
    for other, labels, error in (
        (neighbour, make_labels(["public"]), NotFound),
        (world, Labels(("public",), (), "none such"), InvalidLabel),
    ):
        with pytest.raises(error), writing(world.store) as conn:
            access.relabel_set(conn, other.tenant_id, mine, labels)
    assert kept(world).label_set_ids == (mine,)


def test_a_submission_under_way_does_not_come_under_a_set_that_is_being_opened(
    world: World, writers: list[Conn]
) -> None:
    """Whoever comes second waits: either the document is there to follow, or it has the labels that it came with."""
    narrow = intern(world, "group:hr")
    opener, submitter = writers
    access.relabel_set(opener, world.tenant_id, narrow, make_labels(["public"]))
    found: list[int] = []
    waiting = threading.Thread(
        target=lambda: found.append(access.intern_labels(submitter, world.tenant_id, make_labels(["group:hr"])))
    )
    waiting.start()
    waiting.join(0.3)
    assert not found  # it waits for the other's end
    opener.commit()
    waiting.join(5)
    submitter.commit()
    assert found and found[0] != narrow
    with writing(world.store) as conn:
        assert access.labels_of(conn, found[0]) == make_labels(["group:hr"])


# --- any order of changes and searches ----------------------------------------------------------------------------


likely = st.builds(
    make_labels,
    st.lists(st.sampled_from((*PEOPLE[:2], *GROUPS[:3], "public")), min_size=1, max_size=2),
    st.lists(st.sampled_from((PEOPLE[0], *GROUPS[2:])), max_size=1),
    st.sampled_from(SCALE[1:3]),
)


class Grants(RuleBasedStateMachine):
    """Grants, revocations, documents, moves, label sets that change, and in between listings and searches."""

    world: World
    searcher: Searcher
    searches = visible = hidden = 0

    @initialize()
    def begin(self) -> None:
        with writing(self.world.store) as conn:
            self.own = replace(self.world, tenant_id=ensure_tenant(conn, uuid4().hex, self.world.profile.id))
        self.members: set[tuple[str, str]] = set()
        self.clearances: dict[str, str] = {}
        self.sets: dict[int, Labels] = {}
        self.placed: dict[str, tuple[UUID, int]] = {}  # document → its id and label set
        for allow, deny in (("public", GROUPS[3]), (GROUPS[0], GROUPS[2]), (GROUPS[1], PEOPLE[0])):
            self.add(make_labels([allow], [deny]))

    @rule(member=st.sampled_from(MEMBERS), group=st.sampled_from(GROUPS))
    def grant(self, member: str, group: str) -> None:
        self.execute("INSERT INTO memberships VALUES (%s, %s, %s) ON CONFLICT DO NOTHING", member, group)
        self.members.add((member, group))

    @precondition(lambda self: self.members)
    @rule(data=st.data())
    def revoke(self, data: st.DataObject) -> None:
        pair = data.draw(st.sampled_from(sorted(self.members)))
        self.execute("DELETE FROM memberships WHERE tenant_id = %s AND (member, group_label) = (%s, %s)", *pair)
        self.members.remove(pair)

    @rule(group=st.sampled_from(GROUPS), members=st.frozensets(st.sampled_from(MEMBERS), max_size=3))
    def load(self, group: str, members: frozenset[str]) -> None:
        self.own.groups({group: sorted(members)}, self.clearances)
        self.members = {(member, group) for member in members}

    @rule(subject=st.sampled_from(PEOPLE), classification=st.sampled_from(SCALE))
    def clear(self, subject: str, classification: str) -> None:
        self.execute("INSERT INTO clearances VALUES (%s, %s, %s) ON CONFLICT (tenant_id, subject)"
                     " DO UPDATE SET classification = excluded.classification", subject, classification)  # fmt: skip
        self.clearances[subject] = classification

    @rule(labels=likely)
    def add(self, labels: Labels) -> None:
        name = f"d{len(self.placed)}"
        text = " ".join(f"{name}w{n}" for n in range(8))
        submitted = self.own.add(name, text, labels.allow, deny=labels.deny, classification=labels.classification)
        self.note(name, submitted.document_id, labels)

    @precondition(lambda self: self.placed)
    @rule(data=st.data(), labels=likely)
    def move(self, data: st.DataObject, labels: Labels) -> None:
        name = data.draw(st.sampled_from(sorted(self.placed)))
        with writing(self.world.store) as conn:
            documents.change_labels(conn, self.own.tenant_id, self.placed[name][0], labels)
        self.note(name, self.placed[name][0], labels)

    @precondition(lambda self: self.sets)
    @rule(data=st.data(), labels=likely)
    def relabel(self, data: st.DataObject, labels: Labels) -> None:
        chosen = data.draw(st.sampled_from(sorted(self.sets)))
        with writing(self.world.store) as conn:
            access.relabel_set(conn, self.own.tenant_id, chosen, labels)
        self.sets[chosen] = labels

    @rule(
        subject=st.sampled_from(PEOPLE),
        ceiling=st.sampled_from((None, (), ("group:a", "public"))),
        top=st.sampled_from((None, "internal", "restricted")),
    )
    def look(self, subject: str, ceiling: tuple[str, ...] | None, top: str | None) -> None:
        who = Principal(self.own.tenant_id, subject, ceiling, top)
        expected = self.expected(who)
        assert self.listed(who, None) == expected
        answer = search(self.searcher, who, SearchRequest("d0w1 d1w1 d2w1", top_k=50))
        assert not answer.degraded and {passage.citation.external_id for passage in answer.passages} == expected
        type(self).searches += 1

    @invariant()
    def those_who_look_all_the_time_see_what_they_may(self) -> None:
        for subject in PEOPLE[:2]:
            who = self.own.who(subject)
            expected = self.expected(who)
            assert self.listed(who, self.world.store.scopes) == expected
            type(self).visible += len(expected)
            type(self).hidden += len(self.placed) - len(expected)

    def expected(self, who: Principal) -> set[str]:
        """Reference: the documents that the principal may see."""
        graph = Graph(frozenset(self.members), self.clearances)
        return {name for name, (_, at) in self.placed.items() if may_see(graph, who, self.sets[at])}

    def listed(self, who: Principal, cache: ScopeCache | None) -> set[str]:
        """The documents that the application's role reads in the principal's scope."""
        with reading_tenant(self.world.store, who.tenant_id) as conn:
            access.enter_scope(conn, who, cache)
            return {row[0] for row in conn.execute("SELECT external_id FROM documents").fetchall()}

    def note(self, name: str, document_id: UUID, labels: Labels) -> None:
        """Which label set the document came under: of equal ones, the database chooses."""
        with writing(self.world.store) as conn:
            row = conn.execute("SELECT label_set_id FROM documents WHERE id = %s", (document_id,)).fetchone()
        assert row is not None
        self.placed[name] = document_id, row[0]
        assert self.sets.setdefault(row[0], labels) == labels

    def execute(self, statement: LiteralString, *values: str) -> None:
        with writing(self.world.store) as conn:
            conn.execute(statement, (self.own.tenant_id, *values))


def test_no_order_of_changes_and_searches_shows_what_the_reference_denies(world: World, searcher: Searcher) -> None:
    class Here(Grants):
        pass

    Here.world, Here.searcher = world, searcher
    bounds = settings(max_examples=20, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    run_state_machine_as_test(Here, settings=bounds)
    assert Here.searches > 10 and Here.visible > 100 and Here.hidden > 100
