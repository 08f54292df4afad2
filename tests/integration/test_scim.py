"""SCIM 2.0 as Entra ID and Okta send it (bodies after their public documentation), and what it changes for readers."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any
from uuid import uuid4

import pytest

from core.errors import Forbidden, Unauthenticated
from retrieval.search import Searcher
from store import access, providers
from store.pool import reading_tenant, writing
from tests.conftest import World
from tests.integration.rows import fetch
from tests.integration.serving import (
    AUDIENCE,
    ENTERPRISE,
    GROUP,
    ISSUER,
    RSA,
    SCIM_JSON,
    USER,
    Push,
    bearer,
    documents_of,
    public_jwk,
    pushing,
    token,
)

# --- as Entra ID sends it -----------------------------------------------------------------------------------------


def test_entra_from_the_connection_test_to_the_deletion(push: Push) -> None:
    nobody = push.call("GET", "/Users", params={"filter": f'userName eq "{uuid4()}"'})
    assert (nobody.status_code, nobody.headers["content-type"]) == (200, SCIM_JSON)
    assert nobody.json() == {"schemas": ["urn:ietf:params:scim:api:messages:2.0:ListResponse"], "totalResults": 0,
                             "startIndex": 1, "itemsPerPage": 0, "Resources": []}  # fmt: skip
    object_id = str(uuid4())
    user = push.made("/Users", {
        "schemas": [USER, ENTERPRISE], "externalId": object_id, "userName": "Ana@acme.example", "active": True,
        "emails": [{"primary": True, "type": "work", "value": "Ana@acme.example"}], "displayName": "Ana Lopez",
        "meta": {"resourceType": "User"}, "roles": [],
        "name": {"formatted": "Ana Lopez", "familyName": "Lopez", "givenName": "Ana"},
        ENTERPRISE: {"department": "Finance"},
    })  # fmt: skip
    assert (user["userName"], user["externalId"], user["active"]) == ("Ana@acme.example", object_id, True)
    assert user["meta"]["location"] == f"{str(push.client.base_url).rstrip('/')}/scim/v2/Users/{user['id']}"
    for asked in (f'externalId eq "{object_id}"', 'userName eq "ana@ACME.example"', 'USERNAME EQ "Ana@acme.example"'):
        found = push.call("GET", "/Users", params={"filter": asked}).json()
        assert [each["id"] for each in found["Resources"]] == [user["id"]], asked
    assert push.call("GET", f"/Users/{user['id']}").json() == user

    params = {"excludedAttributes": "members", "filter": 'displayName eq "Finance"'}
    assert push.call("GET", "/Groups", params=params).json()["totalResults"] == 0
    group = push.made("/Groups", {
        "schemas": [GROUP, "http://schemas.microsoft.com/2006/11/ResourceManagement/ADSCIM/2.0/Group"],
        "externalId": str(uuid4()), "displayName": "Finance", "meta": {"resourceType": "Group"},
    })  # fmt: skip
    assert group["members"] == []
    path = f"/Groups/{group['id']}"
    assert push.sees("user:ana@acme.example") == {"open", "hers"}
    add = {"op": "Add", "path": "members", "value": [{"$ref": None, "value": user["id"]}]}
    answer = push.patch(path, add)
    assert (answer.status_code, answer.content) == (204, b"")
    assert push.sees("user:ana@acme.example") == {"open", "hers", "books"}
    assert "members" not in push.call("GET", path, params={"excludedAttributes": "members"}).json()
    (member,) = push.call("GET", path).json()["members"]
    assert (member["value"], member["display"], member["type"]) == (user["id"], "Ana@acme.example", "User")

    assert push.patch(path, {**add, "op": "Remove"}).status_code == 204
    assert push.sees("user:ana@acme.example") == {"open", "hers"}
    assert push.patch(path, add).status_code == 204
    assert push.patch(f"/Users/{user['id']}", {"op": "Replace", "path": "active", "value": "False"}).json()[
        "active"
    ] is False  # fmt: skip
    assert push.reader("user:ana@acme.example").status_code == 403
    assert push.patch(f"/Users/{user['id']}", {"op": "Replace", "path": "active", "value": True}).status_code == 200
    assert push.sees("user:ana@acme.example") == {"open", "hers", "books"}

    assert push.call("DELETE", f"/Users/{user['id']}").status_code == 204
    assert push.call("GET", f"/Users/{user['id']}").status_code == 404
    assert push.reader("user:ana@acme.example").status_code == 403
    assert push.call("GET", path).json()["members"] == []
    assert push.call("DELETE", path).status_code == 204
    assert push.call("GET", path).status_code == 404


def test_entra_changes_many_attributes_at_once(push: Push) -> None:
    user = push.user("ben@acme.example", name={"givenName": "Ben", "familyName": "Old"})
    answer = push.patch(
        f"/Users/{user}",
        {"op": "Replace", "path": 'emails[type eq "work"].value', "value": "b@acme.example"},
        {"op": "Replace", "path": "name.familyName", "value": "New"},
        {"op": "Add", "path": f"{ENTERPRISE}:department", "value": "Sales"},
        {"op": "Replace", "path": f"{USER}:externalId", "value": "e1"},
        {"op": "Add", "value": {"displayName": "Ben New", "nickName": "B"}},
    )
    assert answer.status_code == 200
    told = answer.json()
    assert (told["name"], told["displayName"], told["externalId"], told["active"]) == (
        {"givenName": "Ben", "familyName": "New"}, "Ben New", "e1", True
    )  # fmt: skip


# --- as Okta sends it ---------------------------------------------------------------------------------------------


def test_okta_from_the_import_to_the_deactivation(push: Push) -> None:
    params: dict[str, Any] = {"filter": 'userName eq "ana@acme.example"', "startIndex": 1, "count": 100}
    assert push.call("GET", "/Users", params=params).json()["totalResults"] == 0
    body = {
        "schemas": [USER], "userName": "ana@acme.example", "name": {"givenName": "Ana", "familyName": "Lopez"},
        "emails": [{"primary": True, "value": "ana@acme.example", "type": "work"}], "displayName": "Ana Lopez",
        "locale": "en-US", "externalId": "00ujl29u0le5T6Aj10h7", "groups": [], "password": "1mz050nq", "active": True,
    }  # fmt: skip
    ana, ben = push.made("/Users", body), push.user("ben@acme.example")
    assert "password" not in ana and "1mz050nq" not in str(fetch(push.world, "SELECT scim_users::text FROM scim_users"))
    assert ana["name"] == {"givenName": "Ana", "familyName": "Lopez"}
    again = push.call("POST", "/Users", body)
    assert (again.status_code, again.json()["scimType"]) == (409, "uniqueness")

    group = push.made("/Groups", {"schemas": [GROUP], "displayName": "Finance", "members": []})
    path = f"/Groups/{group['id']}"
    answer = push.patch(
        path,
        {"op": "remove", "path": f'members[value eq "{ben}"]'},
        {"op": "add", "path": "members", "value": [{"value": ana["id"], "display": "ana@acme.example"}]},
    )
    assert answer.status_code == 204
    assert push.sees("user:ana@acme.example") == {"open", "hers", "books"}
    assert push.sees("user:ben@acme.example") == {"open"}
    swap = {"op": "replace", "path": "members", "value": [{"value": ben, "display": "ben@acme.example"}]}
    assert push.patch(path, swap).status_code == 204
    assert push.sees("user:ana@acme.example") == {"open", "hers"}
    assert push.sees("user:ben@acme.example") == {"open", "books"}
    renamed = {"op": "replace", "value": {"id": group["id"], "displayName": "Money"}}
    assert push.patch(path, renamed).status_code == 204
    assert push.call("GET", path).json()["displayName"] == "Money"
    whole = {"schemas": [GROUP], "id": group["id"], "displayName": "Finance", "members": [{"value": ana["id"]}]}
    assert push.call("PUT", path, whole).status_code == 200
    assert push.sees("user:ana@acme.example") == {"open", "hers", "books"}
    assert push.sees("user:ben@acme.example") == {"open"}

    off = push.patch(f"/Users/{ana['id']}", {"op": "replace", "value": {"active": False}})
    assert (off.status_code, off.json()["active"]) == (200, False)
    assert push.reader("user:ana@acme.example").status_code == 403
    assert push.call("PUT", f"/Users/{ana['id']}", {**body, "active": True}).json()["active"] is True
    assert push.sees("user:ana@acme.example") == {"open", "hers", "books"}
    assert push.call("PUT", f"/Users/{ana['id']}", {**body, "active": False}).json()["active"] is False
    assert push.reader("user:ana@acme.example").status_code == 403
    silent = {name: value for name, value in body.items() if name != "active"}
    assert push.call("PUT", f"/Users/{ana['id']}", silent).json()["active"] is False  # silence opens nothing


# --- revocation ---------------------------------------------------------------------------------------------------


def closings(push: Push, user: str) -> Iterator[str]:
    """Every way to close a user, each followed by its opening again."""
    path = f"/Users/{user}"
    body = {"schemas": [USER], "userName": "ana@acme.example"}
    for operation in (
        {"op": "replace", "path": "active", "value": False},
        {"op": "Replace", "path": "Active", "value": "false"},
        {"op": "add", "path": f"{USER}:active", "value": False},
        {"op": "replace", "value": {"ACTIVE": "FALSE"}},
    ):
        assert push.patch(path, operation).status_code == 200
        yield str(operation)
        assert push.patch(path, {"op": "replace", "path": "active", "value": True}).status_code == 200
    for name, value in (("active", False), ("Active", "False")):
        assert push.call("PUT", path, {**body, name: value}).status_code == 200
        yield f"PUT {name}"
        assert push.call("PUT", path, {**body, "active": True}).status_code == 200
    assert push.call("DELETE", path).status_code == 204
    yield "DELETE"
    push.user("ana@acme.example")


def test_a_closed_user_is_nobody_at_the_next_query(push: Push, searcher: Searcher) -> None:
    with writing(push.world.store) as conn:
        providers.add_provider(conn, push.world.tenant_id, "acme", ISSUER, AUDIENCE, group_claim="groups",
                               scopes=("search", "operate"), jwks={"keys": [public_jwk(RSA, "k1")]})  # fmt: skip
    push.world.groups({"group:Finance": ["user:ana@acme.example"]}, {"user:ana@acme.example": "restricted"})
    mine, ana = token(RSA, groups=["Finance"]), "user:ana@acme.example"
    told = push.client.get("/v1/documents").content
    user = push.user("ana@acme.example")
    for closing in closings(push, user):
        for path in ("/v1/documents", "/v1/sources"):  # with a scope to resolve, and without
            refused = push.client.get(path, headers=bearer(mine))
            assert (refused.status_code, refused.content) == (401, told), closing
        for name in (ana, "user:Ana@ACME.example"):
            assert push.reader(name).status_code == 403, closing
            answer = push.client.post(
                "/v1/search", headers=bearer(push.agent, **{"X-Citadel-Act-For": name}), json={"query": "for"}
            )
            assert answer.status_code == 403, closing
        with reading_tenant(push.world.store, push.world.tenant_id) as conn:
            held = replace(push.world.who(ana), claims=("group:Finance",))
            assert access.visible_label_sets(conn, held) == ()
            with pytest.raises(Unauthenticated):
                access.enter_scope(conn, held)
            with pytest.raises(Forbidden):
                access.enter_scope(conn, replace(held, via="service:agent"))
    assert push.sees(ana) == {"open", "hers", "books"}
    assert documents_of(push.client, bearer(mine)) == {"open", "hers", "books"}


def test_only_the_users_own_tenant_closes_it(push: Push, neighbour: World) -> None:
    user = push.user("ana@acme.example")
    theirs = pushing(neighbour, push.client)
    neighbour.add("theirs", "for their ana", ("user:ana@acme.example",))
    path = f"/Users/{user}"
    for method, body in (("GET", None), ("DELETE", None), ("PUT", {"userName": "ana@acme.example", "active": False}),
                         ("PATCH", {"Operations": [{"op": "replace", "path": "active", "value": False}]})):  # fmt: skip
        answer = theirs.call(method, path, body)
        absent = theirs.call(method, f"/Users/{uuid4()}", body)
        assert (answer.status_code, answer.content) == (404, absent.content)
    assert theirs.call("GET", "/Users").json()["totalResults"] == 0
    group = theirs.group("Finance")
    add = theirs.patch(f"/Groups/{group}", {"op": "add", "path": "members", "value": [{"value": user}]})
    assert add.status_code == 400
    assert theirs.call("DELETE", f"/Users/{theirs.user('ana@acme.example')}").status_code == 204
    assert theirs.reader("user:ana@acme.example").status_code == 403
    assert push.sees("user:ana@acme.example") == {"open", "hers"}


def test_what_the_file_gave_and_what_the_directory_gave_stand_apart(push: Push) -> None:
    ana, ben = push.user("ana@acme.example"), push.user("ben@acme.example")
    group = push.group("Finance", ana)
    push.world.groups({"group:Finance": ["user:ana@acme.example", "user:cy@acme.example"]})
    path = f"/Groups/{group}"
    assert [m["value"] for m in push.call("GET", path).json()["members"]] == [ana]
    assert push.patch(path, {"op": "remove", "path": "members"}).status_code == 204
    assert "books" in push.sees("user:ana@acme.example")  # the file's
    assert push.patch(path, {"op": "add", "path": "members", "value": {"value": ben}}).status_code == 204
    push.world.groups({})
    assert push.sees("user:ana@acme.example") == {"open", "hers"}
    assert push.sees("user:cy@acme.example") == {"open"}
    assert push.sees("user:ben@acme.example") == {"open", "books"}  # the directory's
    assert push.call("DELETE", path).status_code == 204
    assert push.sees("user:ben@acme.example") == {"open"}


def test_groups_nest_across_both_origins(push: Push) -> None:
    push.world.add("staff", "for staff", ("group:staff",))
    push.world.groups({"group:staff": ["group:Everyone"]})
    inner = push.group("Finance", push.user("ana@acme.example"))
    outer = push.group("Everyone", inner)
    assert push.sees("user:ana@acme.example") == {"open", "hers", "books", "staff"}
    (member,) = push.call("GET", f"/Groups/{outer}").json()["members"]
    assert (member["value"], member["type"], member["display"]) == (inner, "Group", "Finance")
    assert push.patch(f"/Groups/{inner}", {"op": "add", "path": "members", "value": [{"value": outer}]}).is_success
    assert push.sees("user:ana@acme.example") == {"open", "hers", "books", "staff"}  # a circle
    assert push.call("DELETE", f"/Groups/{inner}").status_code == 204
    assert push.sees("user:ana@acme.example") == {"open", "hers"}


def test_a_new_name_opens_and_denies_what_the_old_one_did(push: Push) -> None:
    push.world.add("not hers", "denied to ana", ("public",), deny=("user:ana@acme.example",))
    push.world.add("not theirs", "denied to finance", ("public",), deny=("group:Finance",))
    push.world.add("new", "for the new names", ("group:Money", "user:eva@acme.example"))
    ana = push.user("ana@acme.example")
    group = push.group("Finance", ana)
    assert push.sees("user:ana@acme.example") == {"open", "hers", "books"}
    rename = {"op": "replace", "path": "userName", "value": "eva@acme.example"}
    assert push.patch(f"/Users/{ana}", rename).json()["userName"] == "eva@acme.example"
    assert push.patch(f"/Groups/{group}", {"op": "replace", "value": {"displayName": "Money"}}).is_success
    assert push.reader("user:ana@acme.example").status_code == 403
    assert push.sees("user:eva@acme.example") == {"open", "hers", "books", "new"}
    assert [m["value"] for m in push.call("GET", f"/Groups/{group}").json()["members"]] == [ana]

    push.user("ana@acme.example")  # somebody else gets the name, and another group the other
    push.group("Finance")
    assert push.sees("user:ana@acme.example") == {"open", "hers", "not theirs"}
    assert push.sees("user:eva@acme.example") == {"open", "not hers", "not theirs", "new"}


def test_a_name_that_comes_back_is_no_circle(push: Push) -> None:
    ana = push.user("ana@acme.example")
    group = push.group("Finance", ana)
    for name in ("A", "B", "Finance"):
        assert push.patch(f"/Groups/{group}", {"op": "replace", "path": "displayName", "value": name}).is_success
    assert [m["value"] for m in push.call("GET", f"/Groups/{group}").json()["members"]] == [ana]
    for name in ("x@acme.example", "ana@acme.example"):
        assert push.patch(f"/Users/{ana}", {"op": "replace", "path": "userName", "value": name}).is_success
    assert push.sees("user:ana@acme.example") == {"open", "hers", "books"}
    assert push.reader("user:x@acme.example").status_code == 403
