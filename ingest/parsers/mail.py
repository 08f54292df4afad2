"""Mail: .eml by the standard library, Outlook's .msg by python-oxmsg.

Not by `unstructured`, whose mail partitioner parses attachments as it goes and failed on 12 of 208 real messages.
"""

import email
import email.policy
import encodings.aliases
import io
import re
from dataclasses import dataclass, field, replace
from email.errors import HeaderParseError
from email.header import decode_header
from email.message import Message

import oxmsg

from core.attachments import Attachment, RefusedAttachment
from core.errors import EncryptedDocument
from core.records import ParsedDocument
from ingest.parsers.canonical import Piece, assemble, one_line
from ingest.parsers.decode import decode, marked_encoding, wide_encoding
from ingest.parsers.markup import read_page

OUTLOOK = "application/vnd.ms-outlook"

_HEADERS = ("From", "To", "Cc", "Date", "Subject")
_BLANK_LINE = re.compile(r"\n[ \t\r]*\n")
_ENCODED_WORDS = re.compile(r"(?:=\?[^?\s]+\?[bq]\?[^?]*\?=\s*)+", re.IGNORECASE)
_ENCRYPTED = ("application/pkcs7-mime", "application/x-pkcs7-mime", "application/pgp-encrypted")
_SIGNATURES = ("application/pkcs7-signature", "application/x-pkcs7-signature", "application/pgp-signature")
# The line over a quoted mail, as the common programs write it, on one line or on two; what it quotes follows.
_QUOTED = re.compile(
    r"^(?P<marks>[>|][>| ]*)?(?:On\b.{8,200}?\bwrote|Am\b.{8,200}?\bschrieb\b.{0,100}?|Le\b.{8,200}?\ba écrit ?"
    r"|El\b.{8,200}?\bescribió|Il\b.{8,200}?\bha scritto):[ \t]*$"
    r"|^[> ]*-{3,} ?(?:Original Message|Forwarded message|Ursprüngliche Nachricht|Message d'origine) ?-{3,}[ \t]*$",
    re.MULTILINE | re.DOTALL,
)
_MAX_LINES = 2  # of it
_MAX_DEPTH = 8  # of messages within messages
_CODE_PAGES = {f"windows_{number}": f"cp{number}" for number in (874, 932, 936, 949, 950)}


@dataclass(slots=True)
class _Body:
    """What the walk through a message has found so far."""

    pieces: list[Piece] = field(default_factory=list)
    attachments: list[Attachment] = field(default_factory=list)
    refused: list[RefusedAttachment] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    encrypted: bool = False
    files_only: bool = False  # its text is told already, by an alternative before it


def parse_eml(content: bytes) -> ParsedDocument:
    """Sender, receivers, date, subject, then the body and mail that is forwarded in it; attached files come beside."""
    if marked_encoding(content) or wide_encoding(content):
        content = decode(content).text.encode()
    message = email.message_from_bytes(content.lstrip(b"\r\n"), policy=email.policy.compat32)
    body = _Body()
    _walk(message, body, 0)
    pieces = [_header_lines({name: header(message, name) for name in _HEADERS}), *body.pieces]
    return _assembled(pieces, body, "message/rfc822", header(message, "Subject"))


def mail_body(content: bytes) -> list[Piece]:
    """The readable parts of a MIME message without its headers, such as a web archive in a Word file."""
    body = _Body()
    _walk(email.message_from_bytes(content, policy=email.policy.compat32), body, 0)
    return body.pieces


def _assembled(pieces: list[Piece], body: _Body, mime_type: str, subject: str) -> ParsedDocument:
    if body.encrypted and not any(piece.text.strip() for piece in body.pieces):
        raise EncryptedDocument("the mail's body is encrypted; submit it decrypted")
    document = assemble(pieces, mime_type, subject, list(dict.fromkeys(body.warnings)))
    return replace(document, attachments=tuple(body.attachments), refused=tuple(body.refused))


def _header_lines(values: dict[str, str]) -> Piece:
    return Piece("paragraph", "\n".join(f"{name}: {values[name]}" for name in _HEADERS if values.get(name)))


def header(message: Message, name: str) -> str:
    """A header on one line with its encoded words decoded, whatever charset they claim; empty when it is absent."""
    # raw_items, because the message's own reading replaces every byte beyond ASCII
    values = (str(value) for key, value in message.raw_items() if key.lower() == name.lower())
    return header_text(next(values, ""), message.get_content_charset())


def header_text(value: str, charset: str | None = None) -> str:
    """Runs of =?charset?…?= decoded; other bytes as UTF-8 or in the mail's own `charset`; the rest as it is written."""
    raw = value.replace("\x00", "").encode("utf-8", "surrogateescape")
    return one_line(_ENCODED_WORDS.sub(_decoded_words, decode(raw, charset).text))


def _decoded_words(found: re.Match[str]) -> str:
    try:
        chunks = decode_header(found.group())
    except (HeaderParseError, ValueError):
        return found.group()
    texts = [decode(chunk, charset).text if isinstance(chunk, bytes) else chunk for chunk, charset in chunks]
    return "".join(texts) + (" " if found.group()[-1].isspace() else "")


def _walk(part: Message, body: _Body, depth: int) -> None:
    """Collect the readable parts under `part` in order; of alternatives the plainest that holds text."""
    kind, name = part.get_content_type(), header_text(part.get_filename("") or "")
    if kind in _ENCRYPTED and part.get_param("smime-type") != "signed-data":
        body.encrypted = True
    attached = part.get_content_disposition() == "attachment"
    if kind == "message/rfc822" and part.is_multipart() and not attached:
        _walk_message(part.get_payload(0), body, depth)  # type: ignore[arg-type]  # is_multipart: it is a message
    elif kind == "multipart/alternative":
        _walk_alternatives(part, body, depth)
    elif part.is_multipart() and kind != "message/rfc822":
        for child in part.get_payload():
            _walk(child, body, depth)  # type: ignore[arg-type]  # is_multipart: they are messages
    elif part.get_content_maintype() in ("text", "multipart") and not attached:
        # a multipart without parts is the text that a sender mislabelled
        body.pieces += [] if body.files_only else _text_pieces(part, kind, body)
    elif kind not in _SIGNATURES and not _is_inline_image(part):
        _attach(part, kind, name, body)


def _is_inline_image(part: Message) -> bool:
    """Whether the part is a picture that the body shows, such as a logo."""
    placed = part.get_content_disposition()
    shown = placed == "inline" or (placed is None and part["Content-ID"] is not None)
    return part.get_content_maintype() == "image" and shown


def _attach(part: Message, kind: str, name: str, body: _Body) -> None:
    """A file of its own; an attached message by its subject."""
    try:
        content = _message_bytes(part) if kind == "message/rfc822" else part.get_payload(decode=True)
    except (LookupError, TypeError, ValueError):  # what the standard library raises over headers that it cannot write
        content = None
    if kind == "message/rfc822" and not name and part.is_multipart():
        name = f"{header(part.get_payload(0), 'Subject') or 'message'}.eml"  # type: ignore[arg-type]  # a message
    if isinstance(content, bytes) and content:
        body.attachments.append(Attachment(name, kind, content))
    else:
        body.refused.append(RefusedAttachment(name or kind, "attachment_unread", "it holds no bytes that can be read"))


def _message_bytes(part: Message) -> bytes | None:
    inner = part.get_payload(0) if part.is_multipart() else None
    return inner.as_bytes() if isinstance(inner, Message) else None


def _walk_message(message: Message, body: _Body, depth: int) -> None:
    """A forwarded message under its subject as a heading; beyond some depth it is only named."""
    subject = header(message, "Subject")
    if depth >= _MAX_DEPTH:
        reason = f"messages are read {_MAX_DEPTH} deep within each other"
        body.refused.append(RefusedAttachment(subject or "message/rfc822", "attachment_depth", reason))
        return
    body.pieces.append(Piece("heading", subject, level=min(depth + 1, 6)))
    body.pieces.append(_header_lines({name: header(message, name) for name in _HEADERS if name != "Subject"}))
    _walk(message, body, depth + 1)


def _walk_alternatives(part: Message, body: _Body, depth: int) -> None:
    """The first alternative that holds text, in the order of the sender, plainest first; the attachments of all."""
    told = body.files_only
    for child in part.get_payload() if part.is_multipart() else ():
        attempt = _Body(encrypted=body.encrypted, files_only=told)
        _walk(child, attempt, depth)  # type: ignore[arg-type]  # is_multipart: they are messages
        body.attachments += attempt.attachments  # some programs attach files within the alternative in HTML
        body.refused += attempt.refused
        if not told and any(piece.text.strip() for piece in attempt.pieces):
            told = True
            body.pieces += attempt.pieces
            body.warnings += attempt.warnings


def _text_pieces(part: Message, kind: str, body: _Body) -> list[Piece]:
    content = part.get_payload(decode=True)
    declared = part.get_content_charset()
    decoded = decode(content if isinstance(content, bytes) else b"", declared)
    body.warnings += decoded.warnings
    if kind == "text/html":
        page = read_page(decoded.text)
        body.warnings += page.warnings
        return list(page.pieces)
    return plain_pieces(decoded.text)


def plain_pieces(text: str) -> list[Piece]:
    """A paragraph for each run of lines between blank ones; the line over a quoted mail is a heading over it."""
    pieces: list[Piece] = []
    for paragraph in _BLANK_LINE.split(text.replace("\r\n", "\n")):
        position = 0
        for found in _QUOTED.finditer(paragraph):
            if found.group().count("\n") < _MAX_LINES:
                depth = (found["marks"] or "").count(">")
                pieces.append(Piece("paragraph", paragraph[position : found.start()]))
                pieces.append(Piece("heading", found.group(), level=min(2 + depth, 6)))
                position = found.end()
        pieces.append(Piece("paragraph", paragraph[position:]))
    return pieces


def parse_msg(content: bytes) -> ParsedDocument:
    """As parse_eml; contacts, tasks and appointments by their subject and body."""
    encodings.aliases.aliases.update(_CODE_PAGES)  # names that Outlook writes and Python lacks
    message = oxmsg.Message.load(io.BytesIO(content))
    body = _Body()
    if (message.body or "").strip():
        body.pieces += plain_pieces(message.body or "")
    elif message.html_body:
        page = read_page(message.html_body)
        body.pieces += page.pieces
        body.warnings += page.warnings
    for attachment in message.attachments:
        name = one_line(attachment.file_name or "")
        if attachment.file_bytes:
            body.attachments.append(Attachment(name, attachment.mime_type, attachment.file_bytes))
        else:
            body.refused.append(RefusedAttachment(name, "attachment_unread", "it lies within no file of its own"))
        body.encrypted |= attachment.mime_type in _ENCRYPTED
    subject = header_text(message.subject)
    return _assembled([_header_lines(_outlook_headers(message, subject)), *body.pieces], body, OUTLOOK, subject)


def _outlook_headers(message: oxmsg.Message, subject: str) -> dict[str, str]:
    headers = {name: header_text(value) for name, value in message.message_headers.items() if name in _HEADERS}
    receivers = [_receiver(receiver.name, receiver.email_address) for receiver in message.recipients]
    sent = message.sent_date.isoformat(sep=" ", timespec="minutes") if message.sent_date else ""
    known = {"From": header_text(message.sender or ""), "To": ", ".join(filter(None, receivers)), "Date": sent}
    return {**known, "Subject": subject, **headers}


def _receiver(name: str, address: str) -> str:
    name, address = one_line(name), one_line(address)
    return f"{name} <{address}>" if name and address and name != address else name or address
