"""OIDC tokens (JWT, RFC 7519) as bearer tokens: whose they are, or that they are refused.

Follows RFC 8725: the provider's configuration decides the algorithm, the keys, the issuer and the audience; the token's
own header only chooses among them. Why a token is refused is for the log, never for the caller.
"""

import logging
from dataclasses import dataclass
from typing import Any

import jwt

from api.jwks import JwksCache
from core.errors import InvalidLabel, Unauthenticated
from core.identity import IdentityProvider
from core.labels import fold, name_label
from core.records import Principal
from store import providers
from store.pool import Store, reading_tenant

log = logging.getLogger(__name__)

MAX_TOKEN = 12 * 1024  # characters; the HTTP server takes 16 KiB of headers
LEEWAY_S = 30  # between two clocks
TYPES = frozenset({"jwt", "at+jwt", "application/at+jwt"})  # RFC 8725, 3.11; a logout token is no access token
# `crit` asks for what we do not do, `b64` changes what is signed, and the others bring or point at a key.
REFUSED_HEADERS = frozenset({"crit", "b64", "jku", "jwk", "x5u", "x5c"})


class TokenRefused(Exception):
    """The token is not believed; the message says why, to the operator."""


@dataclass(frozen=True, slots=True)
class Bearer:
    """Whom a token speaks for, and who says so."""

    principal: Principal
    provider: IdentityProvider


def is_token(credential: str) -> bool:
    """Whether this has the form of a JWT; an API key has no dots."""
    return credential.count(".") == 2


def verify(store: Store, jwks: JwksCache, token: str) -> Bearer:
    """The bearer of a token. Raises Unauthenticated, always the same."""
    try:
        return _verified(store, jwks, token)
    except (TokenRefused, jwt.PyJWTError, InvalidLabel, ValueError, TypeError, OverflowError, RecursionError) as error:
        log.info("a token was refused: %s: %.200s", type(error).__name__, error)
        raise Unauthenticated from None


def _verified(store: Store, jwks: JwksCache, token: str) -> Bearer:
    if len(token) > MAX_TOKEN:
        raise TokenRefused(f"it is longer than {MAX_TOKEN} characters")
    unverified = jwt.decode_complete(token, options={"verify_signature": False})
    algorithm, kid = _header(unverified["header"])
    provider = _provider(store, unverified["payload"])
    if algorithm not in provider.algorithms or algorithm not in providers.ALGORITHMS:
        raise TokenRefused(f"algorithm {algorithm!r} is not among those of {provider.name}")
    key = jwks.key(provider, kid)
    if key is None:
        raise TokenRefused(f"{provider.name} has no key {kid!r}")
    if key.get("alg", algorithm) != algorithm:
        raise TokenRefused(f"key {kid!r} is not for {algorithm}")
    claims = jwt.decode(
        token,
        jwt.PyJWK(key, algorithm),  # bound to the algorithm: it must fit the key's type and curve
        algorithms=[algorithm],
        audience=provider.audience,
        issuer=provider.issuer,
        leeway=LEEWAY_S,
        options={"require": ["exp", "iss", "aud"], "enforce_minimum_key_length": True},
    )
    return Bearer(_principal(provider, claims), provider)


def _header(header: dict[str, Any]) -> tuple[str, str]:
    """The algorithm and the key id that the token names."""
    if found := REFUSED_HEADERS & header.keys():
        raise TokenRefused(f"its header holds {sorted(found)}")
    if str(header.get("typ", "JWT")).lower() not in TYPES:
        raise TokenRefused("it is a token of another kind")
    algorithm, kid = header.get("alg"), header.get("kid")
    if not isinstance(algorithm, str) or not isinstance(kid, str):
        raise TokenRefused("it names no algorithm or no key")
    return algorithm, kid


def _provider(store: Store, claims: dict[str, Any]) -> IdentityProvider:
    """The one provider for the token's issuer and audience; what they say is proven only by its signature."""
    issuer, audience = claims.get("iss"), claims.get("aud")
    audiences = [audience] if isinstance(audience, str) else audience
    if not isinstance(issuer, str) or not isinstance(audiences, list):
        raise TokenRefused("it names no issuer or no audience")
    named = [each for each in audiences if isinstance(each, str) and _storable(each)]
    if not _storable(issuer):
        raise TokenRefused("its issuer is no text")
    with reading_tenant(store, None) as conn:
        provider = providers.find_provider(conn, issuer, named)
    if provider is None:
        raise TokenRefused(f"no provider, or more than one, has issuer {issuer!r} and its audience")
    return provider


def _principal(provider: IdentityProvider, claims: dict[str, Any]) -> Principal:
    subject = claims.get(provider.subject_claim)
    if not isinstance(subject, str) or not subject:
        raise TokenRefused(f"its claim {provider.subject_claim!r} is no text")
    if provider.subject_claim == "email" and claims.get("email_verified", True) is not True:
        raise TokenRefused("its address is not verified")
    label = name_label("user:", fold(subject) if provider.fold_case else subject)
    return Principal(provider.tenant_id, label, via=f"idp:{provider.name}", claims=_groups(provider, claims))


def _groups(provider: IdentityProvider, claims: dict[str, Any]) -> tuple[str, ...]:
    """The labels of the group claim. A name too long for a label is left out: no document can name it either."""
    if provider.group_claim is None:
        return ()
    # A provider that leaves groups out because they are many says so; without them, what is denied to them would open.
    elsewhere = claims.get("_claim_names")
    if claims.get("hasgroups") or (isinstance(elsewhere, dict) and provider.group_claim in elsewhere):
        raise TokenRefused("its groups are too many to be in it: let the provider send only those that matter")
    names = claims.get(provider.group_claim, [])
    names = [names] if isinstance(names, str) else names
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise TokenRefused(f"its claim {provider.group_claim!r} is no list of texts")
    labels = (_label(provider.group_prefix, name) for name in names)
    return tuple(sorted({label for label in labels if label is not None}))


def _label(prefix: str, name: str) -> str | None:
    try:
        return name_label(prefix, name)
    except InvalidLabel:
        return None


def _storable(text: str) -> bool:
    return "\0" not in text and not any("\ud800" <= c <= "\udfff" for c in text)
