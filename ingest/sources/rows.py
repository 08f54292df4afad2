"""A SQL query as a source: a row is a document, of the columns `id`, `text`, and where it has them `title`, `labels`,
`deny`, `classification`, `modified`, `uri` and `mime_type`; further columns are its metadata.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from core.errors import EmptyDocument, Invalid
from core.records import Labels, Source, Submission
from ingest.source import Listed, Memory, Page, pages
from ingest.sources.config import Secrets, check_url, checked, labels_of
from store.foreign import ForeignRows

NEEDED = ("id", "text")
OWN = (*NEEDED, "title", "labels", "deny", "classification", "modified", "uri", "mime_type")
PERMISSIONS = ("labels", "deny", "classification")


class RowsSource:
    """The rows of a query. With a column `modified`, the text of a row that did not change is not read."""

    def __init__(self, source: Source, memory: Memory) -> None:
        """Asks nothing yet. Raises Invalid."""
        config = checked(source, ["query"], {"url": str, "secrets": dict})
        self._secrets = Secrets(config)
        if ("url" in config) == ("url" in self._secrets):
            raise Invalid("a source of kind sql needs its `url`, or as a secret where it holds a password")
        self._url: str | None = check_url(config["url"]) if "url" in config else None
        self._query: str = config["query"]
        self._source = source
        self._opened: tuple[ForeignRows, list[str]] | None = None

    def enumerate(self, cursor: str | None = None) -> Iterator[Page]:
        """Every row. Raises SourceUnavailable, and Invalid for a query without the columns."""
        rows, columns = self._rows()
        marks = ["id", *(name for name in ("modified", *PERMISSIONS) if name in columns)]
        wanted = marks if "modified" in columns else columns
        with self._secrets.asking("the database"):
            yield from pages(self._listed(dict(row)) for row in rows.rows(wanted))

    def permissions(self, item: Listed) -> Labels:
        """The row's own labels where the query has the column, else the source's. Raises Invalid for a row without."""
        note = json.loads(item.note)
        if "labels" not in note:
            return self._source.labels
        classification = note.get("classification") or self._source.labels.classification
        return labels_of(note["labels"], str(classification), note.get("deny"))

    def fetch(self, item: Listed, labels: Labels) -> Submission:
        """The row's text. Raises SourceUnavailable, and FileNotFoundError for a row that is gone."""
        rows, _ = self._rows()
        with self._secrets.asking("the database"):
            row = rows.row("id", json.loads(item.note)["id"])
        if row is None:
            raise FileNotFoundError("the row is gone")
        text = row["text"]
        if text is None or not str(text).strip():
            raise EmptyDocument("the row's text is empty")
        more = {name: _plain(value) for name, value in row.items() if name not in OWN and value is not None}
        told = {name: str(row[name]) for name in ("title", "uri", "mime_type") if row.get(name)}
        submission = Submission(item.external_id, str(text).encode(), labels, self._source.name, metadata=more)
        return replace(submission, mime_type=told.get("mime_type", "text/plain"), title=told.get("title"),
                       uri=told.get("uri"))  # fmt: skip

    def _rows(self) -> tuple[ForeignRows, list[str]]:
        if self._opened is None:
            rows = ForeignRows(self._url or self._secrets.values()["url"], self._query)
            with self._secrets.asking("the database"):
                columns = rows.columns()
            if lacking := [name for name in NEEDED if name not in columns]:
                raise Invalid(f"the query has no column {' and no column '.join(lacking)}: write `SELECT … AS id, …`")
            self._opened = rows, columns
        return self._opened

    def _listed(self, row: Mapping[str, Any]) -> Listed:
        note = {name: row[name] if isinstance(row[name], int | list) else _text(row[name])
                for name in ("id", *PERMISSIONS) if name in row}  # fmt: skip
        told = {name: _text(value) for name, value in row.items() if name not in PERMISSIONS}
        sure = row["modified"] is not None if "modified" in row else True
        digest = hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:32]
        return Listed(str(row["id"]), digest if sure else None, json.dumps(note))


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


def _plain(value: Any) -> Any:
    return value if isinstance(value, str | int | float | bool) else str(value)
