"""A folder as a source: its files, their labels by rule file and front matter, opened beneath the root only."""

import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Protocol
from urllib.parse import quote

from core.errors import BodyTooLarge, Invalid, InvalidRules, Misconfigured, NotFound
from core.records import Labels, Source, Submission
from ingest.rules import RULE_FILE, FrontMatter, Rules, read_front_matter, read_rules
from ingest.submit import MAX_EXTERNAL_ID, check_external_id

MARKDOWN = (".md", ".markdown", ".mdx")  # as `ingest.sniff` has it
MAX_BYTES = 128 * 2**20  # of a file, where the source sets no `max_bytes`
MAX_RULE_BYTES = 2**20

_ROOT = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_FOLDER = _ROOT | os.O_NOFOLLOW
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


@dataclass(frozen=True, slots=True)
class Listed:
    """One item of an enumeration."""

    external_id: str
    fingerprint: str  # changes whenever the bytes or the labels may have changed
    labels: Labels  # by the source's own rules: what holds for an item that cannot be read


class DocumentSource(Protocol):
    """Where documents come from. `enumerate` lists everything or raises: only then may what is missing be deleted."""

    def enumerate(self) -> list[Listed]: ...
    def fetch(self, item: Listed) -> Submission: ...


class FolderSource:
    """The files below a folder. Hidden files, links and special files are not documents."""

    def __init__(self, source: Source) -> None:
        """Reads the rule file. Raises Misconfigured, InvalidRules."""
        path, max_bytes = source.config.get("path"), source.config.get("max_bytes") or MAX_BYTES
        if not isinstance(path, str) or not isinstance(max_bytes, int):
            raise Misconfigured(f"source {source.name!r} needs a `path` in its configuration, and bytes as `max_bytes`")
        self._root = Path(path)
        self._source = source
        self._uri_prefix = str(source.config.get("uri_prefix") or self._root.resolve().as_uri() + "/")
        self._max_bytes = max_bytes
        self._rules = self._read_rules()

    def enumerate(self) -> list[Listed]:
        """Every file, sorted by path. Raises NotFound for a missing folder, Misconfigured when part of it is closed."""
        if not self._is_there():
            raise NotFound(
                f"the folder {self._root} of source {self._source.name!r} is not there, or closed to the worker: "
                "is it mounted?"
            )
        return sorted(self._walk(), key=lambda item: item.external_id)

    def fetch(self, item: Listed) -> Submission:
        """The file's bytes, labels, title and metadata. Raises Invalid, and OSError when it cannot be read."""
        check_external_id(item.external_id)
        content = self._read(item.external_id, self._max_bytes)
        own = _front_matter(item.external_id, content)
        return Submission(
            external_id=item.external_id,
            content=content,
            labels=item.labels if own.labels is None else own.labels,
            source=self._source.name,
            title=own.title,
            filename=PurePosixPath(item.external_id).name,
            uri=self._uri_prefix + quote(item.external_id),
            metadata=own.metadata,
        )

    def _walk(self) -> Iterator[Listed]:
        folders = [""]
        while folders:
            folder = folders.pop()
            for name, status in self._scan(folder):
                path = f"{folder}{name}"
                if stat.S_ISDIR(status.st_mode) and len(path) < MAX_EXTERNAL_ID:
                    folders.append(f"{path}/")
                elif stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode):  # too deep: fetching it says so
                    labels = self._rules.labels_for(path) or self._source.labels
                    yield Listed(path, _fingerprint(status, labels), labels)

    def _scan(self, folder: str) -> Iterator[tuple[str, os.stat_result]]:
        try:
            with self._opened(PurePosixPath(folder).parts) as descriptor, os.scandir(descriptor) as entries:
                for entry in entries:
                    if not entry.name.startswith(".") and (status := _status(entry)) is not None:
                        yield entry.name, status
        except OSError as error:
            raise Misconfigured(
                f"{folder!a} in the folder of source {self._source.name!r} cannot be listed ({error.strerror}), so "
                "nobody knows what is gone: make it readable; nothing was changed"
            ) from error

    def _is_there(self) -> bool:
        try:
            return self._root.is_dir()
        except OSError:
            return False

    def _read_rules(self) -> Rules:
        if not self._is_there():
            return Rules()
        try:
            return read_rules(self._read(RULE_FILE, MAX_RULE_BYTES).decode("utf-8-sig"))
        except FileNotFoundError:
            return Rules()
        except (OSError, UnicodeDecodeError, BodyTooLarge) as error:  # not as if there were none: it may close files
            raise InvalidRules(f"{RULE_FILE} must be a file of UTF-8 text, not a link: {error}") from error

    @contextmanager
    def _opened(self, parts: tuple[str, ...]) -> Iterator[int]:
        """The folder, opened part by part without following links, so that no swap of a link leads out of the root."""
        folder = os.open(self._root, _ROOT)
        try:
            for part in parts:  # a deep path must not use up the descriptors
                inner = os.open(part, _FOLDER, dir_fd=folder)
                os.close(folder)
                folder = inner
            yield folder
        finally:
            os.close(folder)

    def _read(self, path: str, max_bytes: int) -> bytes:
        *folders, name = _beneath(path)
        with self._opened(tuple(folders)) as folder, _descriptor(name, _FILE, folder) as descriptor:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise Invalid("it is no longer a file")
            with os.fdopen(descriptor, "rb", closefd=False) as file:
                content = file.read(max_bytes + 1)
        if len(content) > max_bytes:
            raise BodyTooLarge(f"the file is larger than {max_bytes} bytes, the source's `max_bytes`")
        return content


def open_source(source: Source) -> DocumentSource:
    """The source's reader. Raises Misconfigured for one that documents are pushed to."""
    if source.kind == "folder":
        return FolderSource(source)
    raise Misconfigured(f"source {source.name!r} takes pushed documents: there is nothing to refresh")


def labels_within(external_id: str, blob_key: str | None, read: Callable[[str], bytes]) -> Labels | None:
    """The labels that a file's own front matter gives, of bytes that were kept. Raises InvalidRules."""
    if blob_key is None or not external_id.lower().endswith(MARKDOWN):  # others are not even read
        return None
    return _front_matter(external_id, read(blob_key)).labels


def _beneath(path: str) -> tuple[str, ...]:
    parts = PurePosixPath(path).parts
    if not parts or ".." in parts or path.startswith("/"):
        raise Invalid(f"{path[:80]!a} is no path beneath the folder")
    return parts


@contextmanager
def _descriptor(path: str, flags: int, folder: int) -> Iterator[int]:
    descriptor = os.open(path, flags, dir_fd=folder)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _status(entry: os.DirEntry[str]) -> os.stat_result | None:
    try:
        return entry.stat(follow_symlinks=False)
    except FileNotFoundError:  # gone since it was listed
        return None


def _fingerprint(status: os.stat_result, labels: Labels) -> str:
    """With the time of the inode's change: names that were swapped keep size and modification time."""
    digest = hashlib.sha256(repr(labels).encode()).hexdigest()[:16]
    return f"{status.st_size}:{status.st_mtime_ns}:{status.st_ctime_ns}:{digest}"


def _front_matter(external_id: str, content: bytes) -> FrontMatter:
    return read_front_matter(content) if external_id.lower().endswith(MARKDOWN) else FrontMatter()
