"""SCIM 2.0 to the letter: names, scopes, malformed patches, filters, pages, the epoch and the audit."""

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any
from uuid import UUID, uuid4

from store import directory
from store.pool import writing
from tests.integration.rows import fetch
from tests.integration.serving import (
    ERROR,
    SCIM_JSON,
    Push,
    bearer,
    make_key,
)

# --- names --------------------------------------------------------------------------------------------------------


def test_names_become_labels_that_do_not_collide(push: Push) -> None:
    ana = push.user("ana@acme.example")
    names = [
        "Sales Team",
        "Sales-Team",
        "Sales%20Team",
        "Sales,Team",
        "Sales\u00a0Team",
        "Sales\u200bTeam",
        "public",
        "Zoë",
    ]
    for name in names:
        push.group(name, ana)
    labels = {row[0] for row in fetch(push.world, "SELECT label FROM scim_groups")}
    assert len(labels) == len(names)
    assert {"group:Sales%20Team", "group:Sales-Team", "group:Sales%2520Team", "group:public", "group:Zoë"} < labels
    for taken in ("sales team", "SALES-TEAM", "Zoe\u0308", "PUBLIC"):
        answer = push.call("POST", "/Groups", {"displayName": taken})
        assert (answer.status_code, answer.json()["scimType"]) == (409, "uniqueness"), taken
    other = push.group("Other")
    answer = push.patch(f"/Groups/{other}", {"op": "replace", "path": "displayName", "value": "sales team"})
    assert (answer.status_code, answer.json()["scimType"]) == (409, "uniqueness")
    for name in ("ANA@acme.example", "ana@acme.exampl\u0065"):
        assert push.call("POST", "/Users", {"userName": name}).status_code == 409
    for bad in ("", "x" * 201, "\u4e00" + "\u2003" * 100, "a\0b"):
        assert push.call("POST", "/Groups", {"displayName": bad}).status_code == 400, bad
        assert push.call("POST", "/Users", {"userName": bad}).status_code == 400, bad


# --- the rest of the contract -------------------------------------------------------------------------------------


def test_a_key_needs_the_scope_and_gets_nothing_else_by_it(push: Push) -> None:
    nobody = push.client.get("/scim/v2/Users")
    assert (nobody.status_code, nobody.headers["content-type"], nobody.headers["www-authenticate"]) == (
        401, SCIM_JSON, "Bearer"
    )  # fmt: skip
    assert set(nobody.json()) == {"schemas", "status", "detail"} and nobody.json()["schemas"] == [ERROR]
    everything_else = make_key(push.world, "most", "search", "ingest", "act_for", "operate")
    paths = ("/Users", "/Groups", f"/Users/{uuid4()}", "/ServiceProviderConfig", "/ResourceTypes")
    for path in paths:
        answer = push.client.get(f"/scim/v2{path}", headers=bearer(everything_else))
        assert (answer.status_code, answer.json()["status"]) == (403, "403")
        assert push.client.get(f"/scim/v2{path}", headers=bearer(push.agent)).status_code == 403
    assert push.client.get("/v1/documents", headers=bearer(push.key)).status_code == 403
    assert push.client.get("/v1/sources", headers=bearer(push.key)).status_code == 403
    both = make_key(push.world, "both", "provision", "act_for")
    for_ana = bearer(both, **{"X-Citadel-Act-For": "user:ana@acme.example"})
    assert push.client.get("/scim/v2/Users", headers=for_ana).status_code == 403


MALFORMED: list[tuple[dict[str, Any], str]] = [
    ({"op": "replace", "path": "active", "value": "maybe"}, "invalidValue"),
    ({"op": "replace", "path": "active", "value": None}, "invalidValue"),
    ({"op": "replace", "path": "active", "value": 0}, "invalidValue"),
    ({"op": "remove", "path": "active"}, "mutability"),
    ({"op": "remove", "path": "userName"}, "mutability"),
    ({"op": "replace", "path": "active.x", "value": False}, "mutability"),
    ({"op": "replace", "path": 'active[value eq "x"]', "value": False}, "mutability"),
    ({"op": "replace", "path": "userName", "value": ""}, "invalidValue"),
    ({"op": "replace", "path": "userName", "value": 7}, "invalidValue"),
    ({"op": "replace", "path": "name", "value": {"givenName": "\0"}}, "invalidValue"),
    ({"op": "move", "path": "active", "value": False}, "invalidSyntax"),
    ({"op": "replace", "value": False}, "noTarget"),
    ({"op": "remove"}, "noTarget"),
    ({"path": "active", "value": False}, "invalidSyntax"),
    ({"op": "replace", "OP": "add", "path": "active", "value": False}, "invalidSyntax"),
]


def test_a_patch_that_is_not_understood_is_refused_whole(push: Push) -> None:
    user = push.user("ana@acme.example")
    for operation, scim_type in MALFORMED:
        answer = push.patch(f"/Users/{user}", {"op": "replace", "path": "displayName", "value": "X"}, operation)
        assert (answer.status_code, answer.json().get("scimType")) == (400, scim_type), (operation, answer.text)
        assert answer.headers["content-type"] == SCIM_JSON and answer.json()["schemas"] == [ERROR]
    assert "displayName" not in push.call("GET", f"/Users/{user}").json()
    assert push.sees("user:ana@acme.example") == {"open", "hers"}
    group = push.group("Finance", user)
    for operation, scim_type in (
        ({"op": "add", "path": "members", "value": [{"value": str(uuid4())}]}, "invalidValue"),
        ({"op": "add", "path": "members", "value": [{"value": "ana"}]}, "invalidValue"),
        ({"op": "replace", "path": "members", "value": "ana"}, "invalidValue"),
        ({"op": "add", "path": f'members[value eq "{user}"]', "value": {}}, "invalidPath"),
        ({"op": "remove", "path": 'members[display eq "ana"]'}, "invalidPath"),
        ({"op": "remove", "path": f'members[value eq "{user}"] or true'}, "invalidPath"),
        ({"op": "remove", "path": "members", "value": ["ana"]}, "invalidValue"),
        ({"op": "replace", "path": "owner", "value": "x"}, "invalidPath"),
        ({"op": "remove", "path": "displayName"}, "invalidPath"),
    ):
        answer = push.patch(f"/Groups/{group}", {"op": "replace", "path": "displayName", "value": "X"}, operation)
        assert (answer.status_code, answer.json().get("scimType")) == (400, scim_type), (operation, answer.text)
    assert push.call("GET", f"/Groups/{group}").json()["displayName"] == "Finance"
    gone = {"op": "remove", "path": "members", "value": [{"value": str(uuid4())}, {"value": "ana"}]}
    assert push.patch(f"/Groups/{group}", gone, {"op": "remove", "path": 'members[value eq "x"]'}).status_code == 204
    assert "books" in push.sees("user:ana@acme.example")


def test_filters_and_pages(push: Push) -> None:
    users = [push.user(f"u{number}@acme.example", externalId=f"e{number}") for number in range(5)]
    pages = [push.call("GET", "/Users", params={"startIndex": start, "count": 2}).json() for start in (1, 3, 5, 6, -1)]
    assert [[each["id"] for each in page["Resources"]] for page in pages] == [
        users[:2], users[2:4], users[4:], [], users[:2]
    ]  # fmt: skip
    assert [(p["totalResults"], p["startIndex"], p["itemsPerPage"]) for p in pages] == [
        (5, 1, 2), (5, 3, 2), (5, 5, 1), (5, 6, 0), (5, 1, 2)
    ]  # fmt: skip
    none = push.call("GET", "/Users", params={"count": 0}).json()
    assert (none["totalResults"], none["Resources"]) == (5, [])
    found = push.call("GET", "/Users", params={"filter": f'id eq "{users[3]}"'}).json()
    assert [each["externalId"] for each in found["Resources"]] == ["e3"]
    assert push.call("GET", "/Users", params={"filter": 'id eq "e3"'}).json()["totalResults"] == 0
    quoted = push.user('o"brien@acme.example')
    found = push.call("GET", "/Users", params={"filter": 'userName eq "o\\"brien@acme.example"'}).json()
    assert [each["id"] for each in found["Resources"]] == [quoted]
    for bad in ("", "userName", "userName eq u0", 'userName co "u"', 'userName eq "a" or userName eq "b"',
                'password eq "x"', 'userName eq "\\ud800"', 'userName eq "\\u0000"', "' OR 1=1 --"):  # fmt: skip
        answer = push.call("GET", "/Users", params={"filter": bad})
        assert (answer.status_code, answer.json()["scimType"]) == (400, "invalidFilter"), bad
    for path in ("/Users/not-an-id", "/Groups/not-an-id", f"/Groups/{uuid4()}"):
        assert push.call("GET", path).status_code == 404
    assert push.call("GET", "/Users", params={"startIndex": "x"}).status_code == 400
    assert push.call("POST", "/Users", "no object").json()["scimType"] == "invalidSyntax"
    assert push.call("POST", "/Users", {"displayName": "no name"}).status_code == 400
    assert push.call("GET", "/ServiceProviderConfig").json()["patch"] == {"supported": True}
    assert [each["id"] for each in push.call("GET", "/ResourceTypes").json()["Resources"]] == ["User", "Group"]


def test_the_epoch_moves_with_what_anybody_holds_and_with_nothing_else(push: Push) -> None:
    user, epochs = push.user("ana@acme.example"), [push.epoch()]
    group = push.group("Finance")

    def moved(method: str, path: str, body: Any = None) -> bool:
        assert push.call(method, path, body).is_success
        epochs.append(push.epoch())
        return epochs[-1] > epochs[-2]

    def patched(resource: str, **operation: Any) -> bool:
        return moved("PATCH", resource, {"Operations": [operation]})

    members = {"path": "members", "value": [{"value": user}]}
    assert patched(f"/Groups/{group}", op="add", **members)
    assert not patched(f"/Groups/{group}", op="add", **members)
    assert not patched(f"/Groups/{group}", op="replace", **members)
    assert not patched(f"/Users/{user}", op="replace", path="displayName", value="Ana")
    assert not moved("GET", f"/Groups/{group}")
    assert patched(f"/Users/{user}", op="replace", path="active", value=False)
    assert not patched(f"/Users/{user}", op="replace", path="active", value=False)
    assert patched(f"/Users/{user}", op="replace", path="active", value=True)
    assert patched(f"/Groups/{group}", op="remove", **members)
    assert not patched(f"/Groups/{group}", op="remove", **members)
    assert patched(f"/Users/{user}", op="replace", path="userName", value="eva@acme.example")
    assert moved("DELETE", f"/Users/{user}")
    bo = push.user("bo@acme.example")
    assert patched(f"/Groups/{group}", op="add", path="members", value=[{"value": bo}])
    assert moved("DELETE", f"/Groups/{group}")
    empty = push.group("Nobody")
    assert not moved("DELETE", f"/Groups/{empty}")


def test_every_change_is_in_the_audit(push: Push) -> None:
    user = push.user("ana@acme.example")
    push.patch(f"/Users/{user}", {"op": "replace", "path": "active", "value": False})
    push.call("DELETE", f"/Users/{user}")
    rows = fetch(push.world, "SELECT actor, resource, detail->>'change' FROM audit WHERE action = 'scim.change'")
    assert rows == [("service:directory", f"user:{user}", f"user.{what}") for what in ("create", "change", "delete")]


def test_pushes_at_once_lose_nothing(push: Push) -> None:
    users = [push.user(f"u{number}@acme.example") for number in range(12)]
    group = push.group("Finance")

    def add(user: str) -> int:
        operation = {"op": "add", "path": "members", "value": [{"value": user}]}
        return push.patch(f"/Groups/{group}", operation).status_code

    def create(_: int) -> int:
        return push.call("POST", "/Users", {"userName": "once@acme.example"}).status_code

    with ThreadPoolExecutor(6) as threads:
        assert list(threads.map(add, users)) == [204] * 12
        assert sorted(threads.map(create, range(6))) == [201] + [409] * 5
    assert {m["value"] for m in push.call("GET", f"/Groups/{group}").json()["members"]} == set(users)
    assert push.sees("user:u3@acme.example") == {"open", "books"}


def test_a_deactivation_is_not_undone_by_a_change_that_began_before_it(push: Push) -> None:
    tenant_id, user = push.world.tenant_id, UUID(push.user("ana@acme.example"))
    off = {"op": "replace", "path": "active", "value": False}
    with ThreadPoolExecutor(1) as threads:
        with writing(push.world.store) as conn:
            before = directory.locked_user(conn, tenant_id, user).user
            answer = threads.submit(push.patch, f"/Users/{user}", off)
            time.sleep(0.3)  # without the lock, long enough for it to be answered
            directory.change_user(conn, tenant_id, user, replace(before, profile={"displayName": "Ana"}))
        assert answer.result().json()["active"] is False
    told = push.call("GET", f"/Users/{user}").json()
    assert (told["active"], told["displayName"]) == (False, "Ana")
    assert push.reader("user:ana@acme.example").status_code == 403
