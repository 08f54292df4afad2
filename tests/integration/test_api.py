"""Every route of the contract, as its callers use it."""

import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest

from core.records import Labels, Submitted
from store import jobs, sources
from store.pool import writing
from store.profiles import ensure_tenant
from tests.conftest import MAX_BODY, Api
from tests.integration.rows import fetch

PUBLIC = {"allow": ["public"], "deny": [], "classification": "internal"}


@pytest.fixture
def key(api: Api) -> dict[str, str]:
    """A key of every scope."""
    return api.key("all", "search", "ingest", "act_for", "operate")


@pytest.fixture
def ana(key: dict[str, str]) -> dict[str, str]:
    """The same key, in Ana's name."""
    return {**key, "X-Citadel-Act-For": "user:ana@acme.example"}


def document(external_id: str = "d", text: str = "The lamp is red.", **more: Any) -> dict[str, Any]:
    """A body of POST /v1/documents."""
    return {"external_id": external_id, "text": text, "labels": PUBLIC, **more}


def index(api: Api, answer: Any) -> UUID:
    """Do the job of a submission, as a worker would."""
    body = answer.json()
    submitted = Submitted(UUID(body["document_id"]), body["version"], UUID(body["job_id"]))
    assert api.world.index(submitted)
    return submitted.document_id


def lines(answer: Any) -> list[dict[str, Any]]:
    """NDJSON."""
    assert answer.status_code == 200 and answer.headers["content-type"] == "application/x-ndjson"
    return [json.loads(line) for line in answer.text.splitlines()]


# --- documents ----------------------------------------------------------------------------------------------------


def test_submitted_indexed_found_and_cited(api: Api, key: dict[str, str], ana: dict[str, str]) -> None:
    text = "The lamp 🏮 is red. Its keeper is Mara."
    sent = api.http.post(
        "/v1/documents", json=document(text=text, title="Lamps", metadata={"team": "ops"}), headers=key
    )
    assert sent.status_code == 202 and sent.json().keys() == {"document_id", "version", "job_id"}
    job = api.http.get(f"/v1/jobs/{sent.json()['job_id']}", headers=key).json()
    assert (job["state"], job["attempts"], job["seq"]) == ("accepted", 0, None)
    document_id = index(api, sent)
    job = api.http.get(f"/v1/jobs/{sent.json()['job_id']}", headers=key).json()
    assert job["state"] == "done" and job["seq"] > 0
    found = api.http.post("/v1/search", json={"query": "red lamp", "at_least": job["seq"]}, headers=ana).json()
    cited = found["passages"][0]["citation"]
    assert found["passages"][0]["text"] == text and cited["title"] == "Lamps" and cited["marker"] in found["context"]
    span = {name: cited[name] for name in ("version", "start", "end")}
    read = api.http.get(f"/v1/documents/{document_id}/text", params=span, headers=ana).json()
    assert read == {"document_id": str(document_id), **span, "text": text}
    one = api.http.get(f"/v1/documents/{document_id}", headers=ana)
    assert one.headers["etag"] == '"1"' and one.json()["metadata"] == {"team": "ops"} and one.json()["labels"] is None
    assert api.http.get(f"/v1/documents/{document_id}", headers=key).json()["labels"] == PUBLIC


def test_the_same_again_is_200(api: Api, key: dict[str, str]) -> None:
    first = api.http.post("/v1/documents", json=document(), headers=key)
    again = api.http.post("/v1/documents", json=document(), headers=key)
    assert (first.status_code, again.status_code) == (202, 200)
    assert again.json() == {"document_id": first.json()["document_id"], "version": 1, "unchanged": True}


def test_without_labels_nobody_sees_it_but_an_operator(api: Api, key: dict[str, str], ana: dict[str, str]) -> None:
    body = document()
    del body["labels"]
    index(api, api.http.post("/v1/documents", json=body, headers=key))
    assert api.http.get("/v1/documents", headers=ana).json()["documents"] == []
    assert len(api.http.get("/v1/documents", headers=key).json()["documents"]) == 1


def test_a_file_is_uploaded(api: Api, key: dict[str, str]) -> None:
    fields = {"document": json.dumps({"external_id": "f", "labels": PUBLIC, "title": "A file"})}
    file = {"file": ("../x\\n.txt", b"red lamp", "text/plain")}
    sent = api.http.post("/v1/documents/upload", files=file, data=fields, headers=key)
    assert sent.status_code == 202
    index(api, sent)
    assert fetch(api.world, "SELECT filename, mime_type FROM versions") == [("n.txt", "text/plain")]
    again = api.http.post("/v1/documents/upload", files=file, data=fields, headers=key)
    assert (again.status_code, again.json()["unchanged"]) == (200, True)


def test_an_upload_with_broken_fields_is_told(api: Api, key: dict[str, str]) -> None:
    for fields in ("{}", "[]", "{", "null", '{"external_id": ""}', '{"external_id": "x", "text": "y"}'):
        sent = {"files": {"file": ("n", b"x")}, "data": {"document": fields}}
        answer = api.http.post("/v1/documents/upload", headers=key, **sent)  # type: ignore[arg-type]
        assert answer.status_code == 400 and "`document`" in answer.json()["detail"]


def test_an_empty_file_is_told(api: Api, key: dict[str, str]) -> None:
    fields = {"document": '{"external_id": "f"}'}
    answer = api.http.post("/v1/documents/upload", files={"file": ("n.txt", b"")}, data=fields, headers=key)
    assert (answer.status_code, answer.json()["code"]) == (422, "empty_document")


def test_labels_change_and_hold_at_once(api: Api, key: dict[str, str], ana: dict[str, str]) -> None:
    document_id = index(api, api.http.post("/v1/documents", json=document(), headers=key))
    closed = api.http.put(f"/v1/documents/{document_id}/labels", json={"allow": ["user:ben@acme.example"]}, headers=key)
    assert closed.status_code == 200 and closed.json()["labels"]["allow"] == ["user:ben@acme.example"]
    assert api.http.get(f"/v1/documents/{document_id}", headers=ana).status_code == 404
    assert not api.http.post("/v1/search", json={"query": "lamp"}, headers=ana).json()["passages"]
    opened = api.http.put(f"/v1/documents/{document_id}/labels", json=PUBLIC, headers=key).json()
    found = api.http.post("/v1/search", json={"query": "lamp", "at_least": opened["seq"]}, headers=ana).json()
    assert len(found["passages"]) == 1
    assert fetch(api.world, "SELECT count(*) FROM versions") == [(1,)]


def test_deleted_means_gone(api: Api, key: dict[str, str], ana: dict[str, str]) -> None:
    document_id = index(api, api.http.post("/v1/documents", json=document(), headers=key))
    assert api.http.delete(f"/v1/documents/{document_id}", headers=key).status_code == 204
    for headers in (key, ana):
        assert api.http.get(f"/v1/documents/{document_id}", headers=headers).status_code == 404
        assert api.http.get(f"/v1/documents/{document_id}/text", headers=headers).status_code == 404
        assert not api.http.post("/v1/search", json={"query": "lamp"}, headers=headers).json()["passages"]
    assert api.http.delete(f"/v1/documents/{document_id}", headers=key).status_code == 404


def test_if_match_guards_every_write(api: Api, key: dict[str, str]) -> None:
    document_id = index(api, api.http.post("/v1/documents", json=document(), headers=key))
    index(api, api.http.post("/v1/documents", json=document(text="two"), headers={**key, "If-Match": '"1"'}))
    stale = {**key, "If-Match": '"1"'}
    for answer in (
        api.http.post("/v1/documents", json=document(text="three"), headers=stale),
        api.http.put(f"/v1/documents/{document_id}/labels", json=PUBLIC, headers=stale),
        api.http.delete(f"/v1/documents/{document_id}", headers=stale),
    ):
        assert (answer.status_code, answer.json()["code"]) == (412, "version_conflict")
    for wrong in ("abc", '"x"', '"-1"', "", '"1", "2"', '"99999999999"', '"²"'):
        headers = {name.encode(): value.encode() for name, value in {**key, "If-Match": wrong}.items()}
        answer = api.http.delete(f"/v1/documents/{document_id}", headers=headers)
        assert answer.status_code in (400, 422), wrong
    for right in ('"2"', 'W/"2"', "2", "*"):
        fresh = {**key, "If-Match": right}
        assert api.http.put(f"/v1/documents/{document_id}/labels", json=PUBLIC, headers=fresh).status_code == 200


# --- batch --------------------------------------------------------------------------------------------------------


def test_a_batch_answers_each_line_in_order(api: Api, key: dict[str, str]) -> None:
    good = [json.dumps(document(f"b{n}", f"batch item {n}")) for n in range(3)]
    sent = [
        good[0],
        "",
        "{broken",
        "   ",
        good[1],
        '{"external_id": "x", "text": "y", "colour": 1}',
        good[0],
        "\r",
        good[2],
    ]
    answers = lines(api.http.post("/v1/documents/batch", content="\n".join(sent), headers=key))
    assert [answer["line"] for answer in answers] == [1, 3, 5, 6, 7, 9]
    kept = {answer["line"]: answer for answer in answers if "job_id" in answer}
    assert [kept[n]["external_id"] for n in (1, 5, 9)] == ["b0", "b1", "b2"]
    assert answers[1]["error"]["code"] == "invalid" and "colour" in answers[3]["error"]["detail"]
    assert answers[4]["unchanged"] is True and answers[4]["external_id"] == "b0"
    assert fetch(api.world, "SELECT count(*) FROM documents") == [(3,)]


def test_a_line_that_is_too_long_is_told_and_the_rest_goes_on(api: Api, key: dict[str, str]) -> None:
    long = json.dumps(document("long", "x" * MAX_BODY))
    body = f"{json.dumps(document('a'))}\n{long}\n{json.dumps(document('b'))}\n{long}"

    def in_pieces() -> Iterator[bytes]:
        for start in range(0, len(body), 7001):
            yield body[start : start + 7001].encode()

    for content in (body, in_pieces()):
        answers = lines(api.http.post("/v1/documents/batch", content=content, headers=key))
        assert [(answer["line"], answer.get("error", {}).get("code")) for answer in answers] == [
            (1, None), (2, "body_too_large"), (3, None), (4, "body_too_large"),
        ]  # fmt: skip


def test_a_batch_may_be_longer_than_a_body(api: Api, key: dict[str, str]) -> None:
    body = "".join(json.dumps(document(f"d{n}", "word " * 8000)) + "\n" for n in range(8))
    assert len(body) > MAX_BODY
    assert len(lines(api.http.post("/v1/documents/batch", content=body, headers=key))) == 8


def test_an_empty_batch_is_an_empty_answer(api: Api, key: dict[str, str]) -> None:
    for body in (b"", b"\n", b"\n \r\n\n"):
        assert lines(api.http.post("/v1/documents/batch", content=body, headers=key)) == []


# --- lists --------------------------------------------------------------------------------------------------------


def test_pages_are_complete_and_repeat_nothing(api: Api, key: dict[str, str], ana: dict[str, str]) -> None:
    for n in range(11):
        api.world.submit(f"d{n}", "text", ("public",) if n % 3 else ("user:ben",))
    for headers, expected in ((ana, [n for n in range(11) if n % 3]), (key, list(range(11)))):
        for limit in (1, 2, 3, 7, 8, 200):
            names = [
                d["external_id"] for page in pages(api, "/v1/documents", headers, limit) for d in page["documents"]
            ]
            assert names == [f"d{n}" for n in expected]
    jobs_seen = [job["job_id"] for page in pages(api, "/v1/jobs", key, 4) for job in page["jobs"]]
    assert len(jobs_seen) == len(set(jobs_seen)) == 11


def pages(api: Api, path: str, headers: dict[str, str], limit: int) -> Iterator[dict[str, Any]]:
    """Every page, following the cursors."""
    cursor = None
    while True:
        params = {"limit": limit, **({"cursor": cursor} if cursor else {})}
        answer = api.http.get(path, params=params, headers=headers)
        assert answer.status_code == 200
        yield answer.json()
        cursor = answer.json()["next_cursor"]
        if cursor is None:
            return


def test_a_cursor_that_is_not_ours_is_told(api: Api, key: dict[str, str]) -> None:
    for path in ("/v1/documents", "/v1/jobs"):
        for cursor in ("", "x", "====", "MTIz", "é", "MjAyNi0wMS0wMSBub25l"):
            answer = api.http.get(path, params={"cursor": cursor}, headers=key)
            assert (answer.status_code, answer.json()["code"]) == (400, "invalid_cursor"), cursor


def test_documents_of_one_source(api: Api, key: dict[str, str]) -> None:
    api.world.submit("a", "text", source="left")
    api.world.submit("b", "text", source="right")
    answer = api.http.get("/v1/documents", params={"source": "left"}, headers=key).json()
    assert [d["external_id"] for d in answer["documents"]] == ["a"]
    assert api.http.get("/v1/documents", params={"source": "nowhere"}, headers=key).json()["documents"] == []


# --- sources, jobs, health ----------------------------------------------------------------------------------------


def test_sources_are_added_listed_and_refreshed(api: Api, key: dict[str, str]) -> None:
    body = {"name": "handbook", "path": "/srv/handbook", "schedule": "*/15 * * * *", "labels": PUBLIC}
    added = api.http.post("/v1/sources", json=body, headers=key)
    assert added.status_code == 201 and added.json()["config"] == {"path": "/srv/handbook"}
    assert api.http.post("/v1/sources", json=body, headers=key).status_code == 409
    assert [s["name"] for s in api.http.get("/v1/sources", headers=key).json()["sources"]] == ["handbook"]
    accepted = api.http.post(f"/v1/sources/{added.json()['source_id']}/refresh", headers=key)
    assert accepted.status_code == 202
    job = api.http.get(f"/v1/jobs/{accepted.json()['job_id']}", headers=key).json()
    assert (job["kind"], job["state"]) == ("refresh", "accepted")
    assert api.http.post("/v1/sources", json={**body, "name": "x", "schedule": "soon"}, headers=key).status_code == 400
    api.world.submit("d", "text")
    with writing(api.world.store) as conn:
        pushed = sources.named(conn, api.world.tenant_id, "api").id
    assert api.http.post(f"/v1/sources/{pushed}/refresh", headers=key).status_code == 400
    assert api.http.post("/v1/documents", json=document(source="handbook"), headers=key).status_code == 400


@pytest.mark.parametrize("path", ["/etc", "/srv/../etc", "/srvx", "srv", "/", "/srv/a/../../var/lib"])
def test_an_operator_adds_folders_below_the_source_roots_only(api: Api, key: dict[str, str], path: str) -> None:
    """A worker reads with its own rights, and every tenant's blobs are among what it may read."""
    answer = api.http.post("/v1/sources", json={"name": "s", "path": path}, headers=key)
    assert answer.status_code == 400 and "CITADEL_SOURCE_ROOTS" in answer.json()["detail"]


def test_an_operator_adds_other_kinds_below_the_allowed_urls_and_without_secrets(api: Api, key: dict[str, str]) -> None:
    body = {"name": "docs", "kind": "website", "url": "https://docs.acme.example/public/a", "schedule": "0 2 * * *",
            "timezone": "Europe/Berlin", "jitter_s": 60, "settings": {"max_pages": 50}}  # fmt: skip
    added = api.http.post("/v1/sources", json=body, headers=key)
    assert added.status_code == 201 and added.json()["config"] == {"url": body["url"], "max_pages": 50}
    assert (added.json()["timezone"], added.json()["jitter_s"]) == ("Europe/Berlin", 60)
    assert added.json()["next_due_at"] is not None and added.json()["content_as_of"] is None
    source = f"/v1/sources/{added.json()['source_id']}/refresh"
    accepted = api.http.post(source, json={"permissions_only": True}, headers=key).json()
    assert api.http.get(f"/v1/jobs/{accepted['job_id']}", headers=key).json()["detail"]["permissions_only"] is True
    told = api.http.get("/metrics", headers=key).text
    assert 'citadel_source_next_refresh_timestamp_seconds{source="docs"}' in told
    assert 'citadel_source_lag_seconds{source="docs"}' in told
    refused: list[dict[str, object]] = [
        {"url": "https://docs.acme.example/private"}, {"url": "http://169.254.169.254/"}, {"kind": "sql"},
        {"kind": "mail"}, {"kind": "reader"}, {"url": None}, {"path": "/srv/x"}, {"timezone": "Mars"},
        {"settings": {"secrets": {"authorization": "env:PATH"}}}, {"settings": {"intranet": ["localhost"]}},
        {"settings": {"url": "http://127.0.0.1/"}}, {"settings": {"max_pages": "all"}},
        {"kind": "files", "settings": {"options": {"endpoint_url": "http://127.0.0.1/"}}},
    ]  # fmt: skip
    for change in refused:
        answer = api.http.post("/v1/sources", json={**body, "name": "other", **change}, headers=key)
        assert answer.status_code in (400, 422), change


def test_a_failed_job_tells_why(api: Api, key: dict[str, str]) -> None:
    sent = api.http.post("/v1/documents", json=document(), headers=key).json()
    with writing(api.world.store) as conn:
        lease = jobs.claim(conn, UUID(sent["job_id"]), 60)
        assert lease is not None
        jobs.fail(conn, lease, "corrupt_document", "the file is cut off")
    job = api.http.get(f"/v1/jobs/{sent['job_id']}", headers=key).json()
    assert (job["state"], job["error"]) == ("failed", {"code": "corrupt_document", "detail": "the file is cut off"})
    assert [j["job_id"] for j in api.http.get("/v1/jobs", params={"state": "failed"}, headers=key).json()["jobs"]] == [
        sent["job_id"]
    ]


def test_metrics_are_the_tenants_own(api: Api, key: dict[str, str]) -> None:
    with writing(api.world.store) as conn:
        other = ensure_tenant(conn, "rival", api.world.profile.id)
        theirs = sources.add(conn, other, "rival-secret-source", "folder", {}, Labels(), None, 0.3, None)
        sources.succeeded(conn, theirs, datetime.now(UTC), {})
        jobs.add_index(conn, other, uuid4(), 1)
    api.world.submit("d", "text")
    api.http.post("/v1/search", json={"query": "lamp"}, headers=key)
    told = api.http.get("/metrics", headers=key).text
    assert 'citadel_searches_total{mode="hybrid",outcome="ok"} 1.0' in told
    assert 'citadel_jobs{kind="index",state="accepted"} 1.0' in told
    assert "citadel_queue_depth 0.0" in told and "rival" not in told


def test_health_needs_no_key(api: Api) -> None:
    assert api.http.get("/healthz").json() == {"status": "ok"}
    ready = api.http.get("/readyz")
    assert (ready.status_code, ready.json()["ready"], ready.json()["degraded"]) == (200, True, False)


def test_health_answers_while_every_thread_waits(api: Api, key: dict[str, str]) -> None:
    service = api.http.app.state.service  # type: ignore[attr-defined]
    stuck = replace(service.searcher, slots=threading.Semaphore(0), deadline_s=1.5)
    api.http.app.state.service = replace(service, searcher=stuck)  # type: ignore[attr-defined]
    with ThreadPoolExecutor(50) as threads:  # more than the server has
        waiting = [threads.submit(api.http.post, "/v1/search", json={"query": "x"}, headers=key) for _ in range(50)]
        time.sleep(0.3)
        started = time.monotonic()
        assert api.http.get("/healthz").status_code == 200
        assert time.monotonic() - started < 1
        answers = [future.result() for future in waiting]
    assert {answer.status_code for answer in answers} == {429} and all("retry-after" in a.headers for a in answers)


@pytest.mark.parametrize(
    "damage",
    [
        "ALTER TABLE chunks NO FORCE ROW LEVEL SECURITY",
        "DROP POLICY reader ON documents",
        "UPDATE migrations SET sha256 = 'x'",
        "DELETE FROM migrations",
    ],
)
def test_an_unsafe_or_unknown_database_is_not_ready(api: Api, database_url: str, damage: str) -> None:
    with psycopg.connect(database_url, autocommit=True) as admin:
        admin.execute(damage.encode())
    ready = api.http.get("/readyz")
    assert ready.status_code == 503 and ready.json()["ready"] is False and ready.json()["checks"]["database"] != "ok"


def test_the_audit_names_who_did_what_for_whom(api: Api, key: dict[str, str], ana: dict[str, str]) -> None:
    sent = api.http.post("/v1/documents", json=document(), headers=key)
    document_id = index(api, sent)
    api.http.post("/v1/search", json={"query": "lamp"}, headers=ana)
    api.http.get(f"/v1/documents/{document_id}/text", headers=ana)
    api.http.put(f"/v1/documents/{document_id}/labels", json=PUBLIC, headers=key)
    api.http.delete(f"/v1/documents/{document_id}", headers=key)
    trail = fetch(api.world, "SELECT action, actor, acting_for, outcome FROM audit ORDER BY seq")
    user = "user:ana@acme.example"
    assert trail == [
        ("submit", "service:all", None, "accepted"),
        ("search", "service:all", user, "ok"),
        ("read", "service:all", user, "ok"),
        ("label.change", "service:all", None, "ok"),
        ("delete", "service:all", None, "ok"),
    ]
    kept = str(fetch(api.world, "SELECT detail, resource FROM audit"))
    assert "lamp" not in kept and str(document_id) in kept  # ids and counts, never content


# --- fusion -------------------------------------------------------------------------------------------------------


def test_fusion_is_read_and_changed_by_an_operator_whom_nothing_is_hidden_from(api: Api) -> None:
    operator = api.key("operator", "operate")
    assert api.http.get("/v1/fusion", headers=operator).json() == {"method": "convex", "dense_weight": 0.4, "rrf_k": 60}
    changed = {"method": "rrf", "dense_weight": 0.7, "rrf_k": 20}
    assert api.http.put("/v1/fusion", json=changed, headers=operator).json() == changed
    assert api.http.get("/v1/fusion", headers=operator).json() == changed
    ((actor, detail),) = fetch(api.world, "SELECT actor, detail FROM audit_log WHERE action = 'fusion.change'")
    assert (actor, detail) == ("service:operator", changed)
    outside: list[dict[str, Any]] = [{"method": "rrf", "dense_weight": 1.1}, {"method": "rrf", "rrf_k": 0}]
    for wrong in ({"method": "mean"}, {"dense_weight": 0.5}, *outside):
        assert api.http.put("/v1/fusion", json=wrong, headers=operator).status_code == 422
    for name, scopes, limits in (("reader", ("search",), {}), ("writer", ("ingest", "search"), {}),
                                 ("cut", ("operate",), {"ceiling": ["group:a"]})):  # fmt: skip
        key = api.key(name, *scopes, **limits)
        assert api.http.get("/v1/fusion", headers=key).status_code == 403
        assert api.http.put("/v1/fusion", json=changed, headers=key).status_code == 403
