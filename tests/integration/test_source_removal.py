"""A source that is removed is read no more; its documents stay as they were, or leave as all that is deleted does."""

from uuid import UUID

import pytest
from click.testing import CliRunner

from cli.main import citadel
from core.errors import LeaseLost, NotFound
from ingest.attempt import attempt
from ingest.refresh import refresh
from ingest.removal import delete_source, remove
from ingest.schedule import request_refresh, schedule_due
from ingest.sources.open import open_source
from store import jobs, sources
from store.audit import Actor
from store.pool import writing
from tests.integration.conftest import ANA, BEN, Site
from tests.integration.rows import fetch
from tests.integration.test_refresh import filled

BY = Actor("service:test")


def removed(site: Site, *, keep: bool) -> UUID | None:
    return remove(site.world.store, site.world.tenant_id, "files", keep=keep, by=BY)


def told(site: Site) -> list[tuple[object, ...]]:
    query = "SELECT actor, resource, detail FROM audit_log WHERE action = 'source.change' AND detail ? 'removed'"
    return fetch(site.world, query)


def test_kept_documents_are_found_as_before_and_refreshed_no_more(site: Site) -> None:
    filled(site)
    before, held = site.seen_by(ANA), request_refresh(site.world.store, site.world.tenant_id, site.source_id)
    assert removed(site, keep=True) is None
    assert site.seen_by(ANA) == before and set(site.seen_by(BEN)) == {"a.md", "b.txt"}
    assert attempt(site.pipeline, held) == "skipped" and site.job(held).state == "cancelled"
    assert schedule_due(site.world.store) == 0 and site.source.kind == "api" and site.source.config == {}
    assert told(site) == [("service:test", "source:files", {"removed": "folder", "documents": 3, "kept": True})]


def test_deleted_documents_leave_tombstones_and_take_the_source_with_them(site: Site) -> None:
    filled(site)
    blobs = [site.blob_of(name) for name in site.documents()]
    job_id = removed(site, keep=False)
    assert job_id is not None and site.index() == {}
    assert attempt(site.pipeline, job_id) == "done"
    assert (site.job(job_id).state, site.job(job_id).detail["counts"]) == ("done", {"deleted": 3})
    assert site.seen_by(ANA) == {} and not any(site.world.blobs.has(key) for key in blobs)
    assert fetch(site.world, "SELECT count(*), min(erased_by), count(unfinished) FROM tombstones") == [
        (3, "service:test", 0)
    ]
    with pytest.raises(NotFound):
        _ = site.source
    assert told(site) == [("service:test", "source:files", {"removed": "folder", "documents": 3, "kept": False})]


def test_a_refresh_that_is_under_way_changes_nothing_any_more(site: Site) -> None:
    filled(site)
    job_id = request_refresh(site.world.store, site.world.tenant_id, site.source_id)
    with writing(site.world.store) as conn:
        lease = jobs.claim(conn, job_id, 60)
    assert lease is not None
    source = site.source
    removed(site, keep=False)
    with pytest.raises(LeaseLost):
        refresh(site.world.store, site.world.blobs, source, open_source(source), hold=lambda c: jobs.hold(c, lease))


def test_a_worker_that_lost_the_job_deletes_nothing(site: Site) -> None:
    filled(site)
    job_id = removed(site, keep=False)
    assert job_id is not None
    with writing(site.world.store) as conn:
        lease = jobs.claim(conn, job_id, -1)
        assert lease is not None and jobs.claim(conn, job_id, 60) is not None
    with pytest.raises(LeaseLost):
        delete_source(site.world.store, site.world.blobs, lease)
    assert len(site.documents()) == 3


def test_the_name_is_free_at_once(site: Site) -> None:
    filled(site)
    removed(site, keep=False)
    with writing(site.world.store) as conn:
        assert sources.ensure_api_source(conn, site.world.tenant_id, "files").id != site.source_id


def test_the_command_does_nothing_until_it_is_told_what_with_the_documents(
    site: Site, app_url: str, maintenance_url: str
) -> None:
    filled(site)
    env = {"CITADEL_APP_DATABASE_URL": app_url, "CITADEL_MAINTENANCE_DATABASE_URL": maintenance_url}

    def run(*options: str) -> str:
        result = CliRunner().invoke(citadel, ["sources", "remove", "files", *options], env=env)
        return f"{result.exit_code} {result.output}"

    for options in ((), ("--keep", "--delete")):
        assert run(*options).startswith("2 ") and "has 3 documents: say --keep or --delete" in run(*options)
    assert site.source.kind == "folder"
    assert run("--keep", "--json").startswith("0 ") and site.source.kind == "api"
