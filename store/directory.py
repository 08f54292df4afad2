"""What a directory pushed over SCIM: users, groups, and the memberships of the origin `scim`.

Every write holds the tenant's row, so that two pushes at once are one after the other. Triggers move the access epoch
with each change of who holds what. A user whom the directory deactivates, deletes or renames leaves a closed subject
behind. Whoever is renamed goes on holding the label of the former name, so that documents which allow or deny it do so
still, until somebody else is given that name.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, LiteralString
from uuid import UUID

import psycopg
from psycopg import sql
from psycopg.types.json import Jsonb

from core.errors import Conflict, Invalid, NotFound
from core.identity import DirectoryGroup, DirectoryUser, Member, MemberEdit, StoredGroup, StoredUser
from core.labels import fold, name_label
from store.pool import Conn

LOCK = "SELECT FROM tenants WHERE id = %s FOR NO KEY UPDATE"

USER = "SELECT id, user_name, active, external_id, profile, created_at, updated_at FROM scim_users"
GROUP = "SELECT id, display_name, external_id, created_at, updated_at, label FROM scim_groups"
COUNT_USERS, COUNT_GROUPS = "SELECT count(*) FROM scim_users", "SELECT count(*) FROM scim_groups"
PAGE = " ORDER BY created_at, id OFFSET %(skip)s LIMIT %(limit)s"
# What a list may be filtered by, as (attribute, column).
WHERE: dict[str, LiteralString] = {
    "": " WHERE tenant_id = %(tenant)s",
    "id": " WHERE tenant_id = %(tenant)s AND id = %(value)s::uuid",
    "externalid": " WHERE tenant_id = %(tenant)s AND external_id = %(value)s",
    "username": " WHERE tenant_id = %(tenant)s AND subject = %(value)s",
    "displayname": " WHERE tenant_id = %(tenant)s AND folded = %(value)s",
}
ADD_USER = """
    INSERT INTO scim_users (tenant_id, user_name, subject, external_id, active, profile)
    VALUES (%s, %s, %s, %s, %s, %s) RETURNING id
"""
SET_USER = """
    UPDATE scim_users SET (user_name, subject, external_id, active, profile, updated_at) = (%s, %s, %s, %s, %s, now())
    WHERE (tenant_id, id) = (%s, %s)
"""
DROP_USER = "DELETE FROM scim_users WHERE (tenant_id, id) = (%s, %s) RETURNING subject"
CLOSE = "INSERT INTO closed_subjects (tenant_id, subject) VALUES (%s, %s) ON CONFLICT DO NOTHING"
OPEN = "DELETE FROM closed_subjects WHERE (tenant_id, subject) = (%s, %s)"
ADD_GROUP = """
    INSERT INTO scim_groups (tenant_id, display_name, folded, label, external_id) VALUES (%s, %s, %s, %s, %s)
    RETURNING id
"""
SET_GROUP = """
    UPDATE scim_groups SET (display_name, folded, label, external_id, updated_at) = (%s, %s, %s, %s, now())
    WHERE (tenant_id, id) = (%s, %s)
"""
DROP_GROUP = "DELETE FROM scim_groups WHERE (tenant_id, id) = (%s, %s) RETURNING label"
TOUCH_GROUP = "UPDATE scim_groups SET updated_at = now() WHERE (tenant_id, id) = (%s, %s)"
LABELS = """
    SELECT subject FROM scim_users WHERE tenant_id = %(tenant)s AND id = ANY(%(ids)s)
    UNION ALL
    SELECT label FROM scim_groups WHERE tenant_id = %(tenant)s AND id = ANY(%(ids)s)
"""
MEMBERS = """
    SELECT u.id, u.user_name, 'User' FROM memberships m
    JOIN scim_users u ON (u.tenant_id, u.subject) = (m.tenant_id, m.member)
    WHERE m.tenant_id = %(tenant)s AND m.group_label = %(label)s AND m.origin = 'scim'
    UNION ALL
    SELECT g.id, g.display_name, 'Group' FROM memberships m
    JOIN scim_groups g ON (g.tenant_id, g.label) = (m.tenant_id, m.member)
    WHERE m.tenant_id = %(tenant)s AND m.group_label = %(label)s AND m.origin = 'scim'
    ORDER BY 2, 1
"""
ADD_MEMBERS = """
    INSERT INTO memberships (tenant_id, member, group_label, origin)
    SELECT %s, unnest(%s::text[]), %s, 'scim' ON CONFLICT DO NOTHING
"""
DROP_MEMBERS = """
    DELETE FROM memberships
    WHERE tenant_id = %s AND group_label = %s AND origin = 'scim' AND member = ANY(%s)
"""
KEEP_MEMBERS = """
    DELETE FROM memberships
    WHERE tenant_id = %s AND group_label = %s AND origin = 'scim' AND member <> ALL(%s)
"""
FORGET = """
    DELETE FROM memberships
    WHERE tenant_id = %(tenant)s AND origin = 'scim' AND (member = %(label)s OR group_label = %(label)s)
"""
DROP_FORMER_NAME = "DELETE FROM memberships WHERE tenant_id = %s AND origin = 'scim' AND group_label = %s"
RENAME_MEMBER = "UPDATE memberships SET member = %s WHERE tenant_id = %s AND origin = 'scim' AND member = %s"
RENAME_GROUP = "UPDATE memberships SET group_label = %s WHERE tenant_id = %s AND origin = 'scim' AND group_label = %s"

TAKEN = "{} is taken by another {} of this directory"

# --- users ----------------------------------------------------------------------------------------------------------


def create_user(conn: Conn, tenant_id: UUID, user: DirectoryUser) -> StoredUser:
    """Keep a new user; an active one is open from now on. Raises Conflict, InvalidLabel."""
    _lock(conn, tenant_id)
    subject = _subject(user)
    row = (tenant_id, user.user_name, subject, user.external_id, user.active, Jsonb(user.profile))
    try:
        made = conn.execute(ADD_USER, row).fetchone()
    except psycopg.errors.UniqueViolation as error:
        raise Conflict(TAKEN.format(user.user_name[:80], "user")) from error
    assert made is not None
    conn.execute(DROP_FORMER_NAME, (tenant_id, subject))
    _set_open(conn, tenant_id, subject, user.active)
    return get_user(conn, tenant_id, made[0])


def get_user(conn: Conn, tenant_id: UUID, user_id: UUID) -> StoredUser:
    """The user. Raises NotFound."""
    found, _ = find_users(conn, tenant_id, ("id", str(user_id)), 0, 1)
    if not found:
        raise NotFound("there is no such user")
    return found[0]


def find_users(
    conn: Conn, tenant_id: UUID, match: tuple[str, str] | None, skip: int, limit: int
) -> tuple[list[StoredUser], int]:
    """A page of the users, oldest first, and how many there are; `match` is an attribute (in lower case), its value."""
    if match and match[0] == "username":
        match = ("username", _subject(DirectoryUser(match[1])))
    rows, total = _page(conn, tenant_id, USER, COUNT_USERS, match, skip, limit)
    return [StoredUser(row[0], DirectoryUser(*row[1:5]), *row[5:]) for row in rows], total


def change_user(conn: Conn, tenant_id: UUID, user_id: UUID, user: DirectoryUser) -> StoredUser:
    """Make the user so, in the transaction of `locked_user`. Raises NotFound, Conflict, InvalidLabel."""
    old = get_user(conn, tenant_id, user_id)
    before, subject = _subject(old.user), _subject(user)
    row = (user.user_name, subject, user.external_id, user.active, Jsonb(user.profile), tenant_id, user_id)
    try:
        conn.execute(SET_USER, row)
    except psycopg.errors.UniqueViolation as error:
        raise Conflict(TAKEN.format(user.user_name[:80], "user")) from error
    if subject != before:
        _rename(conn, tenant_id, before, subject)
        _set_open(conn, tenant_id, before, False)
    _set_open(conn, tenant_id, subject, user.active)
    return get_user(conn, tenant_id, user_id)


def locked_user(conn: Conn, tenant_id: UUID, user_id: UUID) -> StoredUser:
    """The user, whom nobody else changes until this transaction ends. Raises NotFound."""
    _lock(conn, tenant_id)
    return get_user(conn, tenant_id, user_id)


def delete_user(conn: Conn, tenant_id: UUID, user_id: UUID) -> None:
    """Forget the user and keep its name closed. Raises NotFound."""
    _lock(conn, tenant_id)
    row = conn.execute(DROP_USER, (tenant_id, user_id)).fetchone()
    if row is None:
        raise NotFound("there is no such user")
    conn.execute(FORGET, {"tenant": tenant_id, "label": row[0]})
    _set_open(conn, tenant_id, row[0], False)


# --- groups ---------------------------------------------------------------------------------------------------------


def create_group(conn: Conn, tenant_id: UUID, group: DirectoryGroup, members: Sequence[UUID]) -> StoredGroup:
    """Keep a new group. Raises Conflict for a name that another group has in any case, Invalid for unknown members."""
    _lock(conn, tenant_id)
    values = (tenant_id, group.display_name, fold(group.display_name), _label(group), group.external_id)
    try:
        made = conn.execute(ADD_GROUP, values).fetchone()
    except psycopg.errors.UniqueViolation as error:
        raise Conflict(TAKEN.format(group.display_name[:80], "group")) from error
    assert made is not None
    conn.execute(DROP_FORMER_NAME, (tenant_id, _label(group)))
    edit_members(conn, tenant_id, made[0], [MemberEdit("add", tuple(members))])
    return get_group(conn, tenant_id, made[0])


def get_group(conn: Conn, tenant_id: UUID, group_id: UUID, *, members: bool = True) -> StoredGroup:
    """The group. Raises NotFound."""
    found, _ = find_groups(conn, tenant_id, ("id", str(group_id)), 0, 1, members=members)
    if not found:
        raise NotFound("there is no such group")
    return found[0]


def locked_group(conn: Conn, tenant_id: UUID, group_id: UUID) -> StoredGroup:
    """The group without its members; nobody else changes it until this transaction ends. Raises NotFound."""
    _lock(conn, tenant_id)
    return get_group(conn, tenant_id, group_id, members=False)


def find_groups(
    conn: Conn, tenant_id: UUID, match: tuple[str, str] | None, skip: int, limit: int, *, members: bool = True
) -> tuple[list[StoredGroup], int]:
    """A page of the groups, oldest first, and how many there are; `match` as for users."""
    if match and match[0] == "displayname":
        match = ("displayname", fold(match[1]))
    rows, total = _page(conn, tenant_id, GROUP, COUNT_GROUPS, match, skip, limit)
    groups = [StoredGroup(row[0], DirectoryGroup(row[1], row[2]), None, row[3], row[4]) for row in rows]
    if not members:
        return groups, total
    return [replace(group, members=_members(conn, tenant_id, _label(group.group))) for group in groups], total


def change_group(conn: Conn, tenant_id: UUID, group_id: UUID, group: DirectoryGroup) -> None:
    """Give the group this name and external id, in the transaction of `locked_group`.

    Raises NotFound, Conflict, InvalidLabel.
    """
    before, label = _label(get_group(conn, tenant_id, group_id, members=False).group), _label(group)
    values = (group.display_name, fold(group.display_name), label, group.external_id, tenant_id, group_id)
    try:
        conn.execute(SET_GROUP, values)
    except psycopg.errors.UniqueViolation as error:
        raise Conflict(TAKEN.format(group.display_name[:80], "group")) from error
    if label != before:
        _rename(conn, tenant_id, before, label)


def edit_members(conn: Conn, tenant_id: UUID, group_id: UUID, edits: Sequence[MemberEdit]) -> None:
    """Apply the edits in order. Raises NotFound, or Invalid for members that the directory did not push.

    Removing what is no member does nothing: a directory repeats itself.
    """
    label = _label(get_group(conn, tenant_id, group_id, members=False).group)
    changed = 0
    for edit in edits:
        labels = _labels_of(conn, tenant_id, edit)
        if edit.op == "remove":
            changed += conn.execute(DROP_MEMBERS, (tenant_id, label, labels)).rowcount
            continue
        if edit.op == "replace":
            changed += conn.execute(KEEP_MEMBERS, (tenant_id, label, labels)).rowcount
        changed += conn.execute(ADD_MEMBERS, (tenant_id, labels, label)).rowcount
    if changed:
        conn.execute(TOUCH_GROUP, (tenant_id, group_id))


def delete_group(conn: Conn, tenant_id: UUID, group_id: UUID) -> None:
    """Forget the group and its memberships. Raises NotFound."""
    _lock(conn, tenant_id)
    row = conn.execute(DROP_GROUP, (tenant_id, group_id)).fetchone()
    if row is None:
        raise NotFound("there is no such group")
    conn.execute(FORGET, {"tenant": tenant_id, "label": row[0]})


# --- both -----------------------------------------------------------------------------------------------------------


def _lock(conn: Conn, tenant_id: UUID) -> None:
    conn.execute(LOCK, (tenant_id,))


def _subject(user: DirectoryUser) -> str:
    return name_label("user:", fold(user.user_name))


def _label(group: DirectoryGroup) -> str:
    return name_label("group:", group.display_name)


def _rename(conn: Conn, tenant_id: UUID, before: str, after: str) -> None:
    conn.execute(DROP_FORMER_NAME, (tenant_id, after))
    conn.execute(RENAME_MEMBER, (after, tenant_id, before))
    conn.execute(RENAME_GROUP, (after, tenant_id, before))
    conn.execute(ADD_MEMBERS, (tenant_id, [after], before))


def _set_open(conn: Conn, tenant_id: UUID, subject: str, is_open: bool) -> None:
    conn.execute(OPEN if is_open else CLOSE, (tenant_id, subject))


def _members(conn: Conn, tenant_id: UUID, label: str) -> tuple[Member, ...]:
    rows = conn.execute(MEMBERS, {"tenant": tenant_id, "label": label}).fetchall()
    return tuple(Member(*row) for row in rows)


def _labels_of(conn: Conn, tenant_id: UUID, edit: MemberEdit) -> list[str]:
    ids = list(set(edit.ids))
    labels = [row[0] for row in conn.execute(LABELS, {"tenant": tenant_id, "ids": ids}).fetchall()]
    if len(labels) != len(ids) and edit.op != "remove":
        raise Invalid("members: push users and groups first, then name them by the ids that they were given")
    return labels


def _is_uuid(text: str) -> bool:
    try:
        UUID(text)
    except ValueError:
        return False
    return True


def _page(
    conn: Conn, tenant_id: UUID, rows: LiteralString, count: LiteralString, match: tuple[str, str] | None,
    skip: int, limit: int,
) -> tuple[list[tuple[Any, ...]], int]:  # fmt: skip
    if match and match[0] == "id" and not _is_uuid(match[1]):
        return [], 0
    where = WHERE[match[0] if match else ""]
    values = {"tenant": tenant_id, "value": match[1] if match else "", "skip": skip, "limit": limit}
    total = conn.execute(sql.SQL(count) + sql.SQL(where), values).fetchone()
    assert total is not None
    return conn.execute(sql.SQL(rows) + sql.SQL(where) + sql.SQL(PAGE), values).fetchall(), total[0]
