"""Two connections, many principals, cancellations; `make leaks` takes 10,000 turns."""

from tests.conftest import World
from tests.leaks.interleaved import foreign_rows


def test_no_turn_reads_a_foreign_row(world: World, app_url: str, maintenance_url: str) -> None:
    counts = foreign_rows(world, app_url, maintenance_url, turns=600, seed=4)
    assert (counts["foreign"], counts["left"]) == (0, 0)
    assert counts["own"] + counts["raised"] + counts["cancelled"] == 600
    assert counts["cancelled"] > 10 and counts["own"] > 300
