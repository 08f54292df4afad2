"""A source's reader, by its kind."""

from collections.abc import Callable
from pathlib import Path

from core.errors import Misconfigured
from core.records import Source
from ingest.source import DocumentSource, Memory, NoMemory
from ingest.sources.files import FilesSource
from ingest.sources.folder import FolderSource
from ingest.sources.git import GitSource
from ingest.sources.mail import open_mail
from ingest.sources.reader import ReaderSource
from ingest.sources.rows import RowsSource
from ingest.sources.website import WebsiteSource

Opener = Callable[[Source, Memory, Path], DocumentSource]

OPENERS: dict[str, Opener] = {
    "folder": lambda source, memory, scratch: FolderSource(source, memory),
    "files": lambda source, memory, scratch: FilesSource(source, memory),
    "git": GitSource,
    "website": WebsiteSource,
    "mail": lambda source, memory, scratch: open_mail(source, memory),
    "sql": lambda source, memory, scratch: RowsSource(source, memory),
    "reader": ReaderSource,
}


def open_source(source: Source, memory: Memory | None = None, scratch: Path | None = None) -> DocumentSource:
    """The source's reader, which asks nothing of the source yet; `scratch` is a folder that it may fill.

    Raises Misconfigured for one that documents are pushed to, and Invalid for a configuration that is not its kind's.
    """
    if source.kind not in OPENERS:
        raise Misconfigured(f"source {source.name!r} takes pushed documents: there is nothing to refresh")
    return OPENERS[source.kind](source, memory or NoMemory(), scratch or Path("/nonexistent"))
