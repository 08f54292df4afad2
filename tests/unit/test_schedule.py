"""Cron expressions: when a source is refreshed next, and what is not one."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from core.errors import Invalid
from ingest.schedule import Plan, next_due


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
    assert next_due(Plan(schedule), at(after)) == at(due)


# Berlin's clock: from 02:00 to 03:00 on 2027-03-28 at 01:00 UTC, and from 03:00 to 02:00 on 2026-10-25 at 01:00 UTC.
@pytest.mark.parametrize(
    ("schedule", "zone", "after", "due"),
    [
        ("30 2 * * *", "UTC", "2027-03-27T03:00:00", ["2027-03-28T02:30:00"]),
        ("30 2 * * *", "Europe/Berlin", "2027-03-27T03:00:00", ["2027-03-28T01:00:00", "2027-03-29T00:30:00"]),
        ("30 2 * * *", "Europe/Berlin", "2026-10-24T03:00:00", ["2026-10-25T00:30:00", "2026-10-26T01:30:00"]),
        ("0 * * * *", "Europe/Berlin", "2026-10-24T23:30:00",
         ["2026-10-25T00:00:00", "2026-10-25T01:00:00", "2026-10-25T02:00:00"]),
        ("0 * * * *", "Europe/Berlin", "2027-03-28T00:00:00", ["2027-03-28T01:00:00", "2027-03-28T02:00:00"]),
        ("0 8 * * 1-5", "Asia/Kolkata", "2026-11-21T00:00:00", ["2026-11-23T02:30:00"]),
    ],
)  # fmt: skip
def test_a_schedule_is_read_by_the_clock_of_its_zone(schedule: str, zone: str, after: str, due: list[str]) -> None:
    times = [at(after)]
    for _ in due:
        times.append(next_due(Plan(schedule, zone), times[-1]))
    assert times[1:] == [at(each) for each in due]


@pytest.mark.parametrize("zone", ["", "Mars/Olympus", "../../etc/passwd", "/etc/localtime", "a\0b", "Europe"])
def test_what_is_no_zone_is_refused(zone: str) -> None:
    with pytest.raises(Invalid, match="no time zone"):
        next_due(Plan("* * * * *", zone), at("2026-11-21T00:00:00"))


def test_sources_of_one_schedule_start_apart_and_each_scheduler_says_the_same() -> None:
    plan, after = Plan("0 2 * * *", jitter_s=600), at("2026-11-21T05:00:00")
    ids = [UUID(int=n) for n in range(50)]
    first = [next_due(plan, after, source_id) for source_id in ids]
    assert first == [next_due(plan, after, source_id) for source_id in ids]
    late = [(due - at("2026-11-22T02:00:00")).total_seconds() for due in first]
    assert min(late) >= 0 and max(late) <= 600 and len(set(late)) > 25


@pytest.mark.parametrize(
    "schedule",
    ["", " ", "daily", "every 5 minutes", "* * * *", "* * * * * *", "0 0 2 * * ?", "0 0 1 1 * 0 2099", "61 * * * *",
     "* 24 * * *", "* * 0 * *", "* * * 13 *", "* * * * 8", "*/0 * * * *", "5-1 * * * *x", "a b c d e", "@never",
     "@reboot", "H * * * *", "R R * * *", "0 0 30 2 *", "0 0 31 2,4 *", "* * * * *\0", "1,,2 * * * *", "-1 * * * *",
     "9" * 5000 + " * * * *"],
)  # fmt: skip
def test_what_is_not_a_time_that_comes_is_refused(schedule: str) -> None:
    with pytest.raises(Invalid, match="cron expression"):
        next_due(Plan(schedule), at("2026-11-21T00:00:00"))


fields = st.text("0123456789*/,-LW#?RH@ ", max_size=8)


@settings(deadline=None)  # some look many years ahead for a day that never comes
@given(st.one_of(st.text(max_size=30), st.lists(fields, min_size=5, max_size=5).map(" ".join)))
@example("0 0 L * *")
@example("0 0 * * 1#6")
def test_a_schedule_has_a_next_time_or_is_refused(schedule: str) -> None:
    after = at("2026-11-21T00:00:00")
    try:
        due = next_due(Plan(schedule), after)
    except Invalid:
        return
    assert due > after and due.utcoffset() == timedelta(0)
