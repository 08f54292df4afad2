"""Every route and every field of an answer, with the probe that covers it or the reason why it can tell nothing.

To add a route: name it in ROUTES with the probe of `tests.leaks.probes` that asks it. To add a field: name it in FIELDS
under its schema. Without that the suite fails; and what is named as probed but was never answered fails too.
"""

from collections.abc import Iterator
from typing import Any

from fastapi import FastAPI

from tests.leaks.asking import Tally
from tests.leaks.office import SCIM_ROUTES
from tests.leaks.probes import PROBES

ROUTES: dict[tuple[str, str], str] = {
    ("post", "/v1/search"): "search_all",
    ("post", "/v1/feedback"): "feedback",
    ("get", "/v1/documents"): "list",
    ("get", "/v1/documents/{document_id}"): "document",
    ("get", "/v1/documents/{document_id}/text"): "text",
    ("post", "/v1/documents"): "writes",
    ("post", "/v1/documents/upload"): "writes",
    ("post", "/v1/documents/batch"): "writes",
    ("put", "/v1/documents/{document_id}/labels"): "writes",
    ("delete", "/v1/documents/{document_id}"): "writes",
    ("get", "/v1/jobs"): "jobs",
    ("get", "/v1/jobs/{job_id}"): "job",
    ("post", "/v1/jobs/{job_id}/cancel"): "job_changes",
    ("post", "/v1/jobs/{job_id}/retry"): "job_changes",
    ("get", "/v1/sources"): "sources",
    ("post", "/v1/sources"): "sources",
    ("post", "/v1/sources/{source_id}/refresh"): "sources",
    ("get", "/v1/access/explain"): "explain",
    ("get", "/v1/fusion"): "fusion",
    ("put", "/v1/fusion"): "fusion",
    ("get", "/metrics"): "metrics",
    ("get", "/healthz"): "open_routes",
    ("get", "/readyz"): "open_routes",
    ("get", "/openapi.json"): "open_routes",
    ("get", "/docs"): "open_routes",
    **dict.fromkeys(SCIM_ROUTES, "scim"),
}
# Mounted folders of files, outside of the API's routes: the path, and why no document can be in it.
MOUNTS = {"/docs/assets": "files of the package swagger_ui, read from its own folder"}

# Schema → field → the probe in whose answers it is looked at. Reasons start with `=`.
FIELDS: dict[str, dict[str, str]] = {
    "SubmittedOut": dict.fromkeys(("document_id", "version", "job_id", "unchanged"), "writes"),
    "LabelsOut": dict.fromkeys(("document_id", "labels", "seq"), "writes"),
    "LabelsIn": dict.fromkeys(("allow", "deny", "classification"), "writes"),
    "DocumentOut": dict.fromkeys(
        ("document_id", "source", "external_id", "title", "uri", "version", "latest_version", "mime_type", "language",
         "metadata",
         "labels", "created_at", "updated_at", "attached_to"), "list"),
    "DocumentsOut": dict.fromkeys(("documents", "next_cursor"), "list"),
    "TextOut": dict.fromkeys(("document_id", "version", "start", "end", "text"), "text"),
    "JobOut": dict.fromkeys(
        ("job_id", "kind", "state", "document_id", "version", "attempts", "faults", "error", "seq", "detail",
         "next_try_at", "created_at", "updated_at"), "jobs"),
    "JobsOut": dict.fromkeys(("jobs", "next_cursor"), "jobs"),
    "SourceOut": dict.fromkeys(
        ("source_id", "name", "kind", "config", "labels", "schedule", "max_deleted_share", "last_success_at",
         "timezone", "jitter_s", "next_due_at", "content_as_of", "permissions_as_of", "lag_s"),
        "sources"),
    "SourcesOut": dict.fromkeys(("sources", "next_cursor"), "sources"),
    "RefreshOut": {"job_id": "sources"},
    "ExplanationOut": dict.fromkeys(
        ("document_id", "subject", "decision", "epoch", "external_id", "indexed", "label_set_id", "labels",
         "allowed_by", "denied_by", "clearance"), "explain"),
    "FusionOut": dict.fromkeys(("method", "dense_weight", "rrf_k"), "fusion"),
    "FeedbackOut": {"request_id": "= as the caller sent it"},
    "HeldOut": dict.fromkeys(("label", "path", "claimed"), "explain"),
    "ClearanceOut": dict.fromkeys(("classification", "own", "reaches"), "explain"),
    "CitationOut": dict.fromkeys(
        ("marker", "document_id", "external_id", "version", "title", "uri", "page", "heading_path", "start", "end",
         "content_hash", "superseded_by", "copies", "attached_to", "attached_to_title"), "search_all"),
    "PassageOut": dict.fromkeys(("rank", "score", "text", "citation", "scores", "flags"), "search_all"),
    "PlacedOut": dict.fromkeys(("rank", "score"), "search_all"),
    "ExplainedOut": dict.fromkeys(
        ("document_id", "external_id", "version", "start", "end", "dense", "lexical", "fused", "rerank", "fate",
         "passage"), "search_all"),
    "SearchOut": {**dict.fromkeys(("passages", "context", "degraded", "activity", "explanation"), "search_all"),
                  "request_id": "= made for each request from random bits"},
}  # fmt: skip

# What an answer's open objects may hold; documents' own metadata, a source's config and a job's detail apart, which are
# looked through whole.
OPEN: dict[str, set[str]] = {
    "activity": {
        "stage",
        "ms",
        "candidates",
        "failed",
        "over_budget",
        "duplicates",
        "label_sets",
        "epoch",
        "route",
        "scanned",
        "shortfall",
    },
    "scores": {"fused", "dense", "lexical", "rerank"},
    "checks": {"database", "broker"},
}


def routes_of(app: FastAPI) -> set[tuple[str, str]]:
    """(method, path) of everything that the app answers, in the OpenAPI document or not."""
    told = {(method, path) for path, methods in app.openapi()["paths"].items() for method in methods}
    return told | {(m.lower(), path) for path, methods in _flat(app) for m in methods or () if m != "HEAD"}


def mounts_of(app: FastAPI) -> set[str]:
    """Paths under which another app answers, whatever the method."""
    return {path for path, methods in _flat(app) if methods is None}


def _flat(app: FastAPI) -> Iterator[tuple[str, set[str] | None]]:
    """(path, methods) of each route, those of included routers with them."""
    for route in app.routes:
        included = getattr(route, "effective_route_contexts", None)
        for each in included() if included else (route,):
            yield str(getattr(each, "path", each)), getattr(each, "methods", None)


def schemas_of(app: FastAPI) -> dict[str, set[str]]:
    """The schemas that successful answers are made of, with their fields."""
    document = app.openapi()
    names: set[str] = set()
    todo = [reply for methods in document["paths"].values() for operation in methods.values()
            for status, reply in operation["responses"].items() if status.startswith("2")]  # fmt: skip
    while todo:
        for name in set(_references(todo.pop())) - names:
            names.add(name)
            todo.append(document["components"]["schemas"][name])
    return {name: set(document["components"]["schemas"][name].get("properties", {})) for name in names}


def _references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"].rsplit("/", 1)[-1]
        for key, each in node.items():
            if key not in ("example", "examples"):
                yield from _references(each)
    elif isinstance(node, list):
        for each in node:
            yield from _references(each)


def unregistered(app: FastAPI) -> list[str]:
    """Routes, mounts and fields that have no entry, entries that have nothing, and entries that name no probe."""
    wrong = [f"route {r}: add it to tests/leaks/registry.py with a probe" for r in routes_of(app) - ROUTES.keys()]
    wrong += [f"route {r}: gone" for r in ROUTES.keys() - routes_of(app)]
    wrong += [f"mount {m}" for m in mounts_of(app) ^ MOUNTS.keys()]
    for schema, fields in schemas_of(app).items():
        wrong += [f"field {schema}.{name}: not as registered" for name in fields ^ FIELDS.get(schema, {}).keys()]
    wrong += [f"schema {schema}: gone" for schema in FIELDS.keys() - schemas_of(app).keys()]
    named = [*ROUTES.values(), *(probe for fields in FIELDS.values() for probe in fields.values())]
    return sorted(wrong) + sorted({f"no probe {n}" for n in named if n not in PROBES and not n.startswith("= ")})


def missed(app: FastAPI, tally: Tally) -> list[str]:
    """Registered routes that no probe asked, registered fields that no answer held, and open fields beyond the list."""
    wrong = [f"route {route} was never asked" for route in ROUTES if not tally.routes[route]]
    seen = {name.rsplit(".", 1)[-1] for _, _, name in tally.fields}
    wrong += [f"field {schema}.{name} was never answered" for schema, fields in FIELDS.items() if schema in
              schemas_of(app) for name in fields if name not in seen]  # fmt: skip
    for method, path, name in tally.fields:
        holder, _, last = name.removesuffix("[]").rpartition(".")
        allowed = OPEN.get(holder.rpartition(".")[2].rstrip("[]"))
        if allowed is not None and last not in allowed:
            wrong.append(f"{method} {path} answers {name}: name it in tests/leaks/registry.py")
    return sorted(wrong)
