"""The example company: enough of everything, judgements that hold, and office files that are what `build.py` makes."""

import json
import re
import subprocess
import sys
from email import message_from_bytes
from email.policy import default
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import openpyxl  # type: ignore[import-untyped]
import pypdfium2  # type: ignore[import-untyped]
import pytest
import yaml
from docx import Document
from pptx import Presentation

ACME = Path(__file__).parents[2] / "examples" / "acme"
FILES = ACME / "files"
BUILT = {".pdf", ".docx", ".pptx", ".xlsx", ".eml"}
SCALE = ("public", "internal", "confidential", "restricted")
DOCUMENTS = sorted(path for path in FILES.rglob("*") if path.is_file() and not path.name.startswith("."))
NAMES = [path.relative_to(FILES).as_posix() for path in DOCUMENTS]
GOLDEN = [json.loads(line) for line in (ACME / "golden.jsonl").read_text(encoding="utf-8").splitlines()]
PEOPLE = yaml.safe_load((ACME / "groups.yaml").read_text(encoding="utf-8"))
RULES = yaml.safe_load((FILES / ".citadel.yaml").read_text(encoding="utf-8"))


# --- who may see what: an evaluation of its own, apart from the product's ---------------------------------------------


def matches(pattern: str, name: str) -> bool:
    """`**` crosses folders, `*` does not."""
    parts = re.split(r"(\*\*|\*)", pattern)
    crossing = {"**": ".*", "*": "[^/]*"}
    return re.fullmatch("".join(crossing.get(part, re.escape(part)) for part in parts), name) is not None


@cache
def labels(name: str) -> tuple[frozenset[str], frozenset[str], str]:
    """Allow, deny and classification: the last matching rule, unless the document's front matter says otherwise."""
    rule = RULES["default"]
    for candidate in RULES["rules"]:
        if matches(candidate["path"], name):
            rule = candidate
    if name.endswith(".md") and (text := (FILES / name).read_text(encoding="utf-8")).startswith("---\n"):
        rule = yaml.safe_load(text.split("---\n")[1]).get("labels", rule)
    return frozenset(rule["allow"]), frozenset(rule.get("deny", [])), rule.get("classification", "internal")


@cache
def held(person: str) -> frozenset[str]:
    """The person, `public`, and every group that holds one of these."""
    found = {person, "public"}
    while more := {name for name, members in PEOPLE["groups"].items() if found & set(members)} - found:
        found |= more
    return frozenset(found)


def visible(person: str, name: str) -> bool:
    allow, deny, classification = labels(name)
    clearance = PEOPLE["clearances"].get(person, "internal")
    cleared = SCALE.index(classification) <= SCALE.index(clearance)
    return cleared and bool(allow & held(person)) and not deny & held(person)


# --- the text of a document, one string a page ------------------------------------------------------------------------


class Markup(HTMLParser):
    """Collects the text between tags."""

    def __init__(self) -> None:
        super().__init__()
        self.text: list[str] = []

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def pdf_pages(path: Path) -> list[str]:
    return [page.get_textpage().get_text_bounded() for page in pypdfium2.PdfDocument(path)]


def docx_text(path: Path) -> str:
    word = Document(str(path))
    cells = [cell.text for table in word.tables for row in table.rows for cell in row.cells]
    return "\n".join([paragraph.text for paragraph in word.paragraphs] + cells)


def pptx_text(path: Path) -> str:
    lines: list[str] = []
    for slide in Presentation(str(path)).slides:
        for shape in slide.shapes:
            if shape.has_text_frame:
                lines.append(shape.text_frame.text)
            if shape.has_table:
                lines += [cell.text for row in shape.table.rows for cell in row.cells]
        if slide.has_notes_slide and (notes := slide.notes_slide.notes_text_frame):
            lines.append(notes.text)
    return "\n".join(lines)


def xlsx_text(path: Path) -> str:
    book = openpyxl.load_workbook(path)
    cells = [str(cell) for page in book for row in page.values for cell in row if cell is not None]
    return "\n".join(book.sheetnames + cells)


def eml_text(path: Path) -> str:
    mail = message_from_bytes(path.read_bytes(), policy=default)
    body = mail.get_body(("plain",))
    assert body is not None
    return f"{mail['From']}\n{mail['To']}\n{mail['Date']}\n{mail['Subject']}\n{body.get_content()}"


def html_text(path: Path) -> str:
    markup = Markup()
    markup.feed(path.read_text(encoding="utf-8"))
    return "".join(markup.text)


READERS = {".docx": docx_text, ".pptx": pptx_text, ".xlsx": xlsx_text, ".eml": eml_text, ".html": html_text}


@cache
def pages(path: Path) -> tuple[str, ...]:
    """The text of each page, spaces and line ends folded; one page where the format has none."""
    if path.suffix == ".pdf":
        found = pdf_pages(path)
    elif path.suffix in READERS:
        found = [READERS[path.suffix](path)]
    else:
        found = [path.read_text(encoding="utf-8")]
    return tuple(" ".join(text.split()) for text in found)


# --- enough of everything ---------------------------------------------------------------------------------------------


def test_documents_formats_groups_and_classifications() -> None:
    assert len(NAMES) >= 48
    assert {path.suffix for path in DOCUMENTS} == BUILT | {".md", ".txt", ".html", ".csv", ".json"}
    allowed = {label for name in NAMES for label in labels(name)[0]}
    assert len([label for label in allowed if label.startswith("group:")]) >= 5
    assert {labels(name)[2] for name in NAMES} == set(SCALE)
    assert sum(bool(labels(name)[1]) for name in NAMES) >= 5
    assert sum(path.stat().st_size for path in DOCUMENTS) < 2_000_000


def test_every_document_can_be_read_by_somebody_and_every_rule_is_in_use() -> None:
    people = {member for members in PEOPLE["groups"].values() for member in members if member.startswith("user:")}
    assert len(people) >= 7
    assert [name for name in NAMES if not any(visible(person, name) for person in people)] == []
    assert [rule["path"] for rule in RULES["rules"] if not any(matches(rule["path"], name) for name in NAMES)] == []


def test_documents_have_their_shape() -> None:
    counts = {path.stem: len(pages(path)) for path in DOCUMENTS if path.suffix == ".pdf"}
    assert min(counts.values()) >= 3
    assert max(counts.values()) >= 5
    for path in DOCUMENTS:
        if path.suffix == ".docx":
            word = Document(str(path))
            headings = [p for p in word.paragraphs if p.style is not None and str(p.style.name).startswith("Heading")]
            assert len(headings) >= 3, path
        if path.suffix == ".pptx":
            assert len(Presentation(str(path)).slides) >= 5, path
        if path.suffix == ".xlsx":
            assert len(openpyxl.load_workbook(path).sheetnames) >= 2, path


def test_what_stands_beside_its_replacement_says_so() -> None:
    assert "Replaced on 1 April 2025" in pages(FILES / "finance/policies/travel-policy-2023.pdf")[0]
    assert "replaced on 1 February 2025" in pages(FILES / "hr/remote-work-policy-2022.md")[0]


# --- the golden set ---------------------------------------------------------------------------------------------------


def test_the_questions_are_many_and_asked_by_many() -> None:
    assert len(GOLDEN) >= 70
    assert len({question["id"] for question in GOLDEN}) == len(GOLDEN)
    assert len({(question["query"], question["as"]) for question in GOLDEN}) == len(GOLDEN)
    assert len({question["as"] for question in GOLDEN}) >= 7
    assert {"user:ana@acme.example", "user:ben@acme.example"} <= {question["as"] for question in GOLDEN}
    assert all("denied" in question["tags"] for question in GOLDEN if not question["relevant"])


@pytest.mark.parametrize("question", GOLDEN, ids=lambda question: question["id"])
def test_judgements_agree_with_the_rules_and_the_documents(question: dict[str, Any]) -> None:
    assert question["relevant"] or question["forbidden"]
    for judged in question["relevant"]:
        assert judged["document"] in NAMES
        assert visible(question["as"], judged["document"])
        assert judged["grade"] in (1, 2, 3)
        found = pages(FILES / judged["document"])
        text = found[judged["page"] - 1] if "page" in judged else " ".join(found)
        assert judged.get("quote", "") in text, judged
    for name in question["forbidden"]:
        assert name in NAMES
        assert not visible(question["as"], name)


def test_two_people_get_different_answers_to_the_same_question() -> None:
    by_query: dict[str, dict[str, set[str]]] = {}
    for question in GOLDEN:
        best = {judged["document"] for judged in question["relevant"] if judged["grade"] == 3}
        by_query.setdefault(question["query"], {})[question["as"]] = best
    ana, ben = "user:ana@acme.example", "user:ben@acme.example"
    for query in ("How much runway do we have?", "What is the travel budget?"):
        assert by_query[query][ana].isdisjoint(by_query[query][ben])


def test_the_readme_counts_right() -> None:
    readme = (ACME / "README.md").read_text(encoding="utf-8")
    assert f"holds {len(NAMES)} of its documents" in readme
    assert f"holds {len(GOLDEN)} questions" in readme
    said: dict[str, int] = {}
    for line in readme.splitlines():
        if line.startswith("| `user:"):
            people, _groups, _clearance, count = line.strip("| ").split(" | ")[:4]
            said |= dict.fromkeys(re.findall(r"`(.+?)`", people), int(count))
    assert said == {person: sum(visible(person, name) for name in NAMES) for person in said}
    assert {question["as"] for question in GOLDEN} == set(said)


# --- the office files -------------------------------------------------------------------------------------------------


def test_a_rebuild_gives_the_same_files_and_text(tmp_path: Path) -> None:
    subprocess.run([sys.executable, str(ACME / "build.py"), "--out", str(tmp_path)], check=True, capture_output=True)
    built = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file())
    assert built == [name for name in NAMES if Path(name).suffix in BUILT]
    assert [name for name in built if pages(tmp_path / name) != pages(FILES / name)] == []
