"""Sheets: chunks end where rows end and say which rows of which sheet they hold; a huge one says where it was cut."""

import io
import re
from pathlib import Path

import openpyxl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import Unparseable
from core.records import Chunk, ParsedDocument
from core.rows import joined_rows, row_range
from ingest.chunk import ChunkBudget, chunk
from ingest.confine import ParseLimits
from ingest.parse import parse_file
from models.fake_embedder import FakeEmbedder
from tests.unit.test_assemble import page, put_together

DATA = Path(__file__).parents[3] / "shared" / "data"
WORD = re.compile(r"[a-z]{4,}")
BUDGET = ChunkBudget(chunk_tokens=40, prefix_tokens=30)
Grid = list[list[str]]


def workbook(sheets: dict[str, Grid]) -> bytes:
    book, buffer = openpyxl.Workbook(), io.BytesIO()
    book.remove(book.active)
    for name, rows in sheets.items():
        sheet = book.create_sheet(name)
        for row in rows:
            sheet.append(row)
    book.save(buffer)
    return buffer.getvalue()


def chunks_of(document: ParsedDocument) -> tuple[Chunk, ...]:
    return chunk(document, "Book", "structure", BUDGET, FakeEmbedder())


def table(rows: int, name: str = "train") -> Grid:
    return [["item", "eur"], *([f"{name} {n}", f"{n}.50"] for n in range(2, rows + 1))]


def rows_in(piece: Chunk) -> range | None:
    """The rows that the chunk's path ends in."""
    found = re.fullmatch(r"rows? (\d+)(?:–(\d+))?", piece.heading_path[-1]) if piece.heading_path else None
    return found and range(int(found[1]), int(found[2] or found[1]) + 1)


def test_each_chunk_names_its_sheet_and_rows_and_repeats_the_header() -> None:
    grid = table(120)
    document = parse_file(workbook({"Q3": grid, "Q4": table(3, "bus")}))
    found = [piece for piece in chunks_of(document) if piece.heading_path[0] == "Q3"]
    assert len(found) > 5
    place = 1
    for piece in found:
        rows = rows_in(piece)
        assert rows is not None and rows.start == place
        lines = document.text[piece.start : piece.end].removeprefix("Q3\n\n").splitlines()
        assert lines == [" | ".join(grid[row - 1]) for row in rows]  # whole rows, and those that it says
        assert place == 1 or "item | eur" in piece.embed_prefix
        place = rows.stop
    assert place == len(grid) + 1


def test_rows_are_those_of_the_sheet_not_of_the_block() -> None:
    grid = [["Prices 2026"], [], [], *table(4), [], ["a note below"]]
    document = parse_file(workbook({"P": grid}))
    rows = {document.text[e.start : e.end].splitlines()[0]: e.row for e in document.elements}
    assert rows == {"P": None, "Prices 2026": 1, "item | eur": 4, "a note below": 9}
    (piece,) = chunks_of(document)
    assert piece.heading_path == ("P", "rows 1–9")


def test_a_chunk_of_two_sheets_names_no_rows() -> None:
    document = parse_file(workbook({"A": [["one", "1"]], "B": [["two", "2"]]}))
    (piece,) = chunks_of(document)
    assert piece.heading_path == () and "one" in document.text and "two" in document.text


def test_the_rows_of_a_table_in_csv_count_its_records() -> None:
    document = parse_file("\n".join(",".join(row) for row in table(60)).encode(), "a.csv")
    ranges = [rows_in(piece) for piece in chunks_of(document)]
    assert [row for each in ranges if each for row in each] == list(range(1, 61))


@pytest.mark.parametrize("kind", ["xlsx", "csv"])
def test_a_huge_sheet_is_cut_and_says_where(kind: str) -> None:
    grid = table(1000)
    content = workbook({"Q3": grid, "Q4": table(3)}) if kind == "xlsx" else "\n".join(map(",".join, grid)).encode()
    document = parse_file(content, f"a.{kind}", limits=ParseLimits(cells=401))
    assert "train 200 |" in document.text and "train 201 |" not in document.text
    what = "sheet 'Q3'" if kind == "xlsx" else "the table"
    assert document.warnings[0] == (
        f"sheet_cut: {what} is read up to row 200: a file may have 401 cells (CITADEL_SHEET_CELLS)"
    )
    assert len(document.warnings) == (2 if kind == "xlsx" else 1)  # nothing of the next sheet is read either


@given(st.lists(st.tuples(st.integers(1, 10**7), st.integers(0, 100)), min_size=1, max_size=4))
def test_ranges_join_to_the_rows_from_first_to_last(found: list[tuple[int, int]]) -> None:
    ranges = [(first, first + more) for first, more in found]
    joined = joined_rows([row_range(*each) for each in ranges])
    assert joined == row_range(min(first for first, _ in ranges), max(last for _, last in ranges))
    assert joined_rows([row_range(*ranges[0]), "Costs"]) is None


def test_merged_neighbours_cite_the_rows_of_all() -> None:
    pages = [page(n, heading_path=["Q3", row_range(10 * n, 10 * n + 9)]) for n in (2, 1, 3)]
    (passage,) = put_together(pages).passages
    assert passage.citation.heading_path == ("Q3", "rows 10–39")


@pytest.mark.skipif(not DATA.is_dir(), reason="the folder of real documents is not here")
def test_rows_of_real_sheets_hold_what_their_chunks_say() -> None:
    """Against openpyxl's own cells: every word of a chunk stands in the rows that it names."""
    looked_at = 0
    for file in sorted((DATA / "documents").rglob("*.xlsx")):
        if file.stat().st_size > 50_000:
            continue
        try:
            document = parse_file(file.read_bytes(), file.name)
        except Unparseable:
            continue
        held = _Rows(file)
        for piece in chunks_of(document)[:20]:
            rows, text = rows_in(piece), document.text[piece.start : piece.end]
            if rows is not None and piece.heading_path[0] in held.sheets:  # openpyxl alone does not read Strict files
                words = set(WORD.findall(text.removeprefix(piece.heading_path[0]).lower()))
                assert words <= held[piece.heading_path[0], rows], (file.name, piece.heading_path)
                looked_at += 1
    assert looked_at > 50


class _Rows(dict[tuple[str, range], set[str]]):
    """The words of a sheet's rows."""

    def __init__(self, file: Path) -> None:
        book = openpyxl.load_workbook(file, data_only=True, keep_links=False)
        self.sheets = {
            " ".join(sheet.title.split()): [
                set(WORD.findall(" ".join(map(str, row)).lower())) for row in sheet.iter_rows(values_only=True)
            ]
            for sheet in book.worksheets
        }

    def __missing__(self, key: tuple[str, range]) -> set[str]:
        name, rows = key
        return {word for row in self.sheets[name][rows.start - 1 : rows.stop - 1] for word in row}
