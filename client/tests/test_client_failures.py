"""What a caller sees when the server refuses, is busy, breaks, or is not there."""

import json
import pickle
import socket
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Any
from uuid import UUID

import fake_citadel
import httpx
import pytest

from citadel_client import (
    ApiError,
    CitadelClient,
    CitadelError,
    Conflict,
    Forbidden,
    Invalid,
    JobFailed,
    Labels,
    NewDocument,
    NotConnected,
    NotFound,
    RetryPolicy,
    ServerError,
    TooManyRequests,
    Unauthenticated,
    Unavailable,
    UnexpectedAnswer,
    Unreachable,
    WaitTimeout,
)
from citadel_client.wire import retry_after_of

ID = UUID(int=7)
QUICK = RetryPolicy(attempts=3, first_wait_s=0.001)
DOCUMENT = NewDocument("a", "Text.", Labels(allow=("public",)))
ANSWER = {"request_id": "r", "passages": [], "context": "", "degraded": [], "activity": []}


def problem(status: int, **headers: str) -> httpx.Response:
    body = {"type": "urn:citadel:x", "title": "X", "status": status, "code": "some_code", "detail": "do this instead"}
    return httpx.Response(status, json=body, headers={"Content-Type": "application/problem+json", **headers})


class Script:
    """Answers one after the other, the last for ever; and what was asked."""

    def __init__(self, *answers: httpx.Response | Exception) -> None:
        self.answers, self.asked = list(answers), list[httpx.Request]()

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request)
        answer = self.answers[min(len(self.asked), len(self.answers)) - 1]
        if isinstance(answer, Exception):
            raise answer
        return httpx.Response(answer.status_code, headers=answer.headers, content=answer.content)


def scripted(script: Script, retry: RetryPolicy = QUICK) -> CitadelClient:
    return CitadelClient("http://citadel.example", "secret-key", retry=retry, transport=httpx.MockTransport(script))


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, Invalid),
        (401, Unauthenticated),
        (403, Forbidden),
        (404, NotFound),
        (409, Conflict),
        (412, Conflict),
        (413, Invalid),
        (422, Invalid),
        (429, TooManyRequests),
        (500, ServerError),
        (502, ServerError),
        (503, Unavailable),
    ],
)
def test_a_status_has_its_error(status: int, kind: type[ApiError]) -> None:
    with pytest.raises(kind) as refused:
        scripted(Script(problem(status))).document(ID)
    assert type(refused.value) is kind
    assert (refused.value.status, refused.value.code) == (status, "some_code")
    assert str(refused.value) == f"do this instead ({status} some_code)"


def test_an_error_without_a_problem_object_is_told_by_its_status() -> None:
    page = httpx.Response(502, html="<html>proxy: bad gateway</html>")
    with pytest.raises(ServerError) as refused:
        scripted(Script(page)).document(ID)
    assert str(refused.value) == "Bad Gateway (502)"


def test_a_problem_object_that_breaks_off_is_told_by_its_status() -> None:
    broken = httpx.Response(404, content=b'{"title": ', headers={"Content-Type": "application/problem+json"})
    with pytest.raises(NotFound, match="Not Found"):
        scripted(Script(broken)).document(ID)


REPEATED: dict[str, Callable[[CitadelClient], object]] = {
    "search": lambda c: c.search("x"),
    "document": lambda c: c.document(ID),
    "text": lambda c: c.text(ID),
    "job": lambda c: c.job(ID),
    "submit": lambda c: c.submit(DOCUMENT),
    "upload": lambda c: c.upload(b"bytes", external_id="a", labels=None),
    "batch": lambda c: list(c.batch([DOCUMENT])),
    "set_labels": lambda c: c.set_labels(ID, Labels()),
    "delete": lambda c: c.delete(ID),
    "documents": lambda c: list(c.documents()),
}
ONCE: dict[str, Callable[[CitadelClient], object]] = {
    "refresh": lambda c: c.refresh(ID),
    "add_folder": lambda c: c.add_folder("a", "/srv/a"),
}


@pytest.mark.parametrize("failure", [problem(503), problem(429), httpx.ConnectError("no"), httpx.ConnectTimeout("no")])
@pytest.mark.parametrize("call", REPEATED)
def test_what_may_be_repeated_is_tried_again(call: str, failure: httpx.Response | Exception) -> None:
    script = Script(failure)
    with pytest.raises((Unavailable, TooManyRequests, NotConnected)):
        REPEATED[call](scripted(script))
    assert len(script.asked) == QUICK.attempts
    assert len({request.read() for request in script.asked if call != "upload"}) <= 1


@pytest.mark.parametrize("call", ONCE)
def test_what_may_not_be_repeated_is_tried_once(call: str) -> None:
    script = Script(problem(503))
    with pytest.raises(Unavailable):
        ONCE[call](scripted(script))
    assert len(script.asked) == 1


@pytest.mark.parametrize("failure", [problem(500), problem(404), problem(409), httpx.ReadTimeout("late")])
def test_other_failures_are_not_repeated(failure: httpx.Response | Exception) -> None:
    script = Script(failure)
    with pytest.raises(CitadelError):
        scripted(script).search("x")
    assert len(script.asked) == 1


def test_a_second_try_may_succeed_with_the_same_identity() -> None:
    script = Script(problem(503), httpx.Response(200, json=ANSWER))
    scripted(script).acting_for("user:ana@acme.example").search("x")
    assert [r.headers["X-Citadel-Act-For"] for r in script.asked] == ["user:ana@acme.example"] * 2
    assert [r.headers["Authorization"] for r in script.asked] == ["Bearer secret-key"] * 2


def test_retry_after_is_waited_for() -> None:
    script = Script(problem(503, **{"Retry-After": "1"}), httpx.Response(200, json=ANSWER))
    started = time.monotonic()
    scripted(script).search("x")
    assert time.monotonic() - started >= 1.0


def test_a_retry_after_beyond_the_policy_is_handed_to_the_caller_at_once() -> None:
    script = Script(problem(503, **{"Retry-After": "3600"}))
    started = time.monotonic()
    with pytest.raises(Unavailable) as refused:
        scripted(script).search("x")
    assert refused.value.retry_after == 3600
    assert len(script.asked) == 1
    assert time.monotonic() - started < 60


NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("0", 0.0),
        (" 7 ", 7.0),
        ("Sun, 01 Mar 2026 12:00:30 GMT", 30.0),
        ("Sun, 01 Mar 2026 11:00:00 GMT", 0.0),
        (format_datetime(datetime(2026, 3, 1, 13, tzinfo=UTC)), 3600.0),
        ("soon", None),
        ("-3", None),
        ("²", None),
        ("nan", None),
    ],
)
def test_retry_after_is_read_in_both_forms(value: str | None, seconds: float | None) -> None:
    assert retry_after_of(value, NOW) == seconds


def test_no_server_at_all_is_not_connected() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    with CitadelClient(f"http://127.0.0.1:{port}", "k", retry=QUICK) as client:
        assert not client.healthy()
        with pytest.raises(NotConnected):
            client.search("x")


def test_a_server_that_does_not_answer_is_unreachable() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with CitadelClient(url, "k", timeout=0.2) as client, pytest.raises(Unreachable, match="ReadTimeout"):
            client.search("x")


def test_a_redirect_is_not_followed_with_the_key() -> None:
    script = Script(httpx.Response(302, headers={"Location": "http://elsewhere.example/"}))
    with pytest.raises(UnexpectedAnswer, match="redirects"):
        scripted(script).search("x")
    assert len(script.asked) == 1


@pytest.mark.parametrize(
    "answer",
    [
        httpx.Response(200, json={**ANSWER, "passages": [{}]}),
        httpx.Response(200, json={k: v for k, v in ANSWER.items() if k != "context"}),
        httpx.Response(200, json=[]),
        httpx.Response(200, json=None),
        httpx.Response(200, text="<html>a login page</html>"),
        httpx.Response(200, content=b"\xff\xfe\xfd"),
        httpx.Response(204),
    ],
)
def test_an_answer_that_is_not_the_contracts_says_so(answer: httpx.Response) -> None:
    with pytest.raises(UnexpectedAnswer, match="POST /v1/search"):
        scripted(Script(answer)).search("x")


def ndjson(*lines: dict[str, Any]) -> httpx.Response:
    return httpx.Response(200, content="".join(json.dumps(line) + "\n" for line in lines))


def test_a_batch_that_is_answered_in_part_says_which_lines_are_missing() -> None:
    kept = {"line": 1, "external_id": "a", "document_id": str(ID), "version": 1, "job_id": str(ID)}
    records = scripted(Script(ndjson(kept))).batch([DOCUMENT, NewDocument("b", "B.", None)])
    assert next(records).external_id == "a"
    with pytest.raises(UnexpectedAnswer, match="1 of 2 lines were not answered, from 'b' on"):
        next(records)


def test_a_batch_answer_for_another_document_is_not_taken() -> None:
    swapped = {"line": 1, "external_id": "b", "unchanged": True}
    with pytest.raises(UnexpectedAnswer, match="speaks of 'b'"):
        list(scripted(Script(ndjson(swapped))).batch([DOCUMENT]))


def test_a_batch_with_more_answers_than_lines_is_not_taken() -> None:
    kept = {"line": 1, "external_id": "a", "unchanged": True}
    with pytest.raises(UnexpectedAnswer, match="more lines"):
        list(scripted(Script(ndjson(kept, kept))).batch([DOCUMENT]))


def test_a_batch_whose_connection_breaks_is_unreachable() -> None:
    def broken() -> Iterator[bytes]:
        yield b'{"line": 1, "external_id": "a", "unchanged": true}\n'
        raise httpx.ReadError("reset by peer")

    transport = httpx.MockTransport(lambda request: httpx.Response(200, content=broken()))
    records = CitadelClient("http://citadel.example", "k", transport=transport).batch([DOCUMENT, DOCUMENT])
    assert next(records).unchanged
    with pytest.raises(Unreachable, match="reset by peer"):
        next(records)


def job(state: str, **fields: Any) -> httpx.Response:
    return httpx.Response(200, json={"state": state, "attempts": 3, **fields})


@pytest.mark.parametrize("state", ["failed", "quarantined", "cancelled"])
@pytest.mark.parametrize(
    "error", [{"code": "corrupt_document", "detail": "the file is cut off"}, "the file is cut off"]
)
def test_a_job_that_fails_is_raised_with_its_reason(state: str, error: object) -> None:
    with pytest.raises(JobFailed, match=f"{state}: the file is cut off") as failed:
        scripted(Script(job("parsing"), job(state, error=error))).wait(ID)
    assert (failed.value.job.id, failed.value.job.attempts) == (ID, 3)


def test_waiting_ends_in_time_and_shows_the_job() -> None:
    started = time.monotonic()
    with pytest.raises(WaitTimeout, match="still embedding") as late:
        scripted(Script(job("embedding"))).wait(ID, timeout=0.3)
    assert 0.3 <= time.monotonic() - started < 5
    assert isinstance(late.value, TimeoutError)
    assert late.value.job.state == "embedding"


def test_errors_survive_a_process_pool() -> None:
    errors = []
    for script, call in [(Script(problem(503)), REPEATED["search"]), (Script(job("failed")), lambda c: c.wait(ID))]:
        with pytest.raises(CitadelError) as raised:
            call(scripted(script))
        errors.append(raised.value)
    for error in errors:
        again = pickle.loads(pickle.dumps(error))
        assert (type(again), str(again)) == (type(error), str(error))


@pytest.mark.parametrize("user", ["", " ", "user:ana \r\nX-Admin: 1", "user:zoe\u0308@acme.example", "user:a b",
                                  "user:a\u00a0b", "user:\ud800", "user:a\x85b"])  # fmt: skip
def test_a_user_that_no_header_carries_is_never_no_user(user: str) -> None:
    script = Script(httpx.Response(200, json=ANSWER))
    with pytest.raises(ValueError, match="cannot be acted for"):
        scripted(script).acting_for(user)
    with pytest.raises(ValueError, match="cannot be acted for"):
        CitadelClient("http://citadel.example", "k", act_for=user)
    assert script.asked == []


def test_a_user_is_sent_as_utf8() -> None:
    script = Script(httpx.Response(200, json=ANSWER))
    scripted(script).acting_for("user:zoë@acme.example").search("x")
    sent = [value for name, value in script.asked[0].headers.raw if name.lower() == b"x-citadel-act-for"]
    assert sent == [b"user:zo\xc3\xab@acme.example"]


@pytest.mark.parametrize("key", ["", "two words", "line\nbreak"])
def test_a_broken_key_is_refused_without_being_shown(key: str) -> None:
    with pytest.raises(ValueError, match="API key") as refused:
        CitadelClient("http://citadel.example", key)
    assert not key or key not in str(refused.value)


def test_the_key_is_not_shown() -> None:
    client = scripted(Script(problem(401)))
    with pytest.raises(Unauthenticated) as refused:
        client.search("x")
    assert "secret-key" not in f"{client!r} {refused.value!r} {refused.value}"


@pytest.mark.parametrize("document_id", ["", "../../v1/sources", "..", "7", None, 7])
def test_what_is_no_id_never_becomes_a_path(document_id: Any) -> None:
    script = Script(httpx.Response(204))
    with pytest.raises(ValueError, match="not an id"):
        scripted(script).delete(document_id)
    assert script.asked == []


def test_a_label_alone_is_not_taken_for_its_letters() -> None:
    with pytest.raises(TypeError, match="comma"):
        Labels(allow="group:finance")  # type: ignore[arg-type]


def test_writes_carry_the_expected_version_as_an_entity_tag() -> None:
    script = Script(httpx.Response(204))
    scripted(script).delete(ID, if_version=3)
    scripted(script).delete(ID)
    assert script.asked[0].headers["If-Match"] == '"3"'
    assert "If-Match" not in script.asked[1].headers


def test_one_pool_serves_every_user(fake: tuple[str, fake_citadel.State]) -> None:
    url, state = fake
    with CitadelClient(url, fake_citadel.KEY) as client:
        for i in range(5):
            client.acting_for(f"user:u{i}@acme.example").search("x")
    assert len(state.connections) == 1
