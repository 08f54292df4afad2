"""Chunking: what holds for every document, and how it reads on small ones."""

import re
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.errors import Misconfigured
from core.records import Chunk, Element, ElementKind, ParsedDocument
from ingest.chunk import ChunkBudget, chunk, chunk_document
from models.fake_embedder import FakeEmbedder

WORDS = FakeEmbedder()  # a token is a word or a mark


class Greedy:
    """A tokenizer whose tokens do not add up: pieces of four letters, and one more for every space it is given."""

    max_tokens = 256

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        return [len(self.token_offsets(text)) for text in texts]

    def token_offsets(self, text: str) -> list[tuple[int, int]]:
        return [found.span() for found in re.finditer(r"\w{1,4}|\s|[^\w\s]", text)]


BLOCKS = st.tuples(
    st.sampled_from(["heading", "paragraph", "list_item", "table", "code", "none"]),
    st.text(alphabet=st.sampled_from("abc dé.!?\n\t 漢。🙂|-#"), max_size=160),
    st.integers(0, 4),
    st.one_of(st.none(), st.integers(1, 3)),
)


@st.composite
def documents(draw: st.DrawFn) -> ParsedDocument:
    """Elements of every kind in order, with text that no element holds before, between and after them."""
    text, elements = "", []
    for kind, body, level, page in draw(st.lists(BLOCKS, max_size=12)):
        text += draw(st.sampled_from(["", "\n", "\n\n", "  ", "\n## ", "> "]))
        if kind != "none":
            context = draw(st.sampled_from(["", "name | amount"]))
            elements.append(Element(kind, len(text), len(text) + len(body), level, page, context))
        text += body
    return ParsedDocument(text, tuple(elements), "text/plain")


BUDGETS = st.builds(ChunkBudget, st.integers(16, 40), st.integers(0, 12))


@settings(max_examples=300, deadline=None)
@given(documents(), BUDGETS, st.sampled_from([WORDS, Greedy()]), st.one_of(st.none(), st.text(max_size=40)))
def test_every_character_is_in_exactly_one_chunk_and_no_chunk_is_over_the_budget(
    parsed: ParsedDocument, budget: ChunkBudget, tokenizer: FakeEmbedder | Greedy, title: str | None
) -> None:
    chunks = chunk_document(parsed, title, budget, tokenizer)
    texts = [parsed.text[piece.start : piece.end] for piece in chunks]
    assert [piece.ordinal for piece in chunks] == list(range(len(chunks)))
    assert all(before.end <= after.start for before, after in zip(chunks, chunks[1:], strict=False))
    assert "".join("".join(texts).split()) == "".join(parsed.text.split())
    assert all(text and text == text.strip() for text in texts)
    assert [piece.tokens for piece in chunks] == tokenizer.count_tokens(texts)
    assert all(piece.tokens <= budget.chunk_tokens for piece in chunks)
    prefixes = tokenizer.count_tokens([piece.embed_prefix for piece in chunks])
    assert all(count <= budget.prefix_tokens for count in prefixes)


@settings(max_examples=500, deadline=None)
@given(documents(), BUDGETS)
def test_pages_are_those_of_the_elements_below_the_chunk(parsed: ParsedDocument, budget: ChunkBudget) -> None:
    for piece in chunk_document(parsed, None, budget, WORDS):
        pages = [
            element.page
            for element in parsed.elements
            if element.page and parsed.text[max(element.start, piece.start) : min(element.end, piece.end)].strip()
        ]
        assert (piece.page_start, piece.page_end) == (min(pages, default=None), max(pages, default=None))


def test_text_that_no_element_holds_is_on_no_page() -> None:
    text = "?\n" + "?" * 8 + " " + "?" * 8  # the second line's first word is taken along with the element after it
    elements = (Element("heading", 0, 1, page=2), Element("heading", 11, 19, page=1))
    chunks = chunk_document(ParsedDocument(text, elements, "text/plain"), None, ChunkBudget(16, 0), WORDS)
    assert [(text[piece.start : piece.end], piece.page_start, piece.page_end) for piece in chunks] == [
        ("?\n" + "?" * 8, 2, 2), ("?" * 8, 1, 1)
    ]  # fmt: skip


def build(*blocks: tuple[ElementKind, str] | tuple[ElementKind, str, int]) -> ParsedDocument:
    """A document of these blocks, a blank line between them; headings carry `#` marks outside of their elements."""
    text, elements = "", []
    for kind, body, *level in blocks:
        text += "\n\n" if text else ""
        text += "#" * level[0] + " " if level else ""
        elements.append(Element(kind, len(text), len(text) + len(body), *level))
        text += body
    return ParsedDocument(text, tuple(elements), "text/markdown")


def texts_of(parsed: ParsedDocument, chunks: Sequence[Chunk]) -> list[str]:
    return [parsed.text[piece.start : piece.end] for piece in chunks]


def prose(words: int, word: str = "word") -> str:
    return " ".join([word] * words)


BUDGET = ChunkBudget(40, 12)


def test_a_heading_line_opens_the_chunk_it_heads() -> None:
    parsed = build(("heading", "Leave", 1), ("paragraph", prose(30)), ("heading", "Pay", 1), ("paragraph", prose(30)))
    chunks = chunk_document(parsed, None, BUDGET, WORDS)
    assert [text.split("\n")[0] for text in texts_of(parsed, chunks)] == ["# Leave", "# Pay"]
    assert [piece.heading_path for piece in chunks] == [("Leave",), ("Pay",)]


def test_headings_without_text_between_them_stay_together_and_the_path_is_that_of_the_text() -> None:
    parsed = build(("heading", "Handbook", 1), ("heading", "Leave", 2), ("paragraph", prose(20)))
    (piece,) = chunk_document(parsed, None, BUDGET, WORDS)
    assert piece.heading_path == ("Handbook", "Leave")


def test_small_sections_under_one_heading_share_a_chunk_and_its_path() -> None:
    parsed = build(
        ("heading", "Top", 1), ("heading", "A", 2), ("paragraph", "one"), ("heading", "B", 2), ("paragraph", "two"),
        ("heading", "Other", 1), ("paragraph", prose(30)),
    )  # fmt: skip
    chunks = chunk_document(parsed, None, ChunkBudget(80, 12), WORDS)
    assert [piece.heading_path for piece in chunks] == [("Top",), ("Other",)]


def test_small_slides_do_not_share_a_chunk_so_that_each_keeps_its_page() -> None:
    text = "First\none\n\nSecond\ntwo"
    elements = (
        Element("heading", 0, 5, 1, 1), Element("paragraph", 6, 9, page=1),
        Element("heading", 11, 17, 1, 2), Element("paragraph", 18, 21, page=2),
    )  # fmt: skip
    chunks = chunk_document(ParsedDocument(text, elements, "text/plain"), None, BUDGET, WORDS)
    assert [(piece.page_start, piece.page_end) for piece in chunks] == [(1, 1), (2, 2)]


def test_a_large_section_does_not_take_a_small_neighbour_in() -> None:
    parsed = build(("heading", "A", 2), ("paragraph", prose(25)), ("heading", "B", 2), ("paragraph", "two"))
    chunks = chunk_document(parsed, None, BUDGET, WORDS)
    assert [piece.heading_path for piece in chunks] == [("A",), ("B",)]


def test_a_heading_does_not_stand_alone_before_a_paragraph_that_fills_a_chunk() -> None:
    parsed = build(("heading", "A", 1), ("paragraph", ". ".join([prose(9)] * 4)))
    first, *_ = texts_of(parsed, chunk_document(parsed, None, BUDGET, WORDS))
    assert first.startswith("# A\n\nword")


def test_a_long_paragraph_is_split_at_sentence_ends_into_even_parts() -> None:
    sentence = prose(9) + "."
    parsed = build(("paragraph", " ".join([sentence] * 6)))
    chunks = chunk_document(parsed, None, BUDGET, WORDS)
    assert texts_of(parsed, chunks) == [" ".join([sentence] * 3)] * 2  # 60 tokens in 2 x 30, not in 40 + 20


def test_a_sentence_over_the_budget_is_split_between_words() -> None:
    parsed = build(("paragraph", prose(100)))
    texts = texts_of(parsed, chunk_document(parsed, None, BUDGET, WORDS))
    assert {word for text in texts for word in text.split()} == {"word"}


def test_a_word_without_end_is_cut_by_characters_even_where_the_tokenizer_takes_it_for_one_token() -> None:
    parsed = build(("paragraph", "x" * 5000))
    lengths = [piece.end - piece.start for piece in chunk_document(parsed, None, BUDGET, WORDS)]
    assert sum(lengths) == 5000
    assert max(lengths) <= BUDGET.limit.chars


def test_a_table_is_split_between_rows_and_its_header_goes_into_each_prefix_that_lacks_it() -> None:
    rows = ["name | amount", *(f"row{number} | {number}" for number in range(40))]
    text = "\n".join(rows)
    parsed = ParsedDocument(text, (Element("table", 0, len(text), context="name | amount"),), "text/csv")
    first, *others = chunk_document(parsed, "Costs", BUDGET, WORDS)
    assert (first.embed_prefix, {piece.embed_prefix for piece in others}) == ("Costs", {"Costs\nname | amount"})
    assert [row for text in texts_of(parsed, [first, *others]) for row in text.split("\n")] == rows


def test_the_prefix_names_title_and_headings_once_and_not_what_the_chunk_itself_says() -> None:
    parsed = build(("heading", "Handbook", 1), ("heading", "Leave", 2), *[("paragraph", prose(30))] * 2)
    chunks = chunk_document(parsed, "Handbook", BUDGET, WORDS)
    assert [piece.embed_prefix for piece in chunks] == ["", "Handbook > Leave"]
    chunks = chunk_document(parsed, "Acme", BUDGET, WORDS)
    assert [piece.embed_prefix for piece in chunks] == ["Acme", "Acme > Handbook > Leave"]


def test_a_text_without_elements_is_chunked_all_the_same() -> None:
    parsed = ParsedDocument(f"{prose(30)}\n\n{prose(30)}", (), "text/plain")
    assert texts_of(parsed, chunk_document(parsed, None, BUDGET, WORDS)) == [prose(30)] * 2


def test_an_empty_text_has_no_chunks() -> None:
    assert chunk_document(ParsedDocument(" \n ", (), "text/plain"), "T", BUDGET, WORDS) == ()


def test_elements_that_overlap_are_a_bug_of_the_parser_and_said_so() -> None:
    parsed = ParsedDocument("abcdef", (Element("paragraph", 0, 4), Element("paragraph", 2, 6)), "text/plain")
    with pytest.raises(ValueError, match="overlap"):
        chunk_document(parsed, None, BUDGET, WORDS)


def test_a_budget_beyond_the_models_window_is_refused_with_the_largest_that_fits() -> None:
    with pytest.raises(Misconfigured, match="CITADEL_CHUNK_TOKENS to 206"):  # 256 - 48 - 2
        chunk(build(("paragraph", "x")), None, "structure", ChunkBudget(207), WORDS)
    assert len(chunk(build(("paragraph", "x")), None, "structure", ChunkBudget(206), WORDS)) == 1
