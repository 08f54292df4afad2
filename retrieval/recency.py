"""Younger documents before older ones, as far as the request asks for it.

    fused' = (1 - weight) · fused + weight · top · 2^(-age / half_life)

with `top` the best fused score of the pool, so that it means the same with either fusion. A document without a date
that can be read keeps its fused score: it neither gains nor loses. One from the future is of today.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from core.records import FusedCandidate, Recency
from store import chunks
from store.pool import Conn

DAY_S = 86400.0


def fresher(conn: Conn, fused: list[FusedCandidate], recency: Recency | None, now: datetime) -> list[FusedCandidate]:
    """The candidates in the order that their scores and ages give together; as they are without a wish. Raises
    Invalid for a field that is no date of a document."""
    if recency is None:
        return fused
    told = chunks.dates(conn, [candidate.chunk_id for candidate in fused], recency.field)
    return blend({chunk_id: at for chunk_id, text in told.items() if (at := date_of(text))}, fused, recency, now)


def blend(
    dates: Mapping[int, datetime], fused: Sequence[FusedCandidate], recency: Recency, now: datetime
) -> list[FusedCandidate]:
    """The same, of the dates that are known, by chunk id."""
    top = max((candidate.fused for candidate in fused), default=0.0)
    aged = []
    for candidate in fused:
        if candidate.chunk_id in dates:
            days = max(0.0, (now - dates[candidate.chunk_id]).total_seconds() / DAY_S)
            young = top * 2 ** (-days / recency.half_life_days)
            candidate = candidate._replace(fused=(1 - recency.weight) * candidate.fused + recency.weight * young)
        aged.append(candidate)
    return sorted(aged, key=lambda c: (-c.fused, c.chunk_id))


def date_of(text: str | None) -> datetime | None:
    """An ISO 8601 date or time, in UTC where it names no zone; None for anything else."""
    try:
        at = datetime.fromisoformat(text) if text else None
    except ValueError:
        return None
    return at if at is None or at.tzinfo else at.replace(tzinfo=UTC)
