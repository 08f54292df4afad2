"""Who calls: API keys that rotate, OIDC tokens from a provider on a real socket, and all attacks refused alike."""

import hashlib
import hmac
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import jwt
import psycopg
import pytest
from click.testing import CliRunner
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from api.jwks import MAX_AGE_S, REFETCH_EVERY_S, REFRESH_AFTER_S, JwksCache, fetch_jwks
from api.service import Service
from api.tokens import MAX_TOKEN
from cli.main import citadel
from core.errors import Conflict, Invalid, KeysUnavailable, NotFound
from retrieval.search import Searcher
from store import keys, providers
from store.pool import writing
from tests.conftest import World
from tests.integration.rows import fetch
from tests.integration.serving import (
    AUDIENCE,
    ISSUER,
    KeyServer,
    NoBroker,
    b64,
    bearer,
    claims,
    documents_of,
    key_server,
    make_key,
    public_jwk,
    rsa_key,
    serving,
    token,
)

RSA, OTHER_RSA = rsa_key(), rsa_key()
EC = ec.generate_private_key(ec.SECP256R1())
PEM = RSA.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


class Clock:
    """Seconds that pass when they are told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@dataclass(frozen=True)
class Place:
    """A served tenant whose provider publishes an RSA and an EC key; ana may read `hers` and, as finance, `books`."""

    world: World
    client: httpx.Client
    published: KeyServer
    clock: Clock

    def provider(self, name: str = "acme", audience: str = AUDIENCE, **more: Any) -> None:
        settings = {"algorithms": ("RS256", "ES256"), "jwks_url": self.published.url, "group_claim": "groups", **more}
        with writing(self.world.store) as conn:
            providers.add_provider(conn, self.world.tenant_id, name, ISSUER, audience, **settings)

    def ask(self, credential: str) -> httpx.Response:
        return self.client.get("/v1/documents", headers=bearer(credential))

    def sees(self, credential: str) -> set[str]:
        return documents_of(self.client, bearer(credential))


@pytest.fixture
def published() -> Iterator[KeyServer]:
    with key_server() as state:
        state.keys = [public_jwk(RSA, "k1"), public_jwk(EC, "e1")]
        yield state


@pytest.fixture
def place(world: World, searcher: Searcher, published: KeyServer) -> Iterator[Place]:
    clock = Clock()
    service = Service(world.store, world.blobs, searcher, NoBroker(), 2**20, JwksCache(clock=clock))
    world.add("open", "for all", ("public",))
    world.add("hers", "for ana", ("user:ana@acme.example",))
    world.add("books", "for finance", ("group:finance",))
    world.add("staff", "for staff", ("group:staff",), deny=("group:contractors",))
    world.groups({"group:staff": ["group:finance", "group:contractors"]})
    with serving(service) as client:
        made = Place(world, client, published, clock)
        made.provider()
        yield made


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


# --- attacks ------------------------------------------------------------------------------------------------------


def handmade(header: dict[str, Any], payload: Any, sign: Callable[[bytes], bytes]) -> str:
    """A token of these parts, whatever a library thinks of them."""
    signed = f"{b64(header)}.{b64(payload)}"
    return f"{signed}.{b64(sign(signed.encode()))}"


def hs256(secret: bytes, **header: Any) -> str:
    return handmade({"alg": "HS256", "typ": "JWT", "kid": "k1", **header}, claims(),
                    lambda signed: hmac.new(secret, signed, hashlib.sha256).digest())  # fmt: skip


def rs256(header: dict[str, Any], payload: Any = None, key: Any = RSA) -> str:
    """Signed for real, under a header that `jwt.encode` might not write."""
    algorithm = jwt.get_algorithm_by_name("RS256")
    return handmade({"alg": "RS256", "kid": "k1", **header}, claims() if payload is None else payload,
                    lambda signed: algorithm.sign(signed, key))  # fmt: skip


def tampered(**changed: Any) -> str:
    """Another payload under a good signature."""
    head, _, signature = token(RSA).split(".")
    return f"{head}.{b64(claims(**changed))}.{signature}"


def unsigned(algorithm: Any) -> str:
    return handmade({"alg": algorithm, "typ": "JWT", "kid": "k1"}, claims(), lambda _: b"")


FAR = 3600
OTHER_JWK = public_jwk(OTHER_RSA, "k1")
ATTACKS: dict[str, Callable[[], str]] = {
    "alg none": lambda: unsigned("none"),
    "alg None": lambda: unsigned("None"),
    "alg nOnE": lambda: unsigned("nOnE"),
    "alg empty": lambda: unsigned(""),
    "alg null": lambda: unsigned(None),
    "alg a list": lambda: unsigned(["RS256"]),
    "HS256 by the public key": lambda: hs256(PEM),
    "HS256 by the public key without its end": lambda: hs256(PEM.strip()),
    "HS256 by the published JWK": lambda: hs256(json.dumps(public_jwk(RSA, "k1")).encode()),
    "HS256 by nothing": lambda: hs256(b""),
    "HS256 for the EC key": lambda: hs256(PEM, kid="e1"),
    "RS256 of another": lambda: token(OTHER_RSA),
    "RS512, which is not pinned": lambda: token(RSA, algorithm="RS512"),
    "PS256, which is not pinned": lambda: token(RSA, algorithm="PS256"),
    "RS256 naming the EC key": lambda: token(RSA, "e1"),
    "ES256 naming the RSA key": lambda: token(EC, "k1", "ES256"),
    "ES256 of another": lambda: token(ec.generate_private_key(ec.SECP256R1()), "e1", "ES256"),
    "ES256 of zeros": lambda: handmade({"alg": "ES256", "kid": "e1"}, claims(), lambda _: bytes(64)),
    "wrong audience": lambda: token(RSA, aud="api://other"),
    "wrong audiences": lambda: token(RSA, aud=["api://other", AUDIENCE + "/", 7]),
    "no audience": lambda: token(RSA, aud=None),
    "an audience that is none": lambda: token(RSA, aud={AUDIENCE: 1}),
    "wrong issuer": lambda: token(RSA, iss="https://id.evil.example"),
    "almost the issuer": lambda: token(RSA, iss=ISSUER + "/"),
    "issuer as a list": lambda: rs256({}, claims(iss=[ISSUER])),
    "no issuer": lambda: token(RSA, iss=None),
    "issuer with a NUL": lambda: token(RSA, iss=ISSUER + "\0"),
    "expired": lambda: token(RSA, exp=claims()["iat"] - 61),
    "no expiry": lambda: token(RSA, exp=None),
    "expiry as a text": lambda: token(RSA, exp="tomorrow"),
    "expiry without end": lambda: rs256({}, claims(exp=float("inf"))),
    "expiry that is no number": lambda: rs256({}, claims(exp=float("nan"))),
    "not yet valid": lambda: token(RSA, nbf=claims()["iat"] + FAR),
    "issued in the future": lambda: token(RSA, iat=claims()["iat"] + FAR),
    "issued at a word": lambda: token(RSA, iat="now"),
    "unknown kid": lambda: token(RSA, "k2"),
    "no kid": lambda: jwt.encode(claims(), RSA, "RS256"),
    "kid traversal": lambda: hs256(b"", kid="../../../../../../dev/null"),
    "kid traversal, RS256": lambda: token(RSA, "../../../../etc/passwd"),
    "kid as an address": lambda: token(OTHER_RSA, "http://127.0.0.1:1/keys"),
    "kid as SQL": lambda: hs256(b"x", kid="x' UNION SELECT 'x' --"),
    "kid a number": lambda: rs256({"kid": 1}),
    "crit": lambda: rs256({"crit": ["exp"]}),
    "crit that is known": lambda: rs256({"crit": ["b64"], "b64": True}),
    "crit empty": lambda: rs256({"crit": []}),
    "b64": lambda: rs256({"b64": False}),
    "jwk": lambda: rs256({"jwk": OTHER_JWK}, key=OTHER_RSA),
    "jwk, signed well": lambda: rs256({"jwk": public_jwk(RSA, "k1")}),
    "x5c": lambda: rs256({"x5c": [b64(PEM)]}, key=OTHER_RSA),
    "a logout token": lambda: rs256({"typ": "logout+jwt"}),
    "tampered payload": lambda: tampered(sub="ben@acme.example"),
    "tampered groups": lambda: tampered(groups=["finance"]),
    "no signature": lambda: token(RSA).rpartition(".")[0] + ".",
    "half a signature": lambda: token(RSA)[:-40],
    "no subject": lambda: token(RSA, sub=None),
    "an empty subject": lambda: token(RSA, sub=""),
    "a subject that is none": lambda: rs256({}, claims(sub=["ana@acme.example"])),
    "a subject too long": lambda: token(RSA, sub="a" * 300),
    "groups that are none": lambda: token(RSA, groups={"finance": True}),
    "groups of numbers": lambda: token(RSA, groups=["finance", 1]),
    "groups elsewhere": lambda: token(RSA, _claim_names={"groups": "src1"}, _claim_sources={"src1": {"endpoint": "x"}}),
    "groups too many": lambda: token(RSA, hasgroups=True),
    "payload a list": lambda: rs256({}, [claims()]),
    "payload deep": lambda: rs256({}, b"[" * 6000 + b"]" * 6000),
    "header deep": lambda: f"{b64(b'[' * 6000)}.{b64(claims())}.{b64(b'x')}",
    "oversized": lambda: token(RSA, note="x" * MAX_TOKEN),
    "two tokens in one": lambda: f"{token(RSA)} {token(RSA)}",
    "two tokens, a comma": lambda: f"{token(RSA)},Bearer {token(RSA)}",
    "an encrypted token": lambda: f"{token(RSA)}.a.b",
    "three dots of nothing": lambda: "..",
    "not a token": lambda: "a.b.c",
    "not ours": lambda: "ck_" + "A" * 43,
    "a dot": lambda: ".",
}  # fmt: skip


def test_every_attack_is_refused_with_the_same_bytes(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jwt.algorithms.HMACAlgorithm.prepare_key", lambda self, key: key)  # so that HS256 could win
    assert place.ask(token(RSA)).status_code == 200
    told = place.client.get("/v1/documents")
    assert told.status_code == 401
    for name, attack in ATTACKS.items():
        answer = place.ask(attack())
        assert (answer.status_code, answer.content) == (401, told.content), name
        kept = {k: v for k, v in answer.headers.items() if k != "date"}
        assert kept == {k: v for k, v in told.headers.items() if k != "date"}, name
    assert place.ask(token(RSA)).status_code == 200


def test_two_authorization_headers_are_refused_alike(place: Place) -> None:
    mine = ("Authorization", f"Bearer {token(RSA)}")
    for second in (mine, ("Authorization", f"Bearer {make_key(place.world, 'k', 'search')}"), ("authorization", "x")):
        for pair in ([mine, second], [second, mine]):
            answer = place.client.get("/v1/documents", headers=pair)
            assert (answer.status_code, answer.content) == (401, place.client.get("/v1/documents").content)


@pytest.mark.parametrize("header", ["jku", "x5u"])
def test_no_address_in_a_token_is_asked(place: Place, header: str) -> None:
    with key_server() as theirs:
        theirs.keys = [OTHER_JWK]
        for kid in ("k1", "theirs", theirs.url):
            evil = rs256({header: theirs.url, "kid": kid}, key=OTHER_RSA)
            assert place.ask(evil).status_code == 401
        assert place.ask(rs256({header: theirs.url})).status_code == 401  # not even beside a good signature
        assert place.ask(token(OTHER_RSA, iss=theirs.url)).status_code == 401
    assert theirs.asked == []
    assert place.ask(rs256({"x5t": "thumb"})).status_code == 200  # a thumbprint leads nowhere; Entra sends one


def test_without_a_known_issuer_no_keys_are_fetched(place: Place) -> None:
    for attack in ("wrong issuer", "wrong audience", "alg none", "HS256 by nothing", "crit", "oversized", "no kid"):
        assert place.ask(ATTACKS[attack]()).status_code == 401
    assert place.published.asked == []


def test_keys_that_are_not_to_be_used_are_not(place: Place) -> None:
    weak, private = rsa_key(1024), ec.generate_private_key(ec.SECP256R1())
    published = jwt.get_algorithm_by_name("ES256").to_jwk(private, as_dict=True)
    assert "d" in published
    place.published.keys = [
        public_jwk(RSA, "enc", use="enc"),
        public_jwk(RSA, "other", alg="RS512"),
        public_jwk(weak, "weak"),
        {**published, "kid": "private"},
        {"kty": "oct", "kid": "shared", "k": b64(b"secret")},
        {"kty": "RSA", "kid": "broken", "n": "!", "e": "AQAB"},
        {"kty": "RSA"},
        "no key",  # type: ignore[list-item]
        public_jwk(RSA, "k1"),
    ]
    assert place.ask(token(RSA)).status_code == 200
    for key, kid, algorithm in ((RSA, "enc", "RS256"), (RSA, "other", "RS256"), (weak, "weak", "RS256"),
                                (private, "private", "ES256"), (RSA, "broken", "RS256")):  # fmt: skip
        assert place.ask(token(key, kid, algorithm)).status_code == 401, kid
    assert place.ask(hs256(b"secret", kid="shared")).status_code == 401


def test_only_asymmetric_algorithms_can_be_configured(place: Place) -> None:
    for bad in (("HS256",), ("RS256", "none"), ("HS512", "ES256"), ()):
        with pytest.raises(Invalid, match="asymmetric"):
            place.provider("bad", "api://bad", algorithms=bad)
        with pytest.raises(psycopg.errors.CheckViolation), writing(place.world.store) as conn:
            conn.execute("UPDATE identity_providers SET algorithms = %s", (list(bad),))
    for bad in ({"scopes": ("act_for",)}, {"scopes": ("provision",)}, {"group_prefix": "user:"}, {"group_prefix": ""},
                {"group_prefix": "service:x"}, {"jwks": {"keys": []}}, {"subject_claim": ""}):  # fmt: skip
        with pytest.raises(Invalid):
            place.provider("bad", "api://bad", **bad)


def test_an_address_that_was_not_verified_is_nobodys(place: Place) -> None:
    place.provider("mail", "api://mail", subject_claim="email", fold_case=True)
    mine = {"aud": "api://mail", "email": "ana@acme.example"}
    assert place.ask(token(RSA, **mine, email_verified=True)).status_code == 200
    assert place.ask(token(RSA, **mine)).status_code == 200  # Entra does not say
    for verified in (False, "false", 0, "true"):
        assert place.ask(token(RSA, **mine, email_verified=verified)).status_code == 401


def test_eddsa_and_keys_from_a_file(place: Place) -> None:
    ed = ed25519.Ed25519PrivateKey.generate()
    jwks = {"keys": [public_jwk(ed, "d1")]}
    place.provider("file", "api://file", algorithms=("EdDSA",), jwks_url=None, jwks=jwks)
    assert place.sees(token(ed, "d1", "EdDSA", aud="api://file")) == {"open", "hers"}
    assert place.ask(token(ed, "d2", "EdDSA", aud="api://file")).status_code == 401
    assert place.published.asked == []


# --- the provider's keys over time --------------------------------------------------------------------------------


def test_keys_are_fetched_once_and_again_for_a_new_one_at_most_once_a_minute(place: Place) -> None:
    for _ in range(3):
        assert place.ask(token(RSA)).status_code == 200
    assert len(place.published.asked) == 1
    place.published.keys.append(public_jwk(OTHER_RSA, "k2"))
    place.clock.now += REFETCH_EVERY_S - 1
    assert place.ask(token(OTHER_RSA, "k2")).status_code == 401
    assert len(place.published.asked) == 1
    place.clock.now += 1
    assert place.ask(token(OTHER_RSA, "k2")).status_code == 200
    for kid in range(20):
        assert place.ask(token(OTHER_RSA, f"made-up-{kid}")).status_code == 401
    assert len(place.published.asked) == 2


def until(true: Callable[[], bool]) -> None:
    for _ in range(500):
        if true():
            return
        time.sleep(0.01)
    raise AssertionError("it never came true")


def test_a_key_that_the_provider_withdrew_is_forgotten(place: Place) -> None:
    assert place.ask(token(RSA)).status_code == 200
    place.published.keys = [public_jwk(OTHER_RSA, "k2")]
    place.clock.now += REFRESH_AFTER_S + 1
    assert place.ask(token(RSA)).status_code == 200  # refreshed beside this call
    until(lambda: place.ask(token(RSA)).status_code == 401)
    assert place.ask(token(OTHER_RSA, "k2")).status_code == 200
    assert len(place.published.asked) == 2


@pytest.mark.parametrize(
    "outage",
    [
        (503, {}, b""),
        (200, {}, b"<html>"),
        (200, {}, b"[]"),
        (200, {}, b"[" * 100_000),
        (302, {"Location": "/elsewhere"}, b""),
        (200, {}, b" " * 600_000),
    ],
)
def test_through_an_outage_keys_hold_until_they_are_too_old(place: Place, outage: Any) -> None:
    assert place.ask(token(RSA)).status_code == 200
    place.published.answer = outage
    for age in (REFRESH_AFTER_S + 1, MAX_AGE_S - 1):
        place.clock.now = 1000 + age
        asked = len(place.published.asked)
        assert place.ask(token(RSA)).status_code == 200
        until(lambda asked=asked: len(place.published.asked) > asked)  # type: ignore[misc]
    place.clock.now = 1000 + MAX_AGE_S + REFETCH_EVERY_S
    refused = place.ask(token(RSA))
    assert (refused.status_code, refused.content) == (401, place.client.get("/v1/documents").content)
    place.published.answer = None
    place.clock.now += REFETCH_EVERY_S
    assert place.ask(token(RSA)).status_code == 200
    assert set(place.published.asked) == {"/keys"}  # no redirect was followed


def test_a_dead_provider_fails_closed(place: Place) -> None:
    place.provider("dead", "api://dead", jwks_url="http://127.0.0.1:9/keys")
    assert place.ask(token(RSA, aud="api://dead")).status_code == 401
    assert place.ask(token(RSA)).status_code == 200


def test_only_https_and_this_machine_are_asked_for_keys() -> None:
    for url in ("http://id.acme.example/keys", "file:///etc/passwd", "ftp://127.0.0.1/", "https:///x", "", "/keys"):
        with pytest.raises((Invalid, KeysUnavailable)):
            fetch_jwks(url)


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
        key, stale = keys.find_key(conn, secret) or (None, True)
        assert key is not None and not stale
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

    seen = {d["external_id"] for d in ask("user:zoë@acme.example".encode()).json()["documents"]}
    assert seen == {"open", "zoes"}
    for other in ("user:zoë@acme.example".encode("latin-1"), "user:zoe\u0308@acme.example".encode(), b"user:\xff",
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
