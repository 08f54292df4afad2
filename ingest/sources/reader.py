"""Any LlamaIndex reader by name, `module:Class`: in a process with limits, and without the worker's environment."""

import hashlib
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from core.errors import EmptyDocument, Invalid, SourceUnavailable
from core.records import Labels, Source, Submission
from ingest.source import Listed, Memory, Page, pages
from ingest.sources.config import Secrets, checked, labels_of

TIMEOUT_S = 600.0
_ROOT = Path(__file__).resolve().parent.parent.parent
_NAME = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


class ReaderSource:
    """The documents that a reader loads. A refresh loads them all: readers know neither cursors nor changes."""

    def __init__(self, source: Source, memory: Memory, scratch: Path) -> None:
        """Runs nothing yet. Raises Invalid."""
        config = checked(source, ["reader"], {"init": dict, "load": dict, "id": str, "labels": str, "timeout_s": float,
                                              "secrets": dict})  # fmt: skip
        if not _NAME.fullmatch(config["reader"]):
            raise Invalid("`reader` is module:Class, such as llama_index.readers.web:SimpleWebPageReader")
        self._source, self._scratch, self._secrets = source, scratch, Secrets(config)
        self._asked = {"reader": config["reader"], "init": config.get("init", {}), "load": config.get("load", {})}
        self._id: str | None = config.get("id")
        self._labels: str | None = config.get("labels")
        self._timeout_s: float = config.get("timeout_s") or TIMEOUT_S

    def enumerate(self, cursor: str | None = None) -> Iterator[Page]:
        """Every document, by what its metadata says is its id, else by its text. Raises SourceUnavailable."""
        yield from pages(self._listed(self._loaded()))

    def permissions(self, item: Listed) -> Labels:
        """What the metadata says are its labels, where the source names that key; else the source's own."""
        if self._labels is None:
            return self._source.labels
        return labels_of(json.loads(item.note)["labels"], self._source.labels.classification)

    def fetch(self, item: Listed, labels: Labels) -> Submission:
        """The document. Raises SourceUnavailable, and FileNotFoundError for one that the reader loads no more."""
        with self._loaded().open("rb") as file:
            file.seek(json.loads(item.note)["at"])
            document = json.loads(file.readline() or b"{}")
        if not document or self._name(document) != item.external_id:
            raise FileNotFoundError("the reader loads it no more")
        if not document["text"].strip():
            raise EmptyDocument("its text is empty")
        return Submission(item.external_id, document["text"].encode(), labels, self._source.name,
                          title=document["metadata"].get("title"), mime_type="text/plain",
                          uri=document["metadata"].get("url"), metadata=document["metadata"])  # fmt: skip

    def _listed(self, loaded: Path) -> Iterator[Listed]:
        with loaded.open("rb") as file:
            at = 0
            for line in file:
                document = json.loads(line)
                note = {"at": at, "labels": document["metadata"].get(self._labels) if self._labels else None}
                yield Listed(self._name(document), hashlib.sha256(line).hexdigest()[:32], json.dumps(note))
                at += len(line)

    def _name(self, document: dict[str, Any]) -> str:
        if self._id is None:
            return hashlib.sha256(document["text"].encode()).hexdigest()[:40]
        if document["metadata"].get(self._id) is None:
            raise Invalid(f"a document's metadata has no {self._id!r}, which is to be its id")
        return str(document["metadata"][self._id])

    def _loaded(self) -> Path:
        """A file with a document a line."""
        loaded = self._scratch / "documents.ndjson"
        if not loaded.is_file():
            asked = {**self._asked, "init": {**self._asked["init"], **self._secrets.values()}}
            part = loaded.with_suffix(".part")
            with part.open("wb") as out:
                self._run(json.dumps(asked).encode(), out.fileno())
            part.rename(loaded)
        return loaded

    def _run(self, asked: bytes, out: int) -> None:
        environment = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "HOME": str(self._scratch),
                       "PYTHONPATH": str(_ROOT), "HF_HUB_OFFLINE": "1"}  # fmt: skip
        command = [sys.executable, "-m", "ingest.sources.reader_child", str(int(self._timeout_s))]
        try:
            done = subprocess.run(command, input=asked, stdout=out, stderr=subprocess.PIPE, env=environment,
                                  cwd=self._scratch, timeout=self._timeout_s, check=False)  # fmt: skip
        except subprocess.TimeoutExpired:
            raise SourceUnavailable(f"the reader did not end within {self._timeout_s:.0f} s") from None
        if done.returncode != 0:
            said = self._secrets.redact(done.stderr.decode("utf-8", "replace")).strip()[-500:]
            raise SourceUnavailable(f"the reader failed: {said or f'status {done.returncode}'}")
