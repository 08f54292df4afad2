"""Why a principal sees a document, or does not: which label, by which groups, or which classification decided."""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal
from uuid import UUID

from core.errors import Conflict, NotFound
from core.labels import PUBLIC
from core.records import Labels, Principal
from store import access
from store.pool import Conn

Decision = Literal["visible", "absent", "denied", "above_clearance", "no_label_held"]

DOCUMENT = """
    SELECT d.external_id, d.current_version IS NOT NULL, d.label_set_id, l.allow, l.deny, l.classification
    FROM documents d JOIN label_sets l ON l.id = d.label_set_id WHERE d.id = %s
"""
NAMED = (
    "SELECT d.id, s.name FROM documents d JOIN sources s ON s.id = d.source_id WHERE d.external_id = %s ORDER BY s.name"
)
HELD = "SELECT held_labels(%s, %s, %s)"
EDGES = (
    "SELECT member, group_label FROM memberships WHERE tenant_id = %s AND member = ANY(%s) ORDER BY member, group_label"
)
CLEARANCE = """
    SELECT coalesce(c.classification, t.default_clearance), c.classification IS NOT NULL
    FROM tenants t LEFT JOIN clearances c ON c.tenant_id = t.id AND c.subject = %s WHERE t.id = %s
"""


@dataclass(frozen=True, slots=True)
class Held:
    """A label that the principal holds, and a shortest way to it: itself, `public` or a claim first, the label last."""

    label: str
    path: tuple[str, ...]
    claimed: bool = False  # the path starts at a label that the token gives


@dataclass(frozen=True, slots=True)
class Clearance:
    """How far up the tenant's scale the principal sees."""

    classification: str
    own: bool  # False: the tenant's default
    reaches: bool  # the document's classification


@dataclass(frozen=True, slots=True)
class Explanation:
    """What decided. Of a document that is absent, nothing else is told."""

    document_id: UUID
    subject: str
    decision: Decision
    epoch: int
    external_id: str | None = None
    indexed: bool = False  # until a version is, there is no text to see
    label_set_id: int | None = None
    labels: Labels | None = None
    allowed_by: tuple[Held, ...] = ()  # every allow label that is held, nearest first
    denied_by: tuple[Held, ...] = ()
    clearance: Clearance | None = None


def explain(conn: Conn, operator: Principal, asked: Principal, document_id: UUID) -> Explanation:
    """Why `asked` sees the document or not. What the operator's own credential does not reach is absent.

    Whether it is visible is asked of the definition itself; the reasons are worked out beside it.
    """
    epoch = access.enter_scope(conn, operator).epoch
    row = conn.execute(DOCUMENT, (document_id,)).fetchone()
    if row is None:
        return Explanation(document_id, asked.subject, "absent", epoch)
    external_id, indexed, label_set_id, allow, deny, classification = row
    paths = held_paths(conn, asked)
    allowed, denied = _held(asked, paths, allow), _held(asked, paths, deny)
    clearance = _clearance(conn, asked, classification)
    decision = _decision(allowed, denied, clearance)
    visible = label_set_id in access.visible_label_sets(conn, asked)
    assert visible == (decision == "visible"), f"explained as {decision}, but visible is {visible}"
    labels = Labels(tuple(allow), tuple(deny), classification)
    return Explanation(document_id, asked.subject, decision, epoch, external_id, indexed, label_set_id, labels, allowed,
                       denied, clearance)  # fmt: skip


def document_named(conn: Conn, operator: Principal, name: str) -> UUID:
    """The id of the document of this id, or of this external id among those that the operator reaches.

    Raises NotFound, Conflict.
    """
    try:
        return UUID(name)
    except ValueError:
        access.enter_scope(conn, operator)
    found = conn.execute(NAMED, (name,)).fetchall()
    if not found:
        raise NotFound(f"there is no document {name!r}")
    if len(found) > 1:
        choices = ", ".join(f"{document_id} ({source})" for document_id, source in found)
        raise Conflict(f"several sources have a document {name!r}: name one by its id: {choices}")
    return UUID(str(found[0][0]))


def held_paths(conn: Conn, asked: Principal) -> dict[str, tuple[str, ...]]:
    """Every label that the principal holds, with a shortest way to it."""
    (held,) = conn.execute(HELD, (asked.tenant_id, asked.subject, list(asked.claims))).fetchone() or ([],)
    above: dict[str, list[str]] = {}
    for member, group in conn.execute(EDGES, (asked.tenant_id, held)).fetchall():
        above.setdefault(member, []).append(group)
    own = (asked.subject, PUBLIC, *asked.claims)  # of a closed subject, none is held
    paths: dict[str, tuple[str, ...]] = {label: (label,) for label in own if label in held}
    waiting = deque(paths)
    while waiting:
        label = waiting.popleft()
        for group in above.get(label, ()):
            if group not in paths:
                paths[group] = (*paths[label], group)
                waiting.append(group)
    return paths


def _held(asked: Principal, paths: dict[str, tuple[str, ...]], labels: Iterable[str]) -> tuple[Held, ...]:
    own = (asked.subject, PUBLIC)
    held = (Held(label, paths[label], paths[label][0] not in own) for label in labels if label in paths)
    return tuple(sorted(held, key=lambda each: (len(each.path), each.label)))


def _clearance(conn: Conn, asked: Principal, classification: str) -> Clearance:
    name, own = conn.execute(CLEARANCE, (asked.subject, asked.tenant_id)).fetchone() or ("", False)
    scale = access.scale_of(conn, asked.tenant_id)
    reaches = name in scale and scale.index(classification) <= scale.index(name)
    return Clearance(name, own, reaches)


def _decision(allowed: tuple[Held, ...], denied: tuple[Held, ...], clearance: Clearance) -> Decision:
    if denied:
        return "denied"
    if not clearance.reaches:
        return "above_clearance"
    return "visible" if allowed else "no_label_held"
