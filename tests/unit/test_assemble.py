"""From ranked chunks to passages: numbers, citations, the context string and its budget."""

import hashlib
from collections.abc import Sequence
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from core.records import ChunkRow, FusedCandidate
from models.fake_embedder import FakeEmbedder
from retrieval.assemble import Assembled, assemble
from store.documents import Span

count_tokens = FakeEmbedder().count_tokens


def row(chunk_id: int, text: str = "some words", title: str | None = "Title", **more: object) -> ChunkRow:
    """A chunk's row."""
    values: dict[str, object] = {
        "document_id": UUID(int=chunk_id), "external_id": f"doc {chunk_id}", "source": "api", "version": 3, "uri": None,
        "ordinal": 0, "start": 10, "end": 10 + len(text), "page_start": None, "page_end": None, "heading_path": (),
        "tokens": count_tokens([text])[0],
    } | more  # fmt: skip
    return ChunkRow(chunk_id=chunk_id, text=text, title=title, **values)  # type: ignore[arg-type]


def put_together(rows: list[ChunkRow], top_k: int = 10, max_tokens: int | None = None) -> Assembled:
    """The rows, ranked as they stand."""
    ranked = [FusedCandidate(r.chunk_id, 1 - n / 100) for n, r in enumerate(rows)]
    return assemble(ranked, {r.chunk_id: r for r in rows}, top_k, max_tokens, count_tokens, read_spans)


BOOK = " ".join(f"word{n}" for n in range(400))  # the canonical text of the document that has neighbours


def read_spans(spans: Sequence[Span]) -> dict[Span, str]:
    """From the book, as its rows are cut."""
    return {span: BOOK[span.start : span.end] for span in spans}


def page(ordinal: int, **more: object) -> ChunkRow:
    """The book's chunk of that number: 90 characters, then 10 that belong to no chunk."""
    start = 100 * ordinal
    values = {"document_id": UUID(int=77), "external_id": "book", "ordinal": ordinal, "start": start, "end": start + 90}
    return row(1000 + ordinal, BOOK[start : start + 90], **values | more)


def test_neighbours_are_one_passage_at_the_place_of_the_better_one() -> None:
    answer = put_together([page(4), row(1), page(9), page(3), page(5), page(7)], top_k=4)
    first, second, third, fourth = answer.passages
    assert (first.text, first.citation.start, first.citation.end) == (BOOK[300:590], 300, 590)
    assert first.citation.content_hash == hashlib.sha256(BOOK[300:590].encode()).hexdigest()
    assert (first.score, first.scores.chunk_id) == (1.0, 1004)
    assert [second.citation.external_id, third.text, fourth.text] == ["doc 1", BOOK[900:990], BOOK[700:790]]


def test_a_passage_is_of_three_chunks_at_most_and_of_one_version() -> None:
    answer = put_together([page(1), page(2), page(3), page(4), page(0, version=2)])
    assert [p.text for p in answer.passages] == [BOOK[100:390], BOOK[400:490], BOOK[0:90]]


def test_a_merged_passage_has_the_headings_that_its_chunks_share_and_its_first_page() -> None:
    rows = [page(2, heading_path=["A", "B"], page_start=3), page(1, heading_path=["A", "C"], page_start=2)]
    citation = put_together(rows).passages[0].citation
    assert (citation.heading_path, citation.page) == (("A",), 2)


def test_a_span_that_can_no_longer_be_read_is_not_merged() -> None:
    rows = {r.chunk_id: r for r in (page(1), page(2))}
    ranked = [FusedCandidate(1002, 0.9), FusedCandidate(1001, 0.8)]
    answer = assemble(ranked, rows, 5, None, count_tokens, lambda spans: {})
    assert [p.text for p in answer.passages] == [BOOK[200:290]]


def test_a_passage_over_the_budget_goes_without_its_neighbours() -> None:
    whole, one = put_together([page(1), page(2)]), put_together([page(1)])
    cost, less = (count_tokens([answer.context])[0] for answer in (whole, one))
    assert less < cost
    short = put_together([page(1), page(2)], max_tokens=cost - 1)
    assert [p.text for p in short.passages] == [BOOK[100:190]] and short.over_budget == 0


def test_what_says_the_same_as_a_better_passage_is_left_out() -> None:
    text = " ".join(f"w{n}" for n in range(60))
    others = [text.upper() + "!", text + " end", text.replace("w30 w31", "x y"), "w1 w2"]
    answer = put_together([row(0, text), *(row(n + 1, other) for n, other in enumerate(others))])
    # 57 shingles of four words: one more is 57/58 alike; two words in the middle touch five: 52/62
    assert [p.citation.external_id for p in answer.passages] == ["doc 0", "doc 3", "doc 4"]
    assert answer.duplicates == 2


def test_passages_are_numbered_and_cited() -> None:
    text = "Wörter 🗝 here"
    answer = put_together([row(7, text, page_start=4, heading_path=("A", "B")), row(8, title=None)])
    first, second = answer.passages
    assert (first.rank, first.text, first.citation.marker) == (1, text, "[1]")
    assert (first.citation.start, first.citation.end, first.citation.version) == (10, 10 + len(text), 3)
    assert first.citation.content_hash == hashlib.sha256(text.encode()).hexdigest()
    assert (first.citation.page, first.citation.heading_path) == (4, ("A", "B"))
    assert (second.citation.marker, second.citation.page) == ("[2]", None)
    assert answer.context == f"[1] Title, page 4, A > B\n{text}\n\n[2] doc 8\nsome words"


def test_a_row_that_the_caller_may_not_read_takes_no_place() -> None:
    ranked = [FusedCandidate(i, 1 / i) for i in (1, 2, 3, 4)]
    answer = assemble(ranked, {i: row(i) for i in (2, 4)}, 2, None, count_tokens, read_spans)
    assert [(p.rank, p.citation.external_id) for p in answer.passages] == [(1, "doc 2"), (2, "doc 4")]
    assert answer.over_budget == 0


def test_a_reranked_passage_scores_what_the_reranker_said() -> None:
    answer = assemble([FusedCandidate(1, 0.4, rerank=-2.5)], {1: row(1)}, 5, None, count_tokens, read_spans)
    assert answer.passages[0].score == -2.5 and answer.passages[0].scores.fused == 0.4


def test_what_is_over_the_budget_is_counted_and_smaller_ones_still_fit() -> None:
    answer = put_together([row(1, "a b c"), row(2, "word " * 100), row(3, "d e f")], max_tokens=30)
    assert [p.citation.external_id for p in answer.passages] == ["doc 1", "doc 3"]
    assert [p.citation.marker for p in answer.passages] == ["[1]", "[2]"]
    assert answer.over_budget == 1


texts = st.lists(st.sampled_from(("word", "Ω", "x,y", "…", "a-b")), min_size=1, max_size=60).map(" ".join)


@given(
    st.lists(st.tuples(texts, st.none() | texts, st.lists(texts, max_size=3)), max_size=6),
    st.integers(1, 10),
    st.integers(1, 200),
)
def test_the_context_keeps_to_the_budget(
    parts: list[tuple[str, str | None, list[str]]], top_k: int, max_tokens: int
) -> None:
    rows = [row(n, text, title, heading_path=tuple(path)) for n, (text, title, path) in enumerate(parts)]
    answer = put_together(rows, top_k, max_tokens)
    assert count_tokens([answer.context])[0] <= max_tokens
    assert len(answer.passages) + answer.over_budget == min(top_k, len(rows) - answer.duplicates)
    for passage in answer.passages:
        assert f"{passage.citation.marker} " in answer.context and passage.text in answer.context


def test_nothing_found_is_an_empty_context() -> None:
    assert put_together([]) == Assembled((), "", 0, 0, ())


def test_for_measuring_each_chunk_is_a_passage_in_its_place() -> None:
    rows = {r.chunk_id: r for r in (page(2), page(1), row(7, BOOK[200:290]), page(4))}  # neighbours, and the same again
    ranked = [FusedCandidate(i, 1 - n / 10) for n, i in enumerate((1002, 1001, 3, 7, 1004))]  # 3 cannot be read
    answer = assemble(ranked, rows, 3, None, count_tokens, read_spans, merge=False)
    assert [passage.scores.chunk_id for passage in answer.passages] == [1002, 1001, 7]
    assert [passage.text for passage in answer.passages] == [BOOK[200:290], BOOK[100:190], BOOK[200:290]]
