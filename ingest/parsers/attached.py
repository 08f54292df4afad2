"""What of a file's attachments is within the limits, and in which words the others are refused."""

from collections.abc import Sequence
from dataclasses import replace

from core.attachments import Attachment, RefusedAttachment
from core.records import ParsedDocument
from ingest.confine import ParseLimits

MAX_TOLD = 50  # refused ones that are named; the others are counted
OFF = "attachments are not taken here: set CITADEL_ATTACHMENTS to how many a message may bring"
TOO_MANY = "a message with all below it may bring {} attachments (CITADEL_ATTACHMENTS)"
TOO_LARGE = "one attachment, and all of a message, may have {} bytes (CITADEL_ATTACHMENT_BYTES)"
TOO_DEEP = "attachments may hang {} deep below the topmost message (CITADEL_ATTACHMENT_DEPTH)"


def within(document: ParsedDocument, limits: ParseLimits) -> ParsedDocument:
    """The document with those attachments that are within the limits; the others are refused, each with its reason."""
    taken: list[Attachment] = []
    refused, total = list(document.refused), 0
    for file in document.attachments:
        refusal = _over(file, len(taken), total, limits)
        if refusal is None:
            taken.append(file)
            total += len(file.content)
        else:
            refused.append(refusal)
    return replace(document, attachments=tuple(taken), refused=tuple(told(refused)))


def told(refused: Sequence[RefusedAttachment]) -> list[RefusedAttachment]:
    """Those that are named with their reasons; how many more there are comes last."""
    more = len(refused) - MAX_TOLD
    if more <= 1:
        return list(refused)
    last = refused[-1]
    return [*refused[:MAX_TOLD], RefusedAttachment(f"and {more} more", last.code, last.reason)]


def _over(file: Attachment, taken: int, total: int, limits: ParseLimits) -> RefusedAttachment | None:
    if limits.attachments <= 0:
        return RefusedAttachment(file.name, "attachments_off", OFF)
    if taken >= limits.attachments:
        return RefusedAttachment(file.name, "attachment_count", TOO_MANY.format(limits.attachments))
    if total + len(file.content) > limits.attachment_bytes:
        return RefusedAttachment(file.name, "attachment_size", TOO_LARGE.format(limits.attachment_bytes))
    return None
