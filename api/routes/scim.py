"""/scim/v2: a directory such as Entra ID or Okta pushes users and groups (RFC 7644), by a key that may `provision`."""

from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Query, Request

from api import scim
from api.deps import Caller, Provisioner, ServiceDep
from api.scim import GroupIn, PatchIn, ScimAnswer, UserIn, group_out, list_out, user_out
from api.service import Service
from core.identity import MemberEdit
from store import audit, directory
from store.pool import reading_tenant, writing

router = APIRouter(prefix="/scim/v2", tags=["scim"], default_response_class=ScimAnswer)

MAX_PAGE = 200
Filter = Annotated[str | None, Query(max_length=1000, description='Such as userName eq "ana@acme.example".')]
Start = Annotated[int, Query(alias="startIndex", le=2**31 - 1, description="The first to answer; they count from 1.")]
Count = Annotated[int, Query(description=f"How many to answer at most, up to {MAX_PAGE}.")]
Without = Annotated[str | None, Query(alias="excludedAttributes", max_length=400)]

USER_FILTERS = ("username", "externalid", "id")
GROUP_FILTERS = ("displayname", "externalid", "id")


@router.post("/Users", status_code=201, summary="Push a user")
def post_user(body: UserIn, caller: Provisioner, service: ServiceDep, request: Request) -> ScimAnswer:
    """Active unless it says otherwise."""
    with writing(service.store) as conn:
        stored = directory.create_user(conn, caller.principal.tenant_id, body.record(active=True))
    _record(service, caller, "user.create", f"user:{stored.id}", active=stored.user.active)
    return ScimAnswer(user_out(stored, _base(request)), 201)


@router.get("/Users", summary="List pushed users")
def get_users(
    caller: Provisioner, service: ServiceDep, request: Request,
    filter: Filter = None, start: Start = 1, count: Count = 100,
) -> ScimAnswer:  # fmt: skip
    """A page, oldest first."""
    match, tenant_id = scim.match_of(filter, USER_FILTERS), caller.principal.tenant_id
    start, limit = max(1, start), min(max(0, count), MAX_PAGE)
    with reading_tenant(service.store, tenant_id) as conn:
        found, total = directory.find_users(conn, tenant_id, match, start - 1, limit)
    return ScimAnswer(list_out([user_out(each, _base(request)) for each in found], total, start))


@router.get("/Users/{user_id}", summary="One pushed user")
def get_user(user_id: UUID, caller: Provisioner, service: ServiceDep, request: Request) -> ScimAnswer:
    """404 when this tenant's directory pushed none by that id."""
    with reading_tenant(service.store, caller.principal.tenant_id) as conn:
        return ScimAnswer(user_out(directory.get_user(conn, caller.principal.tenant_id, user_id), _base(request)))


@router.put("/Users/{user_id}", summary="Replace a user")
def put_user(user_id: UUID, body: UserIn, caller: Provisioner, service: ServiceDep, request: Request) -> ScimAnswer:
    """Without `active`, it stays as it was."""
    tenant_id = caller.principal.tenant_id
    with writing(service.store) as conn:
        old = directory.locked_user(conn, tenant_id, user_id)
        stored = directory.change_user(conn, tenant_id, user_id, body.record(old.user.active))
    _record(service, caller, "user.change", f"user:{user_id}", active=stored.user.active)
    return ScimAnswer(user_out(stored, _base(request)))


@router.patch("/Users/{user_id}", summary="Change a user")
def patch_user(user_id: UUID, body: PatchIn, caller: Provisioner, service: ServiceDep, request: Request) -> ScimAnswer:
    """`active: false` takes every label from the user; it holds at the next query."""
    tenant_id = caller.principal.tenant_id
    with writing(service.store) as conn:
        old = directory.locked_user(conn, tenant_id, user_id)
        stored = directory.change_user(conn, tenant_id, user_id, scim.patched_user(old.user, body))
    _record(service, caller, "user.change", f"user:{user_id}", active=stored.user.active)
    return ScimAnswer(user_out(stored, _base(request)))


@router.delete("/Users/{user_id}", status_code=204, summary="Delete a user")
def delete_user(user_id: UUID, caller: Provisioner, service: ServiceDep) -> None:
    """Its name holds no label from now on."""
    with writing(service.store) as conn:
        directory.delete_user(conn, caller.principal.tenant_id, user_id)
    _record(service, caller, "user.delete", f"user:{user_id}")


@router.post("/Groups", status_code=201, summary="Push a group")
def post_group(body: GroupIn, caller: Provisioner, service: ServiceDep, request: Request) -> ScimAnswer:
    """Its members hold the label `group:<displayName>`."""
    with writing(service.store) as conn:
        stored = directory.create_group(conn, caller.principal.tenant_id, body.record(), body.member_ids())
    _record(service, caller, "group.create", f"group:{stored.id}")
    return ScimAnswer(group_out(stored, _base(request)), 201)


@router.get("/Groups", summary="List pushed groups")
def get_groups(
    caller: Provisioner, service: ServiceDep, request: Request,
    filter: Filter = None, start: Start = 1, count: Count = 100, without: Without = None,
) -> ScimAnswer:  # fmt: skip
    """A page, oldest first."""
    match, tenant_id = scim.match_of(filter, GROUP_FILTERS), caller.principal.tenant_id
    start, limit = max(1, start), min(max(0, count), MAX_PAGE)
    with reading_tenant(service.store, tenant_id) as conn:
        found, total = directory.find_groups(conn, tenant_id, match, start - 1, limit, members=_with_members(without))
    return ScimAnswer(list_out([group_out(each, _base(request)) for each in found], total, start))


@router.get("/Groups/{group_id}", summary="One pushed group")
def get_group(
    group_id: UUID, caller: Provisioner, service: ServiceDep, request: Request, without: Without = None
) -> ScimAnswer:
    """404 when this tenant's directory pushed none by that id."""
    tenant_id = caller.principal.tenant_id
    with reading_tenant(service.store, tenant_id) as conn:
        stored = directory.get_group(conn, tenant_id, group_id, members=_with_members(without))
    return ScimAnswer(group_out(stored, _base(request)))


@router.put("/Groups/{group_id}", summary="Replace a group")
def put_group(group_id: UUID, body: GroupIn, caller: Provisioner, service: ServiceDep, request: Request) -> ScimAnswer:
    """Its members are those given, and none when none are."""
    tenant_id = caller.principal.tenant_id
    with writing(service.store) as conn:
        directory.locked_group(conn, tenant_id, group_id)
        directory.change_group(conn, tenant_id, group_id, body.record())
        directory.edit_members(conn, tenant_id, group_id, [MemberEdit("replace", body.member_ids())])
        stored = directory.get_group(conn, tenant_id, group_id)
    _record(service, caller, "group.change", f"group:{group_id}")
    return ScimAnswer(group_out(stored, _base(request)))


@router.patch("/Groups/{group_id}", status_code=204, summary="Change a group")
def patch_group(group_id: UUID, body: PatchIn, caller: Provisioner, service: ServiceDep) -> None:
    """Members come and go at the next query. The answer is empty: a group may be large."""
    tenant_id = caller.principal.tenant_id
    with writing(service.store) as conn:
        old = directory.locked_group(conn, tenant_id, group_id)
        group, edits = scim.patched_group(old.group, body)
        if group != old.group:
            directory.change_group(conn, tenant_id, group_id, group)
        directory.edit_members(conn, tenant_id, group_id, edits)
    _record(service, caller, "group.change", f"group:{group_id}", edits=len(edits))


@router.delete("/Groups/{group_id}", status_code=204, summary="Delete a group")
def delete_group(group_id: UUID, caller: Provisioner, service: ServiceDep) -> None:
    """Nobody holds its label through the directory any more."""
    with writing(service.store) as conn:
        directory.delete_group(conn, caller.principal.tenant_id, group_id)
    _record(service, caller, "group.delete", f"group:{group_id}")


@router.get("/ServiceProviderConfig", summary="What of SCIM is here")
def get_config(caller: Provisioner) -> ScimAnswer:
    """RFC 7643, 5."""
    absent = {"supported": False}
    scheme = {"type": "oauthbearertoken", "name": "API key", "description": "A key with the scope `provision`"}
    return ScimAnswer({
        "schemas": ["urn:ietf:params:scim:schemas:core:2.0:ServiceProviderConfig"],
        "patch": {"supported": True}, "bulk": {**absent, "maxOperations": 0, "maxPayloadSize": 0},
        "filter": {"supported": True, "maxResults": MAX_PAGE}, "changePassword": absent, "sort": absent,
        "etag": absent, "authenticationSchemes": [scheme],
    })  # fmt: skip


@router.get("/ResourceTypes", summary="Users and groups")
def get_resource_types(caller: Provisioner) -> ScimAnswer:
    """RFC 7643, 6."""
    kinds = (("User", scim.USER), ("Group", scim.GROUP))
    types = [{"schemas": ["urn:ietf:params:scim:schemas:core:2.0:ResourceType"], "id": name, "name": name,
              "endpoint": f"/{name}s", "schema": schema} for name, schema in kinds]  # fmt: skip
    return ScimAnswer(list_out(types, len(types), 1))


def _with_members(excluded: str | None) -> bool:
    return "members" not in (excluded or "").replace(" ", "").lower().split(",")


def _base(request: Request) -> str:
    return str(request.base_url).rstrip("/")


def _record(service: Service, caller: Caller, change: str, resource: str, **detail: Any) -> None:
    audit.record(service.store, caller.principal.tenant_id, "scim.change", actor=caller.actor,
                 acting_for=caller.acting_for, resource=resource, request_id=caller.request_id,
                 detail={"change": change, **detail})  # fmt: skip
