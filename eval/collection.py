"""A judged collection: a folder with documents and questions about them, in one of the layouts that people share.

    BEIR             corpus.jsonl, queries.jsonl, qrels/test.tsv (and train.tsv): a document answers a question
    Chroma           questions.csv with references, corpora/*.md: spans of a text answer it
    contextual code  codebase_chunks.json, evaluation_set.jsonl: parts of a file answer it
    filings          questions.csv with `Source Docs` as globs, pdf/*.pdf: documents answer it

Texts are read as plain text, so that a judged offset is an offset of the canonical text. What is judged by spans is
measured by passages, the rest by documents.
"""

import csv
import fnmatch
import hashlib
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from core.errors import EmptyDocument, InvalidGolden
from core.labels import make_labels
from core.records import Submission
from eval.golden import GoldenQuery, GoldenSet, Judgement, read_golden, read_lines
from ingest.parsers.plain import parse_text

SUBJECT = "service:eval"  # who asks, where the folder names nobody; the documents are public
SOURCE = "eval"
LAYOUTS = "corpus.jsonl (BEIR), corpora/ (Chroma), codebase_chunks.json (contextual code) or pdf/ (filings)"

Part = Literal["test", "tune", "held"]


@dataclass(frozen=True, slots=True)
class Collection:
    """Documents, and judged questions about them."""

    name: str
    digest: str  # sha256 of the documents alone: other questions need no other index
    documents: tuple[Submission, ...]
    golden: GoldenSet


def is_collection(path: Path) -> bool:
    """Whether the path is a folder that brings its documents along."""
    return path.is_dir() and _layout(path) is not None


def read_collection(folder: Path, part: Part = "test", subject: str | None = None) -> Collection:
    """The folder's documents and the questions of one part.

    `test` is every question, or those of BEIR's test split. `tune` and `held` do not meet: the train and the test
    split where there are both, else the halves by the first bit of the question id's sha256. Raises InvalidGolden.
    """
    layout = _layout(folder)
    if layout is None:
        raise InvalidGolden(f"{folder}: holds no collection that is known here: it needs {LAYOUTS}")
    documents, golden = layout(folder, part, subject or SUBJECT)
    if not documents:
        raise InvalidGolden(f"{folder}: no document holds any text; put the corpus there, or measure a file of lines")
    if not golden.queries:
        raise InvalidGolden(f"{folder}: holds no question of the part {part!r}; ask for the part `test`")
    return Collection(folder.resolve().name, _digest(documents), tuple(documents), golden)


def _layout(folder: Path) -> "Callable[[Path, Part, str], tuple[list[Submission], GoldenSet]] | None":
    if (folder / "corpus.jsonl").is_file():
        return _beir
    if (folder / "codebase_chunks.json").is_file():
        return _code
    if (folder / "corpora").is_dir():
        return _spans
    return _filings if (folder / "pdf").is_dir() else None


def _document(external_id: str, text: str, title: str | None = None) -> Submission:
    return Submission(external_id, text.encode(), make_labels(["public"]), SOURCE, title, "text/plain")


def _digest(documents: Sequence[Submission]) -> str:
    digest = hashlib.sha256()
    for document in documents:
        for part in (document.external_id.encode(), (document.title or "").encode(), document.content):
            digest.update(b"%d:%b" % (len(part), part))
    return digest.hexdigest()


def _half(golden: GoldenSet, part: Part) -> GoldenSet:
    if part == "test":
        return golden
    first = part == "tune"
    queries = [q for q in golden.queries if (hashlib.sha256(q.id.encode()).digest()[0] < 128) == first]
    return replace(golden, queries=tuple(queries))


# --- BEIR -----------------------------------------------------------------------------------------------------------


def _beir(folder: Path, part: Part, subject: str) -> tuple[list[Submission], GoldenSet]:
    has_train = (folder / "qrels" / "train.tsv").is_file()
    golden = read_golden(folder, subject, "train" if part == "tune" and has_train else "test")
    return list(_beir_documents(folder / "corpus.jsonl")), golden if has_train else _half(golden, part)


def _beir_documents(path: Path) -> Iterator[Submission]:
    """Documents under their ids; one without a text has its title for one, and one without either is left out."""
    seen: set[str] = set()
    for number, raw in read_lines(path):
        external_id, title, text = (_string(path, number, raw, key) for key in ("_id", "title", "text"))
        if not external_id or external_id in seen:
            raise InvalidGolden(f"{path}:{number}: each document needs an `_id` of its own")
        seen.add(external_id)
        if (text or title).strip():
            yield _document(external_id, text if text.strip() else title, title.strip() or None)


def _string(path: Path, number: int, raw: object, key: str) -> str:
    value = raw.get(key) or "" if isinstance(raw, dict) else None
    if not isinstance(value, str):
        raise InvalidGolden(f'{path}:{number}: a document must be {{"_id": "…", "title": "…", "text": "…"}}')
    return value


# --- Chroma's chunking questions ------------------------------------------------------------------------------------


def _spans(folder: Path, part: Part, subject: str) -> tuple[list[Submission], GoldenSet]:
    path = folder / "questions.csv"
    texts = {file.stem: _canonical(file) for file in sorted((folder / "corpora").iterdir()) if file.is_file()}
    queries = []
    for number, row in _table(path, ("question", "references", "corpus_id")):
        name = row["corpus_id"]
        if name not in texts:
            raise InvalidGolden(f"{path}:{number}: there is no corpora/{name}.*: add that text")
        relevant = tuple(_reference(path, number, name, texts[name], each) for each in _loaded(path, number, row))
        queries.append(GoldenQuery(f"q{number}", row["question"], subject, relevant, tags=(name,)))
    documents = [_document(name, text) for name, text in texts.items()]
    return documents, _half(GoldenSet(folder.name, _file_digest(path), tuple(queries)), part)


def _loaded(path: Path, number: int, row: Mapping[str, str]) -> list[Any]:
    try:
        found = json.loads(row["references"])
    except ValueError as error:
        raise InvalidGolden(f"{path}:{number}: `references` is not JSON ({error})") from error
    if isinstance(found, list) and found:
        return found
    raise InvalidGolden(f"{path}:{number}: `references` must be a list with at least one span")


def _reference(path: Path, number: int, name: str, text: str, raw: Any) -> Judgement:
    try:
        quote, start = str(raw["content"]), int(raw["start_index"])
    except (TypeError, KeyError, ValueError) as error:
        raise InvalidGolden(f"{path}:{number}: a reference needs content, start_index and end_index") from error
    return _quoted(f"{path}:{number}", name, text, quote, start)


def _quoted(where: str, name: str, text: str, quote: str, near: int) -> Judgement:
    """The span of the quote at `near`, or the nearest elsewhere: cleaning a text may move it."""
    quote = _cleaned(quote)
    places = [place for place in (text.find(quote, near), text.rfind(quote, 0, near + len(quote))) if place >= 0]
    if not quote or not places:
        raise InvalidGolden(f"{where}: {quote[:40]!r} does not stand in {name!r}: give the words as they are there")
    start = min(places, key=lambda place: abs(place - near))
    return Judgement(name, quote=quote, span=(start, start + len(quote)))


# --- contextual code ------------------------------------------------------------------------------------------------


def _code(folder: Path, part: Part, subject: str) -> tuple[list[Submission], GoldenSet]:
    texts: dict[str, str] = {}
    golden: dict[tuple[str, int], Judgement] = {}
    path = folder / "codebase_chunks.json"
    for number, raw in enumerate(_json(path), start=1):
        name, texts_of = _code_file(path, number, raw)
        texts[name] = _cleaned(raw["content"])
        after = 0
        for index, quote in texts_of:  # in the file's order: of two that read the same, the second is behind the first
            near = max(after, texts[name].find(_cleaned(quote), after))
            golden[name, index] = _quoted(f"{path}: document {number}", name, texts[name], quote, near)
            after = near + 1
    questions = folder / "evaluation_set.jsonl"
    queries = []
    for number, raw in read_lines(questions):
        try:
            relevant = tuple(golden[name, index] for name, index in raw["golden_chunk_uuids"])
            queries.append(GoldenQuery(f"q{number}", raw["query"], subject, relevant))
        except (KeyError, TypeError, ValueError) as error:
            raise InvalidGolden(f"{questions}:{number}: needs query and golden_chunk_uuids of {path.name}") from error
    documents = [_document(name, text) for name, text in texts.items()]
    return documents, _half(GoldenSet(folder.name, _file_digest(questions), tuple(queries)), part)


def _code_file(path: Path, number: int, raw: Any) -> tuple[str, list[tuple[int, str]]]:
    try:
        chunks = [(int(chunk["original_index"]), str(chunk["content"])) for chunk in raw["chunks"]]
        return str(raw["original_uuid"]), sorted(chunks)
    except (KeyError, TypeError, ValueError) as error:
        raise InvalidGolden(f"{path}: document {number} needs original_uuid, content and chunks") from error


# --- filings --------------------------------------------------------------------------------------------------------


def _filings(folder: Path, part: Part, subject: str) -> tuple[list[Submission], GoldenSet]:
    path = folder / "questions.csv"
    files = {file.stem.replace("-", " "): file for file in sorted((folder / "pdf").glob("*.pdf"))}
    queries = []
    for number, row in _table(path, ("Question", "Source Docs")):
        names = fnmatch.filter(files, row["Source Docs"])
        if not names:
            raise InvalidGolden(f"{path}:{number}: no file in pdf/ is meant by {row['Source Docs']!r}: add it")
        relevant = tuple(Judgement(name) for name in names)
        queries.append(GoldenQuery(f"q{number}", row["Question"], subject, relevant))
    documents = [
        Submission(name, file.read_bytes(), make_labels(["public"]), SOURCE, name, "application/pdf", file.name)
        for name, file in files.items()
    ]
    return documents, _half(GoldenSet(folder.name, _file_digest(path), tuple(queries)), part)


# --- files ----------------------------------------------------------------------------------------------------------


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InvalidGolden(f"{path}: cannot be read ({error.strerror}); a collection needs it") from error


def _canonical(path: Path) -> str:
    try:
        return parse_text(_read(path)).text
    except EmptyDocument as error:
        raise InvalidGolden(f"{path}: holds no text: fill it, or take it away") from error


def _cleaned(text: str) -> str:
    return parse_text(text.encode()).text if text.strip() else ""


def _file_digest(path: Path) -> str:
    return hashlib.sha256(_read(path)).hexdigest()


def _json(path: Path) -> list[Any]:
    try:
        found = json.loads(_read(path))
    except ValueError as error:
        raise InvalidGolden(f"{path}: is not JSON ({error})") from error
    if isinstance(found, list):
        return found
    raise InvalidGolden(f"{path}: must be a list of files")


def _table(path: Path, columns: Sequence[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """The rows of a CSV file with a header, numbered from 1."""
    try:
        rows = csv.DictReader(io.StringIO(_read(path).decode("utf-8-sig"), newline=""))
        found = list(rows)
    except (UnicodeDecodeError, csv.Error) as error:
        raise InvalidGolden(f"{path}: is not a CSV file in UTF-8 ({error})") from error
    if missing := [column for column in columns if column not in (rows.fieldnames or ())]:
        raise InvalidGolden(f"{path}: the column {missing[0]!r} is missing: its header needs {', '.join(columns)}")
    for number, row in enumerate(found, start=1):
        if not (row[columns[0]] or "").strip():
            raise InvalidGolden(f"{path}: row {number} has no {columns[0]!r}: write it, or take the row away")
        yield number, {key: value or "" for key, value in row.items() if key}
