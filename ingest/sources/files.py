"""Files of any fsspec file system: S3, Google Cloud Storage, Azure, SFTP, WebDAV, HTTP, an archive."""

import hashlib
import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any
from urllib.parse import quote, urlsplit, urlunsplit

import fsspec  # type: ignore[import-untyped]

from core.errors import BodyTooLarge, Invalid, InvalidRules, Misconfigured, SourceUnavailable
from core.records import Labels, Source, Submission
from ingest.rules import RULE_FILE
from ingest.source import Listed, Memory, Page, pages
from ingest.sources.config import Secrets, check_url, checked, labels_of
from ingest.sources.folder import MAX_BYTES
from ingest.sources.front_matter import file_submission
from ingest.sources.rule_files import MAX_RULE_BYTES, RuleFiles, check_none_gone

LOCAL = ("file", "local")
WEBDAV = {"webdav": "http", "webdavs": "https"}
# What file systems tell of a file that changes with its bytes; a size alone does not.
SIGNS = ("ETag", "etag", "md5", "md5Hash", "content_md5", "checksum", "crc32c", "CRC", "generation", "version_id",
         "mtime", "modify", "modified", "LastModified", "last_modified", "updated", "date_time")  # fmt: skip
SAME_SECOND_S = 2.0


class FilesSource:
    """The files below an fsspec URL. Hidden files are not documents."""

    def __init__(self, source: Source, memory: Memory) -> None:
        """Asks nothing yet. Raises Invalid."""
        config = checked(source, ["url"], {"options": dict, "secrets": dict, "max_bytes": int, "uri_prefix": str,
                                           "label_tag": str, "rules": bool})  # fmt: skip
        self._url = check_url(config["url"])
        protocols = [part.partition("://")[0] for part in self._url.split("::")]
        if "://" not in self._url or protocols[-1] in LOCAL and len(protocols) == 1:
            raise Invalid(f"{self._url[:80]!r} is no URL such as s3://bucket/folder; a local folder is of kind folder")
        self._source, self._memory, self._secrets = source, memory, Secrets(config)
        self._options: dict[str, Any] = config.get("options", {})
        self._max_bytes: int = config.get("max_bytes") or MAX_BYTES
        self._uri_prefix: str = config.get("uri_prefix") or self._url.rstrip("/") + "/"
        self._label_tag: str | None = config.get("label_tag")
        self._rules = RuleFiles(self._read_rules if config.get("rules", True) else lambda path: None, memory.state)
        self._opened: tuple[Any, str] | None = None

    def enumerate(self, cursor: str | None = None) -> Iterator[Page]:
        """Every file. Raises SourceUnavailable where a folder cannot be listed, and InvalidRules."""
        folders: set[str] = set()
        for page in pages(self._listed(folders)):
            if page.complete:
                check_none_gone(self._rules, self._memory.state, folders, self._source.name)
                page = replace(page, state=self._rules.state())
            yield page

    def permissions(self, item: Listed) -> Labels:
        """By the file's own tag where the source goes by tags, else by the nearest rule file, else the source's.

        Of a file that lacks the tag nobody but an operator sees anything. Raises SourceUnavailable, InvalidLabel.
        """
        if self._label_tag is not None:
            with self._secrets.asking(self._url, Exception):
                fs, root = self._fs()
                tags: dict[str, str] = fs.get_tags(_at(root, item.external_id))
            return labels_of(tags.get(self._label_tag, ""), self._source.labels.classification)
        labels = self._rules.labels_for(item.external_id)
        return self._source.labels if labels is None else labels

    def fetch(self, item: Listed, labels: Labels) -> Submission:
        """The file's bytes, labels, title and metadata. Raises SourceUnavailable, FileNotFoundError, Invalid."""
        content = self._read(item.external_id, self._max_bytes)
        uri = self._uri_prefix + quote(item.external_id)
        return file_submission(self._source.name, item.external_id, content, labels, uri)

    def _fs(self) -> tuple[Any, str]:
        if self._opened is None:
            try:
                fs, root = _open(self._url, {**self._options, **self._secrets.values()})
            except (ImportError, ValueError) as error:
                said = self._secrets.redact(str(error))
                raise Misconfigured(f"{self._url[:80]!r} cannot be opened here: {said}") from None
            if self._label_tag is not None and not hasattr(fs, "get_tags"):
                raise Misconfigured(f"files of {self._url[:80]!r} have no tags: `label_tag` is for S3")
            self._opened = fs, root.rstrip("/")
        return self._opened

    def _listed(self, folders: set[str]) -> Iterator[Listed]:
        try:
            with self._secrets.asking(self._url, Exception):
                yield from self._walk(folders)
        except FileNotFoundError as error:  # while it is listed: nobody knows what is gone
            raise SourceUnavailable(f"{self._url}: {error}") from error

    def _walk(self, folders: set[str]) -> Iterator[Listed]:
        fs, root = self._fs()
        fs.invalidate_cache()
        if not fs.isdir(root) and root:
            raise SourceUnavailable(f"{self._url} is not there, so nobody knows what is gone")
        for folder, inner, files in fs.walk(root, detail=True, on_error="raise"):
            folders.add(_below(root, folder))
            for name in [name for name in inner if name.startswith(".")]:
                del inner[name]  # and so is not walked
            if RULE_FILE in files:
                self._rules.at(_below(root, folder))
            for name, info in sorted(files.items()):
                if not name.startswith(".") and info["type"] == "file":
                    yield Listed(_below(root, info["name"]), fingerprint(info, time.time()))

    def _read_rules(self, path: str) -> bytes | None:
        try:
            return self._read(path, MAX_RULE_BYTES)
        except FileNotFoundError:
            return None
        except Invalid as error:
            raise InvalidRules(f"{path}: {error}") from error

    def _read(self, path: str, max_bytes: int) -> bytes:
        if ".." in path.split("/") or path.startswith("/"):
            raise Invalid(f"{path[:80]!a} is no path below the source")
        with self._secrets.asking(self._url, Exception):
            fs, root = self._fs()
            with fs.open(_at(root, path), "rb") as file:
                content = bytes(file.read(max_bytes + 1))
        if len(content) > max_bytes:
            raise BodyTooLarge(f"the file is larger than {max_bytes} bytes, the source's `max_bytes`")
        return content


def _open(url: str, options: dict[str, Any]) -> tuple[Any, str]:
    """The file system and the path of its root. Raises ImportError where its package is not installed, ValueError."""
    parts = urlsplit(url)
    if parts.scheme not in WEBDAV:
        fs, root = fsspec.core.url_to_fs(url, skip_instance_cache=True, **options)
        return fs, str(root)
    from webdav4.fsspec import WebdavFileSystem  # type: ignore[import-untyped]

    place = urlunsplit((WEBDAV[parts.scheme], parts.netloc, parts.path, "", ""))
    user, password = options.pop("user", None), options.pop("password", None)
    auth = None if user is None else (user, password or "")
    return WebdavFileSystem(place, auth=auth, skip_instance_cache=True, **options), ""


def fingerprint(info: Mapping[str, Any], now: float) -> str | None:
    """Of what a file system tells of a file; None where that would not tell of other bytes, as when the file was
    written just now: many tell whole seconds, and what is written in the same second looks alike. `now` is in s."""
    signs = [(key, str(info[key])) for key in SIGNS if info.get(key) is not None]
    written = [when.timestamp() for key in SIGNS if isinstance(when := info.get(key), datetime)]
    if not signs or max(written, default=-math.inf) > now - SAME_SECOND_S:
        return None
    return hashlib.sha256(repr((info.get("size"), signs)).encode()).hexdigest()[:32]


def _at(root: str, path: str) -> str:
    return f"{root}/{path}" if root else path


def _below(root: str, path: str) -> str:
    return path.rstrip("/").removeprefix(root).strip("/")
