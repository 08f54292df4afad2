"""A database that takes no writes, as after a failover to a standby: no row in the audit, so no answer, and soon."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import psycopg
from psycopg import sql

from tests.conftest import Api
from tests.integration.rows import fetch

SECRET = "the red lamp of the read-only house"
BODY = {"query": "red lamp"}


@contextmanager
def read_only(database_url: str) -> Iterator[None]:
    """Every transaction of every role can only read, for as long as the body runs."""
    with psycopg.connect(database_url, autocommit=True) as admin:
        name = sql.Identifier(admin.info.dbname)
        others = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() " \
                 "AND pid <> pg_backend_pid()"  # fmt: skip
        admin.execute(sql.SQL("ALTER DATABASE {} SET default_transaction_read_only = on").format(name))
        admin.execute(others)
        try:
            yield
        finally:
            admin.execute(sql.SQL("ALTER DATABASE {} RESET default_transaction_read_only").format(name))
            admin.execute(others)


def test_what_cannot_be_audited_is_not_answered(api: Api, database_url: str) -> None:
    submitted = api.world.add("d", SECRET)
    key = api.key("all", "search", "ingest", "act_for", "operate")
    ana = {**key, "X-Citadel-Act-For": "user:ana"}
    assert SECRET in api.http.post("/v1/search", json=BODY, headers=ana).text
    rows = fetch(api.world, "SELECT count(*) FROM audit_log")
    path = f"/v1/documents/{submitted.document_id}"
    document = {"external_id": "e", "text": "new", "labels": {"allow": ["public"]}}
    with read_only(database_url):
        reconnected(api)
        for method, at, body in (("POST", "/v1/search", BODY), ("GET", path, None), ("GET", f"{path}/text", None),
                                 ("GET", "/v1/documents", None), ("POST", "/v1/documents", document),
                                 ("PUT", f"{path}/labels", document["labels"]), ("DELETE", path, None)):  # fmt: skip
            who = ana if method == "GET" or at == "/v1/search" else key
            answer = asked(api, method, at, body, who)
            assert (answer.status_code, answer.json()["code"]) == (503, "store_unavailable"), (at, answer.text)
            assert int(answer.headers["Retry-After"]) > 0 and "red lamp" not in answer.text
        refused = asked(api, "POST", "/v1/documents", document, ana)  # a refusal leaves a row as well
        assert refused.status_code == 503
        assert fetch(api.world, "SELECT count(*) FROM audit_log") == rows
    reconnected(api)
    assert SECRET in asked(api, "POST", "/v1/search", BODY, ana).text


def asked(api: Api, method: str, at: str, body: object, headers: dict[str, str]) -> httpx.Response:
    """The answer, which comes long before the search's deadline."""
    started = time.monotonic()
    answer = api.http.request(method, at, json=body, headers=headers)
    assert time.monotonic() - started < 5
    return answer


def reconnected(api: Api) -> None:
    """Until the pools have let go of the connections that were ended under them."""
    store, quiet = api.world.store, 0
    while quiet < 5:
        quiet += 1
        for pool in (store.app, store.maintenance):
            try:
                with pool.connection() as conn:
                    conn.execute("SELECT 1")
            except psycopg.OperationalError:
                quiet = 0
