"""Opaque page cursors: the place after which the next page starts."""

import base64
import binascii
from datetime import UTC, datetime
from uuid import UUID

from core.errors import InvalidCursor

Place = tuple[datetime, UUID]  # (created_at, id) of a row

START: Place = (datetime(1, 1, 2, tzinfo=UTC), UUID(int=0))
END: Place = (datetime(9999, 12, 30, tzinfo=UTC), UUID(int=2**128 - 1))


def write_cursor(at: datetime, row_id: UUID) -> str:
    """The cursor at this row."""
    return base64.urlsafe_b64encode(f"{at.isoformat()} {row_id}".encode()).decode()


def read_cursor(cursor: str | None, default: Place) -> Place:
    """The row to continue behind. Raises InvalidCursor."""
    if cursor is None:
        return default
    try:
        at, row_id = base64.urlsafe_b64decode(cursor.encode()).decode().split(" ")
        when = datetime.fromisoformat(at)
        if when.tzinfo is None:
            raise ValueError("no time zone")
        return when, UUID(row_id)
    except (ValueError, binascii.Error) as error:
        raise InvalidCursor("this cursor was not made by this server: start again without one") from error
