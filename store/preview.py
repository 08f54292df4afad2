"""Who would gain and who would lose which documents by a change, before it is made.

Worked out in a transaction that is rolled back (`store.pool.trying`), by the one definition of visible.
"""

import secrets
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from core.labels import check_label
from core.records import Labels, Principal
from store import access
from store.pool import Conn

ANYONE_ELSE = "anyone else"  # whoever holds `public` and nothing that is known here
SAMPLES = 5

# Whoever is named anywhere. Others see what a stranger sees.
SUBJECTS = r"""
    SELECT label FROM (
        SELECT member AS label FROM memberships WHERE tenant_id = %(tenant)s
        UNION SELECT subject FROM clearances WHERE tenant_id = %(tenant)s
        UNION SELECT unnest(allow || deny) FROM label_sets WHERE tenant_id = %(tenant)s
    ) AS named WHERE label LIKE 'user:%%' OR label LIKE 'service:%%'
"""
# All that decides about a subject but the label sets themselves.
STANDING = """
    SELECT s.subject, held_labels(%(tenant)s, s.subject, '{}'), c.classification
    FROM unnest(%(subjects)s::text[]) AS s (subject)
    LEFT JOIN clearances c ON c.tenant_id = %(tenant)s AND c.subject = s.subject
"""
DOCUMENTS = """
    SELECT label_set_id, count(*), (array_agg(external_id ORDER BY external_id))[:%(samples)s]
    FROM documents WHERE tenant_id = %(tenant)s GROUP BY label_set_id
"""
# Each with its attachments, which go where it goes.
NOW = """
    WITH RECURSIVE below (root, id) AS (
        SELECT id, id FROM documents WHERE tenant_id = %s AND id = ANY(%s)
        UNION ALL SELECT b.root, d.id FROM documents d JOIN below b ON d.parent_id = b.id
    ) SELECT b.root, d.external_id, d.label_set_id FROM below b JOIN documents d USING (id)
"""

_Standing = dict[str, tuple[frozenset[str], str | None]]


@dataclass(frozen=True, slots=True)
class Documents:
    """Some documents: how many, and the names of the first few."""

    count: int = 0
    samples: tuple[str, ...] = ()

    def __add__(self, other: "Documents") -> "Documents":
        return Documents(self.count + other.count, tuple(sorted({*self.samples, *other.samples})[:SAMPLES]))


@dataclass(frozen=True, slots=True)
class Change:
    """What one subject gains and loses."""

    subject: str
    gains: Documents
    loses: Documents


def groups_change(
    conn: Conn, tenant_id: UUID, groups: Mapping[str, Sequence[str]], clearances: Mapping[str, str]
) -> list[Change]:
    """What it would change to make these the tenant's groups and clearances. `conn` must be rolled back afterwards.

    Other changes of the tenant's grants wait for the end of the transaction. Raises InvalidLabel.
    """
    proposed = {check_label(each) for members in (*groups.values(), clearances) for each in members}
    subjects = _subjects(conn, tenant_id, (s for s in proposed if s.startswith(("user:", "service:"))))
    before = _standing(conn, tenant_id, subjects)
    with conn.transaction(force_rollback=True):
        access.replace_groups(conn, tenant_id, groups, clearances)
        after = _standing(conn, tenant_id, subjects)
    moved = {subject: name for subject, name in subjects.items() if before[subject] != after[subject]}
    seen_before = _seen(conn, tenant_id, moved)
    access.replace_groups(conn, tenant_id, groups, clearances)
    seen_after = _seen(conn, tenant_id, moved)
    values = {"tenant": tenant_id, "samples": SAMPLES}
    under = {row[0]: Documents(row[1], tuple(row[2])) for row in conn.execute(DOCUMENTS, values).fetchall()}
    changes = [
        Change(name, _all(under, seen_after[s] - seen_before[s]), _all(under, seen_before[s] - seen_after[s]))
        for s, name in moved.items()
    ]
    return _telling(changes)


def labels_change(conn: Conn, tenant_id: UUID, proposed: Mapping[UUID, Labels]) -> tuple[int, list[Change]]:
    """How many documents it would move, and what that would change, to put these documents under these labels.

    `conn` must be rolled back afterwards. Raises InvalidLabel.
    """
    wanted = access.intern_many(conn, tenant_id, set(proposed.values()))
    moves: dict[tuple[int, int], Documents] = defaultdict(Documents)
    for document_id, external_id, old in conn.execute(NOW, (tenant_id, list(proposed))).fetchall():
        if (new := wanted[proposed[document_id]]) != old:
            moves[old, new] += Documents(1, (external_id,))
    subjects = _subjects(conn, tenant_id, ())
    changes = [_moved(name, seen, moves) for name, seen in _named(subjects, _seen(conn, tenant_id, subjects))]
    return sum(documents.count for documents in moves.values()), _telling(changes)


def _moved(name: str, seen: frozenset[int], moves: Mapping[tuple[int, int], Documents]) -> Change:
    gains = (documents for (old, new), documents in moves.items() if new in seen and old not in seen)
    loses = (documents for (old, new), documents in moves.items() if old in seen and new not in seen)
    return Change(name, sum(gains, Documents()), sum(loses, Documents()))


def _named(subjects: Mapping[str, str], seen: Mapping[str, frozenset[int]]) -> list[tuple[str, frozenset[int]]]:
    return [(name, seen[subject]) for subject, name in subjects.items()]


def _subjects(conn: Conn, tenant_id: UUID, others: Iterable[str]) -> dict[str, str]:
    """Subject → the name to tell: everybody who is named somewhere, and a stranger."""
    known = {label for (label,) in conn.execute(SUBJECTS, {"tenant": tenant_id}).fetchall()} | set(others)
    return {f"user:{secrets.token_hex(16)}": ANYONE_ELSE, **{subject: subject for subject in sorted(known)}}


def _standing(conn: Conn, tenant_id: UUID, subjects: Mapping[str, str]) -> _Standing:
    rows = conn.execute(STANDING, {"tenant": tenant_id, "subjects": list(subjects)}).fetchall()
    return {subject: (frozenset(held), clearance) for subject, held, clearance in rows}


def _seen(conn: Conn, tenant_id: UUID, subjects: Iterable[str]) -> dict[str, frozenset[int]]:
    return {s: frozenset(access.visible_label_sets(conn, Principal(tenant_id, s))) for s in subjects}


def _all(under: Mapping[int, Documents], label_set_ids: Iterable[int]) -> Documents:
    return sum((under[i] for i in label_set_ids if i in under), Documents())


def _telling(changes: Iterable[Change]) -> list[Change]:
    """Those whom it changes anything for, the most first."""
    found = [change for change in changes if change.gains.count or change.loses.count]
    return sorted(found, key=lambda c: (-c.gains.count - c.loses.count, c.subject))
