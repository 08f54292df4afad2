"""Makes the office files, PDFs and mails of the example from the text in `content/`.

    python examples/acme/build.py            writes into examples/acme/files
    python examples/acme/build.py --out DIR  writes elsewhere

`content/finance/budget-2026.xlsx.md` becomes `files/finance/budget-2026.xlsx`, and so on. Everything else in `files/`
is written by hand. Dates come from the text, so a rebuild with the same library versions gives the same bytes.
"""

import argparse
import re
import zipfile
from collections.abc import Callable
from datetime import datetime
from io import BytesIO
from pathlib import Path

from markup import Sheet, read_sheet
from writers.mail import write_eml
from writers.pdf import write_pdf
from writers.sheets import write_xlsx
from writers.slides import write_pptx
from writers.word import write_docx

HERE = Path(__file__).resolve().parent
WRITERS: dict[str, Callable[[Sheet], bytes]] = {
    ".pdf": write_pdf,
    ".docx": write_docx,
    ".pptx": write_pptx,
    ".xlsx": write_xlsx,
    ".eml": write_eml,
}
_MODIFIED = re.compile(rb"(<dcterms:modified[^>]*>)[^<]*(</dcterms:modified>)")


def build(content: Path, out: Path) -> list[Path]:
    """Writes every document of `content` below `out`; the paths that were written, relative to `out`."""
    written = []
    for source in sorted(content.rglob("*.md")):
        target = source.relative_to(content).with_suffix("")
        sheet = read_sheet(source)
        (out / target).parent.mkdir(parents=True, exist_ok=True)
        data = WRITERS[target.suffix](sheet)
        (out / target).write_bytes(repack(data, sheet.date) if zipfile.is_zipfile(BytesIO(data)) else data)
        written.append(target)
    return written


def repack(data: bytes, date: datetime) -> bytes:
    """The same office file with its own date in every place where the libraries put the present time."""
    stamp = date.strftime("%Y-%m-%dT%H:%M:%SZ").encode()
    buffer = BytesIO()
    with zipfile.ZipFile(BytesIO(data)) as old, zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            part = old.read(name)
            if name == "docProps/core.xml":
                part = _MODIFIED.sub(rb"\g<1>" + stamp + rb"\g<2>", part)
            info = zipfile.ZipInfo(name, date_time=(date.year, date.month, date.day, 0, 0, 0))
            info.compress_type = zipfile.ZIP_DEFLATED
            new.writestr(info, part)
    return buffer.getvalue()


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Make the example's office files, PDFs and mails from their text.")
    parser.add_argument("--out", type=Path, default=HERE / "files", help="folder to write into")
    for path in build(HERE / "content", parser.parse_args().out):
        print(path.as_posix())


if __name__ == "__main__":
    main()
