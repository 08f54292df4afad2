"""Golden sets: what is read, and what a line that is wrong is told."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from core.errors import InvalidGolden
from eval.golden import GoldenQuery, Judgement, read_golden

ANA = "user:ana@acme.example"
SHARED = Path(__file__).parents[3] / "shared" / "data" / "retrieval"
GOOD: dict[str, Any] = {"query": "How long is leave?", "as": ANA, "relevant": [{"document": "hr/leave.md"}]}


def write(folder: Path, *lines: object) -> Path:
    path = folder / "golden.jsonl"
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines), encoding="utf-8")
    return path


def good(**fields: object) -> dict[str, Any]:
    return GOOD | fields


def test_every_field_is_read(tmp_path: Path) -> None:
    line = {
        "id": "leave-1",
        "query": "How long is leave?",
        "as": ANA,
        "relevant": [
            {"document": "hr/leave.md", "quote": "26 weeks", "page": 2, "span": [10, 18], "grade": 3},
            {"document": "hr/faq.md"},
        ],
        "forbidden": ["board/minutes.pdf"],
        "tags": ["hr", "numbers"],
    }
    golden = read_golden(write(tmp_path, line))
    judged = (Judgement("hr/leave.md", 3, "26 weeks", 2, (10, 18)), Judgement("hr/faq.md", 1))
    expected = GoldenQuery("leave-1", "How long is leave?", ANA, judged, ("board/minutes.pdf",), ("hr", "numbers"))
    assert golden.queries == (expected,)
    assert golden.name == "golden.jsonl"
    assert golden.digest == hashlib.sha256((tmp_path / "golden.jsonl").read_bytes()).hexdigest()


def test_ids_made_of_who_asks_what_outlive_other_lines(tmp_path: Path) -> None:
    first = read_golden(write(tmp_path, good(), good(query="Who signs?"))).queries
    second = read_golden(write(tmp_path, "", good(query="Who signs?"))).queries
    assert len({query.id for query in first}) == 2
    assert second[0].id == first[1].id


def test_lines_end_at_newlines_only_and_may_carry_a_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "golden.jsonl"
    line = '{"query": "a\u2028b", "as": "user:ana", "forbidden": ["x"]}'
    path.write_bytes(("\ufeff" + line + "\r\n\r\n").encode())
    assert [query.query for query in read_golden(path).queries] == ["a\u2028b"]


def test_the_best_grade_of_a_documents_spans_is_its_gain(tmp_path: Path) -> None:
    spans = [{"document": "a", "page": 1, "grade": 1}, {"document": "a", "page": 2, "grade": 3}, {"document": "b"}]
    (query,) = read_golden(write(tmp_path, good(relevant=spans))).queries
    assert query.gains() == {"a": 3, "b": 1}


def test_a_question_that_is_only_forbidden_is_not_answerable(tmp_path: Path) -> None:
    (query,) = read_golden(write(tmp_path, {"query": "q", "as": ANA, "forbidden": ["x"]})).queries
    assert not query.answerable()


def test_a_default_principal_asks_what_names_nobody(tmp_path: Path) -> None:
    nobody = {"query": "q", "forbidden": ["x"]}
    asked = read_golden(write(tmp_path, nobody, good()), "user:bo@acme.example").queries
    assert [query.subject for query in asked] == ["user:bo@acme.example", ANA]


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("{", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("[]", "must be an object with id, query, as, relevant, forbidden, tags"),
        ('{"query": "a", "query": "b"}', "a key stands twice"),
        (good(relevnat=[]), "unknown key 'relevnat': choose from id, query"),
        ({"as": ANA, "forbidden": ["x"]}, "`query` must be text that is not blank, not nothing"),
        (good(query="  "), "`query` must be text that is not blank"),
        (good(query=7), "`query` must be text that is not blank, not 7"),
        ('{"query": "\\ud800", "as": "user:a", "forbidden": ["x"]}', "half a surrogate pair"),
        (good(query="a\0b"), "holds a NUL"),
        (good(id=""), "`id` must be text"),
        ({"query": "q", "forbidden": ["x"]}, 'add "as"'),
        (good(**{"as": "ana"}), "write `public`, or a namespace and a value"),
        (good(**{"as": "public"}), "name a user or a service"),
        (good(**{"as": "group:hr"}), "name a user or a service"),
        ({"query": "q", "as": ANA}, "judges nothing: name `relevant` or `forbidden`"),
        (good(relevant={"document": "a"}), "`relevant` must be a list"),
        (good(relevant=["a"]), "must be an object with document, quote, page, span, grade"),
        (good(relevant=[{"document": "a", "score": 1}]), "unknown key 'score'"),
        (good(relevant=[{"page": 1}]), "`document` (an external id) must be text"),
        (good(relevant=[{"document": "a", "grade": 0}]), "`grade` must be 1, 2 or 3, not 0"),
        (good(relevant=[{"document": "a", "grade": True}]), "`grade` must be 1, 2 or 3, not true"),
        (good(relevant=[{"document": "a", "grade": 2.0}]), "`grade` must be 1, 2 or 3, not 2.0"),
        (good(relevant=[{"document": "a", "page": 0}]), "`page` must be a whole number from 1"),
        (good(relevant=[{"document": "a", "page": None}]), "leave it out when unknown"),
        (good(relevant=[{"document": "a", "span": [5, 5]}]), "`span` must be [start, end] with 0 <= start < end"),
        (good(relevant=[{"document": "a", "span": [-1, 5]}]), "`span` must be"),
        (good(relevant=[{"document": "a", "span": [False, True]}]), "`span` must be"),
        (good(relevant=[{"document": "a", "span": "1-5"}]), "`span` must be"),
        (good(relevant=[{"document": "a", "quote": ""}]), "`quote` must be text"),
        (good(relevant=[{"document": "a"}, {"document": "a"}]), "says the same twice"),
        (good(forbidden=["hr/leave.md"]), "'hr/leave.md' is relevant and forbidden at once"),
        (good(forbidden="x"), "`forbidden` must be a list"),
        (good(forbidden=["x", "x"]), "`forbidden` names the same twice"),
        (good(tags=[1]), "each of `tags` must be text"),
    ],
)
def test_a_wrong_line_is_refused_by_file_and_number(tmp_path: Path, line: object, told: str) -> None:
    path = write(tmp_path, good(query="another"), "", line)
    with pytest.raises(InvalidGolden) as caught:
        read_golden(path)
    message = str(caught.value)
    assert message.startswith(f"{path}:3: ")
    assert told in message


@pytest.mark.parametrize("twice", [{"id": "one"}, {}])
def test_a_repeated_id_names_the_line_that_has_it(tmp_path: Path, twice: dict[str, str]) -> None:
    path = write(tmp_path, good(**twice), good(**twice))
    with pytest.raises(InvalidGolden, match=r"golden\.jsonl:2: id .* stands on line 1 already"):
        read_golden(path)


def test_bytes_that_are_not_utf8_are_told_with_their_line(tmp_path: Path) -> None:
    path = tmp_path / "golden.jsonl"
    path.write_bytes(json.dumps(GOOD).encode() + b"\n\n\xff\n")
    with pytest.raises(InvalidGolden, match=r"golden\.jsonl:3: is not UTF-8"):
        read_golden(path)


def test_a_file_without_questions_and_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InvalidGolden, match="holds no questions"):
        read_golden(write(tmp_path, "", ""))
    with pytest.raises(InvalidGolden, match="cannot be read"):
        read_golden(tmp_path / "absent.jsonl")


# --- BEIR folders ---------------------------------------------------------------------------------------------------

QUERIES = '{"_id": "1", "text": "one", "metadata": {}}\n{"_id": "2", "text": "two"}\n{"_id": "3", "text": "three"}\n'


def beir(folder: Path, qrels: str, queries: str = QUERIES) -> Path:
    (folder / "qrels").mkdir()
    (folder / "queries.jsonl").write_text(queries)
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\n" + qrels)
    return folder


def test_a_beir_folder_gives_its_judged_questions(tmp_path: Path) -> None:
    golden = read_golden(beir(tmp_path, "2\td1\t2\n1\td9\t1\n2\td2\t0\n2\td3\t-1\n"), ANA)
    assert golden.queries == (
        GoldenQuery("2", "two", ANA, (Judgement("d1", 2), Judgement("d2", 0), Judgement("d3", 0))),
        GoldenQuery("1", "one", ANA, (Judgement("d9", 1),)),
    )


@pytest.mark.parametrize(
    ("qrels", "queries", "told"),
    [
        ("1\td1\n", QUERIES, r"test\.tsv:2: write query-id, corpus-id and a whole number"),
        ("1\td1\t1.5\n", QUERIES, r"test\.tsv:2: write query-id"),
        ("9\td1\t1\n", QUERIES, r"test\.tsv:2: question '9' is not in queries\.jsonl"),
        ("1\td1\t1\n1\td1\t2\n", QUERIES, r"test\.tsv:3: 'd1' is judged twice for '1'"),
        ("", QUERIES, "holds no questions"),
        ("1\td1\t1\n", '{"_id": 1, "text": "one"}\n', r"queries\.jsonl:1: `_id` must be text"),
        ("1\td1\t1\n", QUERIES + QUERIES, r"queries\.jsonl:4: question '1' stands there twice"),
    ],
)
def test_a_wrong_beir_folder_is_refused(tmp_path: Path, qrels: str, queries: str, told: str) -> None:
    with pytest.raises(InvalidGolden, match=told):
        read_golden(beir(tmp_path, qrels, queries), ANA)


def test_a_beir_folder_needs_somebody_who_asks(tmp_path: Path) -> None:
    with pytest.raises(InvalidGolden, match="--as"):
        read_golden(beir(tmp_path, "1\td1\t1\n"))


@pytest.mark.parametrize(("name", "questions", "grades"), [("scifact", 300, {1}), ("cranfield", 225, {1, 2, 3, 4})])
def test_public_sets_are_read_whole(name: str, questions: int, grades: set[int]) -> None:
    if not (SHARED / name).is_dir():
        pytest.skip(f"the public set {name} is not at {SHARED}")
    golden = read_golden(SHARED / name, ANA)
    assert len(golden.queries) == questions
    assert {judgement.grade for query in golden.queries for judgement in query.relevant} == grades
