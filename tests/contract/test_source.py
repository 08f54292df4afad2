"""What every source promises, each kind against something real."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.errors import CitadelError, Invalid, SourceUnavailable
from core.records import Labels, Submission
from embedded.server import Server
from ingest.source import DocumentSource, Listed, Page
from ingest.sources.open import open_source
from tests.stages import FINANCE, KINDS, STAFF, Stage, staged


class FakeStage(Stage):
    """Documents in a dictionary."""

    kind = "fake"

    def __init__(self) -> None:
        self.texts: dict[str, str] = {}
        self.labels: dict[str, Labels] = {}
        self.away = False
        self.config = {}

    def put(self, name: str, text: str) -> None:
        self.texts[name] = text

    def remove(self, name: str) -> None:
        del self.texts[name]

    def close_b(self) -> None:
        self.labels["b"] = FINANCE

    def outage(self) -> "FakeStage":  # type: ignore[override]
        return self

    def __enter__(self) -> None:
        self.away = True

    def __exit__(self, *error: object) -> None:
        self.away = False


class FakeSource:
    """A source for tests of what uses one."""

    def __init__(self, stage: FakeStage) -> None:
        self._stage = stage

    def enumerate(self, cursor: str | None = None) -> Iterator[Page]:
        if self._stage.away:
            raise SourceUnavailable("away")
        for name, text in self._stage.texts.items():
            yield Page((Listed(name, text),))
        yield Page(complete=True)

    def permissions(self, item: Listed) -> Labels:
        return self._stage.labels.get(item.external_id, STAFF)

    def fetch(self, item: Listed, labels: Labels) -> Submission:
        if self._stage.away:
            raise SourceUnavailable("away")
        if item.external_id not in self._stage.texts:
            raise FileNotFoundError(item.external_id)
        return Submission(item.external_id, self._stage.texts[item.external_id].encode(), labels)


@pytest.fixture(scope="module", params=["fake", *KINDS])
def stage(
    request: pytest.FixtureRequest, postgres: Server, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stage]:
    if request.param == "fake":
        yield FakeStage()
        return
    with staged(request.param, tmp_path_factory.mktemp("stage") / "root", postgres.url) as made:
        yield made


@pytest.fixture
def filled(stage: Stage) -> Stage:
    """Two documents, both for staff."""
    stage.put("a", "the text of a")
    stage.put("b", "the text of b")
    return stage


def opened(stage: Stage, tmp_path: Path) -> DocumentSource:
    if isinstance(stage, FakeStage):
        return FakeSource(stage)
    scratch = tmp_path / os.urandom(4).hex()
    scratch.mkdir()
    return open_source(stage.source(), None, scratch)


def listed(reader: DocumentSource) -> dict[str, Listed]:
    """The items by what they say, of a complete listing."""
    pages = list(reader.enumerate())
    assert pages[-1].complete and not any(page.complete for page in pages[:-1]), pages[-1].problems
    items = [item for page in pages for item in page.items]
    texts = [reader.fetch(item, STAFF).content.decode() for item in items]
    return {text[text.index("the") :].strip(): item for text, item in zip(texts, items, strict=True)}


def test_a_listing_is_complete_and_each_item_of_it_is_handed_over(filled: Stage, tmp_path: Path) -> None:
    reader = opened(filled, tmp_path)
    found = listed(reader)
    assert set(found) == {"the text of a", "the text of b"}
    assert len({item.external_id for item in found.values()}) == 2
    for item in found.values():
        submission = reader.fetch(item, FINANCE)
        assert (submission.external_id, submission.labels) == (item.external_id, FINANCE)


def test_nothing_changes_by_itself(filled: Stage, tmp_path: Path) -> None:
    assert listed(opened(filled, tmp_path)) == listed(opened(filled, tmp_path))


def test_an_edit_shows_in_its_own_fingerprint_alone(filled: Stage, tmp_path: Path) -> None:
    before = listed(opened(filled, tmp_path))
    filled.put("a", "the words of a")
    after = listed(opened(filled, tmp_path))
    assert set(after) == {"the words of a", "the text of b"}
    old, new = before["the text of a"], after["the words of a"]
    assert after["the text of b"].fingerprint == before["the text of b"].fingerprint
    if filled.edits:
        assert old.external_id == new.external_id and (new.fingerprint is None or old.fingerprint != new.fingerprint)
    else:
        assert old.external_id != new.external_id


def test_what_is_removed_is_not_listed_and_not_handed_over(filled: Stage, tmp_path: Path) -> None:
    gone = listed(opened(filled, tmp_path))["the text of a"]
    filled.remove("a")
    reader = opened(filled, tmp_path)
    assert set(listed(reader)) == {"the text of b"}
    if filled.kind not in ("files", "git"):  # a web page may be served unlinked, a blob lies in its commit
        with pytest.raises((FileNotFoundError, Invalid, SourceUnavailable)):
            fetched = reader.fetch(gone, STAFF)
            assert b"the text of b" not in fetched.content, "another document under this name"
    filled.put("a", "the text of a")


def test_an_outage_is_an_error_and_never_a_shorter_listing(filled: Stage, tmp_path: Path) -> None:
    secrets = [os.environ[ref.removeprefix("env:")] for ref in filled.config.get("secrets", {}).values()]
    with filled.outage():
        with pytest.raises(CitadelError) as told:
            list(opened(filled, tmp_path).enumerate())
        said = f"{told.value!r} {told.value.__cause__!r}"
        assert not [secret for secret in secrets if secret in said]
    assert set(listed(opened(filled, tmp_path))) == {"the text of a", "the text of b"}


def test_other_permissions_show_as_labels_and_leave_the_content_as_it_is(filled: Stage, tmp_path: Path) -> None:
    if type(filled).close_b is Stage.close_b:
        pytest.skip("its kind says nothing of who may read a document")
    reader = opened(filled, tmp_path)
    before = listed(reader)
    assert {reader.permissions(item).allow for item in before.values()} <= {
        ("group:staff",), ("group:finance", "group:staff", "user:owner@acme.example")}  # fmt: skip
    filled.close_b()
    reader = opened(filled, tmp_path)
    after = listed(reader)
    assert "group:staff" in reader.permissions(after["the text of a"]).allow
    assert reader.permissions(after["the text of b"]).allow == ("group:finance",)
    assert after["the text of a"].external_id == before["the text of a"].external_id
    if filled.kind != "folder" and filled.kind != "reader":  # a folder's mode, and all that a reader tells, is one sign
        assert after["the text of b"].fingerprint == before["the text of b"].fingerprint
