"""A Citadel of the standard library: the v1 contract over real HTTP, in memory, with the smallest search there is.

The tests of the contract pass against this and against a real server alike. Passages are paragraphs; a passage's score
is the share of the question's words that it holds. A job is done when it is asked for a second time.
"""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email import message_from_bytes
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit
from uuid import uuid4

KEY = "fake-key-of-an-operator"
READER_KEY = "fake-key-that-only-searches"
SCOPES = {KEY: {"ingest", "search", "act_for", "operate"}, READER_KEY: {"search"}}
NO_LABELS = {"allow": [], "deny": [], "classification": "internal"}
FIELDS = {"external_id", "title", "text", "mime_type", "source", "uri", "labels", "metadata"}
LABEL = re.compile(r"public|[a-z][a-z0-9_-]*:\S+")


class Refused(Exception):
    """A problem to answer with."""

    def __init__(self, status: int, code: str, detail: str) -> None:
        self.status, self.code, self.detail = status, code, detail


@dataclass
class Doc:
    """A document and the texts of its versions."""

    id: str
    fields: dict[str, Any]
    texts: list[str]
    created_at: str = field(default_factory=lambda: datetime.now(UTC).isoformat())


@dataclass
class State:
    """All that the fake holds."""

    docs: dict[str, Doc] = field(default_factory=dict)
    jobs: dict[str, dict[str, Any]] = field(default_factory=dict)
    sources: dict[str, dict[str, Any]] = field(default_factory=dict)
    seq: int = 0
    lock: threading.RLock = field(default_factory=threading.RLock)
    asked: dict[str, tuple[str | None, int]] = field(default_factory=dict)  # by request: (user, passages)
    requests: list[tuple[str, str]] = field(default_factory=list)  # (method, path), as they came
    connections: set[tuple[str, int]] = field(default_factory=set)


@dataclass(frozen=True)
class Who:
    """Who asks: a key's scopes, and the user it acts for."""

    scopes: set[str]
    user: str | None

    def sees(self, doc: Doc) -> bool:
        """Deny beats allow; an operator as itself sees all."""
        if self.user is None:
            return "operate" in self.scopes
        held, labels = {self.user, "public"}, doc.fields["labels"]
        return bool(held & set(labels["allow"])) and not held & set(labels["deny"])

    def needs(self, scope: str, itself: bool = False) -> None:
        if scope not in self.scopes or (itself and self.user):
            raise Refused(403, "forbidden", f"this call needs the scope {scope}, in the key's own name")


def refuse_unless(holds: bool, code: str, detail: str) -> None:
    if not holds:
        raise Refused(400, code, detail)


def checked_labels(labels: Any) -> dict[str, Any]:
    refuse_unless(isinstance(labels, dict) and set(labels) <= set(NO_LABELS), "invalid", "labels is an object")
    for label in [*labels.get("allow", []), *labels.get("deny", [])]:
        refuse_unless(bool(LABEL.fullmatch(label)), "invalid_label", f"{label!r} is not an access label")
    return {**NO_LABELS, **labels}


def submit(state: State, body: Any, expected: str | None) -> dict[str, Any]:
    refuse_unless(isinstance(body, dict) and set(body) <= FIELDS, "invalid", "unknown fields")
    refuse_unless(
        bool(body.get("external_id")) and bool(body.get("text")), "invalid", "external_id and text are needed"
    )
    fields = {"title": None, "mime_type": "text/plain", "source": "api", "uri": None, "metadata": {}, **body}
    fields["labels"], text = checked_labels(body.get("labels", NO_LABELS)), fields.pop("text")
    with state.lock:
        places = {(d.fields["source"], d.fields["external_id"]): d for d in state.docs.values()}
        doc = places.get((fields["source"], fields["external_id"])) or Doc(str(uuid4()), fields, [])
        check_version(doc, expected)
        if doc.texts and (doc.fields, doc.texts[-1]) == (fields, text):
            return {"document_id": doc.id, "version": len(doc.texts), "unchanged": True}
        state.docs[doc.id], state.seq = Doc(doc.id, fields, [*doc.texts, text], doc.created_at), state.seq + 1
        state.jobs[job := str(uuid4())] = {"state": "embedding", "attempts": 1, "seq": state.seq}
        return {"document_id": doc.id, "version": len(doc.texts) + 1, "job_id": job}


def check_version(doc: Doc, expected: str | None) -> None:
    if expected is not None and expected != f'"{len(doc.texts)}"':
        raise Refused(412, "version_conflict", f"the document is at version {len(doc.texts)}")


def find(state: State, who: Who, document_id: str) -> Doc:
    doc = state.docs.get(document_id)
    if doc is None or not who.sees(doc):
        raise Refused(404, "not_found", "there is no such document")
    return doc


def shown(doc: Doc, who: Who) -> dict[str, Any]:
    hidden = set() if who.user is None else {"labels"}
    fields = {k: v for k, v in doc.fields.items() if k not in hidden}
    times = {"created_at": doc.created_at, "updated_at": doc.created_at}
    return {"document_id": doc.id, "version": len(doc.texts), **fields, **times}


def search(state: State, who: Who, body: dict[str, Any]) -> dict[str, Any]:
    filters = body.get("filters") or {}
    known = all(k in ("source", "external_id") or k.startswith("metadata.") for k in filters)
    refuse_unless(known, "invalid_filter", "unknown field or operator")
    if body.get("at_least", 0) > state.seq:
        raise Refused(503, "not_yet_indexed", f"position {body['at_least']} is not visible yet")
    words = set(" ".join([body["query"], *body.get("queries", [])]).lower().split())
    docs = [d for d in state.docs.values() if who.sees(d) and all(holds(d, k, v) for k, v in filters.items())]
    spans = [(d, m) for d in docs for m in re.finditer(r"(?:[^\n]|\n(?!\n))+", d.texts[-1])]
    scored = [(len(words & set(re.findall(r"\w+", m[0].lower()))) / len(words), d, m) for d, m in spans]
    best = sorted((s for s in scored if s[0] > 0), key=lambda s: -s[0])[: body.get("top_k", 8)]
    passages = [passage(rank, *hit, body.get("mode", "hybrid")) for rank, hit in enumerate(best, start=1)]
    context = "\n\n".join(f"{p['citation']['marker']} {p['citation']['title']}\n{p['text']}" for p in passages)
    degraded = [] if body.get("rerank") in (None, "none") else ["rerank"]
    activity = [{"stage": "authorize", "ms": 0.1}, {"stage": "lexical", "ms": 0.2, "candidates": len(scored)}]
    answer = {"request_id": str(uuid4()), "passages": passages, "context": context}
    if body.get("explain"):
        answer["explanation"] = [explained(p) for p in passages]
    return {**answer, "degraded": degraded, "activity": activity}


def holds(doc: Doc, name: str, value: Any) -> bool:
    where, _, key = name.partition(".")
    return bool((doc.fields["metadata"].get(key) if key else doc.fields[where]) == value)


def explained(p: dict[str, Any]) -> dict[str, Any]:
    """A candidate that became a passage by its words alone."""
    cited, at = p["citation"], {"rank": p["rank"], "score": p["score"]}
    named = {name: cited[name] for name in ("document_id", "external_id", "version", "start", "end")}
    return {**named, "dense": None, "lexical": at, "fused": at, "rerank": None, "fate": "passage",
            "passage": p["rank"]}  # fmt: skip


def passage(rank: int, score: float, doc: Doc, span: re.Match[str], mode: str) -> dict[str, Any]:
    legs = {"dense": score} if mode == "dense" else {"lexical": score}
    citation = {
        "marker": f"[{rank}]",
        "document_id": doc.id,
        **{name: doc.fields[name] for name in ("external_id", "title", "uri")},
        "version": len(doc.texts),
        "page": None,
        "heading_path": ["Travel", "Flights"],
        "start": span.start(),
        "end": span.end(),
        "content_hash": hashlib.sha256(span[0].encode()).hexdigest(),
    }
    return {"rank": rank, "score": score, "text": span[0], "citation": citation, "scores": {"fused": score, **legs}}


class Handler(BaseHTTPRequestHandler):
    """One route a method; each takes its path's parts and answers (status, JSON)."""

    protocol_version = "HTTP/1.1"
    state: State

    def log_message(self, format: str, *args: Any) -> None:
        """Silent."""

    def handle_any(self) -> None:
        self.body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        url = urlsplit(self.path)
        self.state.requests.append((self.command, url.path))
        self.state.connections.add(self.client_address)
        self.query = {name: values[0] for name, values in parse_qs(url.query).items()}
        try:
            for method, pattern, route in ROUTES:
                if method == self.command and (found := re.fullmatch(pattern, url.path)):
                    route(self, *found.groups())
                    return
            raise Refused(404, "not_found", "no such path")
        except Refused as refused:
            self.answer_problem(refused)

    do_GET = do_POST = do_PUT = do_DELETE = handle_any

    def who(self) -> Who:
        scopes = SCOPES.get(self.headers.get("Authorization", "").removeprefix("Bearer "))
        if scopes is None:
            raise Refused(401, "unauthenticated", "a valid API key is required")
        header = self.headers.get("X-Citadel-Act-For")
        user = None if header is None else header.encode("latin-1").decode()
        if user is not None and "act_for" not in scopes:
            raise Refused(403, "forbidden", "this key lacks the scope act_for")
        return Who(scopes, user)

    def answer(self, status: int, body: Any = None, kind: str = "application/json", **headers: str) -> None:
        content = b"" if body is None else json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def answer_problem(self, refused: Refused) -> None:
        body = {"type": f"urn:citadel:{refused.code}", "title": "Refused", "status": refused.status}
        more = {"Retry-After": "0"} if refused.status in (429, 503) else {}
        body |= {"code": refused.code, "detail": refused.detail}
        self.answer(refused.status, body, "application/problem+json", **more)

    def post_document(self) -> None:
        self.who().needs("ingest", itself=True)
        self.answer_submitted(submit(self.state, json.loads(self.body), self.headers.get("If-Match")))

    def post_upload(self) -> None:
        self.who().needs("ingest", itself=True)
        parts = multipart(self.headers["Content-Type"], self.body)
        submitted = {**json.loads(parts["document"]), "text": parts["file"].decode()}
        self.answer_submitted(submit(self.state, submitted, self.headers.get("If-Match")))

    def answer_submitted(self, submitted: dict[str, Any]) -> None:
        self.answer(200 if submitted.get("unchanged") else 202, submitted)

    def post_batch(self) -> None:
        self.who().needs("ingest", itself=True)
        self.send_response(200)
        self.send_header("Content-Type", "application/x-ndjson")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for number, line in enumerate(self.body.splitlines(), start=1):
            content = json.dumps({"line": number, **self.batch_line(line)}).encode() + b"\n"
            self.wfile.write(f"{len(content):x}\r\n".encode() + content + b"\r\n")
        self.wfile.write(b"0\r\n\r\n")

    def batch_line(self, line: bytes) -> dict[str, Any]:
        try:
            body = json.loads(line)
            kept = submit(self.state, body, None)
        except Refused as refused:
            return {"error": {"code": refused.code, "detail": refused.detail}}
        return {"external_id": body["external_id"], **kept}

    def get_documents(self) -> None:
        who = self.who()
        who.needs("search")
        docs = [d for d in self.state.docs.values() if who.sees(d)]
        docs = [d for d in docs if self.query.get("source") in (None, d.fields["source"])]
        start = int(base64.b64decode(self.query.get("cursor", "MA=="))) if docs else 0
        end = start + int(self.query.get("limit", 50))
        cursor = base64.b64encode(str(end).encode()).decode() if end < len(docs) else None
        self.answer(200, {"documents": [shown(d, who) for d in docs[start:end]], "next_cursor": cursor})

    def get_document(self, document_id: str) -> None:
        who = self.who()
        self.answer(200, shown(find(self.state, who, document_id), who))

    def get_text(self, document_id: str) -> None:
        doc = find(self.state, self.who(), document_id)
        version = int(self.query.get("version", len(doc.texts)))
        start = int(self.query.get("start", 0))
        text = doc.texts[version - 1][start : int(self.query["end"]) if "end" in self.query else None]
        span = {"document_id": doc.id, "version": version, "start": start, "end": start + len(text)}
        self.answer(200, {**span, "text": text})

    def put_labels(self, document_id: str) -> None:
        who = self.who()
        who.needs("ingest", itself=True)
        doc = find(self.state, who, document_id)
        check_version(doc, self.headers.get("If-Match"))
        doc.fields = {**doc.fields, "labels": checked_labels(json.loads(self.body))}
        self.answer(200, {"document_id": doc.id, "labels": doc.fields["labels"], "seq": self.state.seq})

    def delete_document(self, document_id: str) -> None:
        who = self.who()
        who.needs("ingest", itself=True)
        check_version(find(self.state, who, document_id), self.headers.get("If-Match"))
        del self.state.docs[document_id]
        self.send_response(204)
        self.end_headers()

    def get_job(self, job_id: str) -> None:
        self.who()
        if job_id not in self.state.jobs:
            raise Refused(404, "not_found", "there is no such job")
        job = self.state.jobs[job_id]
        self.state.jobs[job_id] = {**job, "state": "done" if job["state"] == "embedding" else job["state"]}
        self.answer(200, {"job_id": job_id, **job})

    def post_search(self) -> None:
        who = self.who()
        who.needs("search")
        answer = search(self.state, who, json.loads(self.body))
        self.state.asked[answer["request_id"]] = (who.user, len(answer["passages"]))
        self.answer(200, answer)

    def post_feedback(self) -> None:
        who, body = self.who(), json.loads(self.body)
        who.needs("search")
        user, count = self.state.asked.get(body["request_id"], (None, -1))
        if count < 0 or user != who.user:
            raise Refused(404, "not_found", "there is no such search")
        refuse_unless(all(int(marker[1:-1]) <= count for marker in body["used"]), "invalid", "no such marker")
        self.answer(200, {"request_id": body["request_id"]})

    def post_source(self) -> None:
        self.who().needs("operate", itself=True)
        body = {"schedule": None, "max_deleted_share": 0.3, **json.loads(self.body)}
        if any(body["name"] == source["name"] for source in self.state.sources.values()):
            raise Refused(409, "conflict", "a source of that name exists")
        body["config"] = {"path": body.pop("path")}
        source = {"source_id": str(uuid4()), "last_success_at": None, **body}
        self.state.sources[source["source_id"]] = source
        self.answer(201, source)

    def get_sources(self) -> None:
        self.who().needs("operate", itself=True)
        self.answer(200, {"sources": list(self.state.sources.values()), "next_cursor": None})

    def post_refresh(self, source_id: str) -> None:
        self.who().needs("operate", itself=True)
        if source_id not in self.state.sources:
            raise Refused(404, "not_found", "there is no such source")
        detail = {"asked": json.loads(self.body)}
        self.state.jobs[job := str(uuid4())] = {"state": "done", "attempts": 1, "detail": detail}
        self.answer(202, {"job_id": job})

    def get_health(self) -> None:
        self.answer(200, {"status": "ok"})


def multipart(content_type: str, body: bytes) -> dict[str, bytes]:
    """The contents of a form's parts by name."""
    message = message_from_bytes(f"Content-Type: {content_type}\r\n\r\n".encode() + body)
    parts = [part for part in message.walk() if not part.is_multipart()]
    return {str(part.get_param("name", header="content-disposition")): content_of(part) for part in parts}


def content_of(part: Message) -> bytes:
    content = part.get_payload(decode=True)
    assert isinstance(content, bytes)
    return content


ID = "([0-9a-f-]{36})"
ROUTES: list[tuple[str, str, Callable[..., None]]] = [
    ("POST", "/v1/documents", Handler.post_document),
    ("POST", "/v1/documents/upload", Handler.post_upload),
    ("POST", "/v1/documents/batch", Handler.post_batch),
    ("GET", "/v1/documents", Handler.get_documents),
    ("GET", f"/v1/documents/{ID}", Handler.get_document),
    ("GET", f"/v1/documents/{ID}/text", Handler.get_text),
    ("PUT", f"/v1/documents/{ID}/labels", Handler.put_labels),
    ("DELETE", f"/v1/documents/{ID}", Handler.delete_document),
    ("GET", f"/v1/jobs/{ID}", Handler.get_job),
    ("POST", "/v1/search", Handler.post_search),
    ("POST", "/v1/feedback", Handler.post_feedback),
    ("POST", "/v1/sources", Handler.post_source),
    ("GET", "/v1/sources", Handler.get_sources),
    ("POST", f"/v1/sources/{ID}/refresh", Handler.post_refresh),
    ("GET", "/(?:healthz|readyz)", Handler.get_health),
]


@contextmanager
def running() -> Iterator[tuple[str, State]]:
    """A fake on a free port: its address, and what it holds."""
    state = State()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"state": state}))
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", state
    finally:
        server.shutdown()
        server.server_close()
