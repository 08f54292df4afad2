"""Which way the dense leg takes, and what calibration makes of its measurements."""

import pytest

from core.records import Candidate
from retrieval.calibrate import EF_SEARCH, Point, decide, label_sets_of, recall
from retrieval.dense import Found, choose_route, enough
from store.vectors import Calibration


@pytest.mark.parametrize(
    ("visible", "calibration", "route"),
    [
        (10**9, None, "exact"),  # no graph that is ready
        (0, Calibration(0, 250), "exact"),
        (1, Calibration(0, 250), "graph"),
        (5000, Calibration(5000, 250), "exact"),
        (5001, Calibration(5000, 250), "graph"),
    ],
)
def test_route(visible: int, calibration: Calibration | None, route: str) -> None:
    assert choose_route(visible, calibration) == route


def test_a_walk_must_meet_two_fifths_of_what_it_looks_at() -> None:
    assert [enough(100, ef) for ef in (100, 250, 375)] == [100, 100, 150]


def test_activity_tells_rows_only_where_rows_were_counted() -> None:
    assert Found([], "graph", 70, 0).detail() == {"route": "graph", "shortfall": 0}
    assert Found([], "exact", 70, 0).detail() == {"route": "exact", "scanned": 70, "shortfall": 0}
    assert Found([], "graph+exact", 70, 3).detail() == {"route": "graph+exact", "scanned": 70, "shortfall": 3}


def points(ef_search: int, recall_at_50: float) -> list[Point]:
    """A scan of 1 ms a thousand rows, walks of 6 and 4 ms, at both shares."""
    return [
        Point(1.0, 100_000, ef_search, 100.0, 6.0, 1.0, 1.0, 1.0),
        Point(0.5, 50_000, ef_search, 50.0, 4.0, 0.9, 1.0, recall_at_50),
    ]


def test_a_scan_does_at_once_what_takes_it_two_walks_time() -> None:
    assert decide(points(250, 0.98)) == Calibration(2 * 5 * 1000, 250)


def test_the_last_width_counts() -> None:
    assert decide([*points(250, 0.97), *points(375, 0.99)]).ef_search == 375


def test_a_graph_that_misses_too_much_is_not_asked() -> None:
    assert decide([point for ef in EF_SEARCH for point in points(ef, 0.9)]).ef_search == 0


def test_label_sets_hold_about_the_share() -> None:
    held = {number: 1 + number % 50 for number in range(1, 400)}
    whole = sum(held.values())
    for share in (0.5, 0.2):
        drawn = label_sets_of(held, share, 3)
        assert share * 0.95 <= sum(held[each] for each in drawn) / whole <= share * 1.05
    assert label_sets_of(held, 1.0, 3) == tuple(held)
    assert label_sets_of({7: 100}, 0.5, 3) == ()  # a single label set is seen or not


def test_recall_is_the_mean_share_of_the_true_ones() -> None:
    def ranked(*ids: int) -> list[Candidate]:
        return [Candidate(chunk_id, -place) for place, chunk_id in enumerate(ids)]

    assert recall([(ranked(1, 2, 3), ranked(2, 1, 9)), (ranked(4, 5), ranked(4, 5))], 2) == 1.0
    assert recall([(ranked(1, 2, 3, 4), ranked(1, 2, 8, 9)), (ranked(5), ranked(5))], 4) == 0.75
    assert recall([], 10) == 1.0
