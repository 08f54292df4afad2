"""Submission, labels, deletion and publication: what holds when, for whom, and what a late worker may still do."""

import random
from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest

from core.errors import Invalid, NotFound, VersionConflict
from core.records import Labels, Submission, Submitted
from ingest.erase import erase
from store import access, documents, jobs, sources
from store.pool import reading_tenant, writing
from tests.conftest import World
from tests.integration.rows import fetch, readers

HR, STAFF = "group:hr", "group:staff"


@pytest.fixture(autouse=True)
def groups(world: World) -> None:
    """Hana is in hr and staff, Sam in staff only, Otto in neither."""
    world.groups({HR: ["user:hana"], STAFF: ["user:hana", "user:sam"]})


def in_force(world: World, document_id: UUID) -> Labels:
    """The document's labels now."""
    with writing(world.store) as conn:
        (row,) = conn.execute("SELECT label_set_id FROM documents WHERE id = %s", (document_id,)).fetchall()
        return access.labels_of(conn, row[0])


def resubmit(world: World, external_id: str, text: str, labels: Labels, **more: Any) -> Submitted:
    """Submit through the store with metadata or an expected version."""
    expected = more.pop("expected", None)
    submission = Submission(external_id, text.encode(), labels, mime_type="text/plain", **more)
    key = world.blobs.put(submission.content)
    with writing(world.store) as conn:
        source_id = sources.ensure_api_source(conn, world.tenant_id, "api").id
        return documents.submit(conn, world.tenant_id, source_id, submission, key, expected)


def relabel(world: World, document_id: UUID, *allow: str, expected: int | None = None) -> int:
    """PUT labels."""
    with writing(world.store) as conn:
        return documents.change_labels(conn, world.tenant_id, document_id, Labels(allow), expected)


def job_of(world: World, job_id: UUID | None) -> Any:
    """A job's row."""
    assert job_id is not None
    with writing(world.store) as conn:
        return jobs.get(conn, job_id)


# --- what a submission does ---------------------------------------------------------------------------------------


def test_new_unchanged_changed(world: World) -> None:
    first = world.add("d", "one", (STAFF,))
    assert (first.version, first.unchanged) == (1, False)
    again = world.submit("d", "one", (STAFF,))
    assert again == Submitted(first.document_id, 1, None, unchanged=True)
    assert len(fetch(world, "SELECT id FROM jobs")) == 1
    changed = world.submit("d", "two", (STAFF,))
    assert (changed.document_id, changed.version, changed.unchanged) == (first.document_id, 2, False)
    assert readers(world, first.document_id)["user:sam"] == "one"  # until the second is indexed
    world.index(changed)
    assert readers(world, first.document_id)["user:sam"] == "two"


def test_the_same_again_while_pending_is_unchanged(world: World) -> None:
    first = world.submit("d", "one", (STAFF,))
    assert world.submit("d", "one", (STAFF,)) == Submitted(first.document_id, 1, None, unchanged=True)


def test_a_title_or_a_declared_type_is_content(world: World) -> None:
    world.add("d", "one", title="First")
    assert world.submit("d", "one", title="Second").version == 2
    labels = Labels(("public",))
    assert resubmit(world, "d", "one", labels, title="Second").unchanged
    with writing(world.store) as conn:
        source_id = sources.ensure_api_source(conn, world.tenant_id, "api").id
        other = Submission("d", b"one", labels, title="Second", mime_type="text/markdown")
        assert documents.submit(conn, world.tenant_id, source_id, other, world.blobs.put(b"one")).version == 3


def test_the_same_id_in_another_source_is_another_document(world: World) -> None:
    here, there = world.add("d", "one"), world.add("d", "one", source="elsewhere")
    assert here.document_id != there.document_id and there.version == 1


def test_relabelling_makes_no_version_and_embeds_nothing(world: World) -> None:
    first = world.add("d", "one", (STAFF,))
    before = fetch(world, "SELECT id FROM chunks")
    again = world.submit("d", "one", (HR,))
    assert (again.version, again.unchanged) == (1, False)
    job = job_of(world, again.job_id)
    assert job.state == "done" and job.seq is not None and job.attempts == 0
    assert readers(world, first.document_id) == {"user:hana": "one"}
    assert fetch(world, "SELECT id FROM chunks") == before
    assert len(fetch(world, "SELECT FROM versions")) == 1


def test_metadata_alone_makes_no_version(world: World) -> None:
    labels = Labels((STAFF,))
    first = resubmit(world, "d", "one", labels, metadata={"team": "ops"}, uri="https://a.example/1")
    world.index(first)
    for metadata, uri in (({"team": "it"}, "https://a.example/1"), ({"team": "it"}, "https://a.example/2")):
        again = resubmit(world, "d", "one", labels, metadata=metadata, uri=uri)
        assert (again.version, again.unchanged) == (1, False)
        assert job_of(world, again.job_id).state == "done"
        assert fetch(world, "SELECT metadata, uri FROM documents") == [(metadata, uri)]
        assert resubmit(world, "d", "one", labels, metadata=metadata, uri=uri).unchanged
    assert readers(world, first.document_id).keys() == {"user:hana", "user:sam"}


def test_metadata_that_python_takes_for_equal_is_a_change(world: World) -> None:
    resubmit(world, "d", "one", Labels(), metadata={"active": True, "n": 0})
    assert not resubmit(world, "d", "one", Labels(), metadata={"active": 1, "n": 0}).unchanged
    assert not resubmit(world, "d", "one", Labels(), metadata={"active": 1, "n": False}).unchanged
    assert fetch(world, "SELECT metadata ->> 'active', metadata ->> 'n' FROM documents") == [("1", "false")]


def test_a_thousand_labels_fit(world: World) -> None:
    people = tuple(sorted(f"user:{UUID(int=7**n % 2**128)}" for n in range(1000)))
    submitted = world.add("d", "shared by hand", people)
    assert world.submit("d", "shared by hand", people).unchanged
    assert in_force(world, submitted.document_id).allow == people


def test_what_no_index_holds_is_invalid_and_not_a_passing_failure(world: World) -> None:
    name = random.Random(1).randbytes(8000).hex()  # a btree takes rows of 2704 bytes
    with pytest.raises(Invalid), writing(world.store) as conn:
        sources.ensure_api_source(conn, world.tenant_id, name)


# --- labels over time ---------------------------------------------------------------------------------------------


def test_narrowing_holds_at_submission_for_the_text_that_is_read(world: World) -> None:
    first = world.add("d", "one", (HR, STAFF))
    second = world.submit("d", "two", (HR,))
    assert readers(world, first.document_id) == {"user:hana": "one"}
    world.index(second)
    assert readers(world, first.document_id) == {"user:hana": "two"}


def test_deny_and_classification_narrow_at_submission_too(world: World) -> None:
    first = world.add("d", "one", (STAFF,))
    world.submit("d", "two", (STAFF,), deny=(HR,))
    assert readers(world, first.document_id) == {"user:sam": "one"}
    world.submit("d", "three", (STAFF,), classification="restricted")
    assert readers(world, first.document_id) == {}


def test_widening_holds_when_the_version_is_indexed(world: World) -> None:
    first = world.add("d", "one", (HR,))
    second = world.submit("d", "two", (HR, STAFF))
    assert readers(world, first.document_id) == {"user:hana": "one"}
    world.index(second)
    assert readers(world, first.document_id) == {"user:hana": "two", "user:sam": "two"}


def test_neither_wider_nor_narrower_is_closed_until_indexed(world: World) -> None:
    first = world.add("d", "one", (HR,))
    second = world.submit("d", "two", ("user:otto",))
    assert readers(world, first.document_id) == {}
    world.index(second)
    assert readers(world, first.document_id) == {"user:otto": "two"}


def test_a_failed_version_keeps_the_narrow_labels(world: World) -> None:
    first = world.add("d", "one", (HR, STAFF))
    second = world.submit("d", "two", (HR,))
    with writing(world.store) as conn:
        lease = jobs.claim(conn, second.job_id or first.document_id, 60)
        assert lease is not None
        jobs.fail(conn, lease, "corrupt_document", "it is cut off")
    assert fetch(world, "SELECT state FROM versions WHERE version = 2") == [("failed",)]
    assert readers(world, first.document_id) == {"user:hana": "one"}


def test_a_wide_version_under_way_does_not_reopen_what_a_later_one_narrowed(world: World) -> None:
    first = world.add("d", "one", (HR,))
    wide = world.submit("d", "two", (HR, STAFF))
    narrow = world.submit("d", "three", (HR,))
    world.index(wide)
    assert readers(world, first.document_id) == {"user:hana": "two"}
    world.index(narrow)
    assert readers(world, first.document_id) == {"user:hana": "three"}


def test_narrowing_holds_while_the_first_version_is_under_way(world: World) -> None:
    wide = world.submit("d", "one", (HR, STAFF))
    world.submit("d", "two", (HR,))
    world.index(wide)
    assert readers(world, wide.document_id) == {"user:hana": "one"}


def test_widening_a_version_under_way_does_not_open_the_text_that_is_read(world: World) -> None:
    first = world.add("d", "the salaries", (HR,))
    second = world.submit("d", "redacted", (HR,))
    again = world.submit("d", "redacted", (HR, STAFF))  # the same bytes, wider: the second version's labels alone
    assert (again.version, again.unchanged, again.job_id) == (2, False, second.job_id)
    assert readers(world, first.document_id) == {"user:hana": "the salaries"}
    world.index(second)
    assert readers(world, first.document_id) == {"user:hana": "redacted", "user:sam": "redacted"}


def test_new_metadata_for_a_wide_version_under_way_does_not_open_the_text_that_is_read(world: World) -> None:
    first = world.add("d", "the salaries", (HR,))
    second = world.submit("d", "redacted", (HR, STAFF))
    again = resubmit(world, "d", "redacted", Labels((HR, STAFF)), metadata={"team": "ops"})
    assert again.job_id == second.job_id
    assert readers(world, first.document_id) == {"user:hana": "the salaries"}
    world.index(second)
    assert readers(world, first.document_id).keys() == {"user:hana", "user:sam"}


def test_narrowing_a_version_under_way_closes_the_text_that_is_read(world: World) -> None:
    first = world.add("d", "one", (HR, STAFF))
    second = world.submit("d", "two", (HR, STAFF))
    world.submit("d", "two", (HR,))
    assert readers(world, first.document_id) == {"user:hana": "one"}
    world.index(second)
    assert readers(world, first.document_id) == {"user:hana": "two"}


def test_labels_put_while_a_version_is_under_way_outlast_it(world: World) -> None:
    first = world.add("d", "one", (HR, STAFF))
    second = world.submit("d", "two", (HR, STAFF))
    relabel(world, first.document_id, HR)
    assert readers(world, first.document_id) == {"user:hana": "one"}
    world.index(second)
    assert readers(world, first.document_id) == {"user:hana": "two"}
    relabel(world, first.document_id, "public")
    assert readers(world, first.document_id).keys() == {"user:hana", "user:sam", "user:otto"}


def test_opening_a_document_does_not_open_what_it_once_said(world: World) -> None:
    first = world.add("d", "the salaries", (HR,))
    world.add("d", "redacted", (HR,))
    relabel(world, first.document_id, STAFF, HR)
    with reading_tenant(world.store, world.tenant_id) as conn:
        access.enter_scope(conn, world.who("user:sam"))
        assert documents.read_text(conn, first.document_id, None, 0, None).text == "redacted"
        with pytest.raises(NotFound):
            documents.read_text(conn, first.document_id, 1, 0, None)


def test_an_expected_version_that_is_not_the_latest_changes_nothing(world: World) -> None:
    first = world.add("d", "one", (STAFF,))
    world.submit("d", "two", (STAFF,))
    before = fetch(world, "SELECT latest_version, label_set_id FROM documents")
    stale: list[Callable[[], object]] = [
        lambda: resubmit(world, "d", "three", Labels((HR,)), expected=1),
        lambda: relabel(world, first.document_id, HR, expected=1),
        lambda: erase(world.store, world.blobs, world.tenant_id, first.document_id, by="t", expected=1),
        lambda: resubmit(world, "absent", "one", Labels(), expected=1),
    ]
    for call in stale:
        with pytest.raises(VersionConflict):
            call()
    assert fetch(world, "SELECT latest_version, label_set_id FROM documents") == before
    relabel(world, first.document_id, HR, expected=2)
    assert resubmit(world, "d", "three", Labels((HR,)), expected=2).version == 3
