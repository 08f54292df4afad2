"""Reports: everything from outside is escaped, plots are plots of their values, and nothing is fetched or run."""

import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest

from eval import plots
from eval.page import Beside, Box, Page, Plot, Section, Table, to_html, to_markdown
from eval.pair import blame
from store.runs import StoredStages

HOSTILE = '<script>alert("x")</script> & "quotes" | *bold* [a](http://b) `c`'
PAGE = Page(HOSTILE, (
    Section(HOSTILE, (
        HOSTILE, Table((HOSTILE, "n"), ((HOSTILE, "1"),)), Plot(plots.bars([(HOSTILE, 0.5, HOSTILE)]), HOSTILE),
        Beside(HOSTILE, (Box(HOSTILE, HOSTILE, ((3, 9), (40, 4000))),), (Box(HOSTILE, HOSTILE),)),
    )),
))  # fmt: skip


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [name for name, _ in attrs]


def test_nothing_from_outside_becomes_markup() -> None:
    tags = Tags()
    tags.feed(to_html(PAGE))
    assert not {"script", "a", "img", "link", "iframe"} & set(tags.tags)
    assert not [name for name in tags.attributes if name.startswith("on") or name in ("href", "src")]
    assert "alert(&quot;x&quot;)" in to_html(PAGE)


def test_marks_lie_on_what_was_judged_and_inside_the_text() -> None:
    page = Page("", (Section("", (Beside("", (Box("d", "abcdefghij", ((2, 4), (3, 5), (8, 99))),), ()),)),))
    assert "ab<mark>cd</mark><mark>e</mark>fgh<mark>ij</mark>" in to_html(page)


def test_markdown_keeps_its_tables_and_acts_on_nothing() -> None:
    told = to_markdown(PAGE)
    assert "<script" not in told and "](http" not in told.replace("\\](http", "")
    for line in [line for line in told.splitlines() if line.startswith("| ")]:
        assert len(re.findall(r"(?<!\\)\|", line)) == 3  # two cells


def svg(text: str) -> ElementTree.Element:
    return ElementTree.fromstring(text)


def test_bars_are_as_long_as_their_values() -> None:
    widths = [float(r.get("width", 0)) for r in svg(plots.bars([("a", 1.0, ""), ("b", 0.25, "")])).iter("rect")]
    assert widths[1] / widths[0] == pytest.approx(1.0) and widths[3] / widths[2] == pytest.approx(0.25, abs=0.01)


def test_a_histogram_holds_every_value() -> None:
    heights = [float(r.get("height", 0)) for r in svg(plots.histogram([1, 1, 1, 10], "ms")).iter("rect")]
    assert sorted(height for height in heights if height > 0.1)[0] * 3 == pytest.approx(max(heights), abs=0.5)
    assert len([height for height in heights if height > 0.1]) == 2
    svg(plots.histogram([0.0], "ms"))


def test_deltas_are_sorted_and_on_their_side_of_the_line() -> None:
    drawn = svg(plots.deltas([0.2, -0.4, 0.0], "nDCG@10"))
    assert "1 lost, 1 won" in str(drawn.get("aria-label"))
    colours = [rect.get("fill") for rect in drawn.iter("rect")]
    assert colours[0] == plots.RED and colours[-1] == plots.BLUE
    svg(plots.deltas([0.0], "x"))


def test_a_curve_passes_through_its_points() -> None:
    dots = list(svg(plots.curve([(0, 1), (1, 0)], "recall", "precision")).iter("circle"))
    assert float(dots[0].get("cy", 0)) < float(dots[1].get("cy", 0)) and len(dots) == 2


def stood(dense: int | None, lexical: int | None, fused: int | None, answer: int | None) -> StoredStages:
    from uuid import UUID

    return StoredStages("q", UUID(int=1), "d", dense, lexical, fused, answer)


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        ((3, 1, 1, 1), (3, None, 9, None), "the lexical leg lost it (lexical 1 → none, fused 1 → 9, answer 1 → none)"),
        ((3, 1, 1, 1), (3, 1, 7, 7), "the fusion moved it (fused 1 → 7, answer 1 → 7)"),
        ((3, 1, 2, 1), (3, 1, 2, 4), "the reranking moved it (answer 1 → 4)"),
        ((3, 1, 2, 1), (3, 1, 2, None), "reranking and assembly, behind the fusion, lost it (answer 1 → none)"),
        ((None, 9, 9, None), (1, 9, 1, 1), "the dense leg found it (dense none → 1, fused 9 → 1, answer none → 1)"),
    ],
)
def test_the_first_stage_that_moved_a_document_is_blamed(before: tuple, after: tuple, told: str) -> None:  # type: ignore[type-arg]
    assert blame(stood(*before), stood(*after)) == told
