"""What somebody says of an answer."""

from dataclasses import dataclass
from uuid import UUID


@dataclass(frozen=True, slots=True)
class Missing:
    """What an answer should have had: a document by its external id, or words; one of the two."""

    document: str | None = None
    text: str | None = None


@dataclass(frozen=True, slots=True)
class Feedback:
    """What the one who asked says of the answer to a request. What is left out was not said."""

    request_id: UUID
    helpful: bool | None = None
    used: tuple[int, ...] = ()  # markers of that answer, the first is 1
    missing: tuple[Missing, ...] = ()
    comment: str | None = None
    query: str | None = None  # the question again, for it may be kept nowhere
