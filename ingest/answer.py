"""The one thing that comes back from a parser's process: length-prefixed JSON, believed only after it was checked.

Behind it lie the bytes of the document's attachments, one after the other.

The process may have been taken over by the file it read. So the reader of its answer accepts a document whose text and
spans are what a canonical text promises, or an error of the Unparseable branch by its code; anything else is a crash.
"""

import json
import struct
from dataclasses import astuple
from typing import Any, get_args

from core.attachments import Attachment, AttachmentCode, RefusedAttachment
from core.errors import (
    CorruptDocument,
    EmptyDocument,
    EncryptedDocument,
    OcrUnavailable,
    ParserCrashed,
    ParserLimit,
    Unparseable,
    UnsupportedType,
)
from core.flags import Flag, UnseenKind
from core.records import Element, ElementKind, ParsedDocument

PREFIX = struct.Struct(">Q")
_MAX_MESSAGE = 500  # code points of an error or a warning
_MAX_WARNINGS = 100
_MAX_ATTACHMENTS = 1000  # and as many refused ones
_KINDS = frozenset(get_args(ElementKind))
_FLAGS = frozenset(get_args(UnseenKind))
_REFUSALS = frozenset(get_args(AttachmentCode))
_ERRORS: dict[str, type[Unparseable]] = {
    error.code: error
    for error in (
        UnsupportedType,
        EmptyDocument,
        EncryptedDocument,
        CorruptDocument,
        OcrUnavailable,
        ParserLimit,
        ParserCrashed,
    )
}


def pack_document(document: ParsedDocument) -> bytes:
    """The answer that holds a document."""
    elements = [astuple(element) for element in document.elements]
    attachments = [(each.name, each.mime_type, len(each.content)) for each in document.attachments]
    head = _pack(
        {"text": document.text, "elements": elements, "mime_type": document.mime_type}
        | {"title": document.title, "warnings": document.warnings, "flags": list(map(astuple, document.flags))}
        | {"attachments": attachments, "refused": list(map(astuple, document.refused))}
    )
    return b"".join((head, *(each.content for each in document.attachments)))


def pack_error(error: Unparseable) -> bytes:
    """The answer that holds a refusal."""
    return _pack({"error": error.code, "message": str(error)[:_MAX_MESSAGE]})


def unpack(answer: bytes) -> ParsedDocument:
    """The document in an answer; raises the refusal in it, and ParserCrashed when it is neither."""
    try:
        (length,) = PREFIX.unpack_from(answer)
        if length > len(answer) - PREFIX.size:
            raise ValueError("length")
        body, rest = json.loads(answer[PREFIX.size : PREFIX.size + length]), answer[PREFIX.size + length :]
        if "error" in body:
            raise _refusal(body)
        return _document(body, rest)
    except (ValueError, KeyError, TypeError, RecursionError, struct.error) as error:
        raise ParserCrashed("the parser's process answered with something that is not a document") from error


def _pack(body: dict[str, Any]) -> bytes:
    payload = json.dumps(body, ensure_ascii=False).encode()
    return PREFIX.pack(len(payload)) + payload


def _refusal(body: dict[str, Any]) -> Unparseable:
    return _ERRORS[body["error"]](_string(body["message"])[:_MAX_MESSAGE])


def _document(body: dict[str, Any], rest: bytes) -> ParsedDocument:
    text = _string(body["text"])
    elements = tuple(Element(*fields) for fields in body["elements"])
    position = 0
    for element in elements:
        _check_element(element, position, len(text))
        position = element.end
    title = None if body["title"] is None else _string(body["title"])
    warnings = tuple(_string(warning)[:_MAX_MESSAGE] for warning in body["warnings"][:_MAX_WARNINGS])
    flags = tuple(Flag(*fields) for fields in body["flags"])
    for flag in flags:
        _check_flag(flag, len(text))
    refused = tuple(_refused(*fields) for fields in body["refused"][:_MAX_ATTACHMENTS])
    return ParsedDocument(
        text, elements, _string(body["mime_type"]), title, warnings, flags,
        attachments=_attachments(body["attachments"], rest), refused=refused,
    )  # fmt: skip


def _attachments(told: list[list[Any]], rest: bytes) -> tuple[Attachment, ...]:
    """The files that lie behind the answer. Raises ValueError unless they are all that does."""
    sizes = [size for _, _, size in told]
    if any(type(size) is not int or size <= 0 for size in sizes) or sum(sizes) != len(rest):
        raise ValueError("attachments")
    if len(told) > _MAX_ATTACHMENTS:
        raise ValueError("attachments")
    found, position = [], 0
    for name, mime_type, size in told:
        declared = None if mime_type is None else _string(mime_type)[:_MAX_MESSAGE]
        found.append(Attachment(_string(name)[:_MAX_MESSAGE], declared, rest[position : position + size]))
        position += size
    return tuple(found)


def _refused(name: Any, code: Any, reason: Any) -> RefusedAttachment:
    if code not in _REFUSALS:
        raise ValueError("refusal")
    return RefusedAttachment(_string(name)[:_MAX_MESSAGE], code, _string(reason)[:_MAX_MESSAGE])


def _string(value: Any) -> str:
    """A string that Postgres takes: no NUL, and no lone surrogate (UnicodeEncodeError is a ValueError)."""
    if not isinstance(value, str) or "\x00" in value:
        raise ValueError("string")
    value.encode()
    return value


def _check_element(element: Element, least: int, end: int) -> None:
    """Raises ValueError unless it is of a known kind and lies behind the one before it, within the text."""
    optional = (0 if number is None else number for number in (element.page, element.row))
    numbers = (element.start, element.end, element.level, *optional)
    if element.kind not in _KINDS or any(type(number) is not int or number < 0 for number in numbers):
        raise ValueError("element")
    if not least <= element.start < element.end <= end or element.page == 0:
        raise ValueError("span")
    _string(element.context)


def _check_flag(flag: Flag, end: int) -> None:
    """Raises ValueError unless it is of a known kind and lies within the text."""
    if flag.kind not in _FLAGS or any(type(number) is not int for number in (flag.start, flag.end)):
        raise ValueError("flag")
    if not 0 <= flag.start < flag.end <= end:
        raise ValueError("flag's span")
