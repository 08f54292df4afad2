"""Files that came within another, such as those of a mail."""

from dataclasses import dataclass
from typing import Literal

AttachmentCode = Literal[
    "attachments_off",  # the installation takes none
    "attachment_count",
    "attachment_size",  # of one, or of all in a message
    "attachment_depth",  # it hangs too far below the topmost message
    "attachment_unread",  # it holds no bytes, or the message only refers to it
    "attachment_name_taken",  # a document of another origin has its name
]


@dataclass(frozen=True, slots=True)
class Attachment:
    """A file that came within another, to be a document of its own."""

    name: str  # the file's, never a path; may be empty
    mime_type: str | None  # as the message declares it
    content: bytes


@dataclass(frozen=True, slots=True)
class RefusedAttachment:
    """A file within another that becomes no document, and why."""

    name: str
    code: AttachmentCode
    reason: str  # with what to do about it
