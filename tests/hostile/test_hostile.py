"""A slice of `make hostile`: each kind of damage, and the bombs that end fast."""

from collections import Counter
from pathlib import Path

import pytest

from core.errors import ParserLimit
from ingest.sandbox import ParserSandbox
from tests.hostile import run
from tests.hostile.__main__ import _TYPED
from tests.hostile.bombs import BOMBS
from tests.hostile.mutate import mutant, sources

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
MUTATED = 80


@pytest.mark.skipif(not DATA.is_dir(), reason=f"the real documents are not at {DATA}")
def test_damaged_documents_end_in_typed_outcomes() -> None:
    thrown = run.throw(run.mutated(DATA / "documents", 5, MUTATED), run.cores(), lambda ending: None)
    counts = Counter(ending.outcome for ending in thrown.endings)
    assert counts.total() == MUTATED and set(counts) <= _TYPED and counts["parsed"] and thrown.died == 0
    assert run.late(thrown.endings) == []


@pytest.mark.skipif(not DATA.is_dir(), reason=f"the real documents are not at {DATA}")
def test_the_same_seed_gives_the_same_files() -> None:
    by_suffix = sources(DATA / "documents")
    made = [mutant(by_suffix, 3, number) for number in range(40)]
    assert made == [mutant(by_suffix, 3, number) for number in range(40)]
    assert len({one.how for one in made}) > 5


# name → a word of the reason
LIMITED = {
    "deep.xml": "nested",
    "deep.html": "nested",
    "deep.json": "nested",
    "deep.eml": "nested",
    "deep.docx": "nested",
    "zeros.docx": "zip bomb",
    "parts.docx": "parts",
    "pages.pdf": "pages",
}


def test_each_cap_is_named() -> None:
    with ParserSandbox(run.LIMITS) as sandbox:
        for name, word in LIMITED.items():
            with pytest.raises(ParserLimit, match=word):
                sandbox.parse(BOMBS[name](), name)
