"""What parsing keeps of real documents, by format, and how many PDF pages it reads in a second.

    python -m bench.parsing [--data ../shared/data] [--write docs/parsing.md] [--json]

Expected are docling's and markitdown's Markdown beside their sources, stalwart's parsed mail, and for the pages of PDF
what pypdf reads on each page. Everything is parsed as a worker does it: in the sandbox, in a process for each document.
"""

import argparse
import io
import json
import logging
import os
import re
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pypdf
import pypdfium2

from core.errors import Unparseable
from core.records import ParsedDocument
from ingest.sandbox import ParserSandbox

# Characters that docling writes as markup, or as an escape of it.
MARKUP = re.compile(r"<!--.*?-->|\]\([^)]*\)|&\w+;|<[^>\n]+>|\\", re.DOTALL)
# docling's own words for a chart or a comment, formulas as LaTeX, merged cells once for each column, and Arabic, whose
# ligature of lam and alef pdfium gives in visual order.
INCOMPARABLE = re.compile(
    r"equation|omml|chart|comments|right_to_left|rich_cells|word_tables|merged|inflated|xlsx_0[17]"
)
_RULE = re.compile(r"[|\s:-]+")
_SAME_PAGE = 0.95  # of the words that pypdf reads on a page
_ROW_WORDS = 0.9  # of a table's row that must stand in one line of ours
_ROUNDS = 2  # through the filings


@dataclass(frozen=True, slots=True)
class Expected:
    """A document and what another reader made of it."""

    source: Path
    markdown: str
    title: str | None = None


@dataclass(slots=True)
class Fidelity:
    """Sums over the documents of a format; shares are of what is expected."""

    documents: int = 0
    parsed: int = 0
    words: Counter[str] = field(default_factory=Counter)  # expected, found
    runs: Counter[str] = field(default_factory=Counter)  # of three words, which tell the order
    headings: Counter[str] = field(default_factory=Counter)
    rows: Counter[str] = field(default_factory=Counter)
    titles: Counter[str] = field(default_factory=Counter)
    pages: Counter[str] = field(default_factory=Counter)

    def shares(self) -> dict[str, float | None]:
        """Each measure's found over expected; None where nothing is expected."""
        names = ("words", "runs", "headings", "rows", "titles", "pages")
        sums = {name: getattr(self, name) for name in names}
        return {name: total["found"] / total["expected"] if total["expected"] else None for name, total in sums.items()}


def expected(data: Path) -> Iterator[Expected]:
    """Every document that somebody else's reading of it lies beside."""
    for source in sorted((data / "docling").glob("*/sources/*")):
        folder = source.parent.parent / "groundtruth"
        truth = next(
            (folder / f"{name}.md" for name in (source.name, source.stem) if (folder / f"{name}.md").exists()), None
        )
        if truth and not INCOMPARABLE.search(source.name):
            yield Expected(source, truth.read_text())
    tests = data / "markitdown" / "packages" / "markitdown" / "tests" / "test_files"
    for truth in sorted((tests / "expected_outputs").glob("*.md")):
        yield Expected(tests / f"{truth.stem}.pdf", truth.read_text())
    for source in sorted((data / "mail-stalwart").rglob("*.eml")):
        if (message := _stalwart(source)) is not None:
            yield message


def _stalwart(source: Path) -> Expected | None:
    """The text parts and the subject that stalwart's parser found; None where it gave up the bytes or found no text."""
    if not source.with_suffix(".json").exists():
        return None
    message = json.loads(source.with_suffix(".json").read_text())
    bodies = [message["parts"][index]["body"] for index in message.get("text_body", ())]
    texts = [body["Text"] for body in bodies if isinstance(body, dict) and "Text" in body]
    if not "".join(texts).strip() or "\ufffd" in str(message):
        return None
    headers = message["parts"][0]["headers"]
    subjects = [header["value"] for header in headers if header["name"] == "subject"]
    subject = next((value["Text"] for value in subjects if isinstance(value, dict) and "Text" in value), None)
    return Expected(source, "\n".join(texts), subject)


def words(text: str) -> list[str]:
    """The words of a text, without the marks of Markdown."""
    return re.findall(r"\w+", MARKUP.sub(" ", text))


def _runs_of_three(text: str) -> Counter[tuple[str, ...]]:
    found = words(text)
    return Counter(zip(found, found[1:], found[2:], strict=False))


def measure(fidelity: Fidelity, truth: Expected, document: ParsedDocument) -> None:
    """Add a document's figures."""
    for name, counts in (("words", lambda text: Counter(words(text))), ("runs", _runs_of_three)):
        wanted, found = counts(truth.markdown), counts(document.text)
        _count(getattr(fidelity, name), wanted.total(), (wanted & found).total())
    elements = [(element.kind, document.text[element.start : element.end]) for element in document.elements]
    wanted_headings = Counter(
        _plain(line.lstrip("# ")) for line in truth.markdown.splitlines() if re.match("#+ ", line)
    )
    found_headings = Counter(_plain(text) for kind, text in elements if kind == "heading")
    _count(fidelity.headings, wanted_headings.total(), (wanted_headings & found_headings).total())
    lines = [Counter(words(line)) for kind, text in elements if kind == "table" for line in text.splitlines()]
    rows = [
        Counter(words(line))
        for line in truth.markdown.splitlines()
        if line.startswith("|") and not _RULE.fullmatch(line)
    ]
    _count(
        fidelity.rows,
        len(rows),
        sum(any((row & line).total() >= _ROW_WORDS * row.total() for line in lines) for row in rows),
    )
    if truth.title:
        _count(fidelity.titles, 1, _plain(truth.title) == _plain(document.title or ""))


def measure_pages(fidelity: Fidelity, source: Path, document: ParsedDocument) -> None:
    """Add for each page whether its words are those that pypdf reads there."""
    pages: dict[int, Counter[str]] = defaultdict(Counter)
    for element in document.elements:
        pages[element.page or 0].update(_letters(document.text[element.start : element.end]))
    try:
        read = [_letters(page.extract_text()) for page in pypdf.PdfReader(io.BytesIO(source.read_bytes())).pages]
    except Exception as error:  # noqa: BLE001  # a foreign reader may fail in any way; then there is nothing to compare
        print(f"pypdf gave up {source.name}: {type(error).__name__}", file=sys.stderr)
        return
    for number, wanted in enumerate(read, start=1):
        if wanted:
            total = Counter(wanted)
            _count(fidelity.pages, 1, (total & pages[number]).total() >= _SAME_PAGE * total.total())


def _letters(text: str) -> list[str]:
    """Characters that are letters or digits: the two readers part words at different places."""
    return [character for character in text if character.isalnum()]


def _count(sums: Counter[str], wanted: int, found: int) -> None:
    sums.update(expected=wanted, found=int(found))


def _plain(text: str) -> str:
    return " ".join(words(text)).lower()


def fidelity(data: Path) -> dict[str, Fidelity]:
    """By format, sorted."""
    formats: dict[str, Fidelity] = defaultdict(Fidelity)
    compared = list(expected(data))
    with ParserSandbox() as sandbox:
        for number, truth in enumerate(compared, start=1):
            kind = formats[truth.source.suffix.lstrip(".")]
            kind.documents += 1
            try:
                document = sandbox.parse(truth.source.read_bytes(), truth.source.name)
            except Unparseable as refusal:
                print(f"{truth.source.name}: {refusal}", file=sys.stderr)
                continue
            kind.parsed += 1
            measure(kind, truth, document)
            if number % 25 == 0:
                print(f"{number} of {len(compared)} documents", file=sys.stderr)
        for source in sorted(data.rglob("*.pdf")):
            try:
                measure_pages(formats["pdf"], source, sandbox.parse(source.read_bytes(), source.name))
            except Unparseable:
                continue
    return dict(sorted(formats.items()))


@dataclass(frozen=True, slots=True)
class Speed:
    """PDF pages a second, of one process at a time, the best round of each in turn.

    On a machine that does other work the clock tells about that; processor seconds tell about us.
    """

    pages: int
    parsed: float  # through the sandbox: bytes in, canonical text out
    parsed_cpu: float  # by processor time, the worker's and its child's
    pdfium: float  # pdfium's plain text alone, in this process
    pdfium_cpu: float


def speed(folder: Path, rounds: int) -> Speed:
    """Every page of the PDFs below a folder."""
    contents = [path.read_bytes() for path in sorted(folder.rglob("*.pdf"))]
    pages = sum(_plain_text(content) for content in contents)
    rates: list[tuple[float, float, float, float]] = []
    with ParserSandbox() as sandbox:
        sandbox.parse(contents[0])
        for _ in range(rounds):
            parsed = _timed(lambda: [sandbox.parse(content) for content in contents], sandbox.child_pid)
            pdfium = _timed(lambda: [_plain_text(content) for content in contents], sandbox.child_pid)
            rates.append((*(pages / spent for spent in parsed), *(pages / spent for spent in pdfium)))
    return Speed(pages, *(max(rate) for rate in zip(*rates, strict=True)))


def _timed(work: Callable[[], object], child: int) -> tuple[float, float]:
    """Seconds by the clock, and of this process and a child with all that it waited for."""
    clock, cpu = time.perf_counter(), time.process_time() + _cpu(child)
    work()
    return time.perf_counter() - clock, time.process_time() + _cpu(child) - cpu


def _cpu(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


def _plain_text(content: bytes) -> int:
    """Read each page's text by pdfium and nothing else; how many pages."""
    document = pypdfium2.PdfDocument(content)
    for page in document:
        page.get_textpage().get_text_range()
        page.close()
    pages = len(document)
    document.close()
    return pages


_HEAD = """# Parsing

Written by `python -m bench.parsing --write docs/parsing.md`; whoever has the real documents can run it again. Every
file goes through the sandbox, in a process of its own.

Shares of what other readers found in the same files: docling's and markitdown's Markdown, stalwart's parsed mail.
*Words* are the words that are there, *order* the runs of three words that are; *headings* by their words; *table rows*
with nine in ten of their words on one line of a table of ours; *titles* are mail subjects; *pages* are PDF pages with
95 % of the letters and digits that pypdf reads on that page. A running header is kept once and page numbers are left
out, which counts against words, order and pages here. Expected Markdown holds docling's own mistakes too.

"""


def table(formats: dict[str, Fidelity]) -> str:
    """Markdown."""
    lines = [
        "| format | documents | parsed | words | order | headings | table rows | titles | pages |",
        "|---|" + "---:|" * 8,
    ]
    for name, sums in formats.items():
        shares = ["–" if share is None else f"{share:.3f}" for share in sums.shares().values()]
        lines.append(f"| {name} | {sums.documents} | {sums.parsed} | {' | '.join(shares)} |")
    return "\n".join(lines) + "\n"


def _told(speed: Speed) -> str:
    return (
        f"PDF pages a second, {speed.pages} pages of 10-Q filings, one process at a time: {speed.parsed_cpu:.0f} of "
        f"processor time ({speed.parsed:.0f} by the clock) parsed, from bytes to canonical text through the sandbox; "
        f"{speed.pdfium_cpu:.0f} ({speed.pdfium:.0f}) by pdfium's plain text alone, so that all the rest takes "
        f"{1 - speed.parsed_cpu / speed.pdfium_cpu:.0%} of the time.\n"
    )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="the folder of the real data")
    parser.add_argument("--write", type=Path, help="a Markdown file for the tables")
    parser.add_argument("--rounds", type=int, default=_ROUNDS, help="through the filings; the best counts (2)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    asked = parser.parse_args(arguments)
    logging.getLogger("pypdf").setLevel(logging.CRITICAL)
    formats = fidelity(asked.data / "documents")
    pages = speed(asked.data / "retrieval" / "sec-10q", asked.rounds)
    if asked.json:
        report: dict[str, Any] = {
            name: {"documents": sums.documents, "parsed": sums.parsed, **sums.shares()}
            for name, sums in formats.items()
        }
        print(json.dumps({"formats": report, "pdf": asdict(pages)}))
    else:
        print(table(formats) + "\n" + _told(pages))
    if asked.write:
        asked.write.write_text(_HEAD + table(formats) + "\n" + _told(pages))


if __name__ == "__main__":
    main()
