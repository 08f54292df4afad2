"""From ranked chunks to passages: numbers, citations, the context string and its budget."""

import hashlib
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from core.records import ChunkRow, FusedCandidate
from models.fake_embedder import FakeEmbedder
from retrieval.assemble import Assembled, assemble

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
    return assemble(ranked, {r.chunk_id: r for r in rows}, top_k, max_tokens, count_tokens)


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
    answer = assemble(ranked, {i: row(i) for i in (2, 4)}, 2, None, count_tokens)
    assert [(p.rank, p.citation.external_id) for p in answer.passages] == [(1, "doc 2"), (2, "doc 4")]
    assert answer.over_budget == 0


def test_a_reranked_passage_scores_what_the_reranker_said() -> None:
    answer = assemble([FusedCandidate(1, 0.4, rerank=-2.5)], {1: row(1)}, 5, None, count_tokens)
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
    assert len(answer.passages) + answer.over_budget == min(top_k, len(rows))
    for passage in answer.passages:
        assert f"{passage.citation.marker} " in answer.context and passage.text in answer.context


def test_nothing_found_is_an_empty_context() -> None:
    assert put_together([]) == Assembled((), "", 0)
