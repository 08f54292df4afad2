"""Tokens that are not to be believed, all refused alike; and a provider's keys over time."""

import hashlib
import hmac
import json
import time
from collections.abc import Callable
from typing import Any

import jwt
import psycopg
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from api.jwks import MAX_AGE_S, REFETCH_EVERY_S, REFRESH_AFTER_S, fetch_jwks
from api.tokens import MAX_TOKEN
from core.errors import Invalid, KeysUnavailable
from store.pool import writing
from tests.integration.serving import (
    AUDIENCE,
    EC,
    ISSUER,
    RSA,
    Place,
    b64,
    bearer,
    claims,
    key_server,
    make_key,
    public_jwk,
    rsa_key,
    token,
)

OTHER_RSA = rsa_key()
PEM = RSA.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

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


def test_a_closed_users_token_opens_no_route_even_one_without_documents(place: Place) -> None:
    place.provider("office", "api://office", scopes=("operate",))
    credential = token(RSA, aud="api://office")
    assert place.client.get("/v1/sources", headers=bearer(credential)).status_code == 200
    with writing(place.world.store) as conn:
        row = (place.world.tenant_id, "user:ana@acme.example")
        conn.execute("INSERT INTO closed_subjects (tenant_id, subject) VALUES (%s, %s)", row)
    refused = place.client.get("/v1/sources", headers=bearer(credential))
    assert (refused.status_code, refused.content) == (401, place.client.get("/v1/sources").content)


def test_only_https_and_this_machine_are_asked_for_keys() -> None:
    for url in ("http://id.acme.example/keys", "file:///etc/passwd", "ftp://127.0.0.1/", "https:///x", "", "/keys"):
        with pytest.raises((Invalid, KeysUnavailable)):
            fetch_jwks(url)
