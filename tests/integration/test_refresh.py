"""Refreshing a folder: new, changed, moved, relabelled and deleted files each do exactly what they should."""

import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from uuid import uuid4

import pytest

from core.errors import LeaseLost, Misconfigured, SourceUnavailable
from core.records import Labels, Submission
from ingest.attempt import attempt
from ingest.erase import erase
from ingest.refresh import RefreshReport, refresh
from ingest.schedule import request_refresh
from ingest.source import DocumentSource, Listed, Page
from ingest.sources.memory import memory_of
from ingest.sources.open import open_source
from store import jobs
from store.pool import writing
from tests.integration.conftest import ANA, BEN, Site

RULES = """
version: 1
default: {allow: [group:staff]}
rules:
  - {path: "finance/**", allow: [group:finance]}
"""
TWO_PARTS = "# One\n\n" + "alpha " * 150 + "\n\n# Two\n\n" + "beta " * 150  # more than one chunk of 200 tokens


@dataclass(frozen=True, slots=True)
class Watched:
    """A source that remembers what was read of it."""

    inner: DocumentSource
    fetched: list[str] = field(default_factory=list)

    def enumerate(self, cursor: str | None = None) -> Iterator[Page]:
        return self.inner.enumerate(cursor)

    def permissions(self, item: Listed) -> Labels:
        return self.inner.permissions(item)

    def fetch(self, item: Listed, labels: Labels) -> Submission:
        self.fetched.append(item.external_id)
        return self.inner.fetch(item, labels)


def run(site: Site, reader: DocumentSource, *, allow_mass_delete: bool = False) -> RefreshReport:
    """A refresh outside any job."""
    return refresh(site.world.store, site.world.blobs, site.source, reader, allow_mass_delete=allow_mass_delete)


def filled(site: Site) -> Site:
    """Three files, ingested: two for staff, one for finance; nothing is left to embed."""
    site.write(".citadel.yaml", RULES)
    site.write("a.md", TWO_PARTS)
    site.write("b.txt", "the bee text")
    site.write("finance/plan.md", "# Plan\n\nthe plan text")
    assert site.refresh().detail["counts"] == {"new": 3}
    site.embedder.take()
    return site


# --- first, and nothing changed -------------------------------------------------------------------------------------


def test_a_first_refresh_brings_in_every_file_under_its_labels(site: Site) -> None:
    site.write(".citadel.yaml", RULES)
    site.write("a.md", TWO_PARTS)
    site.write("finance/plan.md", "the plan text")
    job = site.refresh()
    assert (job.state, job.attempts, job.detail) == ("done", 1, {"counts": {"new": 2}, "problems": [],
                                                                 "allow_mass_delete": False})  # fmt: skip
    assert set(site.seen_by(ANA)) == {"a.md", "finance/plan.md"}
    assert set(site.seen_by(BEN)) == {"a.md"}
    assert site.seen_by("user:stranger@acme.example") == {}
    assert site.source.last_success_at is not None
    texts = site.embedder.take()
    assert len(texts) == site.chunks_of("a.md") + site.chunks_of("finance/plan.md") and len(texts) > 2


def test_without_any_label_only_an_operator_sees_a_file(site: Site) -> None:
    site.write("a.md", "the a text")
    site.refresh()
    assert site.seen_by(ANA) == {} and site.seen_by(BEN) == {}
    assert site.documents()["a.md"].version == 1


def test_when_nothing_changed_nothing_is_read_or_embedded(site: Site) -> None:
    filled(site)
    watched = Watched(open_source(site.source))
    report = run(site, watched)
    assert report.counts == {"unchanged": 3} and watched.fetched == []
    assert site.index() == {} and site.embedder.take() == []


def test_a_touched_file_is_read_and_nothing_more(site: Site) -> None:
    filled(site)
    os.utime(site.folder / "b.txt", (1, 1))
    watched = Watched(open_source(site.source))
    assert run(site, watched).counts == {"unchanged": 3} and watched.fetched == ["b.txt"]
    assert site.index() == {} and site.embedder.take() == []
    again = Watched(open_source(site.source))
    run(site, again)
    assert again.fetched == []


# --- changed --------------------------------------------------------------------------------------------------------


def test_an_edit_embeds_exactly_that_files_chunks(site: Site) -> None:
    filled(site)
    before = site.documents()["a.md"]
    site.write("a.md", TWO_PARTS.replace("alpha", "gamma"))
    assert site.refresh().detail["counts"] == {"changed": 1, "unchanged": 2}
    texts = site.embedder.take()
    assert len(texts) == site.chunks_of("a.md") and all("gamma" in text or "beta" in text for text in texts)
    after = site.documents()["a.md"]
    assert (after.id, after.version) == (before.id, 2)
    assert "alpha" not in site.seen_by(BEN)["a.md"] and "gamma" in site.seen_by(BEN)["a.md"]
    assert [p for p in site.ask(BEN, "alpha", "lexical")] == []


def test_a_new_title_in_front_matter_is_in_what_is_embedded(site: Site) -> None:
    filled(site)
    site.write("b2.md", "---\ntitle: First\n---\nthe text")
    site.refresh()
    assert [text.startswith("First") for text in site.embedder.take()] == [True]
    site.write("b2.md", "---\ntitle: Second\n---\nthe text")
    site.refresh()
    assert [text.startswith("Second") for text in site.embedder.take()] == [True]
    assert site.documents()["b2.md"].title == "Second"


FINANCE_ONLY = "---\nlabels: {allow: [group:finance]}\n---\n"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("---\nlabels: {allow: [group:staff]}\n---\n", FINANCE_ONLY),
        ("", FINANCE_ONLY),
        ("---\r\nlabels: {allow: [group:staff]}\r\n---\r\n", FINANCE_ONLY.replace("\n", "\r\n")),
    ],
)
def test_labels_in_front_matter_change_labels_and_embed_nothing(site: Site, before: str, after: str) -> None:
    filled(site)
    site.write("a.md", f"{before}{TWO_PARTS}")
    site.refresh()
    site.embedder.take()
    document = site.documents()["a.md"]
    first = site.blob_of("a.md")
    site.write("a.md", f"{after}{TWO_PARTS}")
    assert site.refresh_only().detail["counts"] == {"relabelled": 1, "unchanged": 2}
    assert site.index() == {} and site.embedder.take() == []
    assert "a.md" not in site.seen_by(BEN) and site.seen_by(ANA)["a.md"].split() == TWO_PARTS.split()
    assert site.documents()["a.md"].version == document.version
    # Whoever asks the bytes for the labels, as a change of a rule does, finds those of now; the others are gone.
    assert site.world.blobs.get(site.blob_of("a.md")) == f"{after}{TWO_PARTS}".encode()
    assert not site.world.blobs.has(first)
    site.write(".citadel.yaml", RULES.replace("group:staff", "public"))
    assert site.refresh().detail["counts"] == {"relabelled": 1, "unchanged": 2}  # b.txt alone
    assert "a.md" not in site.seen_by(BEN)


def test_labels_in_front_matter_of_a_version_under_way_hold_when_it_is_indexed(site: Site) -> None:
    filled(site)
    site.write("a.md", "---\nlabels: {allow: [group:staff]}\n---\nanother text")
    site.refresh_only()
    site.write("a.md", f"{FINANCE_ONLY}another text")
    assert site.refresh().detail["counts"] == {"relabelled": 1, "unchanged": 2}
    assert site.embedder.take() == ["another text"]
    assert site.seen_by(ANA)["a.md"] == "another text" and "a.md" not in site.seen_by(BEN)


def test_metadata_in_front_matter_is_kept(site: Site) -> None:
    site.write("a.md", "---\nmetadata: {owner: Ana, since: 2025-01-31}\n---\nthe text")
    site.refresh()
    assert site.documents()["a.md"].metadata == {"owner": "Ana", "since": "2025-01-31"}


def test_an_edit_that_reverts_before_it_is_indexed_ends_at_the_files_bytes(site: Site) -> None:
    filled(site)
    site.write("b.txt", "the sea text")
    site.refresh_only()
    site.write("b.txt", "the bee text")
    site.refresh()
    assert site.seen_by(BEN)["b.txt"] == "the bee text"
    site.refresh()
    assert site.seen_by(BEN)["b.txt"] == "the bee text"


# --- moved ----------------------------------------------------------------------------------------------------------


def test_a_move_embeds_nothing_and_takes_the_labels_of_its_new_path(site: Site) -> None:
    filled(site)
    before = site.documents()["b.txt"]
    (site.folder / "b.txt").rename(site.folder / "finance" / "bee report.txt")
    assert site.refresh().detail["counts"] == {"moved": 1, "unchanged": 2}
    assert site.embedder.take() == []
    after = site.documents()["finance/bee report.txt"]
    assert (after.id, after.version) == (before.id, before.version)
    assert "b.txt" not in site.documents()
    assert after.uri == (site.folder / "finance" / "bee report.txt").as_uri()
    assert after.title == "bee report.txt"  # it has no title but its file's name
    assert set(site.seen_by(ANA)) == {"a.md", "finance/plan.md", "finance/bee report.txt"}
    assert set(site.seen_by(BEN)) == {"a.md"}
    assert site.refresh().detail["counts"] == {"unchanged": 3}


def test_a_move_out_of_a_closed_folder_opens_the_file(site: Site) -> None:
    filled(site)
    (site.folder / "finance/plan.md").rename(site.folder / "plan.md")
    assert site.refresh().detail["counts"] == {"moved": 1, "unchanged": 2}
    assert site.embedder.take() == []
    assert set(site.seen_by(BEN)) == {"a.md", "b.txt", "plan.md"}
    assert site.documents()["plan.md"].title == "Plan"  # its own heading, not the file's name


def test_a_moved_folder_moves_every_file_in_it(site: Site) -> None:
    site.write(".citadel.yaml", RULES)
    for n in range(4):
        site.write(f"old/{n}.txt", f"the text of {n}")
    site.refresh()
    before = {document.id for document in site.documents().values()}
    site.embedder.take()
    (site.folder / "old").rename(site.folder / "new")
    assert site.refresh().detail["counts"] == {"moved": 4}  # no mass deletion
    assert {document.id for document in site.documents().values()} == before
    assert set(site.seen_by(BEN)) == {f"new/{n}.txt" for n in range(4)} and site.embedder.take() == []


def test_of_two_copies_one_is_the_move_and_one_is_new(site: Site) -> None:
    filled(site)
    (site.folder / "b.txt").rename(site.folder / "x.txt")
    site.write("y.txt", "the bee text")
    assert site.refresh().detail["counts"] == {"moved": 1, "new": 1, "unchanged": 2}
    assert {"x.txt", "y.txt"} <= set(site.seen_by(BEN))


def test_a_copy_of_a_file_that_stays_is_new(site: Site) -> None:
    filled(site)
    site.write("finance/b.txt", "the bee text")
    before = site.documents()["b.txt"].id
    assert site.refresh().detail["counts"] == {"new": 1, "unchanged": 3}
    assert site.documents()["b.txt"].id == before != site.documents()["finance/b.txt"].id
    assert "finance/b.txt" not in site.seen_by(BEN)


def test_two_files_that_swap_names_end_with_each_others_text_and_the_labels_of_their_paths(site: Site) -> None:
    filled(site)
    os.utime(site.write("b.txt", "public words"), (9, 9))
    os.utime(site.write("finance/b.txt", "secret words"), (9, 9))
    site.refresh()
    for source, target in (("b.txt", "t"), ("finance/b.txt", "b.txt"), ("t", "finance/b.txt")):
        (site.folder / source).rename(site.folder / target)
    assert site.refresh().detail["counts"] == {"changed": 2, "unchanged": 2}
    assert site.seen_by(BEN)["b.txt"] == "secret words"
    assert site.seen_by(ANA)["finance/b.txt"] == "public words" and "finance/b.txt" not in site.seen_by(BEN)


def test_a_file_moved_onto_another_leaves_one_of_them(site: Site) -> None:
    filled(site)
    (site.folder / "b.txt").rename(site.folder / "a.md")
    assert site.refresh().detail["counts"] == {"changed": 1, "unchanged": 1, "deleted": 1}
    assert site.seen_by(BEN) == {"a.md": "the bee text"}


def test_a_name_that_says_to_read_the_bytes_another_way_is_read_again(site: Site) -> None:
    site.write(".citadel.yaml", RULES)
    site.write("t.txt", "name,age\nAna,41\nBen,29\n")
    site.write("other.txt", "other text")
    site.refresh()
    site.embedder.take()
    (site.folder / "t.txt").rename(site.folder / "t.csv")
    assert site.refresh().detail["counts"] == {"new": 1, "unchanged": 1, "deleted": 1}
    assert site.documents()["t.csv"].mime_type == "text/csv"
    assert len(site.embedder.take()) == site.chunks_of("t.csv")


def test_a_file_moved_before_it_was_indexed_is_indexed_once_under_its_new_name(site: Site) -> None:
    site.write(".citadel.yaml", RULES)
    site.write("b.txt", "the bee text")
    site.refresh_only()
    (site.folder / "b.txt").rename(site.folder / "c.txt")
    assert site.refresh().detail["counts"] == {"moved": 1}
    assert len(site.embedder.take()) == 1
    assert site.seen_by(BEN) == {"c.txt": "the bee text"}
    assert site.documents()["c.txt"].title == "c.txt"


# --- relabelled -----------------------------------------------------------------------------------------------------


def test_an_edited_rule_file_moves_documents_to_other_readers_and_embeds_nothing(site: Site) -> None:
    filled(site)
    assert "finance/plan.md" not in site.seen_by(BEN)
    site.write(".citadel.yaml", "version: 1\ndefault: {allow: [group:finance]}\nrules:\n"
               "  - {path: 'finance/**', allow: [group:staff]}")  # fmt: skip
    job = site.refresh_only()  # no indexing job is attempted: the labels hold already
    assert job.detail["counts"] == {"relabelled": 3}
    assert set(site.seen_by(BEN)) == {"finance/plan.md"}
    assert set(site.seen_by(ANA)) == {"a.md", "b.txt", "finance/plan.md"}
    assert site.index() == {} and site.embedder.take() == []
    assert site.documents()["a.md"].labels == Labels(("group:finance",))


def test_a_rule_file_that_is_gone_changes_nothing_until_an_operator_says_so(site: Site) -> None:
    filled(site)
    (site.folder / ".citadel.yaml").unlink()
    site.write("new.md", "new text")
    job = site.refresh()
    assert (job.state, job.error_code) == ("failed", "invalid_rules")
    assert job.error is not None and "--allow-missing-rules" in job.error
    assert set(site.seen_by(BEN)) == {"a.md", "b.txt"} and "new.md" not in site.documents()
    assert site.refresh(allow_missing_rules=True).detail["counts"] == {"relabelled": 3, "new": 1}
    assert site.seen_by(ANA) == {} and len(site.embedder.take()) == 1
    assert site.refresh().detail["counts"] == {"unchanged": 4}


def test_a_rule_file_that_cannot_be_read_changes_nothing(site: Site) -> None:
    filled(site)
    site.write("new.md", "new text")
    site.write(".citadel.yaml", "version: 1\ndefault: {allow: [staff]}")
    job = site.refresh()
    assert (job.state, job.error_code) == ("failed", "invalid_rules")
    assert job.error is not None and "'staff'" in job.error
    assert set(site.seen_by(BEN)) == {"a.md", "b.txt"}


def test_front_matter_that_closes_a_file_holds_before_the_new_text_is_indexed(site: Site) -> None:
    filled(site)
    site.write("a.md", f"---\nlabels: {{allow: [group:finance]}}\n---\n{TWO_PARTS}")
    site.refresh_only()
    assert "a.md" not in site.seen_by(BEN)
    site.index()
    assert "a.md" in site.seen_by(ANA) and "a.md" not in site.seen_by(BEN)


def test_an_unknown_classification_is_a_problem_of_its_files_and_opens_nothing(site: Site) -> None:
    filled(site)
    site.write("finance/plan.md", "---\nlabels: {allow: [public], classification: cosmic}\n---\nnew plan text")
    site.write("n.md", "---\nlabels: {allow: [public], classification: cosmic}\n---\nnew text")
    job = site.refresh()
    assert job.state == "done" and job.detail["counts"] == {"unreadable": 2, "unchanged": 2}
    assert all("cosmic" in problem for problem in job.detail["problems"])
    assert [problem.split(":")[0] for problem in job.detail["problems"]] == ["finance/plan.md", "n.md"]
    assert site.seen_by(ANA)["finance/plan.md"] == "# Plan\n\nthe plan text"  # the old version, not deleted
    assert "finance/plan.md" not in site.seen_by(BEN)


@pytest.mark.parametrize("broken", ["---\nlabels: [\n---\nnew", "---\nlabels: {allow: [finance]}\n---\nnew"])
def test_a_rule_that_closes_a_path_holds_for_files_that_cannot_be_read(site: Site, broken: str) -> None:
    filled(site)
    site.write("a.md", broken)
    site.write(".citadel.yaml", RULES.replace("group:staff", "group:finance"))
    job = site.refresh()
    assert job.detail["counts"] == {"unreadable": 1, "relabelled": 1, "unchanged": 1}
    assert site.seen_by(BEN) == {}  # b.txt by its rule; the old text of a.md as well
    assert set(site.seen_by(ANA)) == {"b.txt", "finance/plan.md"}  # decisions/0004: closed rather than guessed
    site.write("a.md", "mended text")
    site.refresh()
    assert site.seen_by(ANA)["a.md"] == "mended text" and site.seen_by(BEN) == {}


def test_a_rule_with_an_unknown_classification_closes_what_it_covers(site: Site) -> None:
    filled(site)
    site.write(".citadel.yaml", RULES.replace("[group:finance]", "[group:finance], classification: cosmic"))
    job = site.refresh()
    assert job.detail["counts"] == {"unreadable": 1, "unchanged": 2}
    assert "finance/plan.md" in site.documents() and set(site.seen_by(ANA)) == {"a.md", "b.txt"}
    site.write(".citadel.yaml", RULES)
    assert site.refresh().detail["counts"] == {"relabelled": 1, "unchanged": 2}
    assert "finance/plan.md" in site.seen_by(ANA) and site.embedder.take() == []


# --- deleted --------------------------------------------------------------------------------------------------------


def test_a_deleted_file_is_gone_from_every_search(site: Site) -> None:
    filled(site)
    document = site.documents()["b.txt"]
    assert [p.citation.external_id for p in site.ask(BEN, "bee", "lexical")] == ["b.txt"]
    (site.folder / "b.txt").unlink()
    assert site.refresh().detail["counts"] == {"unchanged": 2, "deleted": 1}
    for subject in (ANA, BEN):
        for mode in ("dense", "lexical", "hybrid"):
            assert all("bee" not in passage.text for passage in site.ask(subject, "bee", mode))
    assert "b.txt" not in site.documents()
    for table in ("versions", "chunks", f"vectors_{site.world.profile.id}"):
        assert site.rows(table, document.id) == 0
    kept = [path for path in (Path(str(site.world.blobs._root))).rglob("*") if path.is_file()]  # noqa: SLF001
    assert len(kept) == 2 and all(b"bee" not in path.read_bytes() for path in kept)


def test_a_file_deleted_and_made_again_is_a_new_document(site: Site) -> None:
    filled(site)
    before = site.documents()["b.txt"]
    (site.folder / "b.txt").unlink()
    site.refresh()
    site.write("b.txt", "the bee text")
    assert site.refresh().detail["counts"] == {"new": 1, "unchanged": 2}
    after = site.documents()["b.txt"]
    assert after.id != before.id and after.version == 1
    assert site.seen_by(BEN)["b.txt"] == "the bee text"


def test_a_file_deleted_before_it_was_indexed_never_appears(site: Site) -> None:
    filled(site)
    site.write("c.txt", "the sea text")
    site.refresh_only()
    (site.folder / "c.txt").unlink()
    assert site.refresh_only().detail["counts"] == {"unchanged": 3, "deleted": 1}
    assert site.index() == {}  # the erasure ended its job
    assert "c.txt" not in site.seen_by(BEN) and site.embedder.take() == []


def test_the_blob_of_a_deleted_file_stays_while_another_has_its_bytes(site: Site) -> None:
    filled(site)
    site.write("copy.txt", "the bee text")
    site.refresh()
    key = site.world.blobs.put(b"the bee text")
    (site.folder / "b.txt").unlink()
    site.refresh()
    assert site.world.blobs.get(key) == b"the bee text"


# --- what stops a deletion ------------------------------------------------------------------------------------------


def test_a_mass_deletion_waits_for_an_operator_and_everything_else_is_done(site: Site) -> None:
    filled(site)
    (site.folder / "a.md").unlink()
    (site.folder / "b.txt").unlink()  # 2 of 3: more than half
    site.write("c.md", "the sea text")
    job = site.refresh()
    assert (job.state, job.error_code, job.attempts) == ("failed", "mass_delete", 1)
    assert job.error is not None and "2 of 3" in job.error and "--allow-mass-delete" in job.error
    assert set(site.seen_by(BEN)) == {"a.md", "b.txt", "c.md"}
    allowed = site.refresh(allow_mass_delete=True)
    assert (allowed.state, allowed.detail["counts"]) == ("done", {"unchanged": 2, "deleted": 2})
    assert set(site.seen_by(ANA)) == {"c.md", "finance/plan.md"}


def test_the_allowed_share_itself_is_not_too_much(site: Site) -> None:
    for n in range(4):
        site.write(f"{n}.md", f"text {n}")
    site.refresh()
    for n in range(2):  # half of four
        (site.folder / f"{n}.md").unlink()
    assert site.refresh().detail["counts"] == {"unchanged": 2, "deleted": 2}


def test_an_unmounted_folder_deletes_nothing(site: Site) -> None:
    filled(site)
    site.folder.rename(site.folder.with_name("away"))
    job = site.refresh()
    assert (job.state, job.error_code) == ("failed", "not_found")
    site.folder.mkdir()  # the empty mount point
    assert site.refresh().error_code == "invalid_rules"
    assert site.refresh(allow_missing_rules=True).error_code == "mass_delete"
    site.folder.rmdir()
    site.folder.with_name("away").rename(site.folder)
    assert site.refresh().detail["counts"] == {"unchanged": 3}
    assert set(site.seen_by(BEN)) == {"a.md", "b.txt"}


@dataclass(frozen=True, slots=True)
class Failing:
    """A source whose listing ends in the middle."""

    inner: DocumentSource

    def enumerate(self, cursor: str | None = None) -> Iterator[Page]:
        yield Page(next(self.inner.enumerate(cursor)).items[:1])
        raise Misconfigured("no more of the items could be listed")

    def permissions(self, item: Listed) -> Labels:
        return self.inner.permissions(item)

    def fetch(self, item: Listed, labels: Labels) -> Submission:
        return self.inner.fetch(item, labels)


def test_a_listing_that_fails_midway_changes_nothing(site: Site) -> None:
    filled(site)
    site.write("c.md", "new text")
    (site.folder / "b.txt").unlink()
    with pytest.raises(Misconfigured):
        run(site, Failing(open_source(site.source)), allow_mass_delete=True)
    assert set(site.documents()) == {"a.md", "b.txt", "finance/plan.md"}


def test_a_file_that_cannot_be_read_is_not_deleted(site: Site) -> None:
    filled(site)
    (site.folder / "b.txt").write_text("changed")
    reader = open_source(site.source)
    listing = list(reader.enumerate())

    @dataclass(frozen=True, slots=True)
    class Vanishing:
        """The file is gone when it is read."""

        def enumerate(self, cursor: str | None = None) -> Iterator[Page]:
            return iter(listing)

        def permissions(self, item: Listed) -> Labels:
            return reader.permissions(item)

        def fetch(self, item: Listed, labels: Labels) -> Submission:
            (site.folder / item.external_id).unlink()
            return reader.fetch(item, labels)

    report = run(site, Vanishing())
    assert report.counts == {"unreadable": 1, "unchanged": 2} and "b.txt" in report.problems[0]
    assert site.seen_by(BEN)["b.txt"] == "the bee text"
    assert run(site, open_source(site.source)).counts == {"unchanged": 2, "deleted": 1}


# --- files that are wrong -------------------------------------------------------------------------------------------


def test_each_file_that_cannot_be_parsed_fails_alone_with_its_reason(site: Site) -> None:
    filled(site)
    site.write("x.bin", bytes(range(256)) * 4)
    site.write("empty.md", b"")
    site.write("zero.docx", b"")
    site.write("cut.pdf", b"%PDF-1.7\n1 0 obj\n<< /Type /Catalog")
    site.write("good.md", "the good text")
    job = site.refresh()
    assert job.state == "done" and job.detail["counts"] == {"new": 5, "unchanged": 3}
    codes = {name: site.job_of(name).error_code for name in ("x.bin", "empty.md", "zero.docx", "cut.pdf")}
    assert codes == {"x.bin": "unsupported_type", "empty.md": "empty_document", "zero.docx": "empty_document",
                     "cut.pdf": "corrupt_document"}  # fmt: skip
    assert {site.job_of(name).state for name in codes} == {"failed"}
    assert site.job_of("good.md").state == "done" and "good.md" in site.seen_by(BEN)
    assert site.refresh().detail["counts"] == {"unchanged": 8}  # the same bytes would fail again


def test_an_edit_that_cannot_be_parsed_leaves_the_old_text(site: Site) -> None:
    filled(site)
    site.write("b.txt", b"\x00\x01\x02" * 500)
    site.refresh()
    assert site.job_of("b.txt").state == "failed"
    assert site.seen_by(BEN)["b.txt"] == "the bee text"
    site.write("b.txt", "mended text")
    site.refresh()
    assert site.seen_by(BEN)["b.txt"] == "mended text"


POISONS: dict[bytes, str] = {
    b"caf\xe9.txt": "text",
    b"deep.md": "---\na: " + "[" * 5000 + "\n---\n",
    b"bomb.md": "---\na: &a [x]\nb: [*a, *a]\n---\ntext",
    b"date.md": "---\ndate: 2025-02-30\n---\ntext",
    b"half.md": '---\ntitle: "\\ud800"\n---\ntext',
    b"nul.md": '---\ntitle: "a\\0b"\n---\ntext',
    b"label.md": "---\nlabels: {allow: [finance]}\n---\ntext",
    b"nan.md": "---\nmetadata: {n: .nan}\n---\ntext",
    b"/".join([b"long" * 20] * 12) + b"/" + b"x" * 99: "text",  # over 1,024 characters
    b"/".join(["ä🗝語".encode() * 20] * 12) + b"/x.txt": "text",  # over 2,048 bytes: no btree row holds it
}


def test_a_poison_file_is_its_own_problem_and_nobody_elses(site: Site) -> None:
    filled(site)
    for name, content in POISONS.items():
        poison = site.folder / os.fsdecode(name)
        poison.parent.mkdir(parents=True, exist_ok=True)
        poison.write_text(content)
    site.write("zz.txt", "a neighbour's text")
    (site.folder / "b.txt").unlink()
    job = site.refresh()
    assert (job.state, job.error_code) == ("done", None)
    assert job.detail["counts"] == {"new": 1, "unreadable": len(POISONS), "unchanged": 2, "deleted": 1}
    told = [problem.split(":")[0] for problem in job.detail["problems"]]
    assert sorted(told) == sorted(os.fsdecode(name).encode(errors="backslashreplace").decode() for name in POISONS)
    assert max(map(len, job.detail["problems"])) < 5000
    assert "zz.txt" in site.seen_by(BEN)


# --- two at once ----------------------------------------------------------------------------------------------------


def test_two_refreshes_at_once_do_each_thing_once(site: Site) -> None:
    filled(site)
    (site.folder / "b.txt").rename(site.folder / "moved.txt")
    (site.folder / "finance/plan.md").unlink()
    for n in range(8):
        site.write(f"new/{n}.md", f"the text of {n}")
    store, tenant_id = site.world.store, site.world.tenant_id
    asked = [request_refresh(store, tenant_id, site.source_id) for _ in range(2)]
    outcomes: list[str] = []
    threads = [
        threading.Thread(target=lambda job_id=job_id: outcomes.append(attempt(site.pipeline, job_id)))
        for job_id in asked
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(outcomes) <= {"done", "skipped"} and "done" in outcomes
    for job_id in asked:  # what was passed over while the other ran is done in its turn
        attempt(site.pipeline, job_id)
    assert [site.job(job_id).state for job_id in asked] == ["done", "done"]
    assert [site.job(job_id).attempts for job_id in asked] == [1, 1]
    site.index()
    assert set(site.seen_by(ANA)) == {"a.md", "moved.txt", *(f"new/{n}.md" for n in range(8))}
    assert all(document.version == 1 for document in site.documents().values())


def test_one_source_is_refreshed_by_one_worker_at_a_time(site: Site) -> None:
    """Else one that began under the old rules could undo what the new ones closed."""
    first = request_refresh(site.world.store, site.world.tenant_id, site.source_id)
    second = request_refresh(site.world.store, site.world.tenant_id, site.source_id)
    with writing(site.world.store) as conn:
        lease = jobs.claim(conn, first, 60)
        assert lease is not None
        assert jobs.claim(conn, second, 60) is None
    assert site.job(second).attempts == 0
    with writing(site.world.store) as conn:
        jobs.finish(conn, lease, None)
    with writing(site.world.store) as conn:
        assert jobs.claim(conn, second, 60) is not None


def test_a_refresh_that_lost_its_lease_writes_nothing_more(site: Site) -> None:
    filled(site)
    job_id = request_refresh(site.world.store, site.world.tenant_id, site.source_id)
    with writing(site.world.store) as conn:
        stale = jobs.claim(conn, job_id, -1)  # ran out at once: its worker was paused
        assert stale is not None
        reader = open_source(site.source)
    site.write("late.md", "late text")
    (site.folder / "b.txt").unlink()
    with writing(site.world.store) as conn:
        assert jobs.claim(conn, job_id, 60) is not None
    for allow in (False, True):
        with pytest.raises(LeaseLost):
            refresh(site.world.store, site.world.blobs, site.source, reader, allow_mass_delete=allow,
                    hold=lambda conn: jobs.hold(conn, stale))  # fmt: skip
    assert set(site.documents()) == {"a.md", "b.txt", "finance/plan.md"}


def test_a_document_that_somebody_else_deleted_meanwhile_is_no_failure(site: Site) -> None:
    filled(site)
    (site.folder / "b.txt").unlink()
    reader, gone = open_source(site.source), site.documents()["b.txt"].id

    @dataclass(frozen=True, slots=True)
    class Meanwhile:
        """Somebody deletes the document while the folder is listed."""

        def enumerate(self, cursor: str | None = None) -> Iterator[Page]:
            erase(site.world.store, site.world.blobs, site.world.tenant_id, gone, by="service:test")
            return reader.enumerate(cursor)

        def permissions(self, item: Listed) -> Labels:
            return reader.permissions(item)

        def fetch(self, item: Listed, labels: Labels) -> Submission:
            return reader.fetch(item, labels)

    assert run(site, Meanwhile()).counts == {"unchanged": 2}


# --- permissions alone ----------------------------------------------------------------------------------------------


def test_a_refresh_of_permissions_fetches_adds_and_deletes_nothing(site: Site) -> None:
    filled(site)
    before = site.source
    site.write(".citadel.yaml", RULES.replace("group:staff", "group:finance"))
    site.write("a.md", "changed text")
    site.write("new.md", "new text")
    (site.folder / "finance/plan.md").unlink()
    watched = Watched(open_source(site.source))
    report = refresh(site.world.store, site.world.blobs, site.source, watched, permissions_only=True)
    assert report.counts == {"relabelled": 2} and watched.fetched == []
    assert site.seen_by(BEN) == {} and site.seen_by(ANA)["a.md"] != "changed text"
    assert set(site.documents()) == {"a.md", "b.txt", "finance/plan.md"} and site.embedder.take() == []
    assert site.source.content_as_of == before.content_as_of
    assert site.source.permissions_as_of > before.permissions_as_of  # type: ignore[operator]
    assert site.refresh().detail["counts"] == {"changed": 1, "new": 1, "deleted": 1, "unchanged": 1}


def test_a_refresh_of_permissions_leaves_what_a_file_says_of_itself(site: Site) -> None:
    filled(site)
    site.write("own.md", "---\nlabels: {allow: [group:finance]}\n---\nown text")
    site.refresh()
    site.write(".citadel.yaml", RULES.replace("group:staff", "public"))
    assert site.refresh(permissions_only=True).detail["counts"] == {"relabelled": 2, "unchanged": 2}
    assert "own.md" not in site.seen_by(BEN) and "own.md" in site.seen_by(ANA)


@dataclass(slots=True)
class Rows:
    """A source whose item is named as a markdown file is, and whose labels are the source's to say."""

    labels: Labels

    def enumerate(self, cursor: str | None = None) -> Iterator[Page]:
        yield Page((Listed("row.md", "1"),), complete=True)

    def permissions(self, item: Listed) -> Labels:
        return self.labels

    def fetch(self, item: Listed, labels: Labels) -> Submission:
        return Submission(item.external_id, b"---\nlabels: {allow: [public]}\n---\nthe text", labels)


@pytest.mark.parametrize("permissions_only", [True, False])
def test_what_a_row_or_a_page_says_of_itself_is_content_and_opens_nothing(site: Site, permissions_only: bool) -> None:
    rows, source = Rows(Labels(("group:finance", "group:hr"))), replace(site.source, kind="sql")
    refresh(site.world.store, site.world.blobs, source, rows)
    site.index()
    rows.labels = Labels(("group:finance",))
    report = refresh(site.world.store, site.world.blobs, source, rows, permissions_only=permissions_only)
    assert report.counts == {"relabelled": 1}
    assert site.documents()["row.md"].labels == rows.labels and site.seen_by(BEN) == {}


def test_labels_of_a_text_that_was_never_indexed_do_not_open_the_one_before_it(site: Site) -> None:
    filled(site)
    site.write("finance/plan.md", "---\nlabels: {allow: [public]}\n---\nwhat everybody may know")
    site.refresh_only()
    with writing(site.world.store) as conn:
        assert jobs.cancel(conn, site.world.tenant_id, site.job_of("finance/plan.md").id, "service:test")
    site.write(".citadel.yaml", RULES.replace("[group:finance]", "[group:finance, group:hr]"))
    site.refresh(permissions_only=True)
    assert "finance/plan.md" not in site.seen_by(BEN)
    with writing(site.world.store) as conn:
        assert jobs.reopen(conn, site.world.tenant_id, site.job_of("finance/plan.md").id)
    site.index()
    assert site.seen_by(BEN)["finance/plan.md"] == "what everybody may know"


# --- rule files in folders ------------------------------------------------------------------------------------------


def test_the_nearest_rule_file_decides_and_one_that_is_gone_stops_the_refresh(site: Site) -> None:
    site.write(".citadel.yaml", RULES)
    site.write("team/.citadel.yaml", "version: 1\nrules:\n  - {path: 'secret/**', allow: [group:finance]}")
    site.write("team/a.txt", "the open text")
    site.write("team/secret/b.txt", "the closed text")
    site.refresh()
    assert set(site.seen_by(BEN)) == {"team/a.txt"} and set(site.seen_by(ANA)) == {"team/a.txt", "team/secret/b.txt"}
    (site.folder / "team/.citadel.yaml").unlink()
    assert site.refresh().error_code == "invalid_rules" and set(site.seen_by(BEN)) == {"team/a.txt"}
    (site.folder / "team").rename(site.folder / "crew")  # moved: no folder has lost its rules, but these are not there
    job = site.refresh()
    assert job.state == "done" and set(site.seen_by(BEN)) == {"crew/a.txt", "crew/secret/b.txt"}


@pytest.mark.parametrize("permissions_only", [True, False])
def test_a_rule_file_is_missed_however_the_refresh_ended_that_followed_it(site: Site, permissions_only: bool) -> None:
    site.write(".citadel.yaml", "version: 1\ndefault: {allow: [group:staff]}")
    site.write("finance/plan.txt", "the plan text")
    site.refresh()
    rule = site.write("finance/.citadel.yaml", "version: 1\ndefault: {allow: [group:finance]}")
    site.write("a.txt", "the text")
    reader = open_source(site.source)
    away = Partly(reader, away=frozenset({"a.txt"}))  # an outage, after which the refresh is not called complete
    refresh(site.world.store, site.world.blobs, site.source, away, permissions_only=permissions_only)
    assert "finance/plan.txt" not in site.seen_by(BEN)
    rule.unlink()
    assert site.refresh(permissions_only=permissions_only).error_code == "invalid_rules"
    assert "finance/plan.txt" not in site.seen_by(BEN)


# --- bounded, and resumed -------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Paged:
    """A source that lists a page at a time from a cursor, and whose process dies now and then."""

    texts: dict[str, str]
    dies_after_pages: int = 10**9
    dies_after_fetches: int = 10**9
    pages: int = 0
    fetched: int = 0
    held: int = 0

    def enumerate(self, cursor: str | None = None) -> Iterator[Page]:
        names = sorted(name for name in self.texts if cursor is None or name > cursor)
        for start in range(0, len(names), 10):
            if self.pages >= self.dies_after_pages:
                raise SystemExit
            self.pages += 1
            some = names[start : start + 10]
            yield Page(tuple(Listed(name, self.texts[name]) for name in some), cursor=some[-1])
        yield Page(complete=True, state={"seen": len(self.texts)})

    def permissions(self, item: Listed) -> Labels:
        return Labels(("group:staff",))

    def fetch(self, item: Listed, labels: Labels) -> Submission:
        if self.fetched >= self.dies_after_fetches:
            raise SystemExit
        self.fetched += 1
        return Submission(item.external_id, self.texts[item.external_id].encode(), labels, filename=item.external_id)


def test_a_refresh_goes_on_where_its_worker_died(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ingest.refresh.BATCH", 10)
    texts = {f"{n:03}.txt": f"the text {n}" for n in range(60)}
    source = Paged(texts, dies_after_pages=3)
    run_id = uuid4()

    def again() -> RefreshReport:
        return refresh(site.world.store, site.world.blobs, site.source, source, run=run_id)

    with pytest.raises(SystemExit):
        again()
    assert site.documents() == {}, "nothing is done on part of a listing"
    source.dies_after_pages, source.dies_after_fetches = 10**9, 25
    with pytest.raises(SystemExit):
        again()
    assert source.pages == 6, "no page was listed twice"
    source.dies_after_fetches = 10**9
    report = again()
    assert source.pages == 6 and source.fetched == 60
    assert report.counts["new"] + report.counts.get("unchanged", 0) == 60 and len(site.documents()) == 60
    with writing(site.world.store) as conn:
        assert conn.execute("SELECT (SELECT count(*) FROM listed) + (SELECT count(*) FROM listings)").fetchone() == (0,)
    assert refresh(site.world.store, site.world.blobs, site.source, source).counts == {"unchanged": 60}
    assert source.fetched == 60


@dataclass(frozen=True, slots=True)
class Dying:
    """A source whose worker dies when it has listed everything."""

    inner: DocumentSource

    def enumerate(self, cursor: str | None = None) -> Iterator[Page]:
        return self.inner.enumerate(cursor)

    def permissions(self, item: Listed) -> Labels:
        raise SystemExit

    def fetch(self, item: Listed, labels: Labels) -> Submission:
        raise AssertionError("it is dead")


def test_a_rule_file_that_goes_before_a_refresh_goes_on_opens_nothing(site: Site) -> None:
    site.write(".citadel.yaml", "version: 1\ndefault: {allow: [group:staff]}")
    site.write("finance/.citadel.yaml", "version: 1\ndefault: {allow: [group:finance]}")
    site.write("finance/plan.txt", "the plan text")
    site.refresh()
    run_id, store, blobs = uuid4(), site.world.store, site.world.blobs
    reader = open_source(site.source, memory_of(store, blobs, site.source_id))
    with pytest.raises(SystemExit):
        refresh(store, blobs, site.source, Dying(reader), run=run_id)
    (site.folder / "finance/.citadel.yaml").unlink()
    reader = open_source(site.source, memory_of(store, blobs, site.source_id))
    report = refresh(store, blobs, site.source, reader, run=run_id)
    assert report.counts == {"unreadable": 1} and "is gone" in report.problems[0]
    assert site.seen_by(BEN) == {} and "finance/plan.txt" in site.seen_by(ANA)
    assert site.refresh().error_code == "invalid_rules"
    site.refresh(allow_missing_rules=True)
    assert "finance/plan.txt" in site.seen_by(BEN)


def test_another_refresh_takes_nothing_from_one_that_did_not_end(site: Site) -> None:
    filled(site)
    with pytest.raises(SystemExit):
        refresh(site.world.store, site.world.blobs, site.source, Paged({"x": "y"}, dies_after_pages=0))
    assert run(site, open_source(site.source)).counts == {"unchanged": 3}


@dataclass(frozen=True, slots=True)
class Partly:
    """A source that lists some and says that this is not all, or hands some over only at times."""

    inner: DocumentSource
    complete: bool = True
    away: frozenset[str] = frozenset()

    def enumerate(self, cursor: str | None = None) -> Iterator[Page]:
        for page in self.inner.enumerate(cursor):
            yield page if self.complete else replace(page, complete=False, problems=("a page did not answer",))

    def permissions(self, item: Listed) -> Labels:
        return self.inner.permissions(item)

    def fetch(self, item: Listed, labels: Labels) -> Submission:
        if item.external_id in self.away:
            raise SourceUnavailable("it did not answer")
        return self.inner.fetch(item, labels)


@pytest.mark.parametrize("how", ["incomplete", "outage"])
def test_what_could_not_be_read_whole_deletes_nothing_and_is_not_called_fresh(site: Site, how: str) -> None:
    filled(site)
    before = site.source.content_as_of
    (site.folder / "b.txt").unlink()
    site.write("a.md", "changed text")
    inner = open_source(site.source)
    reader = Partly(inner, complete=False) if how == "incomplete" else Partly(inner, away=frozenset({"a.md"}))
    report = run(site, reader)
    assert "deleted" not in report.counts and "b.txt" in site.documents()
    assert "nothing was deleted" in report.problems[0] and site.source.content_as_of == before
    assert run(site, inner).counts["deleted"] == 1 and site.source.content_as_of > before  # type: ignore[operator]


@dataclass(frozen=True, slots=True)
class Unpermitted:
    """A source that cannot say who may see some of its items."""

    inner: DocumentSource
    unknown: frozenset[str]

    def enumerate(self, cursor: str | None = None) -> Iterator[Page]:
        return self.inner.enumerate(cursor)

    def permissions(self, item: Listed) -> Labels:
        if item.external_id in self.unknown:
            raise SourceUnavailable("the directory did not answer")
        return self.inner.permissions(item)

    def fetch(self, item: Listed, labels: Labels) -> Submission:
        return self.inner.fetch(item, labels)


def test_what_nobody_can_say_who_may_see_is_neither_opened_nor_brought_in(site: Site) -> None:
    filled(site)
    site.write(".citadel.yaml", RULES.replace("group:finance", "public").replace("group:staff", "public"))
    site.write("finance/plan.md", "more secret text")
    site.write("new.md", "new text")
    unknown = frozenset({"finance/plan.md", "new.md"})
    report = run(site, Unpermitted(open_source(site.source), unknown))
    site.index()
    assert report.counts == {"unreadable": 2, "relabelled": 2} and "new.md" not in site.documents()
    assert site.documents()["finance/plan.md"].labels == Labels(("group:finance",))
    assert site.seen_by(ANA)["finance/plan.md"] == "# Plan\n\nthe plan text"


def test_what_is_due_and_not_done_is_the_lag(site: Site) -> None:
    filled(site)
    assert site.source.lag_s == 0
    request_refresh(site.world.store, site.world.tenant_id, site.source_id)
    with writing(site.world.store) as conn:
        conn.execute("UPDATE jobs SET due_at = now() - interval '1 hour' WHERE state = 'accepted'")
        conn.execute("UPDATE sources SET content_as_of = now() - interval '2 hours' WHERE id = %s", (site.source_id,))
    assert 3600 <= site.source.lag_s < 3700
    site.refresh()
    assert site.source.lag_s == 0
