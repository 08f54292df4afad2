"""What a markdown file says about itself, in whichever source it lies."""

from collections.abc import Callable
from pathlib import PurePosixPath

from core.records import Labels, Submission
from ingest.rules import FrontMatter, read_front_matter

MARKDOWN = (".md", ".markdown", ".mdx")  # as `ingest.sniff` has it
KINDS = ("folder", "files", "git")  # of sources whose files say who may see them: what a page or a row says is content


def front_matter(external_id: str, content: bytes) -> FrontMatter:
    """Its leading block; empty for a file of another type. Raises InvalidRules."""
    return read_front_matter(content) if external_id.lower().endswith(MARKDOWN) else FrontMatter()


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
    )
