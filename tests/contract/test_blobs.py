"""What every BlobStore must do: over a folder and in memory."""

import hashlib
import os
import resource
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from core.errors import BlobUnavailable
from store.blobs import BlobStore, FsspecBlobs

STORES: dict[str, Callable[[Path], FsspecBlobs]] = {
    "file": lambda folder: FsspecBlobs((folder / "blobs").as_uri()),
    "memory": lambda folder: FsspecBlobs(f"memory://{uuid.uuid4().hex}"),
}


@pytest.fixture(params=sorted(STORES))
def blobs(request: pytest.FixtureRequest, tmp_path: Path) -> BlobStore:
    """An empty store."""
    return STORES[request.param](tmp_path)


@pytest.fixture
def folder(tmp_path: Path) -> tuple[BlobStore, Path]:
    """A store over a folder, and the folder."""
    return FsspecBlobs((tmp_path / "blobs").as_uri()), tmp_path / "blobs"


@pytest.mark.parametrize("content", [b"", b"x", b"\0\xff\r\n", os.urandom(3_000_000)])
def test_what_is_put_is_got(blobs: BlobStore, content: bytes) -> None:
    key = blobs.put(content)
    assert key == hashlib.sha256(content).hexdigest()
    assert blobs.get(key) == content


def test_putting_again_changes_nothing(blobs: BlobStore) -> None:
    assert blobs.put(b"same") == blobs.put(b"same")
    assert blobs.put(b"same") != blobs.put(b"other")
    assert blobs.get(blobs.put(b"same")) == b"same"


def test_what_is_absent_is_told(blobs: BlobStore) -> None:
    key = hashlib.sha256(b"never put").hexdigest()
    with pytest.raises(BlobUnavailable):
        blobs.get(key)
    blobs.delete(key)  # absent is fine


def test_deletion_takes_one_and_leaves_the_rest(blobs: BlobStore) -> None:
    gone, kept = blobs.put(b"gone"), blobs.put(b"kept")
    blobs.delete(gone)
    with pytest.raises(BlobUnavailable):
        blobs.get(gone)
    assert blobs.get(kept) == b"kept"
    assert blobs.put(b"gone") == gone and blobs.get(gone) == b"gone"


def test_many_hands_put_the_same_bytes(blobs: BlobStore) -> None:
    content = os.urandom(200_000)
    with ThreadPoolExecutor(8) as threads:
        keys = set(threads.map(lambda _: blobs.put(content), range(40)))
    assert keys == {hashlib.sha256(content).hexdigest()}
    assert blobs.get(keys.pop()) == content


def test_two_stores_do_not_share(tmp_path: Path) -> None:
    for make in STORES.values():
        one, two = make(tmp_path / "one"), make(tmp_path / "two")
        key = one.put(b"mine")
        with pytest.raises(BlobUnavailable):
            two.get(key)


def test_bytes_that_rotted_are_not_handed_out(folder: tuple[BlobStore, Path]) -> None:
    blobs, place = folder
    key = blobs.put(b"as it was")
    (file,) = (path for path in place.rglob("*") if path.is_file())
    file.write_bytes(b"as it was not")
    with pytest.raises(BlobUnavailable, match="other bytes"):
        blobs.get(key)


def test_a_write_that_breaks_off_leaves_nothing(folder: tuple[BlobStore, Path]) -> None:
    blobs, place = folder
    content = os.urandom(1_000_000)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(BlobUnavailable):
            blobs.put(content)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [path for path in place.rglob("*") if path.is_file()] == []
    assert blobs.get(blobs.put(content)) == content


def test_a_store_that_cannot_write_says_so(tmp_path: Path) -> None:
    (tmp_path / "blobs").write_text("a file where the folder should be")
    blobs = FsspecBlobs((tmp_path / "blobs").as_uri())
    with pytest.raises(BlobUnavailable):
        blobs.put(b"bytes")
    with pytest.raises(BlobUnavailable):
        blobs.get(hashlib.sha256(b"bytes").hexdigest())
