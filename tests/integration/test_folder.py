"""A folder as a source, on a real file system: what is listed, what is read, and what leads nowhere."""

import os
import shutil
import socket
import subprocess
import tempfile
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from core.errors import BodyTooLarge, Invalid, InvalidRules, Misconfigured, NotFound
from core.records import Labels, Source, Submission
from ingest.source import Listed
from ingest.sources.folder import FolderSource
from ingest.sources.open import open_source
from ingest.submit import MAX_EXTERNAL_ID

STAFF, FINANCE = Labels(("group:staff",)), Labels(("group:finance",))
AS_ROOT = os.geteuid() == 0
NOBODY = 65534


@pytest.fixture
def root() -> Iterator[Path]:
    """A folder that every account may pass through, unlike pytest's own."""
    folder = Path(tempfile.mkdtemp(prefix="citadel-folder-"))
    folder.chmod(0o755)
    yield folder
    subprocess.run(["rm", "-rf", str(folder)], check=True)  # shutil is not deep enough for one of the tests


def source_of(root: Path, **config: Any) -> Source:
    return Source(uuid4(), uuid4(), "files", "folder", {"path": str(root), **config}, Labels(), None, 0.3, None)


def opened(root: Path, **config: Any) -> FolderSource:
    return FolderSource(source_of(root, **config))


def write(root: Path, path: str, content: str | bytes = "text") -> Path:
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return file


def listing(source: FolderSource) -> list[Listed]:
    found = [item for page in source.enumerate() for item in page.items]
    return sorted(found, key=lambda item: item.external_id)


def ids(source: FolderSource) -> list[str]:
    return [item.external_id for item in listing(source)]


def fetched(source: FolderSource, item: Listed) -> Submission:
    """As a refresh asks."""
    return source.fetch(item, source.permissions(item))


def item(source: FolderSource, external_id: str) -> Listed:
    return next(item for item in listing(source) if item.external_id == external_id)


@contextmanager
def unprivileged() -> Iterator[None]:
    """File permissions hold for this process meanwhile; root passes them by."""
    user = os.geteuid()
    if AS_ROOT:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(user)


# --- what is listed -------------------------------------------------------------------------------------------------


def test_only_plain_visible_files_are_documents(root: Path) -> None:
    for path in ("b.md", "a.md", "sub/deep/c.txt", ".hidden", ".git/config", "sub/.env", "sub/a..b", "..x", "...",
                 "z/.other.yaml", "empty.txt"):  # fmt: skip
        write(root, path, b"" if path == "empty.txt" else b"text")
    (root / "folder").mkdir()
    (root / "link.md").symlink_to(root / "a.md")
    (root / "linked").symlink_to(root / "sub")
    (root / "dangling").symlink_to(root / "nothing")
    (root / "out").symlink_to("/etc")
    (root / "loop").symlink_to(root / "loop")
    os.mkfifo(root / "pipe")
    with socket.socket(socket.AF_UNIX) as unix:
        unix.bind(str(root / "socket"))
        assert ids(opened(root)) == ["a.md", "b.md", "empty.txt", "sub/a..b", "sub/deep/c.txt"]


def test_an_empty_folder_lists_nothing(root: Path) -> None:
    assert listing(opened(root)) == []


@pytest.mark.parametrize("place", ["nothing", "file.txt", "file.txt/below", "dangling"])
def test_a_missing_folder_is_an_error_never_an_empty_list(root: Path, place: str) -> None:
    write(root, "file.txt")
    (root / "dangling").symlink_to(root / "unmounted")
    source = opened(root / place)
    with pytest.raises(NotFound, match="is it mounted"):
        listing(source)


def test_the_folder_itself_may_be_a_link(root: Path) -> None:
    write(root, "real/a.md")
    (root / "current").symlink_to(root / "real")
    source = opened(root / "current")
    assert fetched(source, item(source, "a.md")).content == b"text"


@pytest.mark.parametrize("mode", [0o000, 0o300])
def test_a_folder_that_cannot_be_listed_is_an_error_not_a_gap(root: Path, mode: int) -> None:
    write(root, "a.md")
    write(root, "closed/b.md")
    (root / "closed").chmod(mode)
    source = opened(root)
    with unprivileged(), pytest.raises(Misconfigured, match="'closed/'.*cannot be listed.*Permission denied"):
        listing(source)
    (root / "closed").chmod(0o755)


def test_a_root_that_cannot_be_listed_is_an_error(root: Path) -> None:
    write(root, "a.md")
    source = opened(root)
    root.chmod(0o700)
    with unprivileged(), pytest.raises(Misconfigured, match="cannot be listed"):
        listing(source)


def test_a_tree_deeper_than_any_path_does_not_stop_the_listing(root: Path) -> None:
    write(root, "a.md")
    descriptor = os.open(root, os.O_RDONLY)
    for _ in range(2100):  # beyond PATH_MAX, and beyond Python's recursion limit
        os.mkdir("d", dir_fd=descriptor)  # noqa: PTH102 no path is this long
        inner = os.open("d", os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = inner
    os.close(descriptor)
    source = opened(root)
    listed = listing(source)
    assert listed[0].external_id == "a.md" and len(listed) == 2
    with pytest.raises(Invalid, match=f"1 to {MAX_EXTERNAL_ID}"):
        fetched(source, listed[1])


@pytest.mark.parametrize("name", [b"caf\xe9.md", b"\xff\xfe", b"ok-\xc3\x28.txt"])
def test_a_name_that_is_not_utf8_is_listed_and_refused_by_itself(root: Path, name: bytes) -> None:
    write(root, "a.md")
    (root / os.fsdecode(name)).write_text("text")
    source = opened(root)
    listed = {item.external_id: item for item in listing(source)}
    assert set(listed) == {"a.md", os.fsdecode(name)}
    with pytest.raises(Invalid, match="not UTF-8: rename it") as refused:
        fetched(source, listed[os.fsdecode(name)])
    str(refused.value).encode()  # the message can be kept
    assert fetched(source, listed["a.md"]).content == b"text"


@pytest.mark.parametrize("name", ["a b.md", "a\nb.md", "a\\b.md", "a#b?c%20.md", "ü.md", "🗝.md", "-rf", "a'b\".md"])
def test_unusual_names_are_kept_and_their_uris_lead_back(root: Path, name: str) -> None:
    file = write(root, f"sub/{name}")
    source = opened(root)
    submission = fetched(source, item(source, f"sub/{name}"))
    assert (submission.external_id, submission.filename) == (f"sub/{name}", name)
    assert submission.uri == file.resolve().as_uri()  # RFC 8089, as pathlib writes it


def test_a_uri_prefix_stands_in_for_the_folders_own(root: Path) -> None:
    write(root, "a b.md")
    source = opened(root, uri_prefix="https://files.acme.example/")
    assert fetched(source, item(source, "a b.md")).uri == "https://files.acme.example/a%20b.md"


# --- the fingerprint ------------------------------------------------------------------------------------------------


def test_a_fingerprint_changes_with_the_bytes_and_nothing_else(root: Path) -> None:
    write(root, "a.md", "one")
    before = item(opened(root), "a.md").fingerprint
    assert item(opened(root), "a.md").fingerprint == before
    (root / "a.md").read_bytes()
    write(root, "b.md")
    write(root, ".citadel.yaml", "version: 1\ndefault: {allow: [group:staff]}")
    assert item(opened(root), "a.md").fingerprint == before
    write(root, "a.md", "two")
    assert item(opened(root), "a.md").fingerprint != before


def test_names_swapped_with_the_same_size_and_time_are_noticed(root: Path) -> None:
    at = datetime(2025, 1, 1, tzinfo=UTC).timestamp()
    for name in ("a.md", "b.md"):  # as an archive or rsync leaves them
        os.utime(write(root, name, f"bytes of {name}"), (at, at))
    before = {item.external_id: item.fingerprint for item in listing(opened(root))}
    (root / "a.md").rename(root / "c")
    (root / "b.md").rename(root / "a.md")
    (root / "c").rename(root / "b.md")
    after = {item.external_id: item.fingerprint for item in listing(opened(root))}
    assert after["a.md"] != before["a.md"] and after["b.md"] != before["b.md"]


def test_a_same_sized_edit_with_its_old_time_restored_is_noticed(root: Path) -> None:
    file = write(root, "a.md", "one")
    status, before = file.stat(), item(opened(root), "a.md").fingerprint
    file.write_text("two")
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert item(opened(root), "a.md").fingerprint != before


# --- what is read ---------------------------------------------------------------------------------------------------


def test_labels_come_from_front_matter_else_the_rules_else_the_source(root: Path) -> None:
    write(root, ".citadel.yaml", "version: 1\nrules:\n  - {path: 'finance/**', allow: [group:finance]}")
    write(root, "finance/a.md", "---\nlabels: {allow: [public]}\ntitle: Open\nmetadata: {n: 1}\n---\ntext")
    write(root, "finance/b.md", "text")
    write(root, "finance/c.txt", "---\nlabels: {allow: [public]}\n---\ntext")  # front matter is markdown's
    write(root, "other.md", "text")
    source = FolderSource(replace(source_of(root), labels=STAFF))
    got = {item.external_id: fetched(source, item) for item in listing(source)}
    assert got["finance/a.md"].labels == Labels(("public",))
    assert (got["finance/a.md"].title, got["finance/a.md"].metadata) == ("Open", {"n": 1})
    assert got["finance/b.md"].labels == got["finance/c.txt"].labels == FINANCE
    assert got["other.md"].labels == STAFF


@pytest.mark.parametrize("name", ["a.md", "a.MD", "a.markdown", "a.mdx"])
def test_front_matter_counts_in_every_file_that_is_parsed_as_markdown(root: Path, name: str) -> None:
    from ingest.sniff import sniff

    content = "---\nlabels: {allow: [group:finance]}\n---\ntext"
    write(root, name, content)
    source = opened(root)
    assert sniff(content.encode(), name) == "text/markdown"
    assert fetched(source, item(source, name)).labels == FINANCE


def test_without_any_label_nobody_is_allowed(root: Path) -> None:
    write(root, "a.md")
    source = opened(root)
    assert fetched(source, item(source, "a.md")).labels == Labels()


def test_accents_in_either_spelling_meet_their_rule(root: Path) -> None:
    write(root, unicodedata.normalize("NFD", "Geschäft/x.md"))
    rule = unicodedata.normalize("NFC", "version: 1\nrules:\n  - {path: 'Geschäft/**', allow: [group:finance]}")
    write(root, ".citadel.yaml", rule)
    source = opened(root)
    assert source.permissions(listing(source)[0]) == FINANCE


def test_a_file_larger_than_the_source_takes_is_refused(root: Path) -> None:
    write(root, "fits", b"x" * 10)
    write(root, "not", b"x" * 11)
    source = opened(root, max_bytes=10)
    assert len(fetched(source, item(source, "fits")).content) == 10
    with pytest.raises(BodyTooLarge, match="10 bytes"):
        fetched(source, item(source, "not"))


def test_a_file_that_cannot_be_opened_is_an_os_error(root: Path) -> None:
    write(root, "a.md").chmod(0)
    source = opened(root)
    listed = item(source, "a.md")
    with unprivileged(), pytest.raises(PermissionError):
        fetched(source, listed)


def test_a_file_that_vanished_since_it_was_listed_is_an_os_error(root: Path) -> None:
    file = write(root, "a.md")
    source = opened(root)
    listed = item(source, "a.md")
    file.unlink()
    with pytest.raises(FileNotFoundError):
        fetched(source, listed)


# --- what leads out of the folder -----------------------------------------------------------------------------------


@pytest.fixture
def secret(root: Path) -> Iterator[Path]:
    """A file outside the source's folder, which is `root / "in"`."""
    write(root, "in/sub/a.md", "inside")
    yield write(root, "outside/a.md", "SECRET")


def to_link(file: Path, secret: Path) -> None:
    file.unlink()
    file.symlink_to(secret)


def to_relative_link(file: Path, secret: Path) -> None:
    file.unlink()
    file.symlink_to("../../outside/a.md")


def folder_to_link(file: Path, secret: Path) -> None:
    shutil.rmtree(file.parent)
    file.parent.symlink_to(secret.parent)


def folder_to_file(file: Path, secret: Path) -> None:
    shutil.rmtree(file.parent)
    file.parent.write_text("x")


def to_folder(file: Path, secret: Path) -> None:
    file.unlink()
    file.mkdir()


def to_pipe(file: Path, secret: Path) -> None:
    file.unlink()
    os.mkfifo(file)


def to_device(file: Path, secret: Path) -> None:
    file.unlink()
    os.mknod(file, 0o20666, os.makedev(1, 5))  # /dev/zero


@pytest.mark.parametrize(
    "swap", [to_link, to_relative_link, folder_to_link, folder_to_file, to_folder, to_pipe,
             pytest.param(to_device, marks=pytest.mark.skipif(not AS_ROOT, reason="only root makes devices"))]
)  # fmt: skip
def test_what_is_swapped_between_listing_and_reading_is_not_followed(
    root: Path, secret: Path, swap: Callable[[Path, Path], None]
) -> None:
    source = opened(root / "in")
    listed = item(source, "sub/a.md")
    swap(root / "in/sub/a.md", secret)
    descriptors = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    with pytest.raises((OSError, Invalid)):
        fetched(source, listed)
    assert len(os.listdir("/proc/self/fd")) == descriptors  # noqa: PTH208


def test_a_folder_swapped_for_a_link_while_it_is_listed_is_not_followed(root: Path, secret: Path) -> None:
    write(root, "in/also/a.md")
    walk = opened(root / "in")._walk(set())  # the middle of a listing: both folders are known, one is read
    first = next(walk).external_id
    folder_to_link(root / "in" / ("sub/a.md" if first == "also/a.md" else "also/a.md"), secret)
    with pytest.raises(Misconfigured, match="cannot be listed"):
        list(walk)


@pytest.mark.parametrize("external_id", ["../outside/a.md", "sub/../../outside/a.md", "{outside}", "sub/\0", "", "."])
def test_a_name_that_was_not_listed_leads_nowhere(root: Path, secret: Path, external_id: str) -> None:
    source = opened(root / "in")
    asked = Listed(external_id.format(outside=secret), "")
    with pytest.raises(Invalid):
        source.fetch(asked, Labels())


# --- the rule file --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"version: 2", b"", b"version: 1\n# " + b"x" * 2**20])
def test_a_rule_file_that_cannot_be_understood_stops_the_source(root: Path, content: bytes) -> None:
    write(root, ".citadel.yaml", content)
    with pytest.raises(InvalidRules, match=r"\.citadel\.yaml"):
        listing(opened(root))


@pytest.mark.parametrize("kind", ["dangling link", "link", "folder", "pipe", "loop"])
def test_a_rule_file_that_is_no_file_is_not_taken_for_none(root: Path, kind: str) -> None:
    """As if there were none, every file would fall to the source's own labels, which may be wider."""
    rules = root / ".citadel.yaml"
    write(root, "rules.yaml", "version: 1")
    match kind:
        case "dangling link":
            rules.symlink_to(root / "unmounted.yaml")
        case "link":
            rules.symlink_to(root / "rules.yaml")
        case "loop":
            rules.symlink_to(rules)
        case "folder":
            rules.mkdir()
        case "pipe":
            os.mkfifo(rules)
    with pytest.raises(Invalid):
        listing(opened(root))


def test_a_rule_file_that_cannot_be_opened_stops_the_source(root: Path) -> None:
    write(root, ".citadel.yaml", "version: 1").chmod(0)
    with unprivileged(), pytest.raises(InvalidRules, match="Permission denied"):
        listing(opened(root))


def test_a_rule_file_with_a_byte_order_mark_is_read(root: Path) -> None:
    write(root, "a.md")
    write(root, ".citadel.yaml", "\ufeffversion: 1\ndefault: {allow: [group:staff]}")
    source = opened(root)
    assert source.permissions(listing(source)[0]) == STAFF


# --- the configuration ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("config", [{"path": None}, {"path": 7}, {"max_bytes": "lots"}, {"max_bytes": 1.5}])
def test_a_configuration_that_is_not_one_is_told(root: Path, config: dict[str, Any]) -> None:
    with pytest.raises(Misconfigured, match="files"):
        opened(root, **config)


def test_a_source_that_documents_are_pushed_to_cannot_be_read(root: Path) -> None:
    with pytest.raises(Misconfigured, match="nothing to refresh"):
        open_source(replace(source_of(root), kind="api"))
