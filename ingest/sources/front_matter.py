"""What a markdown file says about itself, in whichever source it lies."""

import hashlib
from collections.abc import Callable
from pathlib import PurePosixPath

from core.errors import Permanent
from core.records import Labels, Submission
from ingest.parsers.canonical import clean
from ingest.parsers.decode import marked_encoding
from ingest.parsers.front import front_matter_end
from ingest.rules import FrontMatter, read_front_matter
from ingest.sniff import sniff

MARKDOWN_TYPE = "text/markdown"
MARKDOWN = (".md", ".markdown", ".mdx")  # as `ingest.sniff` has it
KINDS = ("folder", "files", "git")  # of sources whose files say who may see them: what a page or a row says is content


def front_matter(external_id: str, content: bytes) -> FrontMatter:
    """Its leading block; empty for a file of another type. Raises InvalidRules."""
    return read_front_matter(content) if external_id.lower().endswith(MARKDOWN) else FrontMatter()


def read_hash(external_id: str, content: bytes) -> str | None:
    """The sha256 of a markdown file's bytes after its front matter: while it stays, the parser reads the same text.

    None for what is not surely read as that, bytes for bytes: it goes by all of its bytes.
    """
    if not external_id.lower().endswith(MARKDOWN):
        return None
    body = _body(content)
    if body is None or not body.strip() or marked_encoding(body) or not _is_read_as_markdown(external_id, content):
        return f"whole {hashlib.sha256(content).hexdigest()}"  # not equal to that of a file whose body these bytes are
    return hashlib.sha256(body).hexdigest()


def _is_read_as_markdown(external_id: str, content: bytes) -> bool:
    try:
        return sniff(content, external_id) == MARKDOWN_TYPE
    except Permanent:  # which its indexing will say
        return False


def _body(content: bytes) -> bytes | None:
    """The bytes after the front matter, all of them where there is none; None unless it is plain UTF-8."""
    if marked_encoding(content) or b"\0" in content:
        return None
    try:
        text = content.decode()
    except UnicodeDecodeError:
        return None
    cleaned = clean(text).text
    front = cleaned[: front_matter_end(cleaned)]
    lines = content.splitlines(keepends=True)[: front.count("\n")]
    if b"".join(lines).replace(b"\r\n", b"\n") != front.encode():  # something of it was cleaned away
        return None
    return content[sum(map(len, lines)) :]


def labels_within(kind: str, external_id: str, blob_key: str | None, read: Callable[[str], bytes]) -> Labels | None:
    """The labels that a file's own front matter gives in a source of that kind, of bytes that were kept. Raises
    InvalidRules."""
    if kind not in KINDS or blob_key is None or not external_id.lower().endswith(MARKDOWN):  # others are not even read
        return None
    return front_matter(external_id, read(blob_key)).labels


def file_submission(source: str, external_id: str, content: bytes, labels: Labels, uri: str) -> Submission:
    """A file as a submission: what its front matter says goes before what the source says. Raises InvalidRules."""
    own = front_matter(external_id, content)
    return Submission(
        external_id=external_id,
        content=content,
        labels=labels if own.labels is None else own.labels,
        source=source,
        title=own.title,
        filename=PurePosixPath(external_id).name,
        uri=uri,
        metadata=own.metadata,
        read_hash=read_hash(external_id, content),
    )
