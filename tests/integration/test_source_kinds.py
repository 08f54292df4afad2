"""A source of each kind, refreshed with an edit, a delete, a change of permissions and an outage in between."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from ingest.schedule import add_source
from store.pool import writing
from tests.integration.conftest import ANA, BEN, Site
from tests.stages import KINDS, STAFF, Stage, staged


@pytest.fixture(params=[kind for kind in KINDS if kind != "folder"])  # which has tests of its own
def stage(request: pytest.FixtureRequest, database_url: str, tmp_path: Path) -> Iterator[Stage]:
    with staged(request.param, tmp_path / "stage", database_url) as made:
        yield made


def texts(site: Site, subject: str) -> set[str]:
    """The last word of each text that they see: `text of a` and what comes of it."""
    return {text.split()[-1] for text in site.seen_by(subject).values()}


def test_each_kind_is_kept_in_line_with_what_it_is(site: Site, stage: Stage) -> None:
    stage.put("a", "the first text alpha")
    stage.put("b", "the second text beta")
    config, tenant_id = stage.config, site.world.tenant_id
    source = add_source(site.world.store, tenant_id, "staged", stage.kind, config, STAFF, None, 0.5)
    staged_site = replace(site, source_id=source.id)
    job = staged_site.refresh()
    assert (job.state, job.detail.get("counts")) == ("done", {"new": 2}), job
    assert texts(staged_site, BEN) == {"alpha", "beta"}
    assert len(staged_site.embedder.take()) == 2
    assert staged_site.refresh().detail["counts"] == {"unchanged": 2}

    stage.put("a", "the first text gamma")
    counts = staged_site.refresh().detail["counts"]
    assert counts == ({"changed": 1, "unchanged": 1} if stage.edits else {"new": 1, "unchanged": 1, "deleted": 1})
    assert texts(staged_site, BEN) == {"gamma", "beta"} and len(staged_site.embedder.take()) == 1

    before = staged_site.source
    with stage.outage():
        job = staged_site.refresh()
        assert job.state in ("failed", "accepted") and job.error
        assert texts(staged_site, BEN) == {"gamma", "beta"}
    with writing(site.world.store) as conn:  # what is put back waits for its next try: here another is asked for
        conn.execute("UPDATE jobs SET state = 'failed' WHERE state = 'accepted'")
    assert staged_site.source.content_as_of == before.content_as_of
    assert staged_site.refresh().detail["counts"] == {"unchanged": 2}
    assert staged_site.source.content_as_of > before.content_as_of  # type: ignore[operator]

    if type(stage).close_b is not Stage.close_b:
        stage.close_b()
        job = staged_site.refresh(permissions_only=True)
        assert job.detail["counts"] == {"relabelled": 1, "unchanged": 1}
        assert texts(staged_site, BEN) == {"gamma"} and "beta" in texts(staged_site, ANA)
        assert staged_site.embedder.take() == []

    stage.remove("a")
    assert staged_site.refresh().detail["counts"]["deleted"] == 1
    assert "gamma" not in texts(staged_site, ANA) and len(texts(staged_site, ANA)) == 1
    assert staged_site.embedder.take() == []
