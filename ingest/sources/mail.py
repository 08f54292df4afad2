"""Mail as a source: a mailbox on an IMAP server, an mbox file or a maildir; a message is a document."""

import base64
import hashlib
import imaplib
import mailbox
import re
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote, urlsplit

from core.errors import BodyTooLarge, Invalid, NotFound, SourceUnavailable
from core.records import Labels, Source, Submission
from ingest.source import Listed, Memory, Page, pages
from ingest.sources.config import Secrets, check_url, checked
from ingest.sources.folder import MAX_BYTES

TIMEOUT_S = 60.0
MESSAGE = "message/rfc822"
BATCH = 500  # messages asked about at a time
_FETCHED = re.compile(rb"UID (\d+).*?RFC822\.SIZE (\d+)|RFC822\.SIZE (\d+).*?UID (\d+)")
OPTIONAL = {"folders": list, "max_bytes": int, "secrets": dict, "options": dict}


def open_mail(source: Source, memory: Memory) -> "ImapSource | MailFile":
    """By the URL: imaps://user@host/, imap://… (in clear, or with STARTTLS), mbox:///path or maildir:///path."""
    config = checked(source, ["url"], OPTIONAL)
    scheme = urlsplit(check_url(config["url"])).scheme
    if scheme in ("imap", "imaps"):
        return ImapSource(source)
    if scheme in ("mbox", "maildir"):
        return MailFile(source)
    raise Invalid("the `url` of a mail source begins with imaps://, imap://, mbox:/// or maildir:///")


class ImapSource:
    """Messages of an IMAP4rev1 server's mailboxes (RFC 3501), which are read and never marked as seen."""

    def __init__(self, source: Source) -> None:
        """Asks nothing yet. Raises Invalid."""
        self._source, self._secrets = source, Secrets(source.config)
        parts = urlsplit(source.config["url"])
        if not parts.hostname or not parts.username or "password" not in self._secrets:
            raise Invalid(
                "an IMAP source needs a url such as imaps://ana@mail.acme.example/, and the secret `password`"
            )
        self._host, self._user, self._tls = parts.hostname, parts.username, parts.scheme == "imaps"
        self._port = parts.port or (993 if self._tls else 143)
        self._folders: list[str] = source.config.get("folders") or ["INBOX"]
        self._max_bytes: int = source.config.get("max_bytes") or MAX_BYTES
        self._server_kept: imaplib.IMAP4 | None = None

    def enumerate(self, cursor: str | None = None) -> Iterator[Page]:
        """Every message, by its mailbox's validity and its number there: what is so named never changes (RFC 3501)."""
        with self._server() as server:
            yield from pages(item for folder in self._folders for item in self._messages(server, folder))

    def permissions(self, item: Listed) -> Labels:
        """The source's own: who may open the mailbox is not told by its messages."""
        return self._source.labels

    def fetch(self, item: Listed, labels: Labels) -> Submission:
        """The message. Raises SourceUnavailable, BodyTooLarge, and FileNotFoundError for one that is gone."""
        folder, validity, uid, size = _read_note(item.note)
        if size > self._max_bytes:
            raise BodyTooLarge(f"the message is larger than {self._max_bytes} bytes, the source's `max_bytes`")
        with self._server() as server:
            if self._select(server, folder) != validity:
                raise FileNotFoundError("the mailbox was made anew")
            _, data = server.uid("FETCH", str(uid), "(BODY.PEEK[])")
        content = next((part[1] for part in data if isinstance(part, tuple)), None)
        if content is None:
            raise FileNotFoundError("the message is gone")
        uri = f"imap://{self._host}/{quote(folder)};UIDVALIDITY={validity}/;UID={uid}"  # RFC 5092
        return _submission(self._source, item.external_id, content, labels, uri)

    def _messages(self, server: imaplib.IMAP4, folder: str) -> Iterator[Listed]:
        validity = self._select(server, folder)
        _, found = server.uid("SEARCH", "ALL")
        uids = found[0].split() if found and found[0] else []
        for start in range(0, len(uids), BATCH):
            _, told = server.uid("FETCH", b",".join(uids[start : start + BATCH]).decode(), "(UID RFC822.SIZE)")
            for line in told:
                match = _FETCHED.search(line[0] if isinstance(line, tuple) else line or b"")
                if match is not None:
                    uid, size = (match[1], match[2]) if match[1] else (match[4], match[3])
                    name = f"{folder};UIDVALIDITY={validity};UID={int(uid)}"
                    yield Listed(name, f"{validity}:{int(uid)}", f"{validity} {int(uid)} {int(size)} {folder}")

    def _select(self, server: imaplib.IMAP4, folder: str) -> int:
        status, told = server.select(_quoted(folder), readonly=True)
        if status != "OK":
            raise NotFound(f"the server has no mailbox {folder!r}: {self._secrets.redact(str(told))[:200]}")
        _, validity = server.response("UIDVALIDITY")
        if not validity or validity[0] is None:
            raise SourceUnavailable(f"the server tells no UIDVALIDITY of {folder!r}")
        return int(validity[0])

    @contextmanager
    def _server(self) -> Iterator[imaplib.IMAP4]:
        """The connection, one for all messages until it fails."""
        with self._secrets.asking(f"the mail server {self._host}", OSError, imaplib.IMAP4.error):
            server, self._server_kept = self._server_kept or self._logged_in(), None
            yield server
            self._server_kept = server

    def _logged_in(self) -> imaplib.IMAP4:
        server = self._connect()
        server.login(self._user, self._secrets.values()["password"])
        return server

    def _connect(self) -> imaplib.IMAP4:
        context = ssl.create_default_context()
        if self._tls:
            return imaplib.IMAP4_SSL(self._host, self._port, ssl_context=context, timeout=TIMEOUT_S)
        server = imaplib.IMAP4(self._host, self._port, timeout=TIMEOUT_S)
        if "STARTTLS" in server.capabilities:
            server.starttls(context)
        elif not self._source.config.get("options", {}).get("cleartext"):
            server.shutdown()
            raise SourceUnavailable("the server offers no encryption: use imaps://, or the option cleartext=true")
        return server


class MailFile:
    """Messages of an mbox file or a maildir on the workers' machine, by the hash of their bytes or their own names."""

    def __init__(self, source: Source) -> None:
        """Asks nothing yet. Raises Invalid."""
        parts = urlsplit(source.config["url"])
        self._source, self._maildir, self._path = source, parts.scheme == "maildir", Path(parts.path)
        self._max_bytes: int = source.config.get("max_bytes") or MAX_BYTES
        if parts.netloc or not self._path.is_absolute():
            raise Invalid("write the path of the mail with three slashes, such as maildir:///home/ana/Maildir")

    def enumerate(self, cursor: str | None = None) -> Iterator[Page]:
        """Every message. Raises NotFound for mail that is not there."""
        with self._box() as box:
            yield from pages(self._listed(box))

    def permissions(self, item: Listed) -> Labels:
        """The source's own."""
        return self._source.labels

    def fetch(self, item: Listed, labels: Labels) -> Submission:
        """The message. Raises BodyTooLarge, and FileNotFoundError for one that is gone."""
        with self._box() as box:
            content = self._bytes(box, item.note)
        if not self._maildir and _digest(content) != item.fingerprint:
            raise FileNotFoundError("the file was rewritten since it was listed")
        uri = f"{self._path.as_uri()}#{quote(item.external_id)}"
        return _submission(self._source, item.external_id, content, labels, uri)

    def _listed(self, box: "mailbox.Mailbox[mailbox.Message]") -> Iterator[Listed]:
        for key in box.iterkeys():
            if self._maildir:
                yield Listed(key, key, key)
            else:
                digest = _digest(self._bytes(box, str(key)))
                yield Listed(digest, digest, str(key))

    def _bytes(self, box: "mailbox.Mailbox[mailbox.Message]", note: str) -> bytes:
        key: str | int = note if self._maildir else int(note)
        try:
            with box.get_file(key) as file:  # type: ignore[arg-type]
                content = bytes(file.read(self._max_bytes + 1))
        except KeyError as error:
            raise FileNotFoundError("the message is gone") from error
        if len(content) > self._max_bytes:
            raise BodyTooLarge(f"the message is larger than {self._max_bytes} bytes, the source's `max_bytes`")
        return content

    @contextmanager
    def _box(self) -> Iterator["mailbox.Mailbox[mailbox.Message]"]:
        there = (self._path / "cur").is_dir() if self._maildir else self._path.is_file()
        if not there:
            raise NotFound(f"there is no {'maildir' if self._maildir else 'mbox file'} at {self._path}: is it mounted?")
        make: Callable[..., mailbox.Mailbox[mailbox.Message]]
        make = mailbox.Maildir if self._maildir else mailbox.mbox
        box = make(str(self._path), None, create=False)
        try:
            yield box
        finally:
            box.close()


def _submission(source: Source, external_id: str, content: bytes, labels: Labels, uri: str) -> Submission:
    return Submission(external_id, content, labels, source.name, mime_type=MESSAGE, filename="message.eml", uri=uri)


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:40]


def _read_note(note: str) -> tuple[str, int, int, int]:
    validity, uid, size, folder = note.split(" ", 3)
    return folder, int(validity), int(uid), int(size)


def _quoted(folder: str) -> str:
    """A mailbox's name in modified UTF-7 (RFC 3501, 5.1.3), quoted."""
    if any(ord(c) < 32 for c in folder):
        raise Invalid(f"{folder[:80]!r} is no name of a mailbox")
    encoded = re.sub(r"[^\x20-\x7e]+", _base64, folder.replace("&", "&-"))
    return '"' + encoded.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _base64(match: re.Match[str]) -> str:
    return "&" + base64.b64encode(match[0].encode("utf-16-be")).decode().rstrip("=").replace("/", ",") + "-"
