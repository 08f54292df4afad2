"""What labels a folder's documents would have under other rules than its own."""

from collections.abc import Callable
from dataclasses import dataclass
from uuid import UUID

from core.errors import InvalidRules
from core.records import Labels, Source
from ingest.rules import Rules
from ingest.sources.front_matter import labels_within
from store import sources
from store.pool import Conn


@dataclass(frozen=True, slots=True)
class Proposed:
    """Labels by document; and whom they cannot be told of, because a file's own front matter is broken."""

    labels: dict[UUID, Labels]
    problems: tuple[str, ...]


def proposed_labels(conn: Conn, source: Source, rules: Rules, read: Callable[[str], bytes]) -> Proposed:
    """The labels that these rules give the source's documents as they were last read; front matter goes before rules.

    `read` gives a blob's bytes by its key.
    """
    labels: dict[UUID, Labels] = {}
    problems = []
    for name, seen in sorted(sources.seen(conn, source.id).items()):
        by_rule = rules.labels_for(name) or source.labels
        try:
            labels[seen.document_id] = labels_within(source.kind, name, seen.blob_key, read) or by_rule
        except InvalidRules as error:
            problems.append(f"{name}: {error}")
    return Proposed(labels, tuple(problems))
