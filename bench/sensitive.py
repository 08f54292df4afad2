"""What looking for personal data and secrets costs beside parsing and chunking, and how much it finds in real files.

    python -m bench.sensitive [--data ../shared/data/documents] [--limit 300] [--show card] [--json]

Documents are parsed in the sandbox and chunked with the shipped model's tokenizer, as a worker does it. A page is one
of the file, or 3,000 characters where the format has none. `--show` prints what was found of a kind, to judge it: these
are files that are public already.
"""

import argparse
import json
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from core.errors import Unparseable
from core.records import ParsedDocument
from core.sensitive import KINDS, Kind, read_policy
from ingest.chunk import ChunkBudget, chunk
from ingest.recognise import recognise
from ingest.sandbox import ParserSandbox
from ingest.screen import REGION, screen
from models.embedder import Embedder, open_embedder

PAGE_CHARS = 3000
FOLDERS = (Path("../shared/data/documents"), Path("examples/acme/files"))


@dataclass(slots=True)
class Sums:
    """Over all documents."""

    documents: int = 0
    pages: float = 0
    characters: int = 0
    seconds: Counter[str] = field(default_factory=Counter)  # by step
    found: Counter[Kind] = field(default_factory=Counter)
    by_kind_s: Counter[str] = field(default_factory=Counter)


def measure(folder: Path, limit: int, show: Kind | None) -> Sums:
    """Parse, chunk and screen up to `limit` of the folder's files."""
    sums, policy = Sums(), read_policy("mask")
    with TemporaryDirectory() as cache, ParserSandbox() as parser:
        embedder = open_embedder("all-MiniLM-L6-v2", Path(cache), 1)
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        for file in files[:: max(1, len(files) // limit)]:
            content = file.read_bytes()
            started = time.perf_counter()
            try:
                parsed = parser.parse(content, file.name, None)
            except Unparseable:
                continue
            parse_s = time.perf_counter() - started
            sums.seconds["parse"] += parse_s
            _add(sums, parsed, embedder)
            started = time.perf_counter()
            screening = screen(parsed, policy).screening
            sums.seconds["screen"] += time.perf_counter() - started
            sums.found.update(screening.found if screening else {})
            for line in _shown(parsed, show):
                print(f"{file.relative_to(folder)}: {line}")
            for kind in KINDS:
                started = time.perf_counter()
                recognise(parsed.text, [kind], REGION)
                sums.by_kind_s[kind] += time.perf_counter() - started
    return sums


def _add(sums: Sums, parsed: ParsedDocument, embedder: Embedder) -> None:
    started = time.perf_counter()
    chunk(parsed, parsed.title, "structure", ChunkBudget(chunk_tokens=200), embedder)
    sums.seconds["chunk"] += time.perf_counter() - started
    sums.documents += 1
    sums.characters += len(parsed.text)
    sums.pages += max((each.page or 0 for each in parsed.elements), default=0) or len(parsed.text) / PAGE_CHARS


def _shown(parsed: ParsedDocument, show: Kind | None) -> Iterator[str]:
    for each in recognise(parsed.text, [show], REGION) if show else ():
        yield " ".join(parsed.text[max(0, each.start - 30) : each.end + 10].split())


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, default=next(folder for folder in FOLDERS if folder.is_dir()))
    parser.add_argument("--limit", type=int, default=300)
    parser.add_argument("--show", choices=KINDS)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    sums = measure(options.data, options.limit, options.show)
    per_1000 = {kind: round(1000 * sums.found[kind] / sums.pages, 1) for kind in KINDS}
    share = sums.seconds["screen"] / (sums.seconds["parse"] + sums.seconds["chunk"])
    told = {"documents": sums.documents, "pages": round(sums.pages), "characters": sums.characters,
            "share_of_parsing_and_chunking": round(share, 4),
            "seconds": {step: round(s, 2) for step, s in sums.seconds.items()},
            "million_characters_a_second": {k: round(sums.characters / s / 1e6, 1) for k, s in sums.by_kind_s.items()},
            "found_per_1000_pages": per_1000}  # fmt: skip
    print(json.dumps(told) if options.json else "\n".join(f"{name}: {value}" for name, value in told.items()))


if __name__ == "__main__":
    main()
