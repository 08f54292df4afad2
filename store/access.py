"""Label sets, groups, clearances, and the scope that they give a principal."""

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from uuid import UUID

import psycopg
from psycopg.types.json import Jsonb

from core.errors import Conflict, Denied, Forbidden, InvalidLabel, NotFound, Unauthenticated
from core.labels import check_label, fold
from core.records import AccessScope, Labels, Principal
from store.pool import MAKE_SETTINGS, NOTHING, Conn, scope_settings, set_scope
from store.scopes import Resolved, ScopeCache

CLOSED = "SELECT EXISTS (SELECT FROM closed_subjects WHERE tenant_id = %s AND subject = ANY(%s))"
# A label set is new to a scope when its transaction was not below the snapshot that the scope was resolved in: ids
# would not do, since a lower one may be committed after a higher. A transaction that has written may be rolled back,
# and its epoch with it: nothing of it is kept. A kept scope that still holds is entered by the same statement, for a
# round trip costs as much as all the rest. Label sets get their ids anew in a database that was restored under a
# running process: a scope is used again only where the newest set that it was resolved among still is.
ENTER = f"""
    WITH now AS MATERIALIZED (
        SELECT t.access_epoch AS epoch, pg_snapshot_xmin(pg_current_snapshot())::text::bigint AS below,
               coalesce((SELECT s.xid::text::bigint FROM label_sets s WHERE s.tenant_id = t.id
                         ORDER BY s.xid DESC LIMIT 1), 0) AS newest,
               %(newest)s = 0 OR EXISTS (SELECT FROM label_sets s WHERE s.tenant_id = t.id
                                         AND s.xid = %(newest)s::text::xid8) AS same,
               pg_current_xact_id_if_assigned() IS NULL AS may_keep,
               EXISTS (SELECT FROM closed_subjects WHERE tenant_id = t.id AND subject = ANY(%(subjects)s)) AS closed
        FROM tenants t WHERE t.id = %(tenant)s
    )
    SELECT epoch, below, newest, same, may_keep, closed,
           CASE WHEN may_keep AND NOT closed AND same AND epoch = %(epoch)s AND newest < %(decided)s
                THEN num_nulls({MAKE_SETTINGS}) = 0 END AS entered
    FROM now
"""  # noqa: S608  the text is our own
VISIBLE = """
    SELECT coalesce(array_agg(v), '{}')
    FROM visible_label_sets(%(tenant)s, %(subject)s, %(claims)s, %(ceiling)s, %(top)s, %(since)s::text::xid8) v
"""
EVERY = """
    SELECT coalesce(array_agg(s.id), '{}') FROM label_sets s
    JOIN classifications c ON c.tenant_id = s.tenant_id AND c.name = s.classification
    WHERE s.tenant_id = %(tenant)s AND s.xid >= %(since)s::text::xid8
      AND (%(ceiling)s::text[] IS NULL OR s.allow && %(ceiling)s)
      AND (%(top)s::text IS NULL
           OR c.rank <= (SELECT rank FROM classifications WHERE tenant_id = %(tenant)s AND name = %(top)s))
"""
INTERN = """
    INSERT INTO label_sets (tenant_id, allow, deny, classification, hash) VALUES (%s, %s, %s, %s, %s)
    ON CONFLICT (tenant_id, hash) DO NOTHING RETURNING id
"""
# Locked until the commit, lest the set be given other labels before what is being submitted is under it.
INTERNED = "SELECT id FROM label_sets WHERE (tenant_id, hash) = (%s, %s) FOR KEY SHARE"
INTERN_MANY = """
    INSERT INTO label_sets (tenant_id, allow, deny, classification, hash)
    SELECT %s, w.allow, w.deny, w.classification, decode(w.hash, 'hex')
    FROM jsonb_to_recordset(%s) AS w (allow text[], deny text[], classification text, hash text)
    ON CONFLICT (tenant_id, hash) DO NOTHING
"""
INTERNED_MANY = "SELECT hash, id FROM label_sets WHERE tenant_id = %s AND hash = ANY(%s) FOR KEY SHARE"
OPEN = """
    SELECT d.id FROM documents d JOIN label_sets s ON s.id = d.label_set_id
    JOIN classifications c ON c.tenant_id = s.tenant_id AND c.name = s.classification
    WHERE d.id = ANY(%s) AND 'public' = ANY(s.allow) AND s.deny = '{}' AND c.rank <= ALL (
        SELECT l.rank FROM classifications l JOIN tenants t ON t.id = l.tenant_id
        WHERE t.id = s.tenant_id AND (l.name = t.default_clearance OR l.name IN (
            SELECT e.classification FROM clearances e WHERE e.tenant_id = t.id)))
"""
LABELS = "SELECT allow, deny, classification FROM label_sets WHERE id = %s"
RANKS = "SELECT name FROM classifications WHERE tenant_id = %s ORDER BY rank"
RELABEL = """
    UPDATE label_sets s SET allow = %(allow)s, deny = %(deny)s, classification = %(classification)s,
        hash = CASE WHEN EXISTS (SELECT FROM label_sets o
                                 WHERE o.tenant_id = s.tenant_id AND o.hash = %(hash)s AND o.id <> s.id)
                    THEN sha256(%(hash)s || s.id::text::bytea) ELSE %(hash)s END
    WHERE s.id = %(id)s AND s.tenant_id = %(tenant)s
"""
FOLLOWING = "SELECT count(*) FROM documents WHERE label_set_id = %s"
# What stays as it is, is not touched: loading the same groups again moves no epoch. What a directory pushed stays too.
DROP_MEMBERS = """
    DELETE FROM memberships WHERE tenant_id = %s AND origin = 'file'
       AND (member, group_label) NOT IN (SELECT * FROM unnest(%s::text[], %s::text[]))
"""
ADD_MEMBERS = """
    INSERT INTO memberships (tenant_id, member, group_label, origin)
    SELECT %s, m, g, 'file' FROM unnest(%s::text[], %s::text[]) AS w (m, g) ON CONFLICT DO NOTHING
"""
DROP_CLEARANCES = "DELETE FROM clearances WHERE tenant_id = %s AND subject <> ALL (%s::text[])"
SET_CLEARANCES = """
    INSERT INTO clearances AS c (tenant_id, subject, classification)
    SELECT %s, s, k FROM unnest(%s::text[], %s::text[]) AS w (s, k)
    ON CONFLICT (tenant_id, subject) DO UPDATE SET classification = excluded.classification
    WHERE c.classification <> excluded.classification
"""


def enter_scope(conn: Conn, principal: Principal, kept: ScopeCache | None = None) -> AccessScope:
    """Resolve what the principal may see in this transaction, and set the transaction to it.

    The epoch and the label sets come from the transaction's own snapshot, so a search that starts after a
    revocation's commit cannot use the old grant. What is `kept` is used when nothing was granted or revoked since.
    Raises Unauthenticated or Forbidden for a closed subject, whatever is kept.
    """
    found = kept.get(principal) if kept else None
    epoch, below, newest, same, may_keep, closed, entered = _enter(conn, principal, found)
    if closed:
        raise _closed(principal)
    if found and entered:
        return found.scope
    if found and may_keep and same and found.scope.epoch == epoch:
        resolved = _with_new(conn, principal, found, below, newest)
    else:
        ids = visible_label_sets(conn, principal)
        resolved = Resolved(AccessScope(principal.tenant_id, principal.subject, ids, epoch), below, newest)
    if kept and may_keep:
        kept.put(principal, resolved)
    set_scope(conn, resolved.scope)
    return resolved.scope


def _enter(
    conn: Conn, principal: Principal, found: Resolved | None
) -> tuple[int, int, int, bool, bool, bool, bool | None]:
    """(epoch, below, newest, whether this is the database that `found` was resolved in, whether it may be kept, whether
    the subject is closed, whether `found` holds and was entered)."""
    values = {
        "tenant": principal.tenant_id,
        "subjects": [principal.subject, fold(principal.subject)],
        "epoch": found.scope.epoch if found else None,
        "decided": found.below if found else None,
        "newest": found.newest if found else 0,
        **(scope_settings(found.scope) if found else NOTHING),
    }
    return conn.execute(ENTER, values, prepare=True).fetchone() or (0, 0, 0, False, False, False, None)


def open_documents(conn: Conn, document_ids: Collection[UUID]) -> set[UUID]:
    """Those of the documents that this transaction's scope shows which are public, denied to nobody, and above nobody's
    clearance."""
    return {row[0] for row in conn.execute(OPEN, (list(document_ids),)).fetchall()}


def check_open(conn: Conn, principal: Principal) -> None:
    """Raises Forbidden towards a service that acts for a closed subject, and Unauthenticated towards the subject."""
    row = conn.execute(CLOSED, (principal.tenant_id, [principal.subject, fold(principal.subject)])).fetchone()
    if row is None or row[0]:
        raise _closed(principal)


def _closed(principal: Principal) -> Denied:
    if principal.via and principal.via.startswith("service:"):
        return Forbidden(f"{principal.subject} was deactivated by its directory")
    return Unauthenticated()


def _with_new(conn: Conn, principal: Principal, found: Resolved, below: int, newest: int) -> Resolved:
    """The same scope with the label sets that were added since."""
    scope = found.scope
    added = set(visible_label_sets(conn, principal, found.below)).difference(scope.label_set_ids)
    if added:
        scope = replace(scope, label_set_ids=tuple(sorted(added.union(scope.label_set_ids))))
    # an older snapshot than the scope's undoes nothing
    return Resolved(scope, max(below, found.below), max(newest, found.newest))


def visible_label_sets(conn: Conn, principal: Principal, since: int = 0) -> tuple[int, ...]:
    """Ids of the label sets that the principal may see; the definition itself is the SQL function of that name.

    With `since`, of those alone that a transaction of that id or a later one has added.
    """
    values = {"tenant": principal.tenant_id, "subject": principal.subject, "top": principal.max_classification,
              "claims": list(principal.claims),
              "ceiling": None if principal.ceiling is None else list(principal.ceiling), "since": since}  # fmt: skip
    # of a bypass, the subject's grants do not count; what the credential is cut to does
    row = conn.execute(EVERY if principal.bypass else VISIBLE, values).fetchone()
    return tuple(sorted(row[0])) if row else ()


def intern_labels(conn: Conn, tenant_id: UUID, labels: Labels) -> int:
    """The id of this label set, made when new. Raises InvalidLabel for a classification off the tenant's scale."""
    key = (tenant_id, _hash(labels))
    row = conn.execute(INTERNED, key).fetchone()
    if row is None:
        _check_classification(conn, tenant_id, labels.classification)
        values = (tenant_id, list(labels.allow), list(labels.deny), labels.classification, key[1])
        row = conn.execute(INTERN, values).fetchone() or conn.execute(INTERNED, key).fetchone()
    assert row is not None
    return int(row[0])


def intern_many(conn: Conn, tenant_id: UUID, wanted: Collection[Labels]) -> dict[Labels, int]:
    """As `intern_labels`, for each of many, in two statements. Raises InvalidLabel."""
    for classification in {labels.classification for labels in wanted}:
        _check_classification(conn, tenant_id, classification)
    hashes = {_hash(labels): labels for labels in wanted}
    rows = [{"allow": w.allow, "deny": w.deny, "classification": w.classification, "hash": digest.hex()}
            for digest, w in hashes.items()]  # fmt: skip
    conn.execute(INTERN_MANY, (tenant_id, Jsonb(rows)))
    found = conn.execute(INTERNED_MANY, (tenant_id, list(hashes))).fetchall()
    return {hashes[bytes(digest)]: label_set_id for digest, label_set_id in found}


def relabel_set(conn: Conn, tenant_id: UUID, label_set_id: int, labels: Labels) -> int:
    """Give a label set other labels: every document under it follows at the next query, and no other row is written.

    Returns how many documents that is. Sets of equal labels may then stand beside each other. Raises NotFound,
    InvalidLabel, Conflict.
    """
    _check_classification(conn, tenant_id, labels.classification)
    values = {"id": label_set_id, "tenant": tenant_id, "allow": list(labels.allow), "deny": list(labels.deny),
              "classification": labels.classification, "hash": _hash(labels)}  # fmt: skip
    try:
        found = conn.execute(RELABEL, values).rowcount
    except psycopg.errors.UniqueViolation as error:  # the same labels came up elsewhere, this very moment
        raise Conflict(f"label set {label_set_id} was not changed: try again") from error
    if not found:
        raise NotFound(f"there is no label set {label_set_id}: `citadel access explain` names a document's")
    row = conn.execute(FOLLOWING, (label_set_id,)).fetchone()
    return int(row[0]) if row else 0


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
    pairs = [(check_label(member), check_label(group)) for group, members in groups.items() for member in members]
    for classification in set(clearances.values()):
        _check_classification(conn, tenant_id, classification)
    members, above = [member for member, _ in pairs], [group for _, group in pairs]
    cleared = [check_label(subject) for subject in clearances]
    if twice := sorted({subject for subject in cleared if cleared.count(subject) > 1}):
        raise InvalidLabel(f"clearances: {twice[0]!r} is named twice, in two spellings of one name")
    conn.execute(DROP_MEMBERS, (tenant_id, members, above))
    conn.execute(ADD_MEMBERS, (tenant_id, members, above))
    conn.execute(DROP_CLEARANCES, (tenant_id, cleared))
    conn.execute(SET_CLEARANCES, (tenant_id, cleared, list(clearances.values())))


def _hash(labels: Labels) -> bytes:
    parts = [list(labels.allow), list(labels.deny), labels.classification]
    return hashlib.sha256(json.dumps(parts).encode()).digest()


def _check_classification(conn: Conn, tenant_id: UUID, classification: str) -> None:
    scale = scale_of(conn, tenant_id)
    if classification not in scale:
        raise InvalidLabel(f"{classification[:80]!r} is not a classification of this tenant: choose from {scale}")
