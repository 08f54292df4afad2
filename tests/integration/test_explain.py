"""Explanations agree with the definition, and a change that was tried tells what making it then does."""

import itertools
import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from click.testing import CliRunner

from cli.explain import as_text
from cli.main import citadel
from core.errors import Conflict, InvalidLabel, NotFound
from core.labels import make_labels
from core.records import Labels, Principal
from ingest.preview import proposed_labels
from ingest.rules import read_rules
from store import access, preview
from store.explain import Explanation, document_named, explain, held_paths
from store.pool import reading_tenant, trying, writing
from store.profiles import SCALE
from tests.conftest import Api, World
from tests.integration.conftest import ANA, BEN, Site
from tests.integration.rows import fetch
from tests.integration.test_access import ANY_LABEL, GROUPS, MEMBERS, PEOPLE, Graph, held_by, may_see


def operator(world: World) -> Principal:
    """Whoever asks."""
    return Principal(world.tenant_id, "service:op", bypass=True)


def explained(world: World, subject: str, document_id: UUID, asker: Principal | None = None) -> Explanation:
    """Why the subject sees the document or not."""
    with reading_tenant(world.store, world.tenant_id) as conn:
        return explain(conn, asker or operator(world), world.who(subject), document_id)


# --- explain ------------------------------------------------------------------------------------------------------


def test_each_way_to_decide_is_told(world: World) -> None:
    world.groups(
        {"group:staff": ["group:ops", "group:it"], "group:ops": ["user:ana"], "group:it": ["group:ops", "user:ben"],
         "group:left": ["user:ben"], "group:top": ["group:staff"]},
        {"user:ben": "restricted"},
    )  # fmt: skip
    one = world.add("d", "text", ("group:top", "group:staff", "user:zoe"), deny=("group:left",)).document_id
    secret = world.add("s", "text", ("group:ops",), classification="confidential").document_id
    ana = explained(world, "user:ana", one)
    assert (ana.decision, ana.denied_by) == ("visible", ())
    assert [held.path for held in ana.allowed_by] == [
        ("user:ana", "group:ops", "group:staff"), ("user:ana", "group:ops", "group:staff", "group:top")
    ]  # fmt: skip
    ben = explained(world, "user:ben", one)
    assert ben.decision == "denied" and [held.path for held in ben.denied_by] == [("user:ben", "group:left")]
    assert explained(world, "user:eve", one).decision == "no_label_held"
    above = explained(world, "user:ana", secret)
    assert above.decision == "above_clearance" and above.clearance is not None
    assert (above.clearance.classification, above.clearance.own, above.clearance.reaches) == ("internal", False, False)
    assert above.allowed_by[0].label == "group:ops"  # what else would have let it in is told as well
    absent = explained(world, "user:ana", uuid4())
    assert (absent.decision, absent.labels, absent.external_id) == ("absent", None, None)


def test_what_a_token_claims_is_explained_as_claimed(api: Api) -> None:
    world = api.world
    world.groups({"group:staff": ["group:ops"], "group:hr": ["user:ana"], "group:left": ["group:gone"]})
    document = world.add("d", "text", ("group:staff", "group:hr"), deny=("group:left",)).document_id
    expected: dict[tuple[str, tuple[str, ...]], tuple[str, list[tuple[list[str], bool]]]] = {
        ("user:eve", ()): ("no_label_held", []),
        ("user:eve", ("group:ops",)): ("visible", [(["group:ops", "group:staff"], True)]),
        ("user:ana", ("group:staff",)): ("visible", [(["group:staff"], True), (["user:ana", "group:hr"], False)]),
        ("user:ana", ("group:gone", "group:ops")): ("denied", [(["group:gone", "group:left"], True)]),
    }
    key = api.key("watch", "operate")
    for (subject, claims), (decision, ways) in expected.items():
        asked = {"as": subject, "document_id": str(document), "claims": list(claims)}
        told = api.http.get("/v1/access/explain", headers=key, params=asked).json()
        deciding = told["denied_by"] if decision == "denied" else told["allowed_by"]
        assert (told["decision"], [(held["path"], held["claimed"]) for held in deciding]) == (decision, ways), asked
        who = Principal(world.tenant_id, subject, claims=claims)
        assert (world.scope_of(who).label_set_ids != ()) == (decision == "visible")  # what such a token opens
    refused = api.http.get("/v1/access/explain", headers=key, params={**asked, "claims": ["staff"]})
    assert (refused.status_code, refused.json()["code"]) == (400, "invalid_label")
    kept = fetch(world, "SELECT detail -> 'claims' FROM audit WHERE action = 'access.explain' ORDER BY seq")
    assert [row[0] for row in kept] == [sorted(claims) for _, claims in expected]


def test_what_the_operators_own_key_does_not_reach_is_absent(world: World) -> None:
    hidden = world.add("d", "text", ("group:hr",)).document_id
    cut = replace(operator(world), ceiling=("group:it",))
    found, nothing = (explained(world, "user:ana", each, cut) for each in (hidden, uuid4()))
    assert replace(found, document_id=nothing.document_id) == nothing
    with reading_tenant(world.store, world.tenant_id) as conn:
        assert document_named(conn, operator(world), "d") == hidden
        with pytest.raises(NotFound):
            document_named(conn, cut, "d")


def test_a_name_that_several_sources_use_is_refused(world: World) -> None:
    world.add("d", "text")
    world.add("d", "text", source="other")
    with reading_tenant(world.store, world.tenant_id) as conn, pytest.raises(Conflict, match="other"):
        document_named(conn, operator(world), "d")


def test_a_document_that_is_not_indexed_says_so(world: World) -> None:
    found = explained(world, "user:ana", world.submit("d", "text").document_id)
    assert (found.decision, found.indexed) == ("visible", False)
    assert "not indexed" in as_text(found)


def test_paths_are_shortest_and_every_step_is_a_membership(world: World) -> None:
    chance = random.Random(5)
    for _ in range(15):
        pairs = {(chance.choice(MEMBERS), chance.choice(GROUPS)) for _ in range(7)}
        world.groups({g: [m for m, above in pairs if above == g] for g in GROUPS})
        for subject in PEOPLE:
            with reading_tenant(world.store, world.tenant_id) as conn:
                paths = held_paths(conn, world.who(subject))
            assert set(paths) == held_by(Graph(frozenset(pairs), {}), subject)
            distance, reached = 0, {subject, "public"}
            while reached:
                assert {label for label, path in paths.items() if len(path) == distance + 1} == reached
                distance += 1
                near = {label for label, path in paths.items() if len(path) <= distance}
                reached = {group for member, group in pairs if member in near} - near
            for path in paths.values():
                assert path[0] in (subject, "public") and set(itertools.pairwise(path)) <= pairs


def test_explanations_agree_with_the_reference(world: World) -> None:
    chance = random.Random(11)
    stored = {}
    for number in range(20):
        labels = make_labels(chance.sample(ANY_LABEL, 2), chance.sample(ANY_LABEL, number % 2), chance.choice(SCALE))
        submitted = world.submit(f"d{number}", "t", labels.allow, labels.deny, labels.classification)
        stored[submitted.document_id] = labels
    decisions = set()
    for _ in range(6):
        pairs = frozenset((chance.choice(MEMBERS), chance.choice(GROUPS)) for _ in range(6))
        graph = Graph(pairs, {chance.choice(PEOPLE): chance.choice(SCALE)})
        world.groups({g: [m for m, above in pairs if above == g] for g in GROUPS}, graph.clearances)
        for subject, (document_id, labels) in itertools.product(PEOPLE, stored.items()):
            found = explained(world, subject, document_id)
            assert (found.decision == "visible") == may_see(graph, world.who(subject), labels)
            decisions.add(found.decision)
    assert decisions == {"visible", "denied", "above_clearance", "no_label_held"}


def test_the_route_explains_to_operators_and_writes_it_down(api: Api) -> None:
    document_id = api.world.add("d", "text", ("group:staff",)).document_id
    api.world.groups({"group:staff": [ANA]})
    headers, params = api.key("op", "operate"), {"as": ANA, "document_id": str(document_id)}
    found = api.http.get("/v1/access/explain", params=params, headers=headers)
    assert found.status_code == 200
    body = found.json()
    assert (body["decision"], body["allowed_by"]) == (
        "visible", [{"label": "group:staff", "path": [ANA, "group:staff"], "claimed": False}]
    )  # fmt: skip
    absent = api.http.get("/v1/access/explain", params={**params, "document_id": str(uuid4())}, headers=headers)
    assert absent.status_code == 200 and absent.json()["decision"] == "absent" and absent.json()["labels"] is None
    rows = fetch(api.world, "SELECT detail ->> 'as', detail ->> 'decision' FROM audit WHERE action = 'access.explain'")
    assert sorted(rows) == [(ANA, "absent"), (ANA, "visible")]
    for wrong in ("group:staff", "nobody", "user:a b", "user:\0"):
        answer = api.http.get("/v1/access/explain", params={**params, "as": wrong}, headers=headers)
        assert answer.status_code in (400, 422), wrong
    for scopes in (("search",), ("ingest", "search", "act_for")):
        answer = api.http.get("/v1/access/explain", params=params, headers=api.key("-".join(scopes), *scopes))
        assert answer.status_code == 403


# --- diff ---------------------------------------------------------------------------------------------------------


def everything(world: World) -> list[tuple[Any, ...]]:
    """The tenant's grants and which document is under which labels."""
    return [
        *fetch(world, "SELECT * FROM memberships ORDER BY 2, 3"), *fetch(world, "SELECT * FROM clearances ORDER BY 2"),
        *fetch(world, "SELECT access_epoch FROM tenants"), *fetch(world, "SELECT * FROM label_sets ORDER BY id"),
        *fetch(world, "SELECT id, label_set_id, latest_version FROM documents ORDER BY id"),
    ]  # fmt: skip


def counted(changes: list[preview.Change]) -> dict[str, tuple[int, int]]:
    """(gained, lost) by subject."""
    return {change.subject: (change.gains.count, change.loses.count) for change in changes}


def test_trying_groups_tells_what_loading_them_does_and_changes_nothing(world: World) -> None:
    chance = random.Random(2)
    stored = {}
    for number in range(25):
        labels = make_labels(chance.sample(ANY_LABEL, 2), chance.sample(ANY_LABEL, number % 2), chance.choice(SCALE))
        world.submit(f"d{number:02}", "t", labels.allow, labels.deny, labels.classification)
        stored[f"d{number:02}"] = labels
    graph, changed = Graph(frozenset(), {}), 0
    for _ in range(12):
        pairs = frozenset((chance.choice(MEMBERS), chance.choice(GROUPS)) for _ in range(5))
        proposed = Graph(pairs, {chance.choice(PEOPLE): chance.choice(SCALE)})
        groups = {g: [m for m, above in pairs if above == g] for g in GROUPS}
        before = everything(world)
        with trying(world.store) as conn:
            changes = preview.groups_change(conn, world.tenant_id, groups, proposed.clearances)
        assert everything(world) == before
        told = {c.subject: (c.gains, c.loses) for c in changes}
        for subject in (*PEOPLE, "user:nobody-knows"):
            gained, lost = difference(world.who(subject), stored, graph, proposed)
            found = told.get(subject if subject in PEOPLE else preview.ANYONE_ELSE, (preview.Documents(),) * 2)
            assert [(d.count, d.samples) for d in found] == [
                (len(names), tuple(names[: preview.SAMPLES])) for names in (gained, lost)
            ]
            changed += bool(gained or lost)
        world.groups(groups, proposed.clearances)
        graph = proposed
    assert changed > 10


def difference(who: Principal, stored: dict[str, Labels], old: Graph, new: Graph) -> tuple[list[str], list[str]]:
    """Reference: names of the documents gained and lost."""
    before = {name for name, labels in stored.items() if may_see(old, who, labels)}
    after = {name for name, labels in stored.items() if may_see(new, who, labels)}
    return sorted(after - before), sorted(before - after)


def test_groups_with_a_slip_are_told_and_change_nothing(world: World) -> None:
    before = everything(world)
    for groups, clearances in (({"staff": [ANA]}, {}), ({}, {ANA: "top secret"})):
        with pytest.raises(InvalidLabel), trying(world.store) as conn:
            preview.groups_change(conn, world.tenant_id, groups, clearances)
    assert everything(world) == before


RULES = """
version: 1
default: {allow: [group:staff]}
rules:
  - {path: "finance/**", allow: [group:finance]}
  - {path: "open/**", allow: [public]}
"""


def test_trying_rules_tells_what_a_refresh_under_them_does(site: Site) -> None:
    site.write(".citadel.yaml", "version: 1\ndefault: {allow: [group:staff]}\n")
    own = f"---\nlabels: {{allow: ['{BEN}']}}\n---\n"
    for path, text in {"a.txt": "text a", "finance/b.txt": "text b", "finance/c.txt": "text c", "open/d.txt": "text d",
                       "finance/own.md": f"{own}text e"}.items():  # fmt: skip
        site.write(path, text)
    site.refresh()
    people = (ANA, BEN, "user:stranger@acme.example")
    seen = {subject: set(site.seen_by(subject)) for subject in people}
    before = everything(site.world)
    with trying(site.world.store) as conn:
        proposed = proposed_labels(conn, site.source, read_rules(RULES), site.world.blobs.get)
        moved, changes = preview.labels_change(conn, site.world.tenant_id, proposed.labels)
    assert everything(site.world) == before
    assert (moved, proposed.problems) == (3, ())
    told = {change.subject: change for change in changes}
    site.write(".citadel.yaml", RULES)
    site.refresh()
    after = {subject: set(site.seen_by(subject)) for subject in people}
    assert after != seen
    for subject in people:
        change = told.get(subject if subject in (ANA, BEN) else preview.ANYONE_ELSE)
        gains, loses = (change.gains.samples, change.loses.samples) if change else ((), ())
        assert (set(gains), set(loses)) == (after[subject] - seen[subject], seen[subject] - after[subject])


def test_rules_for_a_file_whose_front_matter_is_broken_say_so(site: Site) -> None:
    site.write("a.md", "---\ntitle: fine\n---\ntext")
    site.refresh()
    key = fetch(site.world, "SELECT blob_key FROM versions")[0][0]
    with trying(site.world.store) as conn:
        found = proposed_labels(conn, site.source, read_rules(RULES), {key: b"---\nlabels: 3\n---\ntext"}.__getitem__)
    assert found.labels == {} and found.problems[0].startswith("a.md: ")


# --- commands -----------------------------------------------------------------------------------------------------


@pytest.fixture
def environment(world: World, app_url: str, maintenance_url: str, tmp_path: Path) -> dict[str, str]:
    """What the commands find the world by."""
    return {"CITADEL_APP_DATABASE_URL": app_url, "CITADEL_MAINTENANCE_DATABASE_URL": maintenance_url,
            "CITADEL_STATE": str(tmp_path), "CITADEL_BLOB_URL": (tmp_path / "blobs").as_uri()}  # fmt: skip


def run(environment: dict[str, str], *arguments: str, status: int = 0) -> str:
    """What `citadel access …` prints."""
    done = CliRunner().invoke(citadel, ["access", *arguments], env=environment, catch_exceptions=True)
    assert done.exit_code == status, done.output
    return done.stdout


def test_the_commands(world: World, environment: dict[str, str], tmp_path: Path) -> None:
    world.groups({"group:staff": ["group:ops"], "group:ops": [ANA]})
    submitted = world.add("handbook", "text", ("group:staff",))
    told = run(environment, "explain", "--as", ANA, "handbook")
    assert f"{ANA} sees handbook" in told and f"{ANA} → group:ops → group:staff" in told
    assert "does not see" in run(environment, "explain", "--as", BEN, str(submitted.document_id))
    assert "there is no document" in run(environment, "explain", "--as", BEN, str(uuid4()))
    claimed = run(environment, "explain", "--as", BEN, "--claim", "group:ops", "handbook")
    assert f"{BEN} sees handbook" in claimed and "group:ops → group:staff (claimed by the token)" in claimed
    run(environment, "explain", "--as", BEN, "--claim", "ops", "handbook", status=2)
    run(environment, "explain", "--as", "group:staff", "handbook", status=2)
    run(environment, "explain", "--as", ANA, "no such", status=2)
    found = json.loads(run(environment, "explain", "--as", ANA, "handbook", "--json"))
    assert found["decision"] == "visible"
    groups = tmp_path / "groups.yaml"
    groups.write_text(f"groups: {{'group:staff': ['{BEN}']}}")
    outcome = json.loads(run(environment, "diff", str(groups), "--json"))
    assert {c["subject"]: (c["gains"]["count"], c["loses"]["count"]) for c in outcome["changes"]} == {
        ANA: (0, 1), BEN: (1, 0)
    }  # fmt: skip
    assert "+handbook" in run(environment, "diff", str(groups))
    assert world.scope(ANA).label_set_ids and not world.scope(BEN).label_set_ids
    run(environment, "relabel-set", str(found["label_set_id"]), "--allow", BEN)
    assert world.scope(BEN).label_set_ids and not world.scope(ANA).label_set_ids
    audited = {row[0] for row in fetch(world, "SELECT action FROM audit")}
    assert audited == {"access.explain", "access.diff", "label_set.change"}


def test_rules_are_tried_by_command(site: Site, environment: dict[str, str], tmp_path: Path) -> None:
    site.write("open/d.md", "text")
    site.refresh()
    rules = tmp_path / "rules.yaml"
    rules.write_text(RULES)
    told = run(environment, "diff", str(rules), "--source", "files")
    assert "1 documents would have other labels" in told and "+open/d.md" in told and preview.ANYONE_ELSE in told
    run(environment, "diff", str(rules), status=2)
    run(environment, "diff", str(rules), "--source", "none", status=2)
    assert not site.seen_by(ANA)
    with writing(site.world.store) as conn:
        assert access.scale_of(conn, site.world.tenant_id) == list(SCALE)
