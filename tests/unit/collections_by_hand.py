"""Tiny folders in each layout of a judged collection."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def lines(path: Path, values: Sequence[Any]) -> None:
    """JSON lines."""
    path.write_text("\n".join(map(json.dumps, values)))


def beir(parent: Path) -> Path:
    """Three documents with text of four, and a judged question of two."""
    folder = parent / "beir"
    (folder / "qrels").mkdir(parents=True)
    lines(folder / "corpus.jsonl", [
        {"_id": "d1", "title": "Wings", "text": "A wing lifts."},
        {"_id": "d2", "title": "", "text": "A tail steers."},
        {"_id": "d3", "title": "Only a title", "text": ""},
        {"_id": "d4", "text": ""},
    ])  # fmt: skip
    lines(folder / "queries.jsonl", [{"_id": "q1", "text": "what lifts?"}, {"_id": "q2", "text": "what steers?"}])
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq1\td1\t2\nq1\td2\t0\n")
    return folder


def chroma(parent: Path, questions: int = 1, text: str = "Geese do fly.\nDucks swim.", start: int = 14) -> Path:
    """One text; each question has one reference, `Ducks swim.`."""
    folder = parent / "chroma"
    (folder / "corpora").mkdir(parents=True)
    (folder / "corpora" / "pond.md").write_text(text)
    reference = {"content": "Ducks swim.", "start_index": start, "end_index": start + 11}
    with (folder / "questions.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["question", "references", "corpus_id"])
        rows.writerows([[f"do ducks swim? {n}", json.dumps([reference]), "pond"] for n in range(questions)])
    return folder


def code(parent: Path) -> Path:
    """A file of two chunks that read the same, the second of which answers."""
    folder = parent / "code"
    folder.mkdir(parents=True)
    chunks = [{"original_index": index, "content": "fn go() {}\n"} for index in (0, 1)]
    file = {"original_uuid": "file-a", "content": "fn go() {}\n\nfn go() {}\n", "chunks": chunks}
    (folder / "codebase_chunks.json").write_text(json.dumps([file]))
    lines(folder / "evaluation_set.jsonl", [{"query": "what goes?", "golden_chunk_uuids": [["file-a", 1]]}])
    return folder


def filings(parent: Path) -> Path:
    """Two filings that nobody opens here, meant by globs."""
    folder = parent / "filings"
    (folder / "pdf").mkdir(parents=True)
    for name in ("2022-Q3-AAPL", "2023-Q1-AAPL"):
        (folder / "pdf" / f"{name}.pdf").write_bytes(b"%PDF-1.4")
    (folder / "questions.csv").write_text("\ufeffQuestion,Source Docs\nsales?,*AAPL*\ncash?,*2023 Q1 AAPL*\n")
    return folder
