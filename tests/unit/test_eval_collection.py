"""Collections of each layout, read from tiny folders made by hand."""

import csv
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from core.errors import InvalidGolden
from eval.collection import is_collection, read_collection
from eval.golden import Judgement
from tests.unit.collections_by_hand import beir, chroma, code, filings, lines

DATA = Path(__file__).resolve().parents[3] / "shared" / "data" / "retrieval"


def test_beir(tmp_path: Path) -> None:
    found = read_collection(beir(tmp_path))
    assert [(d.external_id, d.title, d.content.decode()) for d in found.documents] == [
        ("d1", "Wings", "A wing lifts."), ("d2", None, "A tail steers."), ("d3", "Only a title", "Only a title"),
    ]  # fmt: skip
    assert {d.labels.allow for d in found.documents} == {("public",)}
    assert [(q.id, q.query, q.subject, q.gains()) for q in found.golden.queries] == [
        ("q1", "what lifts?", "service:eval", {"d1": 2, "d2": 0}),
    ]  # fmt: skip


def test_a_train_split_is_what_is_tuned_on(tmp_path: Path) -> None:
    folder = beir(tmp_path)
    (folder / "qrels" / "train.tsv").write_text("query-id\tcorpus-id\tscore\nq2\td2\t1\n")
    parts = {part: [q.id for q in read_collection(folder, part).golden.queries] for part in ("test", "tune", "held")}
    assert parts == {"test": ["q1"], "tune": ["q2"], "held": ["q1"]}


def test_without_a_train_split_the_halves_do_not_meet_and_miss_nothing(tmp_path: Path) -> None:
    folder = chroma(tmp_path, questions=40)
    parts = {part: {q.id for q in read_collection(folder, part).golden.queries} for part in ("test", "tune", "held")}
    assert not parts["tune"] & parts["held"]
    assert parts["tune"] | parts["held"] == parts["test"] and len(parts["test"]) == 40
    assert 8 <= len(parts["tune"]) <= 32  # 40 coins: beyond that once in 50,000
    renamed = {q.id for q in read_collection(folder.rename(tmp_path / "other"), "tune").golden.queries}
    assert renamed == parts["tune"]


def test_chroma_spans_are_those_of_the_canonical_text(tmp_path: Path) -> None:
    folder = chroma(tmp_path)
    (query,) = read_collection(folder).golden.queries
    assert query.relevant == (Judgement("pond", quote="Ducks swim.", span=(14, 25)),)
    # A carriage return and a zero-width space in front of it are gone from the canonical text: two characters.
    (folder / "corpora" / "pond.md").write_bytes("Geese\r\n fly.\u200b\n\nDucks swim.".encode())
    (query,) = read_collection(folder).golden.queries
    assert query.relevant[0].span == (13, 24)


def test_of_two_places_the_nearest_is_meant(tmp_path: Path) -> None:
    folder = chroma(tmp_path, text="Ducks swim. Geese fly. Ducks swim.", start=22)
    (query,) = read_collection(folder).golden.queries
    assert query.relevant[0].span == (23, 34)


def test_contextual_code(tmp_path: Path) -> None:
    found = read_collection(code(tmp_path))
    assert [d.external_id for d in found.documents] == ["file-a"]
    (query,) = found.golden.queries
    # Both chunks read the same: the second is the second in the file.
    assert query.relevant == (Judgement("file-a", quote="fn go() {}\n", span=(12, 23)),)


def test_filings(tmp_path: Path) -> None:
    found = read_collection(filings(tmp_path))
    assert [(d.external_id, d.filename, d.mime_type) for d in found.documents] == [
        ("2022 Q3 AAPL", "2022-Q3-AAPL.pdf", "application/pdf"),
        ("2023 Q1 AAPL", "2023-Q1-AAPL.pdf", "application/pdf"),
    ]  # fmt: skip
    assert [q.gains() for q in found.golden.queries] == [{"2022 Q3 AAPL": 1, "2023 Q1 AAPL": 1}, {"2023 Q1 AAPL": 1}]


def test_the_digest_is_of_the_documents_alone(tmp_path: Path) -> None:
    folder = beir(tmp_path)
    before = read_collection(folder).digest
    lines(folder / "queries.jsonl", [{"_id": "q1", "text": "which lifts?"}])
    assert read_collection(folder).digest == before
    lines(folder / "corpus.jsonl", [{"_id": "d1", "title": "Wings", "text": "A wing lifts!"}])
    assert read_collection(folder).digest != before


def test_a_golden_file_is_no_collection(tmp_path: Path) -> None:
    assert not is_collection(tmp_path)
    (tmp_path / "golden.jsonl").touch()
    assert not is_collection(tmp_path / "golden.jsonl")
    assert is_collection(beir(tmp_path))


def _without(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def _with(name: str, text: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_text(text)


HEADER = "question,references,corpus_id\n"

BROKEN: Sequence[tuple[Callable[[Path], Path], Callable[[Path], object], str]] = [
    (beir, _without("queries.jsonl"), "queries.jsonl: cannot be read"),
    (beir, _without("qrels/test.tsv"), "test.tsv: cannot be read"),
    (beir, _with("corpus.jsonl", "{"), "corpus.jsonl:1: is not JSON"),
    (beir, _with("corpus.jsonl", '{"_id": "d1", "text": 5}'), "corpus.jsonl:1: a document must be"),
    (beir, _with("corpus.jsonl", '{"text": "a"}'), "corpus.jsonl:1: each document needs an `_id`"),
    (beir, _with("corpus.jsonl", '{"_id": "d", "text": "a"}\n{"_id": "d", "text": "b"}'), "jsonl:2: each document"),
    (beir, _with("corpus.jsonl", '{"_id": "d", "text": " "}'), "no document holds any text; put the corpus there"),
    (chroma, _without("questions.csv"), "questions.csv: cannot be read"),
    (chroma, _with("questions.csv", "question,corpus_id\n"), "the column 'references' is missing"),
    (chroma, _with("questions.csv", HEADER), "holds no question of the part 'test'"),
    (chroma, _with("questions.csv", HEADER + "why?,[],pond\n"), "at least one span"),
    (chroma, _with("questions.csv", HEADER + "why?,[1],pond\n"), "a reference needs content, start_index"),
    (chroma, _with("questions.csv", HEADER + "why?,no,pond\n"), "`references` is not JSON"),
    (chroma, _with("questions.csv", HEADER + ",[],pond\n"), "row 1 has no 'question'"),
    (chroma, _with("questions.csv", HEADER + "why?,[],lake\n"), "there is no corpora/lake"),
    (chroma, _with("corpora/pond.md", "Geese fly."), "'Ducks swim.' does not stand in 'pond'"),
    (chroma, _with("corpora/pond.md", " "), "pond.md: holds no text"),
    (code, _with("codebase_chunks.json", "{}"), "must be a list of files"),
    (code, _with("codebase_chunks.json", "[{}]"), "document 1 needs original_uuid"),
    (code, _with("evaluation_set.jsonl", '{"query": "a"}'), "evaluation_set.jsonl:1: needs query"),
    (filings, _without("pdf/2023-Q1-AAPL.pdf"), "no file in pdf/ is meant by '*2023 Q1 AAPL*'"),
]  # fmt: skip


@pytest.mark.parametrize(("make", "breaks", "told"), BROKEN)
def test_a_broken_folder_says_where_and_what(
    tmp_path: Path, make: Callable[[Path], Path], breaks: Callable[[Path], object], told: str
) -> None:
    folder = make(tmp_path)
    breaks(folder)
    with pytest.raises(InvalidGolden) as raised:
        read_collection(folder)
    assert told in str(raised.value) and str(folder) in str(raised.value)


def test_a_folder_of_no_layout_says_what_it_needs(tmp_path: Path) -> None:
    with pytest.raises(InvalidGolden, match=r"it needs corpus.jsonl \(BEIR\), corpora/"):
        read_collection(tmp_path)


PUBLISHED = {  # documents with text, questions: from their own pages; Cranfield's 471 and 995 are empty
    "scifact": (5183, 300), "cranfield": (1398, 225), "chroma-chunking": (5, 472), "contextual-code": (90, 248),
    "sec-10q": (20, 195),
}  # fmt: skip


@pytest.mark.skipif(not DATA.is_dir(), reason="the public collections are not beside the project")
@pytest.mark.parametrize("name", PUBLISHED)
def test_the_real_collections(name: str) -> None:
    found = read_collection(DATA / name)
    assert (len(found.documents), len(found.golden.queries)) == PUBLISHED[name]
    texts = {d.external_id: d.content.decode() for d in found.documents if d.mime_type == "text/plain"}
    for judgement in (judgement for query in found.golden.queries for judgement in query.relevant):
        if judgement.span:
            assert texts[judgement.document][slice(*judgement.span)] == judgement.quote


def test_chroma_offsets_are_the_files_own() -> None:
    if not DATA.is_dir():
        pytest.skip("the public collections are not beside the project")
    with (DATA / "chroma-chunking" / "questions.csv").open(newline="") as file:
        rows = [json.loads(row["references"]) for row in csv.DictReader(file)]
    queries = read_collection(DATA / "chroma-chunking").golden.queries
    given = [[(r["start_index"], r["end_index"]) for r in row] for row in rows]
    assert [[j.span for j in query.relevant] for query in queries] == given
