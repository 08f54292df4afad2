"""The list of mutants does not rot: each patch fits the code as it stands, and each SQL changes the database."""

from store.migrate import as_owner
from tests.leaks.mutants import MUTANTS, ROOT, rotten


def test_every_textual_patch_fits_one_place() -> None:
    assert rotten() == []
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS) >= 30


def test_every_patched_file_is_still_python() -> None:
    for mutant in MUTANTS:
        for name, old, new in mutant.patches:
            compile((ROOT / name).read_text().replace(old, new), name, "exec")


def test_every_statement_runs(database_url: str) -> None:
    with as_owner(database_url) as conn:
        for mutant in MUTANTS:
            if mutant.sql:
                with conn.transaction(force_rollback=True):
                    conn.execute(mutant.sql.encode())
