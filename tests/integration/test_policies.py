"""Policies through the pipeline: what is stored, what a job says, and what a change of policy does to what is there."""

import json
import logging
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest
from click.testing import CliRunner

from cli.main import citadel
from core.records import Labels, Submission
from core.sensitive import Policy, read_policy
from ingest.attempt import attempt
from ingest.pipeline import Pipeline
from ingest.reread import read_again
from ingest.submit import submit
from store import operations, policies, turns
from store.audit import Actor
from store.pool import writing
from store.traces import traces
from tests.conftest import Api, World
from tests.integration.conftest import Site
from tests.integration.rows import fetch

CARD = "4111 1111 1111 1111"
TEXT = f"# Refunds\n\nThe card {CARD} was refunded.\n\nWrite to ana@acme.example about it."
MASKED = TEXT.replace(CARD, "[CARD]")


def index(world: World, pipeline: Pipeline, text: str = TEXT, external_id: str = "refunds.md") -> tuple[UUID, str]:
    """Submit and try; the document, and how it ended."""
    submission = Submission(external_id, text.encode(), Labels(("public",)), mime_type="text/markdown")
    kept = submit(world.store, world.blobs, world.tenant_id, submission, default_labels=False, expected=None)
    assert kept.job_id is not None
    return kept.document_id, attempt(pipeline, kept.job_id)


def set_policy(world: World, **changes: str) -> None:
    with writing(world.store) as conn:
        policies.change(conn, world.tenant_id, None, {**_policy(changes)}, ())


def _policy(changes: dict[str, str]) -> Policy:
    whole = read_policy(",".join(f"{kind}={action}" for kind, action in changes.items()))
    return {kind: action for kind, action in whole.items() if kind in changes}


def work(world: World, pipeline: Pipeline) -> list[str]:
    """Try every open job."""
    with writing(world.store) as conn:
        waiting = turns.take_unsent(conn, "index", 100, 3600, 3600)
    return [attempt(pipeline, job_id) for job_id in waiting]


def read_stale(world: World, pipeline: Pipeline, everything: bool = False) -> list[str]:
    read_again(world.store, world.tenant_id, None, pipeline.policy, everything=everything)
    return work(world, pipeline)


def stale(world: World, pipeline: Pipeline, everything: bool = False) -> int:
    with writing(world.store) as conn:
        return policies.count_stale(conn, world.tenant_id, None, pipeline.policy, everything)


def text_of(world: World, document_id: UUID) -> str | None:
    rows = fetch(world, "SELECT v.text FROM documents d JOIN versions v ON v.document_id = d.id "
                 "AND v.version = d.current_version WHERE d.id = %s", document_id)  # fmt: skip
    return str(rows[0][0]) if rows else None


def held(world: World, document_id: UUID, secret: str = CARD) -> dict[str, int]:
    """Tables that hold the secret."""
    with writing(world.store) as conn:
        found = traces(conn, document_id, secret)
        without = traces(conn, document_id, None)
    return {table: count for table, count in found.items() if count != without.get(table, 0)}


def test_by_default_passages_are_flagged_and_the_job_counts(world: World, pipeline: Pipeline) -> None:
    document_id, ended = index(world, pipeline)
    assert ended == "done" and text_of(world, document_id) == TEXT
    (detail,) = fetch(world, "SELECT detail FROM jobs")[0]
    assert detail["sensitive"] == {"card": 1, "email": 1}
    assert fetch(world, "SELECT DISTINCT unnest(flags) FROM chunks ORDER BY 1") == [("card",), ("email",)]


def test_what_is_masked_is_in_no_table_and_spans_stay_true(
    world: World, pipeline: Pipeline, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    set_policy(world, card="mask")
    document_id, ended = index(world, pipeline)
    assert ended == "done" and text_of(world, document_id) == MASKED
    assert held(world, document_id) == {} and CARD not in caplog.text
    rows = fetch(world, "SELECT c.text = substr(v.text, c.start_offset + 1, c.end_offset - c.start_offset) "
                 "FROM chunks c JOIN versions v USING (document_id, version)")  # fmt: skip
    assert rows and all(true for (true,) in rows)


def test_a_files_name_that_stands_for_a_title_is_screened_as_one(world: World, pipeline: Pipeline) -> None:
    def sent(name: str) -> tuple[UUID, str]:
        told = Submission(
            name, b"Nothing here.", Labels(("public",)), mime_type="text/plain", filename=f"of {CARD}.txt"
        )
        kept = submit(world.store, world.blobs, world.tenant_id, told, default_labels=False, expected=None)
        assert kept.job_id is not None
        return kept.document_id, attempt(pipeline, kept.job_id)

    set_policy(world, card="mask")
    document_id, ended = sent("a")
    assert ended == "done"
    assert fetch(world, "SELECT title FROM documents WHERE id = %s", document_id) == [("of [CARD].txt",)]
    set_policy(world, card="quarantine")
    assert sent("b")[1] == "quarantined"


def test_quarantine_ends_the_job_with_kind_and_count_and_stores_nothing(world: World, pipeline: Pipeline) -> None:
    set_policy(world, card="quarantine")
    document_id, ended = index(world, pipeline)
    assert ended == "quarantined" and text_of(world, document_id) is None and held(world, document_id) == {}
    state, code, error = fetch(world, "SELECT state, error_code, error FROM jobs")[0]
    assert (state, code) == ("quarantined", "sensitive_content") and "1 × card" in error
    assert index(world, pipeline, "# Clean\n\nNothing here.", "clean.md")[1] == "done"

    set_policy(world, card="mask")  # and the job may be tried again
    with writing(world.store) as conn:
        (job_id,) = [row[0] for row in fetch(world, "SELECT id FROM jobs WHERE state = 'quarantined'")]
        assert operations.retry(conn, world.tenant_id, [job_id], Actor("service:test")) == 1
    assert work(world, pipeline) == ["done"] and text_of(world, document_id) == MASKED


def test_a_change_reads_again_what_it_is_about_and_takes_away_what_it_bars(world: World, pipeline: Pipeline) -> None:
    document_id, _ = index(world, pipeline)
    clean, _ = index(world, pipeline, "# Clean\n\nNothing here.", "clean.md")
    assert stale(world, pipeline) == 0
    set_policy(world, card="mask")
    assert stale(world, pipeline) == 1  # the clean one was looked through for cards
    assert read_stale(world, pipeline) == ["done"] and stale(world, pipeline) == 0
    assert text_of(world, document_id) == MASKED and held(world, document_id) == {}
    assert fetch(world, "SELECT version FROM versions WHERE document_id = %s", document_id) == [(2,)]
    assert fetch(world, "SELECT version FROM versions WHERE document_id = %s", clean) == [(1,)]

    # The same bytes again change nothing.
    submission = Submission("refunds.md", TEXT.encode(), Labels(("public",)), mime_type="text/markdown")
    kept = submit(world.store, world.blobs, world.tenant_id, submission, default_labels=False, expected=None)
    assert kept.unchanged


def test_a_replaced_version_that_holds_what_is_barred_goes_too(world: World, pipeline: Pipeline) -> None:
    document_id, _ = index(world, pipeline)
    index(world, pipeline, "# Refunds\n\nNone.")
    set_policy(world, card="quarantine")
    assert stale(world, pipeline) == 1
    assert read_stale(world, pipeline) == ["done"] and stale(world, pipeline) == 0
    assert held(world, document_id) == {} and text_of(world, document_id) == "# Refunds\n\nNone."


def test_a_text_that_is_read_goes_when_the_policy_comes_to_keep_it_out(world: World, pipeline: Pipeline) -> None:
    document_id, _ = index(world, pipeline)
    set_policy(world, card="quarantine")
    assert read_stale(world, pipeline) == ["quarantined"]
    assert text_of(world, document_id) is None and held(world, document_id) == {}
    for table in ("chunks", f"vectors_{world.profile.id}", f"tokens_{world.profile.id}"):
        assert fetch(world, f"SELECT count(*) FROM {table}") == [(0,)]  # noqa: S608
    assert stale(world, pipeline) == 0


def test_new_bytes_that_are_kept_out_leave_the_text_before_them(world: World, pipeline: Pipeline) -> None:
    set_policy(world, card="quarantine")
    document_id, _ = index(world, pipeline, "# Refunds\n\nNone yet.")
    assert index(world, pipeline)[1] == "quarantined"
    assert text_of(world, document_id) == "# Refunds\n\nNone yet." and held(world, document_id) == {}


def test_texts_from_before_there_was_a_policy(world: World, pipeline: Pipeline) -> None:
    """They are read again for what masks and keeps out, and to be flagged only when that is asked for."""
    document_id, _ = index(world, pipeline)
    with writing(world.store) as conn:
        conn.execute("UPDATE versions SET screened = NULL, flags = '[]'")
    assert (stale(world, pipeline), stale(world, pipeline, everything=True)) == (0, 1)
    set_policy(world, card="mask")
    assert stale(world, pipeline) == 1
    assert read_stale(world, pipeline) == ["done"] and text_of(world, document_id) == MASKED


def test_a_source_goes_before_its_tenant_and_a_refresh_reads_again(site: Site) -> None:
    site.write("refunds.md", TEXT)
    site.refresh()
    set_policy(site.world, card="mask", email="mask")
    with writing(site.world.store) as conn:
        policies.change(conn, site.world.tenant_id, site.source_id, {"email": "flag"}, ())
    assert site.refresh().detail["counts"] == {"unchanged": 1, "read_again": 1}
    assert site.refresh().detail["counts"] == {"unchanged": 1}
    assert fetch(site.world, "SELECT text FROM versions") == [(MASKED,)]


def test_flags_filter_a_search_and_are_told_with_its_passages(world: World, pipeline: Pipeline, api: Api) -> None:
    index(world, pipeline)
    index(world, pipeline, "# Clean\n\nNothing was refunded here.", "clean.md")
    headers = api.key("agent", "search")

    def ask(filters: dict[str, object]) -> httpx.Response:
        return api.http.post("/v1/search", json={"query": "refunded", "filters": filters}, headers=headers)

    def found(filters: dict[str, object]) -> dict[str, list[str]]:
        return {each["citation"]["external_id"]: each["flags"] for each in ask(filters).json()["passages"]}

    assert found({"flags": "card"}) == {"refunds.md": ["card", "email"]}
    assert set(found({"flags": {"$ne": "card"}})) == {"clean.md"}
    assert set(found({"flags": {"$in": ["phone", "email"]}})) == {"refunds.md"}
    assert ask({"flags": {"$gt": "a"}}).status_code == 400


def test_the_commands(world: World, pipeline: Pipeline, app_url: str, maintenance_url: str, tmp_path: Path) -> None:
    index(world, pipeline)
    env = {"CITADEL_APP_DATABASE_URL": app_url, "CITADEL_MAINTENANCE_DATABASE_URL": maintenance_url,
           "CITADEL_STATE": str(tmp_path)}  # fmt: skip

    def say(*words: str) -> Any:
        done = CliRunner().invoke(citadel, ["policy", *words, "--json"], env=env)
        assert done.exit_code == 0, done.output
        assert CARD not in done.output
        return json.loads(done.stdout)

    assert say("show")["policy"] == read_policy("flag")
    changed = say("set", "card=quarantine", "all=off")
    assert changed["policy"]["card"] == "off"  # the last word holds
    changed = say("set", "all=default", "card=quarantine")
    assert (changed["own"], changed["to_read_again"]) == ({"card": "quarantine"}, 1)
    (tmp_path / "statement.txt").write_text(TEXT)
    tried = say("try", str(tmp_path / "statement.txt"))
    assert tried["outcome"].startswith("quarantined") and tried["found"][0] == {
        "kind": "card", "found": 1, "action": "quarantine"}  # fmt: skip
    assert say("set", "card=quarantine", "--now")["accepted"] == 1 and work(world, pipeline) == ["quarantined"]
    assert say("show")["held_back"] == 1
    assert say("set", "card=mask", "--now")["accepted"] == 1 and work(world, pipeline) == ["done"]
    rows = fetch(world, "SELECT detail FROM audit WHERE action = 'policy.change' ORDER BY seq")
    assert rows[-1][0] == {"set": {"card": "mask"}, "unset": []}
    wrong = CliRunner().invoke(citadel, ["policy", "set", "card=hide"], env=env)
    assert wrong.exit_code == 2 and "KIND=ACTION" in wrong.stderr
