"""Who may come in by what: keys, providers of tokens, and the users and groups that a directory pushes (SCIM 2.0)."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal
from uuid import UUID


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A credential of a service; the secret itself is never stored."""

    id: UUID
    tenant_id: UUID
    name: str
    scopes: frozenset[str]  # of: search, ingest, act_for, operate, provision
    ceiling: tuple[str, ...] | None
    max_classification: str | None
    require_act_for: bool
    noted: bool = True  # its last use was written down within a minute


@dataclass(frozen=True, slots=True)
class IdentityProvider:
    """Whose tokens a tenant believes, and what they make of their bearer. Never changed: removed, and added anew."""

    id: UUID
    tenant_id: UUID
    name: str
    issuer: str
    audience: str
    algorithms: tuple[str, ...]  # asymmetric ones only
    jwks_url: str | None  # this, or the keys themselves
    jwks: dict[str, Any] | None
    subject_claim: str  # its value becomes user:<value>
    fold_case: bool  # in lower case, as the directory's user names are
    group_claim: str | None
    group_prefix: str  # each of the group claim's values becomes <prefix><value>
    scopes: tuple[str, ...]


# --- directory (SCIM 2.0, RFC 7643) -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class DirectoryUser:
    """A user as a directory pushed it; `profile` is given back and otherwise unused."""

    user_name: str
    active: bool = True
    external_id: str | None = None
    profile: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class DirectoryGroup:
    """A group as a directory pushed it, without its members."""

    display_name: str
    external_id: str | None = None


@dataclass(frozen=True, slots=True)
class MemberEdit:
    """A change of a group's members, by the ids of users and groups."""

    op: Literal["add", "remove", "replace"]
    ids: tuple[UUID, ...]


@dataclass(frozen=True, slots=True)
class Member:
    """A member of a group."""

    id: UUID
    name: str
    kind: Literal["User", "Group"]


@dataclass(frozen=True, slots=True)
class StoredUser:
    """A pushed user with what the store gave it."""

    id: UUID
    user: DirectoryUser
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class StoredGroup:
    """A pushed group with what the store gave it; members are None where they were not asked for."""

    id: UUID
    group: DirectoryGroup
    members: tuple[Member, ...] | None
    created_at: datetime
    updated_at: datetime
