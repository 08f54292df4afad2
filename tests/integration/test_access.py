"""Who sees what: the definition against a reference evaluator, and rows, tenants and late copies that follow it."""

import random
import uuid
from dataclasses import dataclass, replace
from typing import LiteralString

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from core.errors import InvalidLabel, NotFound
from core.identity import DirectoryGroup, DirectoryUser
from core.labels import check_label, make_labels
from core.records import AccessScope, Labels, Principal, SearchRequest
from retrieval.search import Searcher, search
from store import access, chunks, directory, documents, erase
from store.pool import reading_tenant, set_scope, writing
from store.profiles import SCALE, ensure_tenant
from tests.conftest import World
from tests.integration.rows import CONTENT, TENANTS_OWN, count, on, read_text

DOCUMENT_OF: dict[str, LiteralString] = {
    "documents": "SELECT id FROM documents",
    "versions": "SELECT document_id FROM versions",
    "chunks": "SELECT document_id FROM chunks",
    "vectors_1": "SELECT document_id FROM vectors_1",
    "tokens_1": "SELECT document_id FROM tokens_1",
}

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
    closed: frozenset[str] = frozenset()


def held_by(graph: Graph, subject: str, claims: tuple[str, ...] = ()) -> set[str]:
    """Reference: the subject, `public`, its token's claims, and whatever is reached over memberships, by a fixed point;
    nothing for a closed subject."""
    if subject in graph.closed:
        return set()
    held = {subject, "public", *claims}
    while more := {group for member, group in graph.memberships if member in held} - held:
        held |= more
    return held


def may_see(graph: Graph, who: Principal, labels: Labels) -> bool:
    """Reference: an allowed label held and within the ceiling, no denied one held, cleared by subject and key."""
    held = held_by(graph, who.subject, who.claims)
    usable = held if who.ceiling is None else held & set(who.ceiling)
    limits = [graph.clearances.get(who.subject, "internal")]
    limits += [] if who.max_classification is None else [who.max_classification]
    cleared = all(limit in SCALE and SCALE.index(labels.classification) <= SCALE.index(limit) for limit in limits)
    return bool(usable & set(labels.allow)) and not held & set(labels.deny) and cleared


graphs = st.builds(
    Graph,
    st.frozensets(st.tuples(st.sampled_from(MEMBERS), st.sampled_from(GROUPS)), max_size=10),
    st.dictionaries(st.sampled_from((*PEOPLE, "group:a")), st.sampled_from(SCALE), max_size=4),
    st.frozensets(st.sampled_from(PEOPLE), max_size=1),
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
    claims=st.lists(st.sampled_from(GROUPS), max_size=2, unique=True).map(tuple),
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
            for subject in graph.closed:
                conn.execute("INSERT INTO closed_subjects (tenant_id, subject) VALUES (%s, %s)", (tenant, subject))
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
    assert world.scope("user:ana").epoch > before


# --- tenants ------------------------------------------------------------------------------------------------------


def test_another_tenant_sees_nothing(world: World, neighbour: World) -> None:
    world.add("d", "ours", ("public",))
    assert seen_by(world, world.who("user:ana")) == {"d"}
    for who in (neighbour.who("user:ana"), replace(neighbour.who("service:op"), bypass=True)):
        assert seen_by(neighbour, who) == set()


def test_the_definition_itself_names_no_label_set_of_another_tenant(world: World, neighbour: World) -> None:
    """Asked as maintenance, which row-level security shows every tenant's rows."""
    neighbour.groups({"group:staff": ["user:ana"]}, {"user:ana": "restricted"})
    wanted = [make_labels(["public"]), make_labels(["user:ana"]), make_labels(["group:staff"])]
    with writing(world.store) as conn:
        ours, theirs = ([access.intern_labels(conn, each.tenant_id, labels) for labels in wanted]
                        for each in (world, neighbour))  # fmt: skip
        found = [set(access.visible_label_sets(conn, replace(each.who("user:ana"), bypass=bypass)))
                 for each in (world, neighbour) for bypass in (False, True)]  # fmt: skip
        nobodys = {row[0] for row in conn.execute("SELECT id FROM label_sets WHERE allow = '{}'").fetchall()}
    assert [seen - nobodys for seen in found] == [set(ours[:2]), set(ours), set(theirs), set(theirs)]


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
        with writing(each.store) as conn:
            directory.create_user(conn, each.tenant_id, DirectoryUser("ben", active=False))
            directory.create_group(conn, each.tenant_id, DirectoryGroup("g"), [])
    with reading_tenant(world.store, world.tenant_id) as conn:
        for table in TENANTS_OWN:
            owners = conn.execute(on("SELECT DISTINCT tenant_id FROM {}", table)).fetchall()
            assert owners == [(world.tenant_id,)], table


def test_a_writer_reaches_no_document_of_another_tenant(world: World, neighbour: World) -> None:
    theirs = neighbour.add("d", "their text").document_id
    with pytest.raises(NotFound), writing(world.store) as conn:
        documents.change_labels(conn, world.tenant_id, theirs, Labels(("public",)))
    with pytest.raises(NotFound), writing(world.store) as conn:
        erase.take_away(conn, world.tenant_id, theirs, "service:test")
    assert seen_by(neighbour, neighbour.who("user:ana")) == {"d"}


# --- late copies --------------------------------------------------------------------------------------------------


def test_a_wider_version_does_not_open_the_older_text(world: World) -> None:
    submitted = world.add("memo", "the salaries are: one million", ("group:hr",))
    world.add("memo", "the salaries are redacted", ("group:hr", "public"))
    assert read_text(world, "user:ana", submitted.document_id) == "the salaries are redacted"
    assert read_text(world, "user:ana", submitted.document_id, 1) is None
    world.groups({"group:hr": ["user:hana"]})
    assert read_text(world, "user:hana", submitted.document_id, 1) == "the salaries are: one million"


def test_a_narrower_version_closes_the_older_text(world: World) -> None:
    submitted = world.add("memo", "the plan", ("public",))
    world.add("memo", "the plan, with names", ("group:hr",))
    assert read_text(world, "user:ana", submitted.document_id, 1) is None


def test_ids_alone_open_nothing(world: World) -> None:
    hidden = world.add("d", "hidden text", ("user:ben",))
    with writing(world.store) as conn:
        ids = [row[0] for row in conn.execute("SELECT id FROM chunks").fetchall()]
        table = f"vectors_{world.profile.id}"
    with reading_tenant(world.store, world.tenant_id) as conn:
        access.enter_scope(conn, world.who("user:ana"))
        assert chunks.read_rows(conn, ids) == {}
        assert chunks.indexed_texts(conn, ids) == []
        assert count(conn, table) == 0
    assert read_text(world, "user:ana", hidden.document_id, 1) is None
    assert ids


def test_a_name_in_two_spellings_is_one_to_allow_to_deny_and_to_clear(world: World) -> None:
    one, other = "user:e\u0301ve", "user:\u00e9ve"  # Unicode, D70: canonically equivalent
    world.groups({"group:team": [one], "group:out": [other]}, {one: "confidential"})
    with writing(world.store) as conn:
        sets = [access.intern_labels(conn, world.tenant_id, make_labels(["group:team"], [], "confidential")),
                access.intern_labels(conn, world.tenant_id, make_labels([one])),
                access.intern_labels(conn, world.tenant_id, make_labels([other])),
                access.intern_labels(conn, world.tenant_id, make_labels(["public"], [one]))]  # fmt: skip
        access.intern_labels(conn, world.tenant_id, make_labels(["public"], ["group:out"]))
    assert set(world.scope(check_label(one)).label_set_ids) == set(sets[:3]) and sets[1] == sets[2]
    with pytest.raises(InvalidLabel, match="twice"):
        world.groups({}, {one: "public", other: "restricted"})


def test_what_is_open_is_above_nobodys_clearance(world: World) -> None:
    sent = {name: world.add(name, name, classification=name).document_id for name in ("public", "internal")}
    sent["denied"] = world.add("denied", "denied", deny=("group:x",), classification="public").document_id

    def open_now() -> set[str]:
        with reading_tenant(world.store, world.tenant_id) as conn:
            access.enter_scope(conn, world.who("service:train"))
            found = access.open_documents(conn, sent.values())
        return {name for name, document_id in sent.items() if document_id in found}

    assert open_now() == {"public", "internal"}
    world.groups({}, {"user:temp": "public"})
    assert open_now() == {"public"}
