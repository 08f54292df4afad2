"""What somebody who reads a span of a text should know of it, such as that no reader of the file sees it."""

from dataclasses import dataclass
from typing import Literal

from core.sensitive import Kind

UnseenKind = Literal[
    "hidden_text",  # white, tiny, clear or off the page: a reader of the file does not see it
    "invisible_characters",  # zero-width, direction and tag characters were taken out beside it
    "doubtful_reading",  # words on a picture that OCR was not sure of
]
FlagKind = UnseenKind | Kind  # and personal data and secrets, or the mask that stands for them


@dataclass(frozen=True, slots=True)
class Flag:
    """What somebody who reads a span of a canonical text should know. Flags may overlap."""

    kind: FlagKind
    start: int
    end: int
