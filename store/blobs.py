"""The blob store: submitted bytes under their sha256, on any fsspec file system."""

import hashlib
import os
import time
import uuid
from collections.abc import Iterator
from datetime import datetime
from typing import Any, Protocol

import fsspec  # type: ignore[import-untyped]

from core.errors import BlobUnavailable


class BlobStore(Protocol):
    """Bytes by content hash. `put` is idempotent and durable when it returns."""

    def put(self, content: bytes) -> str: ...
    def get(self, key: str) -> bytes: ...
    def delete(self, key: str) -> None: ...
    def aged(self, seconds: float) -> Iterator[list[str]]: ...


class FsspecBlobs:
    """A BlobStore under an fsspec URL (`file:///…`, `s3://…`, `memory://…`)."""

    def __init__(self, url: str) -> None:
        self._fs, self._root = fsspec.core.url_to_fs(url)
        self._local = "file" in self._fs.protocol

    def put(self, content: bytes) -> str:
        """Keep the bytes and return their key. A write becomes visible whole or not at all. Raises BlobUnavailable."""
        key = hashlib.sha256(content).hexdigest()
        path = self._path(key)
        try:
            if not self._fs.exists(path):
                self._write(path, content)
        except OSError as error:
            raise BlobUnavailable(f"the blob store took no bytes: {error}") from error
        return key

    def get(self, key: str) -> bytes:
        """The bytes of a key. Raises BlobUnavailable when they are not there or not what the key says."""
        try:
            content = bytes(self._fs.cat_file(self._path(key)))
        except OSError as error:
            raise BlobUnavailable(f"blob {key[:12]}… cannot be read: {error}") from error
        if hashlib.sha256(content).hexdigest() != key:
            raise BlobUnavailable(f"blob {key[:12]}… holds other bytes than its name promises: restore it")
        return content

    def delete(self, key: str) -> None:
        """Remove the bytes of a key; absent is fine. Raises BlobUnavailable."""
        try:
            self._remove(self._path(key))
        except OSError as error:
            raise BlobUnavailable(f"blob {key[:12]}… cannot be removed: {error}") from error

    def aged(self, seconds: float) -> Iterator[list[str]]:
        """A folder at a time, the keys of what is older than that; of unfinished writes, their names.

        Raises BlobUnavailable.
        """
        before = time.time() - seconds
        try:
            for _, _, files in self._fs.walk(self._root, detail=True):
                if old := [name for name, info in files.items() if self._written_at(info) < before]:
                    yield old
        except OSError as error:
            raise BlobUnavailable(f"the blob store cannot be listed: {error}") from error

    def holders(self, wanted: bytes) -> list[str]:
        """The names of the files, whole or unfinished, that hold these bytes. Raises BlobUnavailable."""
        try:
            return [path for path in self._fs.find(self._root) if wanted in self._fs.cat_file(path)]
        except OSError as error:
            raise BlobUnavailable(f"the blob store cannot be searched: {error}") from error

    def has(self, key: str) -> bool:
        """Whether the bytes of a key are there."""
        return bool(self._fs.exists(self._path(key)))

    def _path(self, key: str) -> str:
        return f"{self._root.rstrip('/')}/{key[:2]}/{key}"

    def _written_at(self, info: dict[str, Any]) -> float:
        """Unix time. A listing has it, under a name that differs between file systems, or else it is asked for."""
        at = info.get("mtime") or info.get("LastModified") or info.get("created") or self._fs.modified(info["name"])
        return at.timestamp() if isinstance(at, datetime) else float(at)

    def _write(self, path: str, content: bytes) -> None:
        folder = path.rsplit("/", 1)[0]
        self._fs.makedirs(folder, exist_ok=True)
        part = f"{path}.{uuid.uuid4().hex}.part"
        try:
            with self._fs.open(part, "wb") as file:
                file.write(content)
                if self._local:  # 202 means kept: the bytes are on the disk before the row that names them,
                    file.flush()
                    os.fsync(file.fileno())
            self._fs.mv(part, path)
        except OSError:
            self._remove(part)
            raise
        if self._local:  # and so is their name
            _sync(folder)
            _sync(self._root)

    def _remove(self, path: str) -> None:
        if self._fs.exists(path):
            self._fs.rm_file(path)


def _sync(folder: str) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
