"""Pooling, as TREC does it: what several runs put first and nobody has judged, for a person to judge.

Measures take what is unjudged for not relevant, so a run that finds what no earlier one found looks worse than it is.
A suggestion is a line of a golden file whose judgements say why they are there and that nobody confirmed them yet:

    {"query": "…", "as": "user:ana@acme.example", "tags": ["pool"], "relevant": [{"document": "hr/leave.md", "grade": 1,
     "shown": "Parental leave is …", "suggested": "rank 2 in main, 1 in candidate", "confirmed": null}],
     "suggested": {"runs": ["main", "candidate"]}}
"""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from uuid import UUID

from core.errors import Invalid
from core.records import Principal
from eval.golden import GoldenQuery
from eval.pair import Side
from store import access, documents, runs
from store.documents import Span
from store.pool import Store, reading_tenant, writing
from store.runs import StoredPassage

Line = dict[str, Any]
Found = dict[str, dict[str, StoredPassage]]  # document → run → its first passage there


def pool(store: Store, sides: Sequence[Side], top: int) -> list[Line]:
    """A line for each question with unjudged documents within the first `top` passages of any run, best first.

    Texts are as the asker may read them now; what that one may not see any more is left out. Raises Invalid for runs of
    different questions.
    """
    if len({side.run.golden_id for side in sides}) > 1 or len({side.run.searched for side in sides}) > 1:
        asked = sorted({side.run.config["golden"] for side in sides})
        raise Invalid(f"the runs do not ask the same questions of the same index ({', '.join(asked)}): run them again")
    names = [side.run.name for side in sides]
    if len(set(names)) < len(names):
        raise Invalid("two of the runs have one name: give each run a name of its own by `--name`")
    found = _unjudged(store, sides, top)
    lines = (_line(store, sides[0].run.searched, query, found.get(query.id, {}), names) for query in
             sides[0].golden.queries)  # fmt: skip
    return [line for line in lines if line["relevant"]]


def write(path: Path, lines: Sequence[Line]) -> None:
    """A new file, readable by its owner alone. Raises Invalid when something stands there already."""
    try:
        opened = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError as error:
        raise Invalid(f"{path} is there already, perhaps with somebody's decisions: name a place that is free"
                      ) from error  # fmt: skip
    with os.fdopen(opened, "w", encoding="utf-8") as file:
        file.writelines(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)


def _unjudged(store: Store, sides: Sequence[Side], top: int) -> dict[str, Found]:
    judged = {query.id: query.gains().keys() | set(query.forbidden) for query in sides[0].golden.queries}
    found: dict[str, Found] = {}
    for side in sides:
        with writing(store) as conn:
            passages = runs.passages(conn, side.run.id)
        for p in passages:
            if p.rank <= top and p.query_id in judged and p.external_id not in judged[p.query_id]:
                found.setdefault(p.query_id, {}).setdefault(p.external_id, {}).setdefault(side.run.name, p)
    return found


def _line(store: Store, tenant_id: UUID, query: GoldenQuery, found: Found, names: Sequence[str]) -> Line:
    best = {document: min(by_run.values(), key=lambda p: p.rank) for document, by_run in found.items()}
    spans = {document: Span(p.document_id, p.version, p.start, p.end) for document, p in best.items()}
    with reading_tenant(store, tenant_id) as conn:
        access.enter_scope(conn, Principal(tenant_id, query.subject))
        texts = documents.read_spans(conn, list(spans.values())) if spans else {}
    ordered = sorted(best, key=lambda document: (best[document].rank, -len(found[document]), document))
    relevant = [
        {"document": document, "grade": 1, "shown": texts[spans[document]], "suggested": _why(found[document]),
         "confirmed": None}
        for document in ordered if spans[document] in texts
    ]  # fmt: skip
    return {"query": query.query, "as": query.subject, "tags": ["pool"], "relevant": relevant,
            "suggested": {"runs": list(names)}}  # fmt: skip


def _why(by_run: Mapping[str, StoredPassage]) -> str:
    return "rank " + ", ".join(f"{passage.rank} in {name}" for name, passage in by_run.items())
