"""A folder as a source: its files, their labels by rule file and front matter, opened beneath the root only."""

import hashlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Protocol

from core.errors import BodyTooLarge, InvalidRules, Misconfigured, NotFound
from core.records import Labels, Source, Submission
from ingest.rules import RULE_FILE, FrontMatter, Rules, read_front_matter, read_rules

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


@dataclass(frozen=True, slots=True)
class Listed:
    """One item of an enumeration."""

    external_id: str
    fingerprint: str  # changes whenever the bytes or the labels may have changed


class DocumentSource(Protocol):
    """Where documents come from. `enumerate` lists everything or raises: only then may what is missing be deleted."""

    def enumerate(self) -> list[Listed]: ...
    def fetch(self, item: Listed) -> Submission: ...


class FolderSource:
    """The files below a folder. Hidden files, links and special files are not documents."""

    def __init__(self, source: Source) -> None:
        path = source.config.get("path")
        if not isinstance(path, str):
            raise Misconfigured(f"source {source.name!r} needs a `path` in its configuration")
        self._root = Path(path)
        self._source = source
        self._uri_prefix = str(source.config.get("uri_prefix") or self._root.resolve().as_uri() + "/")
        self._max_bytes = int(source.config.get("max_bytes") or 128 * 2**20)
        self._rules = self._read_rules()

    def enumerate(self) -> list[Listed]:
        """Every file, sorted by path. Raises NotFound for a missing folder, OSError when part of it is closed."""
        if not self._root.is_dir():
            raise NotFound(f"the folder {self._root} of source {self._source.name!r} is not there: is it mounted?")
        return sorted(self._walk(), key=lambda item: item.external_id)

    def fetch(self, item: Listed) -> Submission:
        """The file's bytes, labels, title and metadata. Raises OSError when it cannot be read, InvalidRules."""
        content = self._read(item.external_id)
        own = _front_matter(item.external_id, content)
        return Submission(
            external_id=item.external_id,
            content=content,
            labels=own.labels or self._labels_for(item.external_id),
            source=self._source.name,
            title=own.title,
            filename=PurePosixPath(item.external_id).name,
            uri=self._uri_prefix + item.external_id,
            metadata=own.metadata,
        )

    def _walk(self) -> Iterator[Listed]:
        for folder, folders, names in os.walk(self._root, onerror=_raise, followlinks=False):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            for name in names:
                path = Path(folder, name)
                status = path.lstat()
                if not name.startswith(".") and stat.S_ISREG(status.st_mode):
                    external_id = path.relative_to(self._root).as_posix()
                    yield Listed(external_id, self._fingerprint(external_id, status))

    def _fingerprint(self, external_id: str, status: os.stat_result) -> str:
        labels = hashlib.sha256(repr(self._labels_for(external_id)).encode()).hexdigest()[:16]
        return f"{status.st_size}:{status.st_mtime_ns}:{labels}"

    def _labels_for(self, external_id: str) -> Labels:
        return self._rules.labels_for(external_id) or self._source.labels

    def _read_rules(self) -> Rules:
        path = self._root / RULE_FILE
        return read_rules(path.read_text(encoding="utf-8")) if path.is_file() else Rules()

    def _read(self, external_id: str) -> bytes:
        """Opened part by part without following links, so that no swap of a link leads out of the root."""
        parts = PurePosixPath(external_id).parts
        folder = os.open(self._root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for part in parts[:-1]:
                inner = os.open(part, _DIRECTORY, dir_fd=folder)
                os.close(folder)
                folder = inner
            with os.fdopen(os.open(parts[-1], _FILE, dir_fd=folder), "rb") as file:
                content = file.read(self._max_bytes + 1)
        finally:
            os.close(folder)
        if len(content) > self._max_bytes:
            raise BodyTooLarge(f"the file is larger than {self._max_bytes} bytes, the source's `max_bytes`")
        return content


def open_source(source: Source) -> DocumentSource:
    """The source's reader. Raises Misconfigured for one that documents are pushed to."""
    if source.kind == "folder":
        return FolderSource(source)
    raise Misconfigured(f"source {source.name!r} takes pushed documents: there is nothing to refresh")


def _front_matter(external_id: str, content: bytes) -> FrontMatter:
    if not external_id.lower().endswith((".md", ".markdown")):
        return FrontMatter()
    try:
        return read_front_matter(content.decode("utf-8", errors="replace"))
    except InvalidRules as error:
        raise InvalidRules(f"{external_id}: {error}") from error


def _raise(error: OSError) -> None:
    raise error
