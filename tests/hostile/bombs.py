"""Files of a few kilobytes that ask for more than any document needs: one for each limit that must hold."""

import io
import zipfile
from collections.abc import Callable, Iterator, Mapping

import docx
import openpyxl  # type: ignore[import-untyped]
from fpdf import FPDF

DEPTH = 200_000
_LAUGHS = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 10))
_SHEET = (
    '<?xml version="1.0"?><worksheet xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"><sheetData>'
    "{}</sheetData></worksheet>"
)
_BODY = (
    '<?xml version="1.0"?><w:document xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"><w:body>'
    "{}</w:body></w:document>"
)


def _head(boundary: bytes) -> bytes:
    return b"From: a@b.example\nTo: c@d.example\nContent-Type: multipart/mixed; boundary=" + boundary + b"\n\n"


def _nested(depth: int) -> Iterator[bytes]:
    for level in range(depth):
        name = b"b%d" % level
        yield _head(name) + b"--" + name + b"\nContent-Type: message/rfc822\n\n"


def _zip(parts: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, part in parts.items():
            archive.writestr(zipfile.ZipInfo(name), part, zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


def _with(content: bytes, parts: Mapping[str, bytes]) -> bytes:
    """The package with these parts in place of its own."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return _zip({name: archive.read(name) for name in archive.namelist()} | dict(parts))


def _docx(parts: Mapping[str, bytes]) -> bytes:
    buffer, document = io.BytesIO(), docx.Document()
    document.add_paragraph("text")
    document.save(buffer)
    return _with(buffer.getvalue(), parts)


def _xlsx(rows: str, doctype: str = "") -> bytes:
    buffer, book = io.BytesIO(), openpyxl.Workbook()
    book.active.append(["text"])
    book.save(buffer)
    sheet = _SHEET.format(rows).replace("?><w", f"?>{doctype}<w").encode()
    return _with(buffer.getvalue(), {"xl/worksheets/sheet1.xml": sheet})


def _epub(chapters: int) -> bytes:
    container = (
        '<container xmlns="urn:oasis:names:tc:opendocument:xmlns:container"><rootfiles>'
        '<rootfile full-path="a.opf"/></rootfiles></container>'
    )
    spine = '<itemref idref="c"/>' * chapters
    manifest = '<manifest><item id="c" href="c.html"/></manifest>'
    opf = f'<package xmlns="http://www.idpf.org/2007/opf">{manifest}<spine>{spine}</spine></package>'
    chapter = b"<html><body>" + b"<p>The same text again.</p>" * 2000 + b"</body></html>"
    return _zip(
        {
            "mimetype": b"application/epub+zip",
            "META-INF/container.xml": container.encode(),
            "a.opf": opf.encode(),
            "c.html": chapter,
        }
    )


def _runs() -> bytes:
    return _BODY.format("<w:p>" + "<w:r><w:t>a</w:t></w:r>" * 300_000 + "</w:p>").encode()


def _span() -> bytes:
    cell = '<w:tc><w:tcPr><w:gridSpan w:val="999999"/></w:tcPr><w:p><w:r><w:t>a</w:t></w:r></w:p></w:tc>'
    return _BODY.format(f"<w:tbl><w:tblGrid/><w:tr>{cell * 50}</w:tr></w:tbl>").encode()


def _small() -> bytes:
    pdf = FPDF()
    pdf.add_page()
    pdf.set_font("Helvetica", size=11)
    pdf.cell(0, 5, "text")
    return bytes(pdf.output())


def _pages(count: int) -> bytes:
    return _pdf([b"<</Type/Catalog/Pages 2 0 R>>", b"<</Type/Pages/Count %d/Kids[%s]>>" % (count, b"3 0 R " * count),
                 b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 9 9]>>"])  # fmt: skip


def _stream(stream: bytes) -> bytes:
    font = b"<</Font<</F1<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>>>>>"
    return _pdf([b"<</Type/Catalog/Pages 2 0 R>>", b"<</Type/Pages/Count 1/Kids[3 0 R]>>",
                 b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 900 900]/Contents 4 0 R/Resources %s>>" % font,
                 b"<</Length %d>>\nstream\n%s\nendstream" % (len(stream), stream)])  # fmt: skip


def _pdf(objects: list[bytes]) -> bytes:
    body = b"".join(b"%d 0 obj\n%s\nendobj\n" % (number, part) for number, part in enumerate(objects, start=1))
    return b"%PDF-1.4\n" + body + b"trailer<</Root 1 0 R/Size %d>>\nstartxref\n0\n%%%%EOF" % (len(objects) + 1)


# Name → what makes its content.
BOMBS: dict[str, Callable[[], bytes]] = {
    "deep.xml": lambda: b"<?xml version='1.0'?>" + b"<a>" * DEPTH + b"text" + b"</a>" * DEPTH,
    "laughs.xml": lambda: f"<?xml version='1.0'?><!DOCTYPE x [<!ENTITY l0 'lol'>{_LAUGHS}]><x>&l9;</x>".encode(),
    "external.xml": lambda: (
        b"<?xml version='1.0'?><!DOCTYPE x [<!ENTITY e SYSTEM 'file:///etc/passwd'>]><x>&e; text</x>"
    ),
    "deep.html": lambda: b"<html><body>" + b"<div>" * DEPTH + b"text",
    "inline.html": lambda: b"<html><body>" + b"<b><i>" * (DEPTH // 10) + b"text",
    "wide.html": lambda: (
        b"<html><table><tr><td colspan=999999999 rowspan=999999999>a</td><td>b</td></tr></table></html>"
    ),
    "grid.html": lambda: b"<html><table>" + b"<tr><td rowspan=200 colspan=200>a<td>b</tr>" * 5000 + b"</table></html>",
    "charset.html": lambda: b"<html><meta charset=punycode><body>" + b"a-" * 200_000 + b"\xff</body></html>",
    "deep.json": lambda: b"[" * DEPTH + b"]" * DEPTH,
    "paths.json": lambda: b'{"a":' * 900 + b"[1" + b",1" * 100_000 + b"]" + b"}" * 900,
    "quotes.md": lambda: b">" * DEPTH + b" text",
    "brackets.md": lambda: b"[" * DEPTH + b"text",
    "stars.md": lambda: b"*a **b " * (DEPTH // 4),
    "lists.md": lambda: b"".join(b" " * n + b"- a\n" for n in range(3000)),
    "comments.md": lambda: b"text <!--" * (DEPTH // 8),
    "accents.txt": lambda: ("a" + "\u0301\u0316" * DEPTH).encode(),
    "wide.csv": lambda: b"a," * 5_000_000 + b"\n" + b"b,c\n" * 10,
    "quoted.csv": lambda: b'"' + b"a,\n" * 3_000_000,
    "tags.txt": lambda: "".join(map(chr, range(0xE0001, 0xE007F))).encode() * 5000 + b"text",
    "deep.eml": lambda: b"".join(_nested(5000)) + b"\n\ntext",
    "parts.eml": lambda: _head(b"x") + b"--x\n\ntext\n" * 100_000 + b"--x--",
    "header.eml": lambda: b"From: a@b.example\nTo: c@d.example\nSubject: " + b"=?utf-8?q?a?= " * 200_000 + b"\n\ntext",
    "title.rst": lambda: b"=" * 1_000_000 + b"\n" + b"a" * 1_000_000 + b"\n" + b"=" * 1_000_000,
    "zeros.docx": lambda: _docx({"word/zeros.xml": b"0" * 400 * 1024**2}),
    "parts.docx": lambda: _docx({f"word/p{number}.xml": b"" for number in range(30_000)}),
    "deep.docx": lambda: _docx(
        {"word/document.xml": _BODY.format("<w:sdt>" * 100_000 + "</w:sdt>" * 100_000).encode()}
    ),
    "runs.docx": lambda: _docx({"word/document.xml": _runs()}),
    "span.docx": lambda: _docx({"word/document.xml": _span()}),
    "far.xlsx": lambda: _xlsx('<row r="1048576"><c r="XFD1048576"><v>1</v></c></row>'),
    "rows.xlsx": lambda: _xlsx('<row r="{0}"/>'.replace("{0}", "1") * 1_500_000),
    "laughs.xlsx": lambda: _xlsx("", f"<!DOCTYPE x [<!ENTITY l0 'lol'>{_LAUGHS}]>"),
    "itself.zip": lambda: _zip({"a.zip": _zip({"b.zip": b"0" * 10**7})}),
    "spine.epub": lambda: _epub(50_000),
    "circle.pdf": lambda: _small().replace(b"/Count 1", b"/Count 9999999"),
    "kids.pdf": lambda: _small().replace(b"/Kids [3 0 R]", b"/Kids [1 0 R]"),
    "huge.pdf": lambda: _small().replace(b"595.28 841.89", b"9999999 9999999"),
    "pages.pdf": lambda: _pages(6000),
    "stream.pdf": lambda: _stream(b"BT /F1 1 Tf " + b"(a) Tj " * 3_000_000 + b" ET"),
    "nested.pdf": lambda: _stream(b"q " * 2_000_000 + b"BT (a) Tj ET"),
}
