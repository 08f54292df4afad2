"""The seam to where documents come from: a source lists what it has, says who may see it, and hands it over.

What is listed is written down before anything is acted on (`ingest.refresh`), so a source may list in pages and need
not hold its listing. Content and permissions are asked apart: a refresh of permissions alone fetches nothing.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Protocol

from core.records import Labels, Submission

PAGE = 500  # items


@dataclass(frozen=True, slots=True)
class Listed:
    """One item of an enumeration."""

    external_id: str
    fingerprint: str | None  # changes whenever the content may have changed; None: only its bytes tell
    note: str = ""  # the source's own, given back to it by `fetch` and `permissions`


@dataclass(frozen=True, slots=True)
class Page:
    """Some items of an enumeration."""

    items: tuple[Listed, ...] = ()
    cursor: str | None = None  # where a later call may go on after this page; None: from the start
    problems: tuple[str, ...] = ()  # what could not be listed, for the operator
    complete: bool = False  # of the last page: everything was listed, so what is missing is gone
    state: Mapping[str, Any] = field(default_factory=dict)  # of the last page: for the next refresh's `Memory`


class DocumentSource(Protocol):
    """Where documents come from.

    `enumerate` raises what keeps it from listing; a listing that does not end with a complete page deletes nothing.
    `permissions` and `fetch` raise Invalid or OSError for what is wrong with one item, SourceUnavailable for an outage.
    """

    def enumerate(self, cursor: str | None = None) -> Iterator[Page]: ...
    def permissions(self, item: Listed) -> Labels: ...
    def fetch(self, item: Listed, labels: Labels) -> Submission: ...


class Memory(Protocol):
    """What is kept of the source from earlier refreshes."""

    @property
    def state(self) -> Mapping[str, Any]: ...
    def fingerprint(self, external_id: str) -> str | None: ...
    def content(self, external_id: str) -> bytes | None: ...


@dataclass(frozen=True, slots=True)
class NoMemory:
    """Of a source that was never refreshed."""

    state: Mapping[str, Any] = field(default_factory=dict)

    def fingerprint(self, external_id: str) -> str | None:
        return None

    def content(self, external_id: str) -> bytes | None:
        return None


def pages(items: Iterable[Listed], state: Mapping[str, Any] | None = None) -> Iterator[Page]:
    """A complete enumeration in pages, of items that come one by one."""
    rest = iter(items)
    while page := tuple(islice(rest, PAGE)):
        yield Page(page)
    yield Page(complete=True, state=state or {})
