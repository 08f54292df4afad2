"""A folder as a source: its files, opened beneath the root only, with labels by rule file, mode and front matter."""

import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path, PurePosixPath
from urllib.parse import quote

from core.errors import BodyTooLarge, Invalid, InvalidRules, Misconfigured, NotFound
from core.records import Labels, Source, Submission
from ingest.rules import RULE_FILE
from ingest.source import Listed, Memory, NoMemory, Page, pages
from ingest.sources.front_matter import file_submission
from ingest.sources.posix import PosixLabels, Standing, has_acl
from ingest.sources.rule_files import MAX_RULE_BYTES, RuleFiles, check_none_gone
from ingest.submit import MAX_EXTERNAL_ID, check_external_id

MAX_BYTES = 128 * 2**20  # of a file, where the source sets no `max_bytes`

_ROOT = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_FOLDER = _ROOT | os.O_NOFOLLOW
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


class FolderSource:
    """The files below a folder. Hidden files, links and special files are not documents."""

    def __init__(self, source: Source, memory: Memory | None = None) -> None:
        """Reads nothing yet. Raises Misconfigured."""
        path, max_bytes = source.config.get("path"), source.config.get("max_bytes") or MAX_BYTES
        if not isinstance(path, str) or not isinstance(max_bytes, int):
            raise Misconfigured(f"source {source.name!r} needs a `path` in its configuration, and bytes as `max_bytes`")
        self._root = Path(path)
        self._source = source
        self._memory = memory or NoMemory()
        self._uri_prefix = str(source.config.get("uri_prefix") or self._root.resolve().as_uri() + "/")
        self._max_bytes = max_bytes
        self._posix = PosixLabels.of(source.config.get("posix"))
        self._rules = RuleFiles(self._read_rules, self._memory.state)

    def enumerate(self, cursor: str | None = None) -> Iterator[Page]:
        """Every file. Raises NotFound for a missing folder, Misconfigured when part of it is closed, InvalidRules."""
        if not self._is_there():
            raise NotFound(
                f"the folder {self._root} of source {self._source.name!r} is not there, or closed to the worker: "
                "is it mounted?"
            )
        folders: set[str] = set()
        for page in pages(self._walk(folders)):
            if page.complete:
                check_none_gone(self._rules, self._memory.state, folders, self._source.name)
                page = replace(page, state=self._rules.state())
            yield page

    def permissions(self, item: Listed) -> Labels:
        """By the nearest rule file that says something, else by owner and mode where mapped, else the source's own.

        Raises InvalidRules, and Invalid where the mode does not tell who may read.
        """
        labels = self._rules.labels_for(item.external_id)
        if labels is None and self._posix is not None:
            return replace(self._posix.labels(Standing(**json.loads(item.note))),
                           classification=self._source.labels.classification)  # fmt: skip
        return self._source.labels if labels is None else labels

    def fetch(self, item: Listed, labels: Labels) -> Submission:
        """The file's bytes, labels, title and metadata. Raises Invalid, and OSError when it cannot be read."""
        check_external_id(item.external_id)
        content = self._read(item.external_id, self._max_bytes)
        uri = self._uri_prefix + quote(item.external_id)
        return file_submission(self._source.name, item.external_id, content, labels, uri)

    def _walk(self, seen: set[str]) -> Iterator[Listed]:
        folders = [("", self._standing_of_root())]
        while folders:
            folder, above = folders.pop()
            seen.add(folder.rstrip("/"))
            for name, status, acl in sorted(self._scan(folder), key=lambda entry: entry[0]):
                path = f"{folder}{name}"
                here = None if above is None else above.below(status, acl)
                if name == RULE_FILE:
                    self._rules.at(folder.rstrip("/"))
                elif name.startswith("."):
                    continue
                elif stat.S_ISDIR(status.st_mode) and len(path) < MAX_EXTERNAL_ID:
                    folders.append((f"{path}/", here))
                elif stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode):  # too deep: its name says so
                    yield Listed(path, _fingerprint(status), "" if here is None else here.note())

    def _standing_of_root(self) -> Standing | None:
        return None if self._posix is None else Standing.top(self._root.stat(), has_acl(self._root))

    def _scan(self, folder: str) -> Iterator[tuple[str, os.stat_result, bool]]:
        """(name, status, whether it has an access control list) of what lies in a folder."""
        try:
            with self._opened(PurePosixPath(folder).parts) as descriptor, os.scandir(descriptor) as entries:
                for entry in entries:
                    if (status := _status(entry)) is not None:
                        place = Path(f"/proc/self/fd/{descriptor}/{entry.name}")
                        yield entry.name, status, self._posix is not None and has_acl(place)
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

    def _read_rules(self, path: str) -> bytes | None:
        try:
            return self._read(path, MAX_RULE_BYTES)
        except FileNotFoundError:
            return None
        except (OSError, Invalid) as error:  # not as if there were none: it may close files
            raise InvalidRules(f"{path} must be a file of UTF-8 text, not a link: {error}") from error

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


def _fingerprint(status: os.stat_result) -> str:
    """With the time of the inode's change: names that were swapped keep size and modification time."""
    return f"{status.st_size}:{status.st_mtime_ns}:{status.st_ctime_ns}"
