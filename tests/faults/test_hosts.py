"""A slice of what `make faults` does to several hosts."""

from pathlib import Path

import pytest

from tests.faults.hosts import Hosts, outcome_of_hosts, rows_of_hosts

SLICE = Hosts(hosts=3, processes=1, dispatchers=0, documents=10, cut_before=1, cut_within=0, killed_before=1,
              killed_within=0, open_at_most=6, lease_s=2.0)  # fmt: skip


def test_what_hosts_that_are_cut_off_and_lost_had_begun_is_done_once(tmp_path: Path) -> None:
    state = tmp_path / "hosts"
    state.mkdir()
    outcome = outcome_of_hosts(state, SLICE)
    if "left_out" in outcome:
        pytest.skip(outcome["left_out"])
    broken = [row for row in rows_of_hosts(outcome) if not row[-1]]
    assert not broken, outcome
    assert [each["attempts"] for each in (*outcome["cuts"], *outcome["kills"])] == [2, 2]
