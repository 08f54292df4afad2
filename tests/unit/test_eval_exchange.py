"""Golden sets to files of each form and back, and the rows that the database keeps."""

from pathlib import Path

import pytest

from core.errors import Invalid, InvalidGolden
from eval.exchange import content_digest, from_lines, to_line, write
from eval.golden import GoldenQuery, GoldenSet, Judgement, read_golden

ANA = "user:ana@acme.example"
RICH = GoldenSet("rich", "", (
    GoldenQuery("q1", "How long is leave?", ANA,
                (Judgement("hr/leave.md", 3, quote="26 weeks"), Judgement("hr/faq.md", 1, span=(3, 9)),
                 Judgement("hr/a.pdf", 2, page=2)), ("board.pdf",), ("hr", "easy")),
    GoldenQuery("q2", "Was it sold?", "user:ben@acme.example", (), ("board.pdf",)),
))  # fmt: skip
PLAIN = GoldenSet("plain", "", (
    GoldenQuery("1", "one two", ANA, (Judgement("d1", 2), Judgement("d2", 0))),
    GoldenQuery("2", "three", ANA, (Judgement("d1", 4),)),
))  # fmt: skip


def test_native_lines_lose_nothing(tmp_path: Path) -> None:
    assert write(RICH, "native", tmp_path / "rich.jsonl") == []
    assert read_golden(tmp_path / "rich.jsonl").queries == RICH.queries


@pytest.mark.parametrize("form", ["beir", "trec"])
def test_folders_keep_questions_and_grades(tmp_path: Path, form: str) -> None:
    assert write(PLAIN, form, tmp_path / "out") == []  # type: ignore[arg-type]
    assert read_golden(tmp_path / "out", ANA).queries == PLAIN.queries


@pytest.mark.parametrize("form", ["beir", "trec"])
def test_what_a_folder_has_no_place_for_is_told(tmp_path: Path, form: str) -> None:
    lost = write(RICH, form, tmp_path / "out")  # type: ignore[arg-type]
    assert lost == ["who asks", "what is forbidden", "tags", "quotes, pages and spans"]
    assert [query.id for query in read_golden(tmp_path / "out", ANA).queries] == ["q1"]


def test_rows_lose_nothing_even_grades_that_no_native_file_may_have() -> None:
    for golden in (RICH, PLAIN):
        lines = [to_line(query) for query in golden.queries]
        assert from_lines(golden.name, "", lines).queries == golden.queries


def test_a_question_that_judges_nothing_any_more_is_left_out() -> None:
    lines = [{**to_line(query), "relevant": [], "forbidden": []} for query in RICH.queries]
    assert from_lines("rich", "", lines).queries == ()


def test_the_digest_is_of_the_content_in_whatever_form(tmp_path: Path) -> None:
    write(PLAIN, "beir", tmp_path / "beir")
    write(PLAIN, "trec", tmp_path / "trec")
    digests = {content_digest(read_golden(tmp_path / form, ANA)) for form in ("beir", "trec")}
    assert digests == {content_digest(PLAIN)} and content_digest(RICH) not in digests


def test_nothing_is_written_over(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="is there already"):
        write(PLAIN, "native", tmp_path)


def test_a_trec_file_has_no_place_for_blanks(tmp_path: Path) -> None:
    spaced = GoldenSet("s", "", (GoldenQuery("q", "text", ANA, (Judgement("a file.md"),)),))
    with pytest.raises(Invalid, match="--form beir"):
        write(spaced, "trec", tmp_path / "out")


@pytest.mark.parametrize(
    ("topics", "qrels", "told"),
    [
        ("1 one\n", "1 0 d1 1\n", r"topics\.tsv:1: write an id"),
        ("1\tone\n1\ttwo\n", "1 0 d1 1\n", r"topics\.tsv:2: write an id of its own"),
        ("1\tone\n", "1 d1 1\n", r"qrels\.txt:1: write topic, 0, document"),
        ("1\tone\n", "2 0 d1 1\n", r"qrels\.txt:1: question '2' is not in topics\.tsv"),
        ("1\tone\n", "1 0 d1 1\n1 0 d1 2\n", r"qrels\.txt:2: 'd1' is judged twice"),
    ],
)
def test_a_wrong_trec_folder_is_refused(tmp_path: Path, topics: str, qrels: str, told: str) -> None:
    (tmp_path / "topics.tsv").write_text(topics)
    (tmp_path / "qrels.txt").write_text(qrels)
    with pytest.raises(InvalidGolden, match=told):
        read_golden(tmp_path, ANA)


def test_a_trec_folder_asks_who_asks(tmp_path: Path) -> None:
    write(PLAIN, "trec", tmp_path / "out")
    with pytest.raises(InvalidGolden, match="--as user"):
        read_golden(tmp_path / "out")
