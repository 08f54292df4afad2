"""The keys that identity providers sign with (JWKS, RFC 7517), fetched when they are needed and kept for a while.

Only the provider's own, configured address is ever asked: nothing in a token leads anywhere.
"""

import json
import logging
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from http.client import HTTPException
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

from core.errors import Invalid, KeysUnavailable
from core.identity import IdentityProvider

log = logging.getLogger(__name__)

Jwk = dict[str, Any]

REFRESH_AFTER_S = 600.0  # older keys are fetched again beside the call that noticed
REFETCH_EVERY_S = 60.0  # at most; a stream of made-up key ids must not become one of requests
RETRY_COLD_S = 5.0  # at most, while there is no key to go by
MAX_AGE_S = 6 * 3600.0  # keys that could not be fetched again for so long are believed no more
TIMEOUT_S = 5.0
MAX_BYTES = 512 * 1024


@dataclass(slots=True)
class _Kept:
    keys: dict[str, Jwk] = field(default_factory=dict)
    fetched_at: float | None = None
    tried_at: float | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)


class JwksCache:
    """Keys by provider and key id. Threads may share it."""

    def __init__(self, fetch: Callable[[str], Any] | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._fetch = fetch or fetch_jwks
        self._clock = clock
        self._kept: dict[UUID, _Kept] = {}
        self._lock = threading.Lock()

    def key(self, provider: IdentityProvider, kid: str) -> Jwk | None:
        """The provider's key of that id, fetching its keys when they are unknown or old; None when it has none."""
        if provider.jwks_url is None:
            return keys_of(provider.jwks).get(kid)
        with self._lock:
            kept = self._kept.setdefault(provider.id, _Kept())
        found = self._usable(kept).get(kid)
        if found is None:
            self._refresh(kept, provider)
            return self._usable(kept).get(kid)
        if self._age(kept) > REFRESH_AFTER_S and self._due(kept):
            threading.Thread(target=self._refresh, args=(kept, provider), daemon=True).start()
        return found

    def _usable(self, kept: _Kept) -> dict[str, Jwk]:
        return kept.keys if self._age(kept) <= MAX_AGE_S else {}

    def _age(self, kept: _Kept) -> float:
        return float("inf") if kept.fetched_at is None else self._clock() - kept.fetched_at

    def _due(self, kept: _Kept) -> bool:
        wait = REFETCH_EVERY_S if self._usable(kept) else RETRY_COLD_S
        return kept.tried_at is None or self._clock() - kept.tried_at >= wait

    def _refresh(self, kept: _Kept, provider: IdentityProvider) -> None:
        """Fetch once, whoever waits; what is kept stays where that fails."""
        with kept.lock:
            if not self._due(kept):
                return
            kept.tried_at = self._clock()
            try:
                kept.keys = keys_of(self._fetch(provider.jwks_url or ""))
            except (KeysUnavailable, Invalid) as error:
                log.warning("the keys of identity provider %s were not fetched: %s", provider.name, error)
                return
            kept.fetched_at = kept.tried_at


def keys_of(document: Any) -> dict[str, Jwk]:
    """A JWKS's public signing keys by their ids; others are passed over. Raises Invalid for what is no JWKS."""
    keys = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(keys, list):
        raise Invalid('a JWKS is a JSON object with a list of `keys` (RFC 7517): {"keys": [{"kty": "RSA", …}]}')
    return {key["kid"]: key for key in reversed(keys) if isinstance(key, dict) and _signs(key)}


def _signs(key: Jwk) -> bool:
    return (
        isinstance(key.get("kid"), str)
        and key.get("kty") in ("RSA", "EC", "OKP")
        and key.get("use", "sig") == "sig"
        and "d" not in key  # a private key that was published is nobody's
    )


def check_url(url: str) -> str:
    """The address itself. Raises Invalid unless it is https, or http on this machine."""
    parts = urlsplit(url)
    if parts.scheme == "https" and parts.hostname:
        return url
    if parts.scheme == "http" and parts.hostname and _is_loopback(parts.hostname):
        return url
    raise Invalid(f"{url[:200]!r} is not an https address: who can change the keys on their way can be anybody")


def fetch_jwks(url: str) -> Any:
    """The JSON at this address, without following redirects. Raises KeysUnavailable."""
    opener = urllib.request.OpenerDirector()  # the default one follows redirects, and reads files
    for handler in (urllib.request.ProxyHandler, urllib.request.HTTPHandler, urllib.request.HTTPSHandler,
                    urllib.request.HTTPDefaultErrorHandler, urllib.request.HTTPErrorProcessor):  # fmt: skip
        opener.add_handler(handler())
    request = urllib.request.Request(check_url(url), headers={"Accept": "application/json"})
    try:
        with opener.open(request, timeout=TIMEOUT_S) as response:
            return json.loads(_read(response))
    except (OSError, HTTPException, ValueError, RecursionError) as error:
        raise KeysUnavailable(f"{url}: {type(error).__name__}: {error}") from error


def _read(response: Any) -> bytes:
    give_up = time.monotonic() + TIMEOUT_S
    body = bytearray()
    while part := response.read1(65536):
        body += part
        if len(body) > MAX_BYTES or time.monotonic() > give_up:
            raise ValueError(f"more than {MAX_BYTES} bytes, or slower than {TIMEOUT_S} s")
    return bytes(body)


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False
