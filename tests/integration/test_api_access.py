"""Who may call what: a register of every route, absent and hidden alike, names taken and refused."""

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from threading import Event, Thread
from typing import Any
from uuid import uuid4

import pytest

from core.records import Labels
from store import jobs, keys, sources
from store.broker import RedisBroker
from store.pool import writing
from tests.conftest import Api, World
from tests.integration.rows import fetch

ANA, BEN = "user:ana@acme.example", "user:ben@acme.example"
CANARY = "quicksilver"
SCOPES = ("search", "ingest", "act_for", "operate")

# Every route and the scopes that open it; none: no key is needed. A new route without a line here fails.
ROUTES: dict[tuple[str, str], frozenset[str] | None] = {
    ("post", "/v1/search"): frozenset({"search"}),
    ("post", "/v1/feedback"): frozenset({"search"}),
    ("get", "/v1/documents"): frozenset({"search"}),
    ("get", "/v1/documents/{document_id}"): frozenset({"search"}),
    ("get", "/v1/documents/{document_id}/text"): frozenset({"search"}),
    ("post", "/v1/documents"): frozenset({"ingest"}),
    ("post", "/v1/documents/upload"): frozenset({"ingest"}),
    ("post", "/v1/documents/batch"): frozenset({"ingest"}),
    ("put", "/v1/documents/{document_id}/labels"): frozenset({"ingest"}),
    ("delete", "/v1/documents/{document_id}"): frozenset({"ingest"}),
    ("get", "/v1/jobs"): frozenset({"ingest", "operate"}),
    ("get", "/v1/jobs/{job_id}"): frozenset({"ingest", "operate"}),
    ("post", "/v1/jobs/{job_id}/cancel"): frozenset({"operate"}),
    ("post", "/v1/jobs/{job_id}/retry"): frozenset({"operate"}),
    ("get", "/v1/sources"): frozenset({"ingest", "operate"}),
    ("post", "/v1/sources"): frozenset({"operate"}),
    ("post", "/v1/sources/{source_id}/refresh"): frozenset({"operate"}),
    ("get", "/v1/fusion"): frozenset({"operate"}),
    ("put", "/v1/fusion"): frozenset({"operate"}),
    ("get", "/v1/access/explain"): frozenset({"operate"}),
    ("get", "/metrics"): frozenset({"operate"}),
    ("get", "/healthz"): None,
    ("get", "/readyz"): None,
}
# The directory's routes answer in SCIM's form.
SCIM_ROUTES = {
    *((method, f"/scim/v2/{kind}s") for kind in ("User", "Group") for method in ("get", "post")),
    *((method, f"/scim/v2/{kind}s/{{{kind.lower()}_id}}") for kind in ("User", "Group")
      for method in ("get", "put", "patch", "delete")),
    ("get", "/scim/v2/ServiceProviderConfig"),
    ("get", "/scim/v2/ResourceTypes"),
}  # fmt: skip
READING = {route for route, scopes in ROUTES.items() if scopes == frozenset({"search"})}
GUARDED = {route: scopes for route, scopes in ROUTES.items() if scopes}


def call(api: Api, route: tuple[str, str], headers: dict[str, str], target: object = None) -> Any:
    """A well-formed request to the route, about something that is not there unless `target` is."""
    method, path = route
    path = path.split("{")[0] + str(target or uuid4()) + path.split("}")[1] if "{" in path else path
    bodies: dict[str, dict[str, Any]] = {
        "/v1/search": {"json": {"query": CANARY}},
        "/v1/feedback": {"json": {"request_id": str(target or uuid4()), "helpful": True}},
        "/v1/documents/upload": {"files": {"file": ("n", b"x")}, "data": {"document": '{"external_id": "u"}'}},
        "/v1/documents/batch": {"content": b'{"external_id": "b", "text": "x"}'},
        "/v1/sources": {"json": {"name": uuid4().hex, "path": "/x"}},
        "/v1/documents": {"json": {"external_id": "p", "text": "x"}},
    }
    body = bodies.get(path, {}) if method == "post" else {"json": {}} if method == "put" else {}
    if path == "/v1/access/explain":
        body = {"params": {"as": ANA, "document_id": str(target or uuid4())}}
    return api.http.request(method.upper(), path, headers=headers, **body)


def same(one: Any, two: Any) -> bool:
    """Byte for byte the same answer."""
    return (one.status_code, one.content, dict(one.headers)) == (two.status_code, two.content, dict(two.headers))


def test_every_route_is_registered(api: Api) -> None:
    told = api.http.get("/openapi.json").json()["paths"]
    assert {(method, path) for path, methods in told.items() for method in methods} == {*ROUTES, *SCIM_ROUTES}


# --- keys ---------------------------------------------------------------------------------------------------------


def test_without_a_live_key_every_route_answers_alike(api: Api) -> None:
    live = api.key("live", *SCOPES)["Authorization"]
    expired = api.key("expired", *SCOPES, expires_at=datetime.now(UTC) - timedelta(seconds=1))
    revoked = api.key("revoked", *SCOPES)
    with writing(api.world.store) as conn:
        assert keys.revoke_key(conn, api.world.tenant_id, "revoked")
    wrong: list[dict[str, str]] = [
        {}, expired, revoked, {"Authorization": ""}, {"Authorization": "Bearer"}, {"Authorization": "Bearer "},
        {"Authorization": "Bearer ck_wrong"}, {"Authorization": live.removeprefix("Bearer ")},
        {"Authorization": live.replace("Bearer", "Basic")}, {"Authorization": live[:-1]}, {"Authorization": live + "x"},
        {"Authorization": "Bearer " + "x" * 5000}, {"X-Citadel-Act-For": ANA},
        {"Authorization": "Bearer a.b.c"},
    ]  # fmt: skip
    for route in GUARDED:
        answers = [call(api, route, headers) for headers in wrong]
        assert answers[0].status_code == 401 and answers[0].headers["www-authenticate"] == "Bearer", route
        assert answers[0].headers["content-type"] == "application/problem+json"
        assert all(same(answers[0], answer) for answer in answers), route
    assert call(api, ("get", "/v1/documents"), {"Authorization": live}).status_code == 200


def test_without_a_live_key_every_route_of_the_directory_answers_alike(api: Api) -> None:
    wrong = [{}, {"Authorization": "Bearer ck_wrong"}, {"Authorization": "Bearer a.b.c"}, {"X-Citadel-Act-For": ANA}]
    for route in SCIM_ROUTES:
        answers = [call(api, route, headers) for headers in wrong]
        assert answers[0].status_code == 401 and answers[0].headers["www-authenticate"] == "Bearer", route
        assert answers[0].headers["content-type"] == "application/scim+json"
        assert all(same(answers[0], answer) for answer in answers), route


def test_two_authorizations_are_none(api: Api) -> None:
    live = api.key("live", *SCOPES)["Authorization"]
    for pair in ((live, live), (live, "Bearer x"), ("Bearer x", live)):
        answer = api.http.get("/v1/documents", headers=[("Authorization", value) for value in pair])
        assert answer.status_code == 401


def test_a_key_opens_what_its_scopes_say(api: Api) -> None:
    for scope in (*SCOPES, "provision"):
        headers = api.key(scope, scope)
        for route in SCIM_ROUTES:
            allowed = call(api, route, headers).status_code not in (401, 403)
            assert allowed == (scope == "provision"), (scope, route)
        for route, needed in GUARDED.items():
            answer = call(api, route, headers)
            if scope in needed:
                assert answer.status_code not in (401, 403), (scope, route)
            else:
                assert (answer.status_code, answer.json()["code"]) == (403, "forbidden"), (scope, route)


# --- names --------------------------------------------------------------------------------------------------------

BAD_NAMES = (
    *("", " ", "ana", "ana@acme.example", "public", "group:hr", "service:all", "User:ana", "user:", "user: ana"),
    *("user:a b", "user:a,user:b", "user:ana, user:ben", "user:" + "x" * 201, "user:a\tb", '"user:ana"', "*"),
)


def test_a_name_that_is_no_user_is_refused(api: Api) -> None:
    headers = api.key("agent", *SCOPES)
    for name in BAD_NAMES:
        for route in READING:
            answer = call(api, route, {**headers, "X-Citadel-Act-For": name})
            assert (answer.status_code, answer.json()["code"]) == (400, "invalid_label"), (name, route)


def test_bytes_that_are_no_name_are_refused(api: Api) -> None:
    headers = {k.encode(): v.encode() for k, v in api.key("agent", *SCOPES).items()}
    for name in (b"user:a\0b", b"user:a\nb", b"\xff\xfe", b"user:\x85x", b"user:\xc2\xa0x"):
        answer = api.http.get("/v1/documents", headers=headers | {b"X-Citadel-Act-For": name})
        assert answer.status_code == 400, name


def test_a_name_beyond_ascii_is_that_user_and_nobody_else(api: Api) -> None:
    api.world.add("his", CANARY, ("user:jürgen@acme.example",))
    api.world.add("closed", CANARY, ("public",), deny=("user:jürgen@acme.example",))
    headers = {k.encode(): v.encode() for k, v in api.key("agent", "search", "act_for").items()}
    for name, seen in (("user:jürgen@acme.example", ["his"]), ("user:jurgen@acme.example", ["closed"])):
        answer = api.http.get("/v1/documents", headers=headers | {b"X-Citadel-Act-For": name.encode()})
        assert [d["external_id"] for d in answer.json()["documents"]] == seen


def test_two_names_are_refused(api: Api) -> None:
    key = api.key("agent", *SCOPES)["Authorization"]
    for names in ((ANA, BEN), (ANA, ANA), (ANA, ""), ("", ANA)):
        headers = [("Authorization", key), *(("X-Citadel-Act-For", name) for name in names)]
        assert api.http.get("/v1/documents", headers=headers).status_code == 400


def test_a_key_without_the_scope_takes_no_name(api: Api) -> None:
    headers = api.key("plain", "search", "ingest", "operate")
    for route in GUARDED:
        for name in (ANA, "group:hr", ""):
            answer = call(api, route, {**headers, "X-Citadel-Act-For": name})
            assert (answer.status_code, answer.json()["code"]) == (403, "forbidden"), (name, route)


def test_writes_are_not_made_in_a_users_name(api: Api) -> None:
    headers = api.key("agent", *SCOPES) | {"X-Citadel-Act-For": ANA}
    before = fetch(api.world, "SELECT count(*) FROM documents")
    for route in GUARDED.keys() - READING:
        assert call(api, route, headers).status_code == 403, route
    assert fetch(api.world, "SELECT count(*) FROM documents") == before


def test_a_key_may_have_to_name_the_user(api: Api) -> None:
    headers = api.key("agent", *SCOPES, require_act_for=True)
    for route in GUARDED:
        assert call(api, route, headers).status_code == 403, route
    for route in READING:
        assert call(api, route, {**headers, "X-Citadel-Act-For": ANA}).status_code in (200, 404)


# --- what a caller sees -------------------------------------------------------------------------------------------


def listed(api: Api, headers: dict[str, str]) -> set[str]:
    """External ids of the documents that the caller lists, which are those that it finds."""
    listed = {d["external_id"] for d in api.http.get("/v1/documents", headers=headers).json()["documents"]}
    found = api.http.post("/v1/search", json={"query": CANARY, "top_k": 100}, headers=headers).json()["passages"]
    assert {p["citation"]["external_id"] for p in found} == listed
    return listed


def test_a_ceiling_and_a_clearance_cut_what_the_user_sees(api: Api) -> None:
    api.world.groups({"group:hr": [ANA], "group:it": [ANA]}, {ANA: "restricted"})
    api.world.add("public", CANARY, ("public",), classification="public")
    api.world.add("hr", CANARY, ("group:hr",))
    api.world.add("it", CANARY, ("group:it",), classification="confidential")
    api.world.add("own", CANARY, (ANA,), classification="restricted")
    expected: dict[str, tuple[dict[str, Any], set[str]]] = {
        "free": ({}, {"public", "hr", "it", "own"}),
        "hr only": ({"ceiling": ["group:hr"]}, {"hr"}),
        "nothing": ({"ceiling": []}, set()),
        "not hers": ({"ceiling": ["group:finance"]}, set()),
        "low": ({"max_classification": "internal"}, {"public", "hr"}),
        "both": ({"ceiling": ["group:it", "public"], "max_classification": "public"}, {"public"}),
    }
    for name, (limits, seen) in expected.items():
        key = api.key(name, "search", "act_for", **limits)
        assert listed(api, {**key, "X-Citadel-Act-For": ANA}) == seen, name
        assert listed(api, {**key, "X-Citadel-Act-For": BEN}) <= {"public"}
        operator = api.key(f"{name} operator", "search", "operate", **limits)
        assert listed(api, operator) == seen, name  # an operator sees everything, within the key's own limits


def test_a_key_by_itself_is_a_service_with_labels_of_its_own(api: Api) -> None:
    api.world.groups({"group:bots": ["service:bot"]})
    api.world.add("bots", CANARY, ("group:bots",))
    api.world.add("it", CANARY, ("service:bot",))
    api.world.add("other", CANARY, ("service:other", ANA))
    assert listed(api, api.key("bot", "search", "ingest")) == {"bots", "it"}
    assert listed(api, api.key("operator", "search", "operate")) == {"bots", "it", "other"}


def test_an_operator_in_a_users_name_is_that_user(api: Api) -> None:
    api.world.add("ben", CANARY, (BEN,))
    assert listed(api, api.key("op", *SCOPES) | {"X-Citadel-Act-For": ANA}) == set()


# --- absent and hidden --------------------------------------------------------------------------------------------


def test_hidden_and_absent_answer_alike(api: Api) -> None:
    hidden = api.world.add("d", CANARY, (BEN,)).document_id
    reader = api.key("agent", "search", "act_for") | {"X-Citadel-Act-For": ANA}
    for route in READING:
        if "{" in route[1]:
            one, two = call(api, route, reader, hidden), call(api, route, reader)
            assert one.status_code == 404 and same(one, two), route
    for version in (1, 2):
        paths = [f"/v1/documents/{each}/text?version={version}&start=0&end=3" for each in (hidden, uuid4())]
        assert same(*(api.http.get(path, headers=reader) for path in paths))


def test_another_tenants_things_are_absent(api: Api, neighbour: World) -> None:
    theirs = neighbour.submit("d", CANARY, ("public",))
    with writing(api.world.store) as conn:
        source = sources.add(conn, neighbour.tenant_id, "theirs", "folder", {"path": "/x"}, Labels(), None, 0.3, None)
    target = {"document_id": theirs.document_id, "job_id": theirs.job_id, "source_id": source}
    headers = api.key("all", *SCOPES)
    for route in GUARDED:
        if "{" in route[1]:
            name = route[1].split("{")[1].split("}")[0]
            one, two = call(api, route, headers, target[name]), call(api, route, headers)
            assert one.status_code == 404 and same(one, two), route
    assert fetch(api.world, "SELECT count(*) FROM documents") == [(1,)]


def test_a_taken_name_in_another_tenant_is_free_here(api: Api, neighbour: World) -> None:
    neighbour.submit("d", "x", source="crm")
    headers = api.key("all", *SCOPES)
    sent = api.http.post("/v1/documents", json={"external_id": "d", "text": "x", "source": "crm"}, headers=headers)
    assert (sent.status_code, sent.json()["version"]) == (202, 1)
    added = api.http.post("/v1/sources", json={"name": "theirs", "path": "/x"}, headers=headers)
    assert added.status_code == 201


# --- late copies --------------------------------------------------------------------------------------------------


@pytest.fixture
def hidden(api: Api) -> Iterator[str]:
    """A document of Ben's, each part of which holds the canary; its id."""
    world = api.world
    body = {"external_id": f"{CANARY}-id", "title": f"{CANARY} title", "text": f"{CANARY} text", "uri": f"x:{CANARY}",
            "source": f"{CANARY}-source", "metadata": {CANARY: CANARY}, "labels": {"allow": [BEN]}}  # fmt: skip
    sent = api.http.post("/v1/documents", json=body, headers=api.key("writer", "ingest")).json()
    world.index(world.submit(f"{CANARY}-id", f"{CANARY} text again", (BEN,), source=f"{CANARY}-source"))
    yield sent["document_id"]


def test_no_route_tells_anything_of_a_hidden_document(api: Api, hidden: str) -> None:
    api.world.add("seen", "a document that Ana sees")
    key = api.key("agent", "search", "act_for")
    headers = {**key, "X-Citadel-Act-For": ANA}
    plain = f"{CANARY[:4]}.{CANARY[4:]}"  # what is asked does not itself hold the canary
    answers = [call(api, route, headers, hidden) for route in GUARDED if route[1] != "/v1/search"]
    for mode in ("hybrid", "dense", "lexical"):
        for query in (CANARY, plain, "document"):
            for filters in (
                None,
                {"source": f"{CANARY}-source"},
                {f"metadata.{CANARY}": CANARY},
                {"title": {"$gt": "a"}},
            ):
                body = {"query": query, "mode": mode, "filters": filters, "top_k": 100, "explain": True}
                answers.append(api.http.post("/v1/search", json=body, headers=headers))
    for path in ("/healthz", "/readyz", "/openapi.json", "/docs", f"/v1/documents?source={CANARY}-source"):
        answers.append(api.http.get(path, headers=headers))
    for answer in answers:
        assert CANARY not in answer.text and CANARY not in json.dumps(dict(answer.headers)), answer.url
    ben = api.http.post("/v1/search", json={"query": CANARY}, headers={**key, "X-Citadel-Act-For": BEN})
    assert CANARY in ben.text  # there is something to be told


def test_an_operator_with_a_ceiling_neither_adds_nor_refreshes_sources(api: Api) -> None:
    """A refresh submits and deletes, and neither is limited by a ceiling."""
    whole, cut = api.key("whole", "operate"), api.key("cut", "operate", ceiling=("public",))
    body = {"name": "s", "path": "/x"}
    assert api.http.post("/v1/sources", json=body, headers=cut).status_code == 403
    source = api.http.post("/v1/sources", json=body, headers=whole).json()["source_id"]
    refresh = f"/v1/sources/{source}/refresh"
    assert api.http.post(refresh, json={"allow_mass_delete": True}, headers=cut).status_code == 403
    assert api.http.post(refresh, headers=whole).status_code == 202


def test_labels_are_told_to_those_who_may_write_them(api: Api) -> None:
    api.world.add("d", CANARY)
    told = {}
    for name, headers in {
        "reader": api.key("reader", "search"),
        "writer": api.key("writer", "search", "ingest"),
        "agent": api.key("agent", *SCOPES) | {"X-Citadel-Act-For": ANA},
    }.items():
        (listed,) = api.http.get("/v1/documents", headers=headers).json()["documents"]
        document = api.http.get(f"/v1/documents/{listed['document_id']}", headers=headers).json()
        told[name] = [bool(each.get("labels")) for each in (listed, document)]
    assert told == {"reader": [False, False], "writer": [True, True], "agent": [False, False]}


def test_activity_tells_operators_more(api: Api) -> None:
    api.world.add("d", CANARY)
    told = {}
    for name, headers in {
        "operator": api.key("op", "search", "operate"),
        "reader": api.key("reader", "search"),
        "agent": api.key("agent", *SCOPES) | {"X-Citadel-Act-For": ANA},
    }.items():
        activity = api.http.post("/v1/search", json={"query": CANARY}, headers=headers).json()["activity"]
        told[name] = {field for stage in activity for field in stage}
    assert told["reader"] == told["agent"] == {"stage", "ms", "candidates", "over_budget", "duplicates"}
    assert told["operator"] > told["reader"]


def test_a_limited_operator_is_told_of_the_sources_whose_labels_it_sees(api: Api) -> None:
    labels = {"hr": Labels(("group:hr",)), "it": Labels(("group:it",)), "open": Labels(("public",)), "none": Labels(),
              "high": Labels(("group:hr",), (), "restricted")}  # fmt: skip
    with writing(api.world.store) as conn:
        for name, own in labels.items():
            config = {"url": f"https://{name}.example/", "owner_labels": {"@acme/hr": "group:hr"}}
            added = sources.add(conn, api.world.tenant_id, name, "git", config, own, None, 0.3, None)
            sources.succeeded(conn, added, datetime.now(UTC), {})
    boxed: dict[str, tuple[dict[str, Any], set[str]]] = {
        "free": ({}, set(labels)),
        "boxed": ({"ceiling": ["group:hr"]}, {"hr", "high"}),
        "boxed, low": ({"ceiling": ["group:hr"], "max_classification": "internal"}, {"hr"}),
        "low": ({"max_classification": "internal"}, set(labels) - {"high"}),
        "nothing": ({"ceiling": []}, set()),
    }
    for name, (limits, reached) in boxed.items():
        key = api.key(name, "operate", **limits)
        told = api.http.get("/v1/sources", headers=key).json()["sources"]
        assert {source["name"] for source in told} == reached, name
        assert all(bool(source["config"]) == (name == "free") for source in told)
        figures = api.http.get("/metrics", headers=key).text
        assert set(re.findall(r'citadel_source_lag_seconds{source="(\w+)"}', figures)) == reached
        assert set(re.findall(r'citadel_source_last_success_timestamp_seconds{source="(\w+)"}', figures)) == reached


def test_two_scrapes_at_once_tell_each_what_it_may_know(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """The limited one waits, with all but the queue's length set, for the other to have told everything."""
    world = api.world
    world.add("it", CANARY, ("group:it",))
    full, limited = api.key("full", "operate"), api.key("limited", "operate", ceiling=[])
    queue_length, began, others = RedisBroker.queue_length, Event(), []

    def slow(broker: RedisBroker) -> int:
        if not began.is_set():
            began.set()
            others.append(Thread(target=lambda: api.http.get("/metrics", headers=full)))
            others[0].start()
            others[0].join(1)
        return queue_length(broker)

    monkeypatch.setattr(RedisBroker, "queue_length", slow)
    assert "citadel_jobs{" not in api.http.get("/metrics", headers=limited).text
    others[0].join()
    assert "citadel_jobs{" in api.http.get("/metrics", headers=full).text


def test_a_limited_operator_is_told_of_the_jobs_that_it_reaches(api: Api) -> None:
    world = api.world
    sent = {"hr": world.add("hr", CANARY, ("group:hr",)), "it": world.add("it", CANARY, ("group:it",)),
            "high": world.add("high", CANARY, ("group:hr",), classification="restricted"),
            "waiting": world.submit("waiting", CANARY, ("group:it",))}  # fmt: skip
    names = {str(each.job_id): name for name, each in sent.items()}
    with writing(world.store) as conn:
        source = sources.add(conn, world.tenant_id, "share", "folder", {"path": "/x"}, Labels(), None, 0.3, None)
        refresh = str(jobs.add_refresh(conn, world.tenant_id, source, datetime.now(UTC), {"new": 41}))
        own = sources.add(conn, world.tenant_id, "hr", "folder", {"path": "/x"}, Labels(("group:hr",)), None, 0.3, None)
        of_hr = str(jobs.add_refresh(conn, world.tenant_id, own, datetime.now(UTC), {"new": 41}))
        conn.execute("UPDATE jobs SET error_code = 'mass_delete', error = '7 of 9 gone' WHERE kind = 'refresh'")
    names |= {refresh: "refresh", of_hr: "refresh of hr"}
    boxed: dict[str, tuple[dict[str, Any], set[str]]] = {
        "free": ({}, set(names.values())),
        "hr": ({"ceiling": ["group:hr"]}, {"hr", "high", "refresh of hr"}),
        "hr, low": ({"ceiling": ["group:hr"], "max_classification": "internal"}, {"hr", "refresh of hr"}),
        "low": ({"max_classification": "internal"}, {"hr", "it", "waiting", "refresh", "refresh of hr"}),
        "none": ({"ceiling": []}, set()),
    }
    for name, (limits, reached) in boxed.items():
        key = api.key(name, "operate", **limits)
        told = {job["job_id"]: job for job in api.http.get("/v1/jobs", headers=key).json()["jobs"]}
        assert {names[job] for job in told} == reached, name
        for job in told.keys() & {refresh, of_hr}:
            assert (told[job]["detail"], told[job]["error"]["detail"]) == (
                ({"new": 41}, "7 of 9 gone") if name == "free" else ({}, "")), name  # fmt: skip
        absent = api.http.get(f"/v1/jobs/{uuid4()}", headers=key)
        for job_id, about in names.items():
            one = api.http.get(f"/v1/jobs/{job_id}", headers=key)
            assert (one.json() == told[job_id]) if about in reached else same(one, absent), (name, about)
        done = len(reached & {"hr", "high", "it"})
        figures = api.http.get("/metrics", headers=key).text
        assert ('citadel_jobs{kind="index",state="done"} ' + f"{done:.1f}" in figures) == (done > 0), name
        assert ('citadel_jobs{kind="index",state="accepted"} 1.0' in figures) == ("waiting" in reached), name
        refreshes = re.findall(r'citadel_jobs{kind="refresh",state="accepted"} (\d)', figures)
        assert sum(map(int, refreshes)) == len(reached & {"refresh", "refresh of hr"}), name
    writer = api.http.get("/v1/jobs", headers=api.key("writer", "ingest")).json()["jobs"]
    assert {job["job_id"] for job in writer} == names.keys()  # who may write every document knows of its jobs
