"""LlamaIndex node parsers: their nodes as exact spans, without the network."""

import socket

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from core.errors import Misconfigured
from core.records import Element, ParsedDocument
from ingest.chunk import ChunkBudget, chunk
from models.fake_embedder import FakeEmbedder

WORDS = FakeEmbedder()
BUDGET = ChunkBudget(60, 12)
SPLITTERS = ["SentenceSplitter", "TokenTextSplitter", "MarkdownNodeParser", "SentenceWindowNodeParser"]


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """A parser that reaches for the network fails."""

    def refuse(*_: object) -> None:
        raise AssertionError("a node parser opened a connection")

    monkeypatch.setattr(socket.socket, "connect", refuse)


def document() -> ParsedDocument:
    """Two pages with a heading each; the second says every sentence twice."""
    first = "# Leave\n\n" + " ".join(f"Sentence {number} of the first page has eight words." for number in range(12))
    second = "# Pay\n\n" + " ".join("The same sentence stands here again and again." for _ in range(12))
    text = f"{first}\n\n{second}"
    break_ = len(first) + 2
    elements = (
        Element("heading", 2, 7, 1, 1),
        Element("paragraph", 9, len(first), page=1),
        Element("heading", break_ + 2, break_ + 5, 1, 2),
        Element("paragraph", break_ + 7, len(text), page=2),
    )
    return ParsedDocument(text, elements, "text/markdown")


@pytest.mark.parametrize("name", SPLITTERS)
def test_nodes_become_spans_with_the_pages_and_headings_below_them(name: str) -> None:
    parsed = document()
    chunks = chunk(parsed, "Handbook", name, BUDGET, WORDS)
    texts = [parsed.text[piece.start : piece.end] for piece in chunks]
    assert all(text and text == text.strip() for text in texts)
    assert all(piece.tokens <= BUDGET.chunk_tokens for piece in chunks)
    covered = {position for piece in chunks for position in range(piece.start, piece.end)}
    assert all(position in covered for position, char in enumerate(parsed.text) if not char.isspace())
    assert (chunks[0].page_start, chunks[0].heading_path) == (1, ("Leave",))
    assert (chunks[-1].page_end, chunks[-1].heading_path) == (2, ("Pay",))
    break_ = parsed.text.index("# Pay")
    for piece in chunks:
        assert piece.page_start == (1 if piece.start < break_ else 2)
        assert piece.page_end == (1 if piece.end <= break_ else 2)


def test_our_tokenizer_and_budget_reach_the_parser() -> None:
    parsed = ParsedDocument(" ".join(["word"] * 600), (), "text/plain")
    chunks = chunk(parsed, None, "TokenTextSplitter", BUDGET, WORDS)
    # it keeps 2 of the 60 tokens for the format of metadata: 10 chunks of 58 and the 20 words that remain
    assert [piece.tokens for piece in chunks] == [58] * 10 + [20]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(alphabet=st.sampled_from("abc dé.!?\n\t 漢。🙂#"), min_size=1, max_size=600), st.sampled_from(SPLITTERS))
def test_every_chunk_is_exactly_its_span_on_any_text(text: str, name: str) -> None:
    chunks = chunk(ParsedDocument(text, (), "text/plain"), None, name, BUDGET, WORDS)
    assert all(text[piece.start : piece.end].strip() == text[piece.start : piece.end] != "" for piece in chunks)
    assert [piece.ordinal for piece in chunks] == list(range(len(chunks)))


def test_a_parser_that_rewrites_the_text_is_named() -> None:
    html = "<p>One <b>bold</b> word</p><p>Another</p>"
    with pytest.raises(Misconfigured, match="HTMLNodeParser"):
        chunk(ParsedDocument(html, (), "text/html"), None, "HTMLNodeParser", BUDGET, WORDS)


@pytest.mark.parametrize("name", ["NoSuchParser", "CodeSplitter", "SemanticSplitterNodeParser", "NodeParser"])
def test_a_name_that_cannot_be_used_says_what_can(name: str) -> None:
    with pytest.raises(Misconfigured, match=rf"CITADEL_CHUNKER is '{name}'.*SentenceSplitter"):
        chunk(document(), None, name, BUDGET, WORDS)
