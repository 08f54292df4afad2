"""Golden sets as others write and read them: native lines, BEIR folders, TREC folders, and rows of the database."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from core.errors import Invalid
from eval.golden import TREC_QRELS, TREC_TOPICS, GoldenQuery, GoldenSet, Judgement

Form = Literal["native", "beir", "trec"]


def to_line(query: GoldenQuery) -> dict[str, Any]:
    """The question as a line of a native file."""
    return {"id": query.id, "query": query.query, "as": query.subject,
            "relevant": [_judgement(each) for each in query.relevant],
            "forbidden": list(query.forbidden), "tags": list(query.tags)}  # fmt: skip


def from_lines(name: str, digest: str, lines: Sequence[Mapping[str, Any]]) -> GoldenSet:
    """The set that was kept as these lines, without questions that have nothing left to judge."""
    queries = (_query(line) for line in lines if line["relevant"] or line["forbidden"])
    return GoldenSet(name, digest, tuple(queries))


def content_digest(golden: GoldenSet) -> str:
    """sha256 of the questions and judgements, whatever form they were read from."""
    lines = [to_line(query) for query in golden.queries]
    return hashlib.sha256(json.dumps(lines, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def write(golden: GoldenSet, form: Form, target: Path) -> list[str]:
    """Write the set as a native file, or as a BEIR or TREC folder; what that form cannot say, in words.

    Raises Invalid when something stands there already.
    """
    if target.exists():
        raise Invalid(f"{target} is there already: name a place that is free")
    if form == "native":
        target.write_text("".join(json.dumps(to_line(q), ensure_ascii=False) + "\n" for q in golden.queries), "utf-8")
        return []
    target.mkdir(parents=True)
    if form == "beir":
        _write_beir(golden, target)
    else:
        _write_trec(golden, target)
    return _lost(golden)


def _write_beir(golden: GoldenSet, folder: Path) -> None:
    asked = [json.dumps({"_id": q.id, "text": q.query}, ensure_ascii=False) + "\n" for q in golden.queries]
    (folder / "queries.jsonl").write_text("".join(asked), "utf-8")
    judged = [f"{q.id}\t{document}\t{grade}\n" for q in golden.queries for document, grade in q.gains().items()]
    (folder / "qrels").mkdir()
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\n" + "".join(judged), "utf-8")


def _write_trec(golden: GoldenSet, folder: Path) -> None:
    names = [name for q in golden.queries for name in (q.id, *q.gains())]
    if spaced := [name for name in names if len(name.split()) != 1]:
        raise Invalid(f"{spaced[0]!r} holds a blank, which a TREC file cannot: export `--form beir`")
    asked = [f"{q.id}\t{' '.join(q.query.split())}\n" for q in golden.queries]
    (folder / TREC_TOPICS).write_text("".join(asked), "utf-8")
    judged = [f"{q.id} 0 {document} {grade}\n" for q in golden.queries for document, grade in q.gains().items()]
    (folder / TREC_QRELS).write_text("".join(judged), "utf-8")


def _lost(golden: GoldenSet) -> list[str]:
    judged = [judgement for query in golden.queries for judgement in query.relevant]
    counts = {
        "who asks": len({query.subject for query in golden.queries}) > 1,
        "what is forbidden": any(query.forbidden for query in golden.queries),
        "tags": any(query.tags for query in golden.queries),
        "quotes, pages and spans": any(j.quote or j.page or j.span for j in judged),
    }
    return [what for what, lost in counts.items() if lost]


def _judgement(judgement: Judgement) -> dict[str, Any]:
    fields = {"document": judgement.document, "grade": judgement.grade, "quote": judgement.quote,
              "page": judgement.page, "span": list(judgement.span) if judgement.span else None}  # fmt: skip
    return {key: value for key, value in fields.items() if value is not None}


def _query(line: Mapping[str, Any]) -> GoldenQuery:
    relevant = tuple(
        Judgement(j["document"], j["grade"], j.get("quote"), j.get("page"), tuple(j["span"]) if "span" in j else None)
        for j in line["relevant"]
    )
    return GoldenQuery(line["id"], line["query"], line["as"], relevant, tuple(line["forbidden"]), tuple(line["tags"]))
