"""The client: one method a call of the HTTP API."""

import copy
import json
import re
import time
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from uuid import UUID

import httpx

from citadel_client import records
from citadel_client.batch import send_batch
from citadel_client.errors import ApiError, JobFailed, Unreachable, WaitTimeout
from citadel_client.records import (
    BatchRecord,
    Citation,
    Document,
    Job,
    Labels,
    Mode,
    NewDocument,
    SearchAnswer,
    Source,
    SubmittedDocument,
    TextSpan,
)
from citadel_client.retry import NEVER, RetryPolicy
from citadel_client.wire import Wire

# The server closes a connection that idles for 5 s (uvicorn's default); ours must be the side that lets go first.
LIMITS = httpx.Limits(max_connections=100, max_keepalive_connections=20, keepalive_expiry=3.0)
POLL_S, MAX_POLL_S = 0.1, 2.0
HEADER_SAFE = re.compile(r"[\x21-\x7e]+")  # visible ASCII
NAME = re.compile(r"[^\s\x00-\x1f\x7f]+")  # what a label's value may hold


class CitadelClient:
    """A Citadel at `url`, asked with an API key. Use it in a `with`, or close it; threads may share it.

    Every call raises CitadelError (see `citadel_client.errors`). Calls that may be repeated are, as `retry` says;
    `refresh` and `add_folder` never are. `timeout` is in seconds, for connecting and for each wait on the server.
    """

    def __init__(
        self,
        url: str,
        key: str,
        *,
        act_for: str | None = None,
        timeout: float = 30.0,
        retry: RetryPolicy | None = None,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        if not HEADER_SAFE.fullmatch(key):
            raise ValueError("the API key is blank or holds blanks or control characters: give the key as it was made")
        headers = {"Authorization": f"Bearer {key}"}
        http = httpx.Client(base_url=url, headers=headers, timeout=timeout, limits=LIMITS, transport=transport)
        self._wire = Wire(http, retry or RetryPolicy(), None if act_for is None else checked_user(act_for))
        self._owner = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"CitadelClient({str(self._wire.http.base_url)!r}, act_for={self._wire.act_for!r})"

    def close(self) -> None:
        """Close the connections. On a client made by `acting_for` this does nothing: the first one owns them."""
        if self._owner:
            self._wire.http.close()

    def acting_for(self, user: str) -> "CitadelClient":
        """The same connections, asking in the name of this user, e.g. `user:ana@acme.example`.

        The key needs the `act_for` scope. Raises ValueError for a name that no header can carry: a missing identity is
        never "no filter".
        """
        other = copy.copy(self)
        other._wire = replace(self._wire, act_for=checked_user(user))
        other._owner = False
        return other

    # --- documents --------------------------------------------------------------------------------------------------

    def submit(self, document: NewDocument, *, if_version: int | None = None) -> SubmittedDocument:
        """Hand over a text. When this returns, the server has committed it; `wait` tells when it can be found.

        With `if_version`, Conflict unless that is the document's latest version.
        """
        return self._wire.ask(
            "POST", "/v1/documents", records.submitted_of, json=document.as_json(), headers=if_match(if_version)
        )

    def upload(
        self,
        file: bytes | str | PathLike[str],
        *,
        labels: Labels | None,
        external_id: str | None = None,
        filename: str | None = None,
        title: str | None = None,
        mime_type: str | None = None,
        source: str | None = None,
        uri: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        if_version: int | None = None,
    ) -> SubmittedDocument:
        """Hand over a file: its path (a str is a path) or its bytes. The server goes by the content's own type.

        `external_id` and `filename` default to the path's last part; bytes need an `external_id`.
        """
        name = filename or ("file" if isinstance(file, bytes) else Path(file).name)
        if external_id is None and isinstance(file, bytes):
            raise ValueError("bytes have no name: give an external_id")
        fields = NewDocument(external_id or name, "", labels, title, mime_type, source, uri, metadata or {})
        content = file if isinstance(file, bytes) else Path(file).read_bytes()
        return self._wire.ask(
            "POST",
            "/v1/documents/upload",
            records.submitted_of,
            files={"file": (name, content, mime_type or "application/octet-stream")},
            data={"document": json.dumps(fields.fields_as_json(), allow_nan=False)},
            headers=if_match(if_version),
        )

    def batch(self, documents: Iterable[NewDocument], *, lines_per_request: int = 200) -> Iterator[BatchRecord]:
        """Hand over many texts, taken from the iterable as they are needed; a record for each, in order.

        A document that the server refuses has its `error` in its record, and the rest go on. Nothing is sent before the
        first record is asked for: iterate to the end. A server with long answers may need fewer lines in a request.
        """
        return send_batch(self._wire, documents, lines_per_request)

    def document(self, document_id: UUID | str) -> Document:
        """One document. Raises NotFound, also when it is not for this caller."""
        return self._wire.ask("GET", f"/v1/documents/{checked_id(document_id)}", records.document_of)

    def documents(self, *, source: str | None = None, page_size: int | None = None) -> Iterator[Document]:
        """Every document that the caller may see, fetched page by page."""
        asked = {"source": source, "limit": page_size, "cursor": None}
        while True:
            page = self._wire.ask("GET", "/v1/documents", records.document_page_of, params=given(asked))
            yield from page.documents
            if page.next_cursor is None:
                return
            asked["cursor"] = page.next_cursor

    def text(
        self, document_id: UUID | str, *, version: int | None = None, start: int | None = None, end: int | None = None
    ) -> TextSpan:
        """text[start:end] of a version, in code points; by default all of the current version."""
        params = given({"version": version, "start": start, "end": end})
        return self._wire.ask(
            "GET", f"/v1/documents/{checked_id(document_id)}/text", records.text_span_of, params=params
        )

    def cited_text(self, citation: Citation) -> str:
        """The span that a citation points at, read from the stored version: the passage, byte for byte."""
        span = self.text(citation.document_id, version=citation.version, start=citation.start, end=citation.end)
        return span.text

    def set_labels(self, document_id: UUID | str, labels: Labels, *, if_version: int | None = None) -> None:
        """Put a document under other labels; every search that begins after this returns goes by them."""
        path = f"/v1/documents/{checked_id(document_id)}/labels"
        self._wire.send("PUT", path, json=labels.as_json(), headers=if_match(if_version))

    def delete(self, document_id: UUID | str, *, if_version: int | None = None) -> None:
        """Delete a document with all its versions; no search that begins after this returns finds it."""
        self._wire.send("DELETE", f"/v1/documents/{checked_id(document_id)}", headers=if_match(if_version))

    # --- jobs -------------------------------------------------------------------------------------------------------

    def job(self, job_id: UUID | str) -> Job:
        """A job as it stands now."""
        job = checked_id(job_id)
        return self._wire.ask("GET", f"/v1/jobs/{job}", lambda body: records.job_of(body, job))

    def wait(self, job_id: UUID | str, timeout: float = 60.0) -> Job:
        """The job once it is done. Raises JobFailed when it ends otherwise, WaitTimeout after `timeout` seconds."""
        give_up = time.monotonic() + timeout
        pause = POLL_S
        while not (job := self.job(job_id)).finished:
            left = give_up - time.monotonic()
            if left <= 0:
                raise WaitTimeout(job, timeout)
            time.sleep(min(pause, left))
            pause = min(2 * pause, MAX_POLL_S)
        if job.state != "done":
            raise JobFailed(job)
        return job

    # --- search -----------------------------------------------------------------------------------------------------

    def search(
        self,
        query: str,
        *,
        queries: Sequence[str] = (),
        top_k: int = 8,
        mode: Mode = "hybrid",
        filters: Mapping[str, Any] | None = None,
        rerank: str | None = None,
        max_tokens: int | None = None,
        at_least: int | None = None,
        recency: Mapping[str, Any] | None = None,
        explain: bool = False,
    ) -> SearchAnswer:
        """The passages that the caller may see, best first, with citations and a context for a prompt.

        `queries` are variants of the question. `filters` look like `{"source": "handbook", "metadata.team": {"$in":
        ["ops"]}}`. `rerank` names a reranker, or `none`. `max_tokens` bounds the context. `at_least` is a job's `seq`:
        Unavailable when the index does not reach it in time. Stages that were left out are named in `degraded`.
        `recency`, such as `{"half_life_days": 90, "weight": 0.3}`, puts younger documents before older ones.
        With `explain`, `explanation` tells of each candidate near the cut who proposed it and what became of it.
        """
        optional = {"filters": filters, "rerank": rerank, "max_tokens": max_tokens, "at_least": at_least,
                    "recency": recency}  # fmt: skip
        body = {"query": query, "queries": list(queries), "top_k": top_k, "mode": mode, "explain": explain}
        return self._wire.ask("POST", "/v1/search", records.search_answer_of, json={**body, **given(optional)})

    def feedback(
        self,
        request_id: UUID | str,
        *,
        helpful: bool | None = None,
        used: Sequence[str] = (),
        missing_documents: Sequence[str] = (),
        missing_texts: Sequence[str] = (),
        comment: str | None = None,
        query: str | None = None,
    ) -> None:
        """Say how good the answer with this request id was; said again, it replaces what was said before.

        `used` are markers of its citations. What it should have had is named by external ids or words. The `query`
        lets the operator make a judgement of it where the server keeps no questions. Raises NotFound unless this same
        caller asked.
        """
        missing = [{"document": each} for each in missing_documents] + [{"text": each} for each in missing_texts]
        optional = {"helpful": helpful, "comment": comment, "query": query}
        body = {"request_id": str(checked_id(request_id)), "used": list(used), "missing": missing, **given(optional)}
        self._wire.send("POST", "/v1/feedback", json=body)

    # --- sources and service ----------------------------------------------------------------------------------------

    def sources(self) -> tuple[Source, ...]:
        """Where the tenant's documents come from."""
        return self._wire.ask("GET", "/v1/sources", lambda body: tuple(map(records.source_of, body["sources"])))

    def add_folder(
        self,
        name: str,
        path: str,
        *,
        labels: Labels | None = None,
        schedule: str | None = None,
        uri_prefix: str | None = None,
        max_deleted_share: float | None = None,
    ) -> Source:
        """Have the server read a folder of its own machine, on a cron schedule (UTC) or when `refresh` asks.

        `labels` are for files that no rule covers; None: nobody sees those. Raises Conflict when the name is taken.
        """
        optional = {"schedule": schedule, "uri_prefix": uri_prefix, "max_deleted_share": max_deleted_share}
        body = {"name": name, "kind": "folder", "path": path, "labels": (labels or Labels()).as_json()}
        return self._wire.ask(
            "POST", "/v1/sources", records.source_of, json={**body, **given(optional)}, repeatable=False
        )

    def refresh(self, source_id: UUID | str, *, allow_mass_delete: bool = False) -> UUID:
        """Have the server look at a source now; the id of the job that does it.

        `allow_mass_delete` is the operator's word that more may go than the source's `max_deleted_share`.
        """
        path = f"/v1/sources/{checked_id(source_id)}/refresh"
        body = {"allow_mass_delete": True} if allow_mass_delete else {}
        return self._wire.ask("POST", path, lambda answer: UUID(answer["job_id"]), json=body, repeatable=False)

    def healthy(self) -> bool:
        """Whether the server answers and says that it lives. Asks once."""
        return self._says_yes("/healthz")

    def ready(self) -> bool:
        """Whether the server says that it can serve, with all it depends on. Asks once."""
        return self._says_yes("/readyz")

    def _says_yes(self, path: str) -> bool:
        try:
            replace(self._wire, retry=NEVER).send("GET", path)
        except (ApiError, Unreachable):
            return False
        return True


def checked_user(user: str) -> str:
    """The name itself. Raises ValueError unless a header carries it unchanged: the server reads its bytes as UTF-8, and
    takes composed Unicode (NFC) only, for another spelling would be another user."""
    if NAME.fullmatch(user) and unicodedata.is_normalized("NFC", user) and user.isprintable():
        return user
    raise ValueError(f"{user!r} cannot be acted for: write a principal without blanks, in NFC: user:ana@acme.example")


def checked_id(text: UUID | str) -> UUID:
    """The id. Raises ValueError for what cannot be one."""
    try:
        return text if isinstance(text, UUID) else UUID(text)
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"{text!r} is not an id: ids are UUIDs, as the server gave them") from error


def if_match(version: int | None) -> dict[str, str]:
    """The header that makes a write depend on a version (an entity tag, RFC 9110, 13.1.1)."""
    return {} if version is None else {"If-Match": f'"{version}"'}


def given(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that are not None."""
    return {name: value for name, value in fields.items() if value is not None}
