"""What OCR reads of pages whose text is known: pages of real PDFs, painted and read back as pictures.

    python -m bench.ocr [--data ../shared/data] [--pages 40] [--dpi 200] [--languages eng] [--json]

The pages are a fixed sample of those that hold at least 100 words in ASCII letters, at most two a document. Recall is
the share of a page's words, as often as they stand there, that are read; precision the share of what is read that
stands there.
"Doubted" is the share of wrongly read words that carry the flag `doubtful_reading`, and of rightly read ones.
"""

import argparse
import io
import json
import random
import statistics
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import pypdfium2

from bench.parsing import words
from core.errors import Unparseable
from core.records import ParsedDocument
from ingest.sandbox import ParseLimits, ParserSandbox

LEAST_WORDS = 100
A_DOCUMENT = 2  # pages of one
LATIN = 0.95  # of the letters


@dataclass(frozen=True, slots=True)
class Page:
    """A page's picture and the words that its own text layer holds."""

    name: str
    picture: bytes  # PNG
    words: Counter[str]


@dataclass(frozen=True, slots=True)
class Reading:
    """How one page was read back."""

    name: str
    words: int
    recall: float
    precision: float
    doubted_wrong: int
    wrong: int
    doubted_right: int
    seconds: float


def pages(data: Path, wanted: int, dpi: int) -> Iterator[Page]:
    """A sample of the pages below a folder, the same each time."""
    chance, found = random.Random(7), 0
    paths = sorted(data.rglob("*.pdf"))
    chance.shuffle(paths)
    for path in paths:
        try:
            document = pypdfium2.PdfDocument(path.read_bytes())
        except pypdfium2.PdfiumError:
            continue
        taken = 0
        for index in chance.sample(range(len(document)), min(len(document), 10)):
            page = document[index]
            told = words(page.get_textpage().get_text_range())
            if len(told) < LEAST_WORDS or not _is_latin(told):
                continue
            buffer = io.BytesIO()
            page.render(scale=dpi / 72, grayscale=True).to_pil().save(buffer, "PNG", dpi=(dpi, dpi))
            yield Page(f"{path.name} p. {index + 1}", buffer.getvalue(), Counter(told))
            taken, found = taken + 1, found + 1
            if taken == A_DOCUMENT or found == wanted:
                break
        document.close()
        if found == wanted:
            return


def _is_latin(told: list[str]) -> bool:
    """Whether the page is in letters that a model of English knows."""
    letters = [letter for word in told for letter in word if letter.isalpha()]
    return sum(letter.isascii() for letter in letters) > LATIN * len(letters)


def read(sandbox: ParserSandbox, page: Page) -> Reading:
    """Read a page back as a worker does."""
    started = time.perf_counter()
    document = sandbox.parse(page.picture, "page.png")
    seconds = time.perf_counter() - started
    found = Counter(words(document.text))
    right = (found & page.words).total()
    doubted = Counter(_doubted(document))
    wrong = found - page.words
    return Reading(page.name, page.words.total(), right / page.words.total(), right / max(found.total(), 1),
                   (doubted & wrong).total(), wrong.total(), (doubted - wrong).total(), seconds)  # fmt: skip


def _doubted(document: ParsedDocument) -> Iterator[str]:
    for flag in document.flags:
        if flag.kind == "doubtful_reading":
            yield from words(document.text[flag.start : flag.end])


def main() -> None:
    """Print the table, or all readings as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--pages", type=int, default=40)
    parser.add_argument("--dpi", type=int, default=200, help="that the pages are painted at: as if scanned so")
    parser.add_argument("--languages", default="eng")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    readings: list[Reading] = []
    with ParserSandbox(ParseLimits(ocr_languages=asked.languages)) as sandbox:
        sandbox.parse(b"warm")
        for page in pages(asked.data, asked.pages, asked.dpi):
            try:
                readings.append(read(sandbox, page))
            except Unparseable as refusal:
                print(f"{page.name}: {refusal}", file=sys.stderr)
            if len(readings) % 10 == 0:
                print(f"{len(readings)} of {asked.pages} pages", file=sys.stderr)
    if asked.json:
        print(json.dumps([asdict(reading) for reading in readings], indent=1))
        return
    total = sum(reading.words for reading in readings)
    wrong = sum(reading.wrong for reading in readings)
    print(
        f"{len(readings)} pages of {total} words at {asked.dpi} dpi: "
        f"recall {sum(r.recall * r.words for r in readings) / total:.3f} over all words, "
        f"{statistics.median(r.recall for r in readings):.3f} on the median page, "
        f"{min(r.recall for r in readings):.3f} on the worst; "
        f"precision {sum(r.precision * r.words for r in readings) / total:.3f}; "
        f"doubted {sum(r.doubted_wrong for r in readings) / max(wrong, 1):.0%} of {wrong} wrong words "
        f"and {sum(r.doubted_right for r in readings) / total:.1%} of the right ones; "
        f"{statistics.median(r.seconds for r in readings):.1f} s a page"
    )
    for reading in sorted(readings, key=lambda each: each.recall)[:5]:
        print(f"  {reading.recall:.3f} {reading.name}")


if __name__ == "__main__":
    main()
