"""SCIM 2.0 (RFC 7643, RFC 7644) as Entra ID and Okta speak it: bodies and patches in, resources out.

Attribute names and operations are compared without case (RFC 7643, 2.1): an `Active: False` that is passed over would
leave somebody in. Attributes that nothing here depends on are accepted and passed over.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Annotated, Any, TypeVar
from uuid import UUID

from fastapi.responses import JSONResponse
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from api.schemas import JsonObject, Text
from core.errors import Invalid, InvalidFilter
from core.identity import DirectoryGroup, DirectoryUser, MemberEdit, StoredGroup, StoredUser

T = TypeVar("T", bound=BaseModel)

SCIM_JSON = "application/scim+json"
USER = "urn:ietf:params:scim:schemas:core:2.0:User"
GROUP = "urn:ietf:params:scim:schemas:core:2.0:Group"
LIST = "urn:ietf:params:scim:api:messages:2.0:ListResponse"
PROFILE = ("name", "displayName", "emails")  # kept as they come and given back: directories compare
MAX_NAME = 200

FILTER = re.compile(r'\s*([A-Za-z]+)\s+eq\s+("(?:[^"\\]|\\.)*")\s*', re.IGNORECASE)
ONE_MEMBER = re.compile(r'members\[\s*value\s+eq\s+"([^"]*)"\s*\]', re.IGNORECASE)
URN = re.compile(r"urn:ietf:params:scim:schemas:core:2\.0:(?:User|Group):", re.IGNORECASE)


class BadRequest(Invalid):
    """A body that breaks SCIM's rules, with SCIM's own word for how (RFC 7644, 3.12)."""

    def __init__(self, scim_type: str, detail: str) -> None:
        super().__init__(detail)
        self.scim_type = scim_type


class ScimAnswer(JSONResponse):
    """JSON under SCIM's own media type (RFC 7644, 8.1)."""

    media_type = SCIM_JSON


def _truth(value: Any) -> Any:
    """Entra sends `active` as "True" or "False" unless it is told to follow the standard."""
    return {"true": True, "false": False}.get(value.lower(), value) if isinstance(value, str) else value


def _lowered(body: Any) -> Any:
    if not isinstance(body, dict):
        return body
    lowered = {str(name).lower(): value for name, value in body.items()}
    if len(lowered) != len(body):
        raise ValueError("an attribute is given twice")
    return lowered


def _uuid(value: str) -> str:
    return str(UUID(value))


class _Resource(BaseModel):
    """Attributes under their lower-case names; what is not named here is passed over."""

    model_config = ConfigDict(extra="ignore", strict=True)

    _lower = model_validator(mode="before")(_lowered)


class MemberIn(_Resource):
    """A member by its id here."""

    value: Annotated[str, AfterValidator(_uuid)]


def _shown(**example: Any) -> ConfigDict:
    """The names as SCIM writes them, for the OpenAPI document."""
    return ConfigDict(extra="ignore", strict=True, json_schema_extra={"examples": [example]})


class UserIn(_Resource):
    """A user to create or replace."""

    model_config = _shown(schemas=[USER], userName="ana@acme.example", externalId="00u1", active=True)

    username: Text = Field(min_length=1, max_length=MAX_NAME)
    externalid: Text | None = Field(default=None, max_length=512)
    active: Annotated[bool | None, BeforeValidator(_truth)] = None
    name: JsonObject | None = None
    displayname: Text | None = Field(default=None, max_length=1024)
    emails: list[JsonObject] | None = Field(default=None, max_length=20)

    def record(self, active: bool) -> DirectoryUser:
        """As the store takes it; `active` where it is not said."""
        given = {"name": self.name, "displayName": self.displayname, "emails": self.emails}
        profile = {name: value for name, value in given.items() if value is not None}
        return DirectoryUser(self.username, active if self.active is None else self.active, self.externalid, profile)


class GroupIn(_Resource):
    """A group to create or replace."""

    model_config = _shown(schemas=[GROUP], displayName="finance", members=[])

    displayname: Text = Field(min_length=1, max_length=MAX_NAME)
    externalid: Text | None = Field(default=None, max_length=512)
    members: list[MemberIn] | None = None

    def record(self) -> DirectoryGroup:
        """As the store takes it."""
        return DirectoryGroup(self.displayname, self.externalid)

    def member_ids(self) -> tuple[UUID, ...]:
        """The members' ids."""
        return tuple(UUID(member.value) for member in self.members or ())


class OperationIn(_Resource):
    """One operation of a patch."""

    op: str
    path: str | None = Field(default=None, max_length=400)
    value: Any = None


class PatchIn(_Resource):
    """A patch (RFC 7644, 3.5.2)."""

    model_config = _shown(
        schemas=["urn:ietf:params:scim:api:messages:2.0:PatchOp"],
        Operations=[{"op": "replace", "path": "active", "value": False}],
    )

    operations: list[OperationIn] = Field(min_length=1, max_length=1000)


@dataclass(frozen=True, slots=True)
class Change:
    """One attribute's change: an operation in lower case, and a path as it came, without its schema's name."""

    op: str
    path: str
    value: Any


def changes_of(patch: PatchIn) -> Iterator[Change]:
    """The operations; one without a path is one for each attribute of its value. Raises Invalid."""
    for operation in patch.operations:
        op = operation.op.lower()
        if op not in ("add", "remove", "replace"):
            raise BadRequest("invalidSyntax", f"{operation.op[:40]!r} is no operation: add, remove or replace")
        if operation.path is not None:
            yield Change(op, URN.sub("", operation.path.strip()), operation.value)
        elif op == "remove" or not isinstance(operation.value, dict):
            raise BadRequest("noTarget", "an operation without a path needs a value of attributes, and remove a path")
        else:
            for name, value in operation.value.items():
                yield Change(op, URN.sub("", name), value)


def patched_user(user: DirectoryUser, patch: PatchIn) -> DirectoryUser:
    """The user after the patch. Raises Invalid."""
    for change in changes_of(patch):
        user = _patched(user, change)
    return user


def _patched(user: DirectoryUser, change: Change) -> DirectoryUser:
    path = change.path.lower()
    attribute = re.split(r"[.\[]", path)[0]
    if attribute in ("active", "username") and (path != attribute or change.op == "remove"):
        raise BadRequest("mutability", f"{change.op} {change.path[:80]!r}: only the whole attribute can be replaced")
    if path == "active":
        return replace(user, active=_checked(_Active, active=change.value).active)
    if path == "username":
        return replace(user, user_name=_checked(UserIn, username=change.value).username)
    value = None if change.op == "remove" else change.value
    if path == "externalid":
        return replace(user, external_id=_checked(UserIn, username="x", externalid=value).externalid)
    if path.startswith("name.") and isinstance(value, str | None):
        path, value = "name", {**user.profile.get("name", {}), change.path[5:]: value}
    if path in map(str.lower, PROFILE):
        given = _checked(UserIn, username="x", **{path: value}).record(True).profile
        return replace(user, profile={k: old for k, old in user.profile.items() if k.lower() != path} | given)
    return user


class _Active(_Resource):
    active: Annotated[bool, BeforeValidator(_truth)]


def patched_group(group: DirectoryGroup, patch: PatchIn) -> tuple[DirectoryGroup, list[MemberEdit]]:
    """The group after the patch, and what changes about its members. Raises Invalid."""
    edits: list[MemberEdit] = []
    for change in changes_of(patch):
        path = change.path.lower()
        if path.startswith("members"):
            edits.append(_member_edit(change))
        elif path == "displayname" and change.op != "remove":
            group = replace(group, display_name=_checked(GroupIn, displayname=change.value).displayname)
        elif path == "externalid":
            value = None if change.op == "remove" else change.value
            group = replace(group, external_id=_checked(GroupIn, displayname="x", externalid=value).externalid)
        elif path not in ("id", "schemas", "meta"):  # Okta names the id beside what it changes
            raise BadRequest("invalidPath", f"a group has no {change.path[:80]!r} that {change.op} could change")
    return group, edits


def _member_edit(change: Change) -> MemberEdit:
    if one := ONE_MEMBER.fullmatch(change.path):
        if change.op != "remove":
            raise BadRequest("invalidPath", "a single member can only be removed")
        return MemberEdit("remove", _known([one[1]]))
    if change.path.lower() != "members":
        raise BadRequest("invalidPath", f'{change.path[:80]!r}: write members, or members[value eq "<id>"]')
    if change.op == "remove":
        if change.value is None:
            return MemberEdit("replace", ())
        return MemberEdit("remove", _known([_member(each) for each in _listed(change.value)]))
    ids = _checked(GroupIn, displayname="x", members=_listed(change.value)).member_ids()
    return MemberEdit("add" if change.op == "add" else "replace", ids)


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _member(value: Any) -> str:
    member = _lowered(value) if isinstance(value, dict) else {}
    if not isinstance(member.get("value"), str):
        raise BadRequest("invalidValue", 'a member is named by the id that it was given: {"value": "<id>"}')
    return str(member["value"])


def _known(ids: list[str]) -> tuple[UUID, ...]:
    """What could be ids of ours; no other is anybody's, so there is nothing to remove."""
    return tuple(UUID(each) for each in ids if re.fullmatch(r"[0-9a-fA-F-]{32,36}", each) and _is_uuid(each))


def _is_uuid(text: str) -> bool:
    try:
        UUID(text)
    except ValueError:
        return False
    return True


def _checked(kind: type[T], **fields: Any) -> T:
    try:
        return kind.model_validate(fields)
    except ValidationError as error:
        first = error.errors()[0]
        raise BadRequest("invalidValue", f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from error


def match_of(text: str | None, attributes: tuple[str, ...]) -> tuple[str, str] | None:
    """An equality filter (RFC 7644, 3.4.2.2) as an attribute, in lower case, and its value. Raises InvalidFilter."""
    if text is None:
        return None
    found = FILTER.fullmatch(text)
    if found is None or found[1].lower() not in attributes:
        raise InvalidFilter(f'a filter has the form <attribute> eq "<value>", with one of {", ".join(attributes)}')
    try:
        value = str(json.loads(found[2], strict=False))
        value.encode()
    except ValueError as error:
        raise InvalidFilter("the filter's value is no JSON string") from error
    if "\0" in value:
        raise InvalidFilter("the filter's value holds a NUL")
    return found[1].lower(), value


# --- out ------------------------------------------------------------------------------------------------------------


def user_out(stored: StoredUser, base: str) -> dict[str, Any]:
    """The resource as it is answered."""
    user = stored.user
    return {"schemas": [USER], "id": str(stored.id), **_named(user.external_id), "userName": user.user_name,
            "active": user.active, **user.profile,
            "meta": _meta("User", stored.id, stored.created_at, stored.updated_at, base)}  # fmt: skip


def group_out(stored: StoredGroup, base: str) -> dict[str, Any]:
    """The resource as it is answered, with its members unless they were left out."""
    members = [{"value": str(m.id), "display": m.name, "type": m.kind,
                "$ref": f"{base}/scim/v2/{m.kind}s/{m.id}"} for m in stored.members or ()]  # fmt: skip
    return {"schemas": [GROUP], "id": str(stored.id), **_named(stored.group.external_id),
            "displayName": stored.group.display_name, **({} if stored.members is None else {"members": members}),
            "meta": _meta("Group", stored.id, stored.created_at, stored.updated_at, base)}  # fmt: skip


def list_out(resources: list[dict[str, Any]], total: int, start: int) -> dict[str, Any]:
    """A page (RFC 7644, 3.4.2)."""
    return {"schemas": [LIST], "totalResults": total, "startIndex": start, "itemsPerPage": len(resources),
            "Resources": resources}  # fmt: skip


def _named(external_id: str | None) -> Mapping[str, str]:
    return {} if external_id is None else {"externalId": external_id}


def _meta(kind: str, resource_id: UUID, created: datetime, updated: datetime, base: str) -> dict[str, str]:
    return {"resourceType": kind, "created": created.isoformat(), "lastModified": updated.isoformat(),
            "location": f"{base}/scim/v2/{kind}s/{resource_id}"}  # fmt: skip
