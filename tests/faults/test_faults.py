"""A slice of `make faults`, and that the harness sees what it looks for."""

from pathlib import Path
from uuid import UUID

import pytest

from core.records import Submitted
from store.pool import writing
from tests.conftest import World
from tests.faults.ledger import Ledger, Readers, judge, text_of
from tests.faults.run import Size
from tests.faults.table import outcome_of, rows_of

SLICE = Size(deaths=16, workers_killed=1, workers=2, processes=2, others=1, flushes=1, redis_restarts=1,
             postgres_restarts=1, resets=0, slow=0, open_at_most=12, lease_s=2.0, limit_s=180)  # fmt: skip


def test_a_slice_of_the_faults_loses_nothing_and_shows_no_half_version(tmp_path: Path) -> None:
    state = tmp_path / "faults"
    state.mkdir()
    outcome = outcome_of(state, SLICE)
    broken = [(name, count, told) for name, count, told, held in rows_of(outcome) if not held]
    assert not broken, outcome
    assert sum(outcome["deaths"].values()) == 16 and outcome["accepted"] > 10


@pytest.fixture
def indexed(world: World) -> tuple[Ledger, Submitted]:
    """One document of the ledger, read."""
    ledger, text = Ledger(), text_of("d", 1, 2)
    ledger.offer("d", text)
    submitted = world.add("d", text)
    ledger.accepted["d"][1] = text
    return ledger, submitted


def verdict(world: World, ledger: Ledger, document_id: UUID, sabotage: str = "") -> list[int]:
    """What is lost, twice and half after a statement that no code of ours would run."""
    readers = Readers(world.store, world.tenant_id, ledger)
    if sabotage:
        with writing(world.store) as conn:
            conn.execute(sabotage.encode(), {"id": document_id})
    readers._read()
    found = judge(world.store, ledger, readers, set(), {})
    return [len(found.lost), len(found.twice), len(found.half)]


SABOTAGE = {
    "DELETE FROM vectors_1 WHERE document_id = %(id)s AND chunk_id = (SELECT min(chunk_id) FROM vectors_1)": [0, 0, 1],
    "DELETE FROM chunks WHERE document_id = %(id)s AND ordinal = 1": [0, 0, 1],
    "UPDATE versions SET text = text || ' and more' WHERE document_id = %(id)s": [1, 0, 1],
    "UPDATE documents SET current_version = NULL WHERE id = %(id)s": [1, 0, 0],
    "INSERT INTO change_log (tenant_id, document_id, version, action) "
    "SELECT tenant_id, id, 1, 'index' FROM documents WHERE id = %(id)s": [0, 1, 0],
    "INSERT INTO versions SELECT document_id, 2, tenant_id, label_set_id, 'superseded', content_hash, blob_key, size "
    "FROM versions WHERE document_id = %(id)s": [0, 1, 0],
}


def test_the_harness_finds_a_whole_document_whole(world: World, indexed: tuple[Ledger, Submitted]) -> None:
    assert verdict(world, indexed[0], indexed[1].document_id) == [0, 0, 0]


@pytest.mark.parametrize("sabotage", SABOTAGE)
def test_the_harness_sees_what_is_lost_twice_or_half(
    world: World, indexed: tuple[Ledger, Submitted], sabotage: str
) -> None:
    assert verdict(world, indexed[0], indexed[1].document_id, sabotage) == SABOTAGE[sabotage]
