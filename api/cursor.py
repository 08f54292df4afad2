"""Opaque page cursors: the place after which the next page starts."""

import base64
import binascii
from datetime import UTC, datetime
from uuid import UUID

from core.errors import InvalidCursor
from core.records import Document

START = (datetime(1, 1, 2, tzinfo=UTC), UUID(int=0))


def write_cursor(last: Document) -> str:
    """The cursor behind this document."""
    return base64.urlsafe_b64encode(f"{last.created_at.isoformat()} {last.id}".encode()).decode()


def read_cursor(cursor: str | None) -> tuple[datetime, UUID]:
    """(created_at, id) to continue after. Raises InvalidCursor."""
    if cursor is None:
        return START
    try:
        at, document_id = base64.urlsafe_b64decode(cursor.encode()).decode().split(" ")
        when = datetime.fromisoformat(at)
        if when.tzinfo is None:
            raise ValueError("no time zone")
        return when, UUID(document_id)
    except (ValueError, binascii.Error) as error:
        raise InvalidCursor("this cursor was not made by this server: start again without one") from error
