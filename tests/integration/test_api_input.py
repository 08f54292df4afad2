"""Whatever is sent: a problem document that says what to mend, and never a failure of the server's own."""

import json
import random
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.conftest import MAX_BODY, Api
from tests.integration.rows import fetch


@pytest.fixture
def key(api: Api) -> dict[str, str]:
    """A key of every scope."""
    return api.key("all", "search", "ingest", "act_for", "operate") | {"Content-Type": "application/json"}


def is_problem(answer: Any, *statuses: int) -> bool:
    """An RFC 9457 problem document of one of these statuses, or of any that blames the caller."""
    if answer.headers.get("content-type") != "application/problem+json":
        return False
    body = answer.json()
    shaped = body.keys() == {"type", "title", "status", "code", "detail"} and body["status"] == answer.status_code
    return shaped and (answer.status_code in statuses if statuses else 400 <= answer.status_code < 500)


# --- what no route is for -----------------------------------------------------------------------------------------


def test_every_refusal_is_a_problem_document(api: Api, key: dict[str, str]) -> None:
    assert is_problem(api.http.get("/v1/nowhere", headers=key), 404)
    assert is_problem(api.http.get("/"), 404)
    wrong = api.http.patch("/v1/documents", headers=key)
    assert is_problem(wrong, 405) and set(wrong.headers["allow"].split(", ")) & {"GET", "POST"}
    assert is_problem(api.http.post("/v1/search", content=b"{", headers=key), 422)
    assert is_problem(api.http.post("/v1/search", content=b"\xff\xfe", headers=key), 422, 400)
    assert is_problem(api.http.post("/v1/search", json=[], headers=key), 422)
    form = {**key, "Content-Type": "application/x-www-form-urlencoded"}
    assert is_problem(api.http.post("/v1/documents/upload", data={"document": "{}"}, headers=form), 422)
    assert is_problem(api.http.get("/v1/documents/not-a-uuid", headers=key), 422)
    assert is_problem(api.http.get("/v1/documents?limit=0", headers=key), 422)
    assert is_problem(api.http.get("/v1/documents?limit=201", headers=key), 422)
    assert is_problem(api.http.get("/v1/documents?source=%00", headers=key), 422)


def test_an_unknown_field_is_refused(api: Api, key: dict[str, str]) -> None:
    bodies: list[tuple[str, dict[str, Any]]] = [
        ("/v1/documents", {"external_id": "d", "text": "x", "label": {"allow": ["public"]}}),
        ("/v1/documents", {"external_id": "d", "text": "x", "labels": {"allows": ["public"]}}),
        ("/v1/search", {"query": "x", "topk": 3}),
        ("/v1/sources", {"name": "s", "path": "/x", "tenant_id": "x"}),
    ]
    for path, body in bodies:
        answer = api.http.post(path, json=body, headers=key)
        assert is_problem(answer, 422) and "Extra inputs" in answer.json()["detail"]
    assert fetch(api.world, "SELECT count(*) FROM documents") == [(0,)]


def test_a_refusal_does_not_repeat_what_is_long(api: Api, key: dict[str, str]) -> None:
    answer = api.http.post("/v1/search", json={"query": "x", "y" * 100_000: 1}, headers=key)
    assert is_problem(answer, 422) and len(answer.content) < 2000


def test_a_label_without_a_namespace_is_told(api: Api, key: dict[str, str]) -> None:
    for label in ("finance", "Group:x", "group:", "group: x", "", "public ", "a,b:c", "group:a\nb"):
        body = {"external_id": "d", "text": "x", "labels": {"allow": [label]}}
        answer = api.http.post("/v1/documents", json=body, headers=key)
        assert is_problem(answer, 400) and answer.json()["code"] == "invalid_label"


def test_a_classification_off_the_scale_is_told(api: Api, key: dict[str, str]) -> None:
    body = {"external_id": "d", "text": "x", "labels": {"allow": ["public"], "classification": "secret"}}
    answer = api.http.post("/v1/documents", json=body, headers=key)
    assert is_problem(answer, 400) and "internal" in answer.json()["detail"]  # it names the scale


# --- too much -----------------------------------------------------------------------------------------------------


def test_a_body_that_says_it_is_too_large_is_refused(api: Api, key: dict[str, str]) -> None:
    body = json.dumps({"external_id": "d", "text": "x" * MAX_BODY})
    for path in ("/v1/documents", "/v1/search", "/v1/sources"):
        assert is_problem(api.http.post(path, content=body, headers=key), 413)
    lying = {**key, "Content-Length": "ten"}
    assert is_problem(api.http.post("/v1/documents", content=b"{}", headers=lying), 400, 413)


def test_a_body_that_turns_out_too_large_is_refused(api: Api, key: dict[str, str]) -> None:
    def endless() -> Iterator[bytes]:
        yield b'{"external_id": "d", "text": "'
        yield from [b"x" * 10_000] * 50

    for path in ("/v1/documents", "/v1/search", "/v1/documents/upload"):
        headers = {**key, "Content-Type": "multipart/form-data; boundary=b"} if "upload" in path else key
        assert is_problem(api.http.post(path, content=endless(), headers=headers), 413), path
    assert fetch(api.world, "SELECT count(*) FROM documents") == [(0,)]


def test_a_file_that_is_too_large_is_refused(api: Api, key: dict[str, str]) -> None:
    del key["Content-Type"]  # the client names the boundary
    fields = {"document": '{"external_id": "f"}'}
    answer = api.http.post("/v1/documents/upload", files={"file": ("n", b"x" * MAX_BODY)}, data=fields, headers=key)
    assert is_problem(answer, 413)


def test_what_an_index_cannot_hold_is_the_callers_to_mend(api: Api, key: dict[str, str]) -> None:
    chance = random.Random(2)
    name = "".join(chr(chance.randint(0x1F300, 0x1F5FF)) for _ in range(1024))  # 4096 bytes that do not compress
    for body in ({"external_id": name, "text": "x"}, {"external_id": "d", "text": "x", "source": name[:200]}):
        answer = api.http.post("/v1/documents", json=body, headers=key)
        assert answer.status_code in (200, 202) or is_problem(answer), answer.text
    people = [f"user:{chance.randbytes(90).hex()}" for _ in range(1000)]
    sent = api.http.post(
        "/v1/documents", json={"external_id": "d", "text": "x", "labels": {"allow": people}}, headers=key
    )
    assert is_problem(sent) or sent.status_code == 202


# --- what it cannot keep or give back -----------------------------------------------------------------------------

BAD_TEXT = ("a\0b", "\0", "\ud800", "x\udfffy")


@pytest.mark.parametrize("bad", BAD_TEXT)
def test_text_that_is_no_text_is_refused_everywhere(api: Api, key: dict[str, str], bad: str) -> None:
    whole: dict[str, Any] = {"external_id": "d", "text": "x", "title": "t", "mime_type": "text/plain", "source": "s",
             "uri": "u", "metadata": {"k": "v"}}  # fmt: skip
    bodies: list[tuple[str, dict[str, Any]]]
    bodies = [("/v1/documents", {**whole, field: bad}) for field in whole if field not in ("metadata", "text")]
    bodies += [("/v1/documents", {**whole, "metadata": m}) for m in ({"k": bad}, {bad: 1}, {"k": [{"x": bad}]})]
    bodies += [("/v1/documents", {**whole, "labels": {"allow": [f"user:{bad}"]}})]
    bodies += [("/v1/documents", {**whole, "labels": {"deny": [bad]}}), ("/v1/documents", {**whole, bad: 1})]
    bodies += [("/v1/documents", {**whole, "labels": {"classification": bad}})]
    bodies += [("/v1/search", {"query": bad}), ("/v1/search", {"query": "x", "queries": [bad]})]
    bodies += [("/v1/search", {"query": "x", "rerank": bad}), ("/v1/search", {"query": "x", "mode": bad})]
    bodies += [("/v1/search", {"query": "x", "filters": f}) for f in ({"title": bad}, {bad: 1}, {"metadata.k": bad})]
    bodies += [
        ("/v1/search", {"query": "x", "filters": {f"metadata.{bad}": 1}}),
        ("/v1/search", {"query": "x", bad: 1}),
    ]
    bodies += [("/v1/sources", {"name": bad, "path": "/x"}), ("/v1/sources", {"name": "s", "path": bad})]
    bodies += [("/v1/sources", {"name": "s", "path": "/x", "schedule": bad})]
    for path, body in bodies:
        answer = api.http.post(path, content=json.dumps(body), headers=key)
        assert is_problem(answer), (path, body, answer.status_code, answer.text)
    assert api.http.post("/v1/documents", json=whole, headers=key).status_code == 202
    if bad.isascii():  # a NUL is a character like any other to a text file, and parsing drops it
        return
    assert is_problem(api.http.post("/v1/documents", content=json.dumps({**whole, "text": bad}), headers=key))


NUMBERS = (
    "NaN",
    "Infinity",
    "-Infinity",
    "1e400",
    "-1e400",
    "1" * 4000,
    "1" * 5000,
    "-" + "9" * 30,
    "1e-400",
    "0.5",
    "-1",
)


def test_numbers_beyond_measure_are_refused_or_kept(api: Api, key: dict[str, str]) -> None:
    for number in NUMBERS:
        for body in (
            f'{{"query": "x", "top_k": {number}}}',
            f'{{"query": "x", "max_tokens": {number}}}',
            f'{{"query": "x", "at_least": {number}}}',
            f'{{"query": "x", "filters": {{"metadata.n": {number}}}}}',
            f'{{"query": "x", "filters": {{"metadata.n": {{"$gt": {number}}}}}}}',
            f'{{"query": "x", "filters": {{"title": {number}}}}}',
        ):
            answer = api.http.post("/v1/search", content=body, headers=key)
            assert answer.status_code == 200 or is_problem(answer), (body[:80], answer.text)
        body = f'{{"external_id": "n{number[:9]}", "text": "x", "metadata": {{"n": {number}}}}}'
        for path in ("/v1/documents", "/v1/documents/batch"):
            assert api.http.post(path, content=body, headers=key).status_code < 500, (path, body[:80])
        source = f'{{"name": "s", "path": "/x", "max_deleted_share": {number}}}'
        assert api.http.post("/v1/sources", content=source, headers=key).status_code < 500
    assert api.http.get("/v1/documents?limit=200", headers=key).status_code == 200  # and what was kept comes out again


def test_deep_json_is_refused_or_comes_out_again(api: Api, key: dict[str, str]) -> None:
    for depth in (10, 30, 40, 100, 200, 250, 300, 450, 900, 5000, 90_000):
        for opening, closing in (("[", "]"), ('{"a":', "}")):
            deep = opening * depth + "1" + closing * depth
            for body in (
                f'{{"query": "x", "filters": {{"metadata.a": {deep}}}}}',
                f'{{"query": "x", "filters": {{"$and": {deep}}}}}',
                f'{{"query": {deep}}}',
                deep,
            ):
                answer = api.http.post("/v1/search", content=body, headers=key)
                assert is_problem(answer), (depth, answer.status_code, answer.text[:200])
            body = f'{{"external_id": "deep{depth}{opening[0]}", "text": "x", "metadata": {{"a": {deep}}}}}'
            for path in ("/v1/documents", "/v1/documents/batch"):
                assert api.http.post(path, content=body, headers=key).status_code < 500, (depth, path)
    assert api.http.get("/v1/documents?limit=200", headers=key).status_code == 200
    assert api.http.post("/v1/search", json={"query": "x"}, headers=key).status_code == 200


# --- anything at all ----------------------------------------------------------------------------------------------

anything: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.sampled_from(BAD_TEXT),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
FIELDS = {
    "/v1/documents": ("external_id", "text", "title", "mime_type", "source", "uri", "labels", "metadata"),
    "/v1/search": ("query", "queries", "top_k", "mode", "filters", "rerank", "max_tokens", "at_least", "explain"),
    "/v1/sources": ("name", "kind", "path", "uri_prefix", "labels", "schedule", "max_deleted_share"),
}
WELL = {
    "/v1/documents": {"external_id": "d", "text": "x"},
    "/v1/search": {"query": "x"},
    "/v1/sources": {"name": "s", "path": "/x"},
}
queries = st.dictionaries(
    st.sampled_from(("source", "cursor", "limit", "version", "start", "end", "state", "x")),
    st.text(max_size=12),
    max_size=3,
)


def test_no_body_makes_the_server_fail(api: Api, key: dict[str, str]) -> None:
    patient = api.http.app.state.service.searcher  # type: ignore[attr-defined]
    object.__setattr__(patient, "at_least_wait_s", 0.01)  # nothing waits for positions that are not there

    @settings(max_examples=250, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(st.sampled_from(sorted(FIELDS)), st.data())
    def holds(path: str, data: st.DataObject) -> None:
        changed = data.draw(st.dictionaries(st.sampled_from(FIELDS[path]), anything, min_size=1, max_size=2))
        answer = api.http.post(path, content=json.dumps(WELL[path] | changed), headers=key)
        waited = answer.status_code == 503 and answer.json()["code"] == "not_yet_indexed"
        assert answer.status_code < 400 or waited or is_problem(answer), (path, changed, answer.text)

    holds()
    assert api.http.get("/v1/documents?limit=200", headers=key).status_code == 200
    assert api.http.get("/v1/sources", headers=key).status_code == 200


def test_no_query_string_makes_the_server_fail(api: Api, key: dict[str, str]) -> None:
    document_id = api.world.add("d", "some text").document_id
    paths = ("/v1/documents", "/v1/jobs", f"/v1/documents/{document_id}/text", f"/v1/documents/{document_id}")

    @settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(st.sampled_from(paths), queries)
    def holds(path: str, query: dict[str, str]) -> None:
        answer = api.http.get(path, params=query, headers=key)
        assert answer.status_code == 200 or is_problem(answer), (path, query, answer.text)

    holds()


def test_no_file_name_makes_the_server_fail(api: Api, key: dict[str, str]) -> None:
    del key["Content-Type"]  # the client names the boundary
    for number, name in enumerate(("", "x" * 5000, "a/../../b", "a\\b", "ü🗝", "a;b=c", 'a"b', "..")):
        fields = {"document": json.dumps({"external_id": f"f{number}"})}
        answer = api.http.post("/v1/documents/upload", files={"file": (name, b"x")}, data=fields, headers=key)
        assert answer.status_code == 202 or is_problem(answer)
    assert fetch(api.world, "SELECT count(*) FROM versions WHERE filename IS NOT NULL") >= [(5,)]
    for kept, size in fetch(api.world, "SELECT filename, length(filename) FROM versions"):
        assert kept is None or (size <= 255 and "/" not in kept and "\\" not in kept)


def test_raw_multipart_of_any_kind_is_answered(api: Api, key: dict[str, str]) -> None:
    headers = {**key, "Content-Type": "multipart/form-data; boundary=b"}
    part = b'--b\r\nContent-Disposition: form-data; name="%s"%s\r\n\r\n%s\r\n'
    document = part % (b"document", b"", b'{"external_id": "f"}')
    for body in (
        b"", b"--b", b"--b--", b"garbage", document, document + b"--b--",
        document + part % (b"file", b'; filename="a\0b"', b"x") + b"--b--",
        document + part % (b"file", b'; filename="\xff\xfe"', b"x") + b"--b--",
        document + part % (b"file", b'; filename="n"\r\nContent-Type: a\0b', b"x") + b"--b--",
        document + part % (b"file", b'; filename="n"\r\nContent-Type: \xff', b"x") + b"--b--",
        document * 2 + part % (b"file", b'; filename="n"', b"x") + b"--b--",
        part % (b"document", b'; filename="d"', b"{}") + part % (b"file", b"", b"x") + b"--b--",
    ):  # fmt: skip
        answer = api.http.post("/v1/documents/upload", content=body, headers=headers)
        assert answer.status_code in (200, 202) or is_problem(answer), (body, answer.status_code, answer.text)
