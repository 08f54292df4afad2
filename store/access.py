"""Label sets, groups, clearances, and the scope that they give a principal."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from uuid import UUID

from core.errors import Denied, Forbidden, InvalidLabel, Unauthenticated
from core.labels import check_label, fold
from core.records import AccessScope, Labels, Principal
from store.pool import Conn, set_scope

EPOCH = "SELECT access_epoch FROM tenants WHERE id = %s"
CLOSED = "SELECT EXISTS (SELECT FROM closed_subjects WHERE tenant_id = %s AND subject = ANY(%s))"
VISIBLE = "SELECT coalesce(array_agg(v), '{}') FROM visible_label_sets(%s, %s, %s, %s, %s) v"
EVERY = """
    SELECT coalesce(array_agg(s.id), '{}') FROM label_sets s
    JOIN classifications c ON c.tenant_id = s.tenant_id AND c.name = s.classification
    WHERE s.tenant_id = %(tenant)s
      AND (%(ceiling)s::text[] IS NULL OR s.allow && %(ceiling)s)
      AND (%(top)s::text IS NULL
           OR c.rank <= (SELECT rank FROM classifications WHERE tenant_id = %(tenant)s AND name = %(top)s))
"""
INTERN = """
    INSERT INTO label_sets (tenant_id, allow, deny, classification, hash) VALUES (%s, %s, %s, %s, %s)
    ON CONFLICT (tenant_id, hash) DO NOTHING RETURNING id
"""
INTERNED = "SELECT id FROM label_sets WHERE (tenant_id, hash) = (%s, %s)"
LABELS = "SELECT allow, deny, classification FROM label_sets WHERE id = %s"
RANKS = "SELECT name FROM classifications WHERE tenant_id = %s ORDER BY rank"
CLEAR_MEMBERS = "DELETE FROM memberships WHERE tenant_id = %s AND origin = 'file'"
CLEAR_CLEARANCES = "DELETE FROM clearances WHERE tenant_id = %s"
ADD_MEMBER = "INSERT INTO memberships (tenant_id, member, group_label) VALUES (%s, %s, %s) ON CONFLICT DO NOTHING"
ADD_CLEARANCE = "INSERT INTO clearances (tenant_id, subject, classification) VALUES (%s, %s, %s)"
BUMP_EPOCH = "UPDATE tenants SET access_epoch = access_epoch + 1 WHERE id = %s"


def enter_scope(conn: Conn, principal: Principal) -> AccessScope:
    """Resolve what the principal may see in this transaction, and set the transaction to it.

    The epoch and the label sets come from the transaction's own snapshot, so a search that starts after a
    revocation's commit cannot use the old grant. Raises Unauthenticated or Forbidden for a closed subject.
    """
    check_open(conn, principal)
    label_sets = visible_label_sets(conn, principal)
    (epoch,) = conn.execute(EPOCH, (principal.tenant_id,)).fetchone() or (0,)
    scope = AccessScope(principal.tenant_id, principal.subject, label_sets, epoch)
    set_scope(conn, scope)
    return scope


def check_open(conn: Conn, principal: Principal) -> None:
    """Raises Forbidden towards a service that acts for a closed subject, and Unauthenticated towards the subject."""
    row = conn.execute(CLOSED, (principal.tenant_id, [principal.subject, fold(principal.subject)])).fetchone()
    if row is None or row[0]:
        raise _closed(principal)


def _closed(principal: Principal) -> Denied:
    if principal.via and principal.via.startswith("service:"):
        return Forbidden(f"{principal.subject} was deactivated by its directory")
    return Unauthenticated()


def visible_label_sets(conn: Conn, principal: Principal) -> tuple[int, ...]:
    """Ids of the label sets that the principal may see; the definition itself is the SQL function of that name."""
    ceiling = None if principal.ceiling is None else list(principal.ceiling)
    top = principal.max_classification
    if principal.bypass:  # the subject's grants do not count; what the credential is cut to does
        row = conn.execute(EVERY, {"tenant": principal.tenant_id, "ceiling": ceiling, "top": top}).fetchone()
    else:
        asked = (principal.tenant_id, principal.subject, list(principal.claims), ceiling, top)
        row = conn.execute(VISIBLE, asked).fetchone()
    return tuple(sorted(row[0])) if row else ()


def intern_labels(conn: Conn, tenant_id: UUID, labels: Labels) -> int:
    """The id of this label set, made when new. Raises InvalidLabel for a classification off the tenant's scale."""
    parts = [list(labels.allow), list(labels.deny), labels.classification]
    key = (tenant_id, hashlib.sha256(json.dumps(parts).encode()).digest())
    row = conn.execute(INTERNED, key).fetchone()
    if row is None:
        _check_classification(conn, tenant_id, labels.classification)
        values = (tenant_id, *parts, key[1])
        row = conn.execute(INTERN, values).fetchone() or conn.execute(INTERNED, key).fetchone()
    assert row is not None
    return int(row[0])


def labels_of(conn: Conn, label_set_id: int) -> Labels:
    """The label set of that id."""
    row = conn.execute(LABELS, (label_set_id,)).fetchone()
    assert row is not None, "label sets are never deleted while something refers to them"
    return Labels(tuple(row[0]), tuple(row[1]), row[2])


def narrowed(conn: Conn, tenant_id: UUID, old: Labels, new: Labels) -> Labels:
    """Labels under which nobody sees more than under `old`, nor more than under `new`.

    The exact meet of two any-of lists is not an any-of list; their intersection is within it, so it fails closed.
    """
    scale = scale_of(conn, tenant_id)
    return Labels(
        allow=tuple(sorted(set(old.allow) & set(new.allow))),
        deny=tuple(sorted(set(old.deny) | set(new.deny))),
        classification=max(old.classification, new.classification, key=scale.index),
    )


def scale_of(conn: Conn, tenant_id: UUID) -> list[str]:
    """The tenant's classifications, lowest first."""
    return [name for (name,) in conn.execute(RANKS, (tenant_id,)).fetchall()]


def replace_groups(
    conn: Conn, tenant_id: UUID, groups: Mapping[str, Sequence[str]], clearances: Mapping[str, str]
) -> None:
    """Make these the tenant's groups (group → members) and clearances (subject → classification); what a directory
    pushed stays beside them.

    Raises InvalidLabel for a label without a namespace or a classification off the scale.
    """
    conn.execute(CLEAR_MEMBERS, (tenant_id,))
    conn.execute(CLEAR_CLEARANCES, (tenant_id,))
    for group, members in groups.items():
        for member in members:
            conn.execute(ADD_MEMBER, (tenant_id, check_label(member), check_label(group)))
    for subject, classification in clearances.items():
        _check_classification(conn, tenant_id, classification)
        conn.execute(ADD_CLEARANCE, (tenant_id, check_label(subject), classification))
    conn.execute(BUMP_EPOCH, (tenant_id,))


def _check_classification(conn: Conn, tenant_id: UUID, classification: str) -> None:
    scale = scale_of(conn, tenant_id)
    if classification not in scale:
        raise InvalidLabel(f"{classification[:80]!r} is not a classification of this tenant: choose from {scale}")
