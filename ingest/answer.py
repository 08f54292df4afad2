"""The one thing that comes back from a parser's process: length-prefixed JSON, believed only after it was checked.

The process may have been taken over by the file it read. So the reader of its answer accepts a document whose text and
spans are what a canonical text promises, or an error of the Unparseable branch by its code; anything else is a crash.
"""

import json
import struct
from dataclasses import astuple
from typing import Any, get_args

from core.errors import (
    CorruptDocument,
    EmptyDocument,
    EncryptedDocument,
    ParserCrashed,
    ParserLimit,
    Unparseable,
    UnsupportedType,
)
from core.records import Element, ElementKind, Flag, ParsedDocument, UnseenKind

PREFIX = struct.Struct(">Q")
_MAX_MESSAGE = 500  # code points of an error or a warning
_MAX_WARNINGS = 100
_KINDS = frozenset(get_args(ElementKind))
_FLAGS = frozenset(get_args(UnseenKind))
_ERRORS: dict[str, type[Unparseable]] = {
    error.code: error
    for error in (UnsupportedType, EmptyDocument, EncryptedDocument, CorruptDocument, ParserLimit, ParserCrashed)
}


def pack_document(document: ParsedDocument) -> bytes:
    """The answer that holds a document."""
    elements = [astuple(element) for element in document.elements]
    return _pack(
        {"text": document.text, "elements": elements, "mime_type": document.mime_type}
        | {"title": document.title, "warnings": document.warnings, "flags": list(map(astuple, document.flags))}
    )


def pack_error(error: Unparseable) -> bytes:
    """The answer that holds a refusal."""
    return _pack({"error": error.code, "message": str(error)[:_MAX_MESSAGE]})


def unpack(answer: bytes) -> ParsedDocument:
    """The document in an answer; raises the refusal in it, and ParserCrashed when it is neither."""
    try:
        (length,) = PREFIX.unpack_from(answer)
        if length != len(answer) - PREFIX.size:
            raise ValueError("length")
        body = json.loads(answer[PREFIX.size :])
        if "error" in body:
            raise _refusal(body)
        return _document(body)
    except (ValueError, KeyError, TypeError, RecursionError, struct.error) as error:
        raise ParserCrashed("the parser's process answered with something that is not a document") from error


def _pack(body: dict[str, Any]) -> bytes:
    payload = json.dumps(body, ensure_ascii=False).encode()
    return PREFIX.pack(len(payload)) + payload


def _refusal(body: dict[str, Any]) -> Unparseable:
    return _ERRORS[body["error"]](_string(body["message"])[:_MAX_MESSAGE])


def _document(body: dict[str, Any]) -> ParsedDocument:
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
    return ParsedDocument(text, elements, _string(body["mime_type"]), title, warnings, flags)


def _string(value: Any) -> str:
    """A string that Postgres takes: no NUL, and no lone surrogate (UnicodeEncodeError is a ValueError)."""
    if not isinstance(value, str) or "\x00" in value:
        raise ValueError("string")
    value.encode()
    return value


def _check_element(element: Element, least: int, end: int) -> None:
    """Raises ValueError unless it is of a known kind and lies behind the one before it, within the text."""
    numbers = (element.start, element.end, element.level, 0 if element.page is None else element.page)
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
