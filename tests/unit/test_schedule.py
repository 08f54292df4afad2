"""Cron expressions: when a source is refreshed next, and what is not one."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from core.errors import Invalid
from ingest.schedule import next_due


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


# Worked out by hand with a calendar: 2026-11-21 is a Saturday, 2028 the next leap year.
@pytest.mark.parametrize(
    ("schedule", "after", "due"),
    [
        ("* * * * *", "2026-11-21T05:35:20", "2026-11-21T05:36:00"),
        ("*/15 * * * *", "2026-11-21T05:35:00", "2026-11-21T05:45:00"),
        ("*/15 * * * *", "2026-11-21T05:45:00", "2026-11-21T06:00:00"),
        ("0 2 * * *", "2026-11-21T02:00:00", "2026-11-22T02:00:00"),
        ("30 3 * * 1", "2026-11-21T00:00:00", "2026-11-23T03:30:00"),
        ("0 0 * * 0", "2026-11-21T00:00:00", "2026-11-22T00:00:00"),
        ("0 0 * * 7", "2026-11-21T00:00:00", "2026-11-22T00:00:00"),
        ("0 9-17/4 * * 1-5", "2026-11-20T17:30:00", "2026-11-23T09:00:00"),
        ("0 0 1 1 *", "2026-11-21T00:00:00", "2027-01-01T00:00:00"),
        ("0 0 29 2 *", "2026-11-21T00:00:00", "2028-02-29T00:00:00"),
        ("0 12 1,15 * *", "2026-11-21T00:00:00", "2026-12-01T12:00:00"),
        ("0 0 13 * 5", "2026-11-21T00:00:00", "2026-11-27T00:00:00"),  # day of month or of week, as cron has it
        ("0 0 * MAR THU", "2026-11-21T00:00:00", "2027-03-04T00:00:00"),
        ("@hourly", "2026-11-21T05:35:00", "2026-11-21T06:00:00"),
        ("@daily", "2026-11-21T05:35:00", "2026-11-22T00:00:00"),
    ],
)
def test_the_next_time_is_the_calendars(schedule: str, after: str, due: str) -> None:
    assert next_due(schedule, at(after)) == at(due)


def test_the_clock_change_of_a_country_is_not_noticed() -> None:
    """Times are UTC: in Berlin, 02:30 does not exist on 2027-03-28."""
    assert next_due("30 2 * * *", at("2027-03-27T03:00:00")) == at("2027-03-28T02:30:00")


@pytest.mark.parametrize(
    "schedule",
    ["", " ", "daily", "every 5 minutes", "* * * *", "* * * * * *", "0 0 2 * * ?", "0 0 1 1 * 0 2099", "61 * * * *",
     "* 24 * * *", "* * 0 * *", "* * * 13 *", "* * * * 8", "*/0 * * * *", "5-1 * * * *x", "a b c d e", "@never",
     "@reboot", "H * * * *", "R R * * *", "0 0 30 2 *", "0 0 31 2,4 *", "* * * * *\0", "1,,2 * * * *", "-1 * * * *",
     "9" * 5000 + " * * * *"],
)  # fmt: skip
def test_what_is_not_a_time_that_comes_is_refused(schedule: str) -> None:
    with pytest.raises(Invalid, match="cron expression"):
        next_due(schedule, at("2026-11-21T00:00:00"))


fields = st.text("0123456789*/,-LW#?RH@ ", max_size=8)


@settings(deadline=None)  # croniter looks 50 years ahead for a day that never comes
@given(st.one_of(st.text(max_size=30), st.lists(fields, min_size=5, max_size=5).map(" ".join)))
@example("0 0 L * *")
@example("0 0 * * 1#6")
def test_a_schedule_has_a_next_time_or_is_refused(schedule: str) -> None:
    after = at("2026-11-21T00:00:00")
    try:
        due = next_due(schedule, after)
    except Invalid:
        return
    assert due > after and due.utcoffset() == timedelta(0)
