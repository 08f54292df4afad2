"""Every real document is parsed or refused for a reason, inside the sandbox, and its text is what others read in it."""

import io
import json
import re
import zipfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pypdf
import pytest

from core.errors import EmptyDocument, Unparseable
from core.records import ParsedDocument
from ingest.sandbox import ParserSandbox

DATA = Path(__file__).resolve().parents[3] / "shared" / "data" / "documents"
pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason=f"the real documents are not at {DATA}")

# What the project promises to read; a file of these may be refused only for being empty, locked or named here.
PROMISED = (".md", ".txt", ".html", ".htm", ".pdf", ".docx", ".pptx", ".xlsx", ".csv", ".tsv", ".eml", ".msg", ".json")
REFUSED_FOR_CAUSE = {"test_ignore_IBM420.html": "unsupported_type"}  # EBCDIC
# In whose names their authors say that they are encrypted; the others must open.
LOCKED = re.compile(r"encrypted|password|_owner_user")
# Characters that docling writes as markup, or as an escape of it.
MARKUP = re.compile(r"<!--.*?-->|\]\([^)]*\)|&\w+;|<[^>\n]+>|\\", re.DOTALL)
# docling's own words for a chart or a comment, formulas as LaTeX, merged cells once for each column, and Arabic, whose
# ligature of lam and alef pdfium gives in visual order.
INCOMPARABLE = re.compile(
    r"equation|omml|chart|comments|right_to_left|rich_cells|word_tables|merged|inflated|xlsx_0[17]"
)


@pytest.fixture(scope="module")
def sandbox() -> Iterator[ParserSandbox]:
    with ParserSandbox() as started:
        yield started


def words(text: str) -> Counter[str]:
    return Counter(re.findall(r"\w+", text))


def recall(expected: Counter[str], found: Counter[str]) -> float:
    return (expected & found).total() / max(1, expected.total())


def check(document: ParsedDocument) -> None:
    position = 0
    for element in document.elements:
        assert position <= element.start < element.end <= len(document.text)
        assert document.text[element.start : element.end].strip()
        position = element.end
    document.text.encode()
    assert "\x00" not in document.text and "\r" not in document.text


def test_every_document_is_parsed_or_refused_for_a_reason(sandbox: ParserSandbox) -> None:
    outcomes: dict[str, Counter[str]] = {}
    wrong: list[str] = []
    zygote = sandbox.child_pid
    for path in sorted(path for path in DATA.rglob("*") if path.is_file()):
        try:
            document = sandbox.parse(path.read_bytes(), path.name)
            check(document)
            outcome = "parsed"
            if LOCKED.search(path.name) and path.suffix in (".pdf", ".xlsx"):
                wrong.append(f"{path.name}: parsed, though it is locked")
        except Unparseable as refusal:
            outcome = refusal.code
            if path.suffix in PROMISED and not _rightly(path, refusal):
                wrong.append(f"{path.name}: {outcome}: {refusal}")
            if outcome in ("parser_crashed", "parser_limit"):
                wrong.append(f"{path.name}: {outcome}: {refusal}")
        outcomes.setdefault(path.suffix, Counter())[outcome] += 1
    for suffix, counts in sorted(outcomes.items()):
        print(f"{suffix:8} {', '.join(f'{name} {count}' for name, count in counts.most_common())}")
    assert not wrong
    assert sandbox.child_pid == zygote
    assert sum(counts["parsed"] for counts in outcomes.values()) >= 700


def _rightly(path: Path, refusal: Unparseable) -> bool:
    """Whether another reader agrees that a promised file yields no text."""
    if REFUSED_FOR_CAUSE.get(path.name) == refusal.code:
        return True
    if refusal.code == "encrypted_document":
        return bool(LOCKED.search(path.name))
    return isinstance(refusal, EmptyDocument) and not _has_text(path)


def _has_text(path: Path) -> bool:
    content = path.read_bytes()
    if path.suffix == ".pdf":
        try:
            return any(page.extract_text().strip() for page in pypdf.PdfReader(io.BytesIO(content)).pages)
        except pypdf.errors.PdfReadError:
            return False
    if path.suffix in (".docx", ".pptx", ".xlsx"):
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            body = re.compile(r"word/document\.xml|ppt/slides/slide.*\.xml|xl/(?:worksheets/.*|sharedStrings)\.xml")
            markup = b"".join(archive.read(name) for name in archive.namelist() if body.fullmatch(name))
        markup = re.sub(rb"<w:moveFrom .*?</w:moveFrom>", b"", markup, flags=re.DOTALL)  # where it no longer stands
        return bool(re.search(rb"<(?:w:t|a:t|t|v)(?: [^>]*)?>[^<]*\S", markup))
    if path.suffix in (".html", ".htm"):
        return bool(re.sub(rb"(?s)<(script|head)\b.*?</\1>|<[^>]*>|\s", b"", content))
    return bool(content.strip()) and path.name != "000.eml"  # its header fields are all broken, and it has no body


LEAST = {"md": 0.99, "csv": 0.99, "html": 0.96, "docx": 0.97, "pptx": 0.93, "xlsx": 0.97, "pdf": 0.95}


@pytest.mark.parametrize(("kind", "least"), LEAST.items())
def test_the_words_are_those_that_docling_expects(sandbox: ParserSandbox, kind: str, least: float) -> None:
    """Words of docling's expected Markdown that our text holds, pooled over the documents of a kind."""
    expected_total, found_total = 0, 0
    for source in sorted((DATA / "docling" / kind / "sources").iterdir()):
        truths = [source.parent.parent / "groundtruth" / f"{name}.md" for name in (source.name, source.stem)]
        truth = next((path for path in truths if path.exists()), None)
        if truth is None or INCOMPARABLE.search(source.name):
            continue
        expected = words(MARKUP.sub(" ", truth.read_text()))
        found = words(MARKUP.sub(" ", sandbox.parse(source.read_bytes(), source.name).text))
        print(f"{source.name:45} {recall(expected, found):.3f}")
        expected_total += expected.total()
        found_total += (expected & found).total()
    assert found_total >= least * expected_total > 0


def test_mail_bodies_are_those_that_stalwart_expects(sandbox: ParserSandbox) -> None:
    """The text parts that another mail parser found, in the JSON beside each message."""
    compared = 0
    for path in sorted((DATA / "mail-stalwart").rglob("*.eml")):
        if not path.with_suffix(".json").exists():
            continue
        message = json.loads(path.with_suffix(".json").read_text())
        bodies = [message["parts"][index]["body"] for index in message.get("text_body", ())]
        expected = words(" ".join(body["Text"] for body in bodies if isinstance(body, dict) and "Text" in body))
        if not expected or "\ufffd" in str(bodies):  # it gave the bytes up; we guess their encoding
            continue
        assert recall(expected, words(sandbox.parse(path.read_bytes(), path.name).text)) == 1.0, path.name
        compared += 1
    assert compared >= 30
