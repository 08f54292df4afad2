"""Who calls: tokens of a provider, API keys that rotate, the commands for both, and the end user's header."""

import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from click.testing import CliRunner

from api.service import Service
from cli.main import citadel
from core.errors import Conflict, NotFound
from retrieval.search import Searcher
from store import keys, providers
from store.pool import writing
from tests.conftest import World
from tests.integration.rows import fetch
from tests.integration.serving import (
    AUDIENCE,
    EC,
    ISSUER,
    RSA,
    NoBroker,
    Place,
    bearer,
    documents_of,
    make_key,
    public_jwk,
    serving,
    token,
)

# --- what a token opens -------------------------------------------------------------------------------------------


def test_a_token_opens_what_its_user_and_its_groups_may_see(place: Place) -> None:
    assert place.sees(token(RSA)) == {"open", "hers"}
    assert place.sees(token(RSA, groups=["finance"])) == {"open", "hers", "books", "staff"}  # staff is above finance
    assert place.sees(token(RSA, sub="ben@acme.example", groups="finance")) == {"open", "books", "staff"}
    assert place.sees(token(EC, "e1", "ES256", groups=["staff"])) == {"open", "hers", "staff"}
    assert place.sees(token(RSA, aud=["other", AUDIENCE])) == {"open", "hers"}


def test_a_claimed_group_denies_as_a_stored_one_does(place: Place) -> None:
    assert "staff" not in place.sees(token(RSA, groups=["finance", "contractors"]))
    place.world.groups({"group:staff": ["group:finance"], "group:contractors": ["group:temps"]})
    assert "staff" in place.sees(token(RSA, groups=["finance"]))
    assert "staff" not in place.sees(token(RSA, groups=["finance", "temps"]))  # contractors is above temps


def test_a_claim_cannot_make_its_bearer_somebody_else(place: Place) -> None:
    place.world.add("bens", "for ben", ("user:ben@acme.example",))
    place.world.add("robots", "for a service", ("service:acme",))
    odd = [
        "user:ben@acme.example",
        "x\nuser:ben@acme.example",
        "",
        "x" * 300,
        "finance,staff",
        "service:acme",
        "Finance",
    ]
    assert place.sees(token(RSA, groups=odd)) == {"open", "hers"}


def test_searches_go_by_the_token_and_the_audit_names_user_and_provider(place: Place) -> None:
    answer = place.client.post("/v1/search", headers=bearer(token(RSA, groups=["finance"])), json={"query": "for"})
    assert answer.status_code == 200
    assert {p["citation"]["external_id"] for p in answer.json()["passages"]} == {"open", "hers", "books", "staff"}
    rows = fetch(place.world, "SELECT actor, acting_for FROM audit WHERE action = 'search'")
    assert rows == [("idp:acme", "user:ana@acme.example")]


def test_a_token_does_what_its_provider_grants_and_speaks_for_nobody_else(place: Place) -> None:
    mine = token(RSA)
    refused = place.client.get("/v1/documents", headers=bearer(mine, **{"X-Citadel-Act-For": "user:ben@acme.example"}))
    assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")
    document = {"external_id": "x", "text": "x", "labels": {"allow": ["user:ben@acme.example"]}}
    assert place.client.post("/v1/documents", headers=bearer(mine), json=document).status_code == 403
    assert place.client.get("/v1/sources", headers=bearer(mine)).status_code == 403
    assert place.client.get("/scim/v2/Users", headers=bearer(mine)).status_code == 403
    place.provider("writers", "api://writers", scopes=("search", "ingest", "operate"))
    theirs = token(RSA, aud="api://writers")
    assert place.client.post("/v1/documents", headers=bearer(theirs), json=document).status_code == 202
    assert place.client.get("/v1/sources", headers=bearer(theirs)).status_code == 200
    assert place.sees(theirs) == {"open", "hers"}  # to operate is not to see everything, for a person


def test_a_provider_belongs_to_one_tenant(place: Place, neighbour: World) -> None:
    neighbour.add("theirs", "for their ana", ("user:ana@acme.example",))
    with writing(place.world.store) as conn:
        providers.add_provider(
            conn, neighbour.tenant_id, "acme", ISSUER, "api://neighbour", jwks_url=place.published.url
        )
    assert place.sees(token(RSA, aud="api://neighbour")) == {"theirs"}
    assert place.sees(token(RSA)) == {"open", "hers"}
    assert place.ask(token(RSA, aud=[AUDIENCE, "api://neighbour"])).status_code == 401  # of whom, then?
    with pytest.raises(Conflict), writing(place.world.store) as conn:
        providers.add_provider(conn, neighbour.tenant_id, "second", ISSUER, AUDIENCE, jwks_url=place.published.url)


def test_user_names_are_folded_where_the_provider_says_so(place: Place) -> None:
    place.provider("mail", "api://mail", subject_claim="email", fold_case=True)
    folded = token(RSA, aud="api://mail", email="Ana@ACME.example", email_verified=True)
    assert place.sees(folded) == {"open", "hers"}
    assert place.sees(token(RSA, sub="Ana@ACME.example")) == {"open"}


def test_a_removed_provider_is_believed_no_more(place: Place) -> None:
    mine = token(RSA)
    assert place.ask(mine).status_code == 200
    with writing(place.world.store) as conn:
        assert providers.remove_provider(conn, place.world.tenant_id, "acme")
    assert place.ask(mine).status_code == 401


# --- API keys -----------------------------------------------------------------------------------------------------


def test_a_rotated_key_has_two_secrets_for_a_while(place: Place) -> None:
    world, old = place.world, make_key(place.world, "agent", "search")

    def rotate(hours: float) -> str:
        with writing(world.store) as conn:
            return keys.rotate_key(conn, world.tenant_id, "agent", timedelta(hours=hours))[0]

    new = rotate(24)
    assert [place.ask(secret).status_code for secret in (old, new)] == [200, 200]
    with writing(world.store) as conn:
        (listed,) = keys.list_keys(conn, world.tenant_id)
        assert timedelta(hours=23) < listed["old_secret_until"] - listed["created_at"] < timedelta(hours=25)
        conn.execute("UPDATE api_keys SET previous_until = now() - interval '1 second'")
    assert [place.ask(secret).status_code for secret in (old, new)] == [401, 200]
    newer, newest = rotate(24), rotate(24)
    assert [place.ask(secret).status_code for secret in (old, new, newer, newest)] == [401, 401, 200, 200]
    last = rotate(0)
    assert [place.ask(secret).status_code for secret in (newest, last)] == [401, 200]
    with writing(world.store) as conn:
        assert keys.revoke_key(conn, world.tenant_id, "agent")
    with pytest.raises(NotFound):
        rotate(1)
    assert place.ask(last).status_code == 401


def test_an_overlap_does_not_outlive_the_keys_expiry(place: Place) -> None:
    old = make_key(place.world, "agent", "search")
    with writing(place.world.store) as conn:
        keys.rotate_key(conn, place.world.tenant_id, "agent", timedelta(hours=24))
        conn.execute("UPDATE api_keys SET expires_at = now() - interval '1 second'")
    assert place.ask(old).status_code == 401


def test_last_use_is_noted_at_most_once_a_minute(place: Place) -> None:
    secret, unused = make_key(place.world, "agent", "search"), make_key(place.world, "idle", "search")
    assert place.ask(secret).status_code == 200
    query = "SELECT last_used_at, xmin::text FROM api_keys ORDER BY name"
    first = fetch(place.world, query)
    assert first[0][0] is not None and first[1][0] is None and unused
    assert place.ask(secret).status_code == 200
    assert fetch(place.world, query) == first
    with writing(place.world.store) as conn:
        key = keys.find_key(conn, secret)
        assert key is not None and key.noted
        conn.execute("UPDATE api_keys SET last_used_at = now() - interval '61 seconds' WHERE name = 'agent'")
    keys.note_use(place.world.store, key)
    after = fetch(place.world, query)
    assert after[0][0] >= first[0][0]
    keys.note_use(place.world.store, key)
    assert fetch(place.world, query) == after


def test_no_call_fails_for_the_note_of_its_use(world: World, searcher: Searcher, database_url: str) -> None:
    secret = make_key(world, "agent", "search")
    with psycopg.connect(database_url) as admin:
        admin.execute("SET ROLE citadel_owner")
        admin.execute("REVOKE UPDATE ON api_keys FROM citadel_maintenance")
    with serving(Service(world.store, world.blobs, searcher, NoBroker(), 2**20)) as client:
        assert documents_of(client, bearer(secret)) == set()
    assert fetch(world, "SELECT last_used_at FROM api_keys") == [(None,)]


# --- commands -----------------------------------------------------------------------------------------------------


@pytest.fixture
def cli(place: Place, app_url: str, maintenance_url: str, tmp_path: Path) -> Callable[..., Any]:
    """`citadel …` on the place's tenant: what it prints as JSON, or its exit status when it fails."""
    environment = {"CITADEL_STATE": str(tmp_path / "none"), "CITADEL_APP_DATABASE_URL": app_url,
                   "CITADEL_MAINTENANCE_DATABASE_URL": maintenance_url}  # fmt: skip

    def run(*arguments: str) -> Any:
        done = CliRunner().invoke(citadel, [*arguments, "--json"], env=environment)
        return json.loads(done.stdout) if done.exit_code == 0 else done.exit_code

    return run


def test_commands_add_list_and_remove_providers(place: Place, cli: Callable[..., Any], tmp_path: Path) -> None:
    add = ("identity", "add", "okta", "--issuer", ISSUER, "--audience", "api://okta", "--group-claim", "groups")
    assert cli(*add, "--jwks-url", "http://id.acme.example/keys") == 2  # not https
    assert cli(*add) == 2
    assert cli(*add, "--jwks-url", place.published.url, "--algorithm", "HS256") == 2
    file = tmp_path / "keys.json"
    for broken in ("{", '{"keys": []}', '{"keys": [{"kty": "oct", "kid": "k1", "k": "AA"}]}'):
        file.write_text(broken)
        assert cli(*add, "--jwks-file", str(file)) == 2
    file.write_text(json.dumps({"keys": [public_jwk(RSA, "k1")]}))
    assert cli(*add, "--jwks-file", str(file), "--subject-claim", "upn")["name"] == "okta"
    assert cli(*add, "--jwks-url", place.published.url) == 2  # taken
    mine = token(RSA, aud="api://okta", upn="ANA@acme.example", groups=["finance"])
    assert place.sees(mine) == {"open", "hers", "books", "staff"}
    listed = {each["name"]: each for each in cli("identity", "list")}
    assert set(listed) == {"acme", "okta"}
    assert (listed["okta"]["jwks_file"], listed["okta"]["fold_case"], listed["okta"]["scopes"]) == (
        True, True, ["search"]
    )  # fmt: skip
    assert cli("identity", "remove", "okta") == {"name": "okta", "removed": True}
    assert cli("identity", "remove", "okta") == 2
    assert place.ask(mine).status_code == 401


def test_a_command_rotates_a_key(place: Place, cli: Callable[..., Any]) -> None:
    old = cli("keys", "create", "agent", "--scope", "search")["key"]
    new = cli("keys", "rotate", "agent", "--overlap-hours", "24")["key"]
    assert [place.ask(secret).status_code for secret in (old, new)] == [200, 200]
    (listed,) = cli("keys", "list")
    assert listed["last_used_at"] and listed["old_secret_until"] and "secret_hash" not in listed
    assert cli("keys", "rotate", "agent", "--overlap-hours", "0")["key"] not in (old, new)
    assert [place.ask(secret).status_code for secret in (old, new)] == [401, 401]
    assert cli("keys", "rotate", "nobody") == 2


# --- the end user's header ----------------------------------------------------------------------------------------


def test_the_act_for_header_is_utf_8(place: Place) -> None:
    place.world.add("zoes", "for zoë", ("user:zoë@acme.example",))
    place.world.add("not zoes", "denied to zoë", ("public",), deny=("user:zoë@acme.example",))
    secret = make_key(place.world, "agent", "search", "act_for")

    def ask(user: bytes) -> httpx.Response:
        headers = [(b"Authorization", f"Bearer {secret}".encode()), (b"X-Citadel-Act-For", user)]
        return place.client.get("/v1/documents", headers=headers)

    for spelling in ("user:zoë@acme.example", "user:zoe\u0308@acme.example"):  # one name, composed and decomposed
        seen = {d["external_id"] for d in ask(spelling.encode()).json()["documents"]}
        assert seen == {"open", "zoes"}
    for other in ("user:zoë@acme.example".encode("latin-1"), b"user:\xff",
                  b"user:\xed\xa0\x80", "user:a\u2028b".encode(), "user:a\u00a0b".encode(), b"ana", b"group:finance",
                  b"user:", b"public"):  # fmt: skip
        answer = ask(other)
        assert (answer.status_code, answer.json()["code"]) == (400, "invalid_label"), other


def test_a_kept_connection_keeps_no_grant(place: Place) -> None:
    secret = make_key(place.world, "agent", "search", "act_for")
    headers = bearer(secret, **{"X-Citadel-Act-For": "user:ana@acme.example"})
    assert documents_of(place.client, headers) == {"open", "hers"}
    place.world.groups({"group:finance": ["user:ana@acme.example"]})
    assert documents_of(place.client, headers) == {"open", "hers", "books"}
    place.world.groups({})
    assert documents_of(place.client, headers) == {"open", "hers"}
