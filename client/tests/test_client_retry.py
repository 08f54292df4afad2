"""The waits of a retry policy, by its formula."""

import pytest

from citadel_client import RetryPolicy

POLICY = RetryPolicy(attempts=5, first_wait_s=1.0, max_wait_s=3.0)


@pytest.mark.parametrize(("attempt", "full"), [(1, 1.0), (2, 2.0), (3, 3.0), (4, 3.0)])
def test_waits_double_up_to_the_longest_and_lose_up_to_half(attempt: int, full: float) -> None:
    assert POLICY.wait(attempt, None, 0.0) == full
    assert POLICY.wait(attempt, None, 0.5) == full * 0.75
    assert full / 2 < (POLICY.wait(attempt, None, 0.999999) or 0) < full


def test_the_last_try_is_the_last() -> None:
    assert POLICY.wait(5, None, 0.0) is None
    assert RetryPolicy(attempts=1).wait(1, 0.0, 0.0) is None


@pytest.mark.parametrize("draw", [0.0, 0.9])
def test_the_servers_word_is_never_undercut(draw: float) -> None:
    assert POLICY.wait(1, 2.5, draw) == 2.5
    assert (POLICY.wait(1, 0.0, draw) or 0) > 0
    assert POLICY.wait(1, 3.1, draw) is None
