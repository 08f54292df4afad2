"""HTTP for addresses that strangers may choose: nothing private is reached, however a name resolves or redirects.

A name is resolved once, every address of it is checked, and the connection goes to that address; each redirect begins
anew. Python's own clients resolve a name when they connect, which may be to another address than the one that was
checked (DNS rebinding).
"""

import socket
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPResponse
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from urllib.parse import urljoin, urlsplit

from core.errors import BodyTooLarge, Invalid, SourceUnavailable

AGENT = "citadel"
TIMEOUT_S = 20.0  # of a connection and of each wait
TOTAL_S = 120.0  # of one answer
MAX_REDIRECTS = 5
PORTS = {"http": 80, "https": 443}
_NAT64 = IPv6Network("64:ff9b::/96")

Resolve = Callable[[str, int], list[str]]


@dataclass(frozen=True, slots=True)
class Answer:
    """What an address answered."""

    url: str  # after redirects
    status: int
    headers: Mapping[str, str]  # names in lower case
    body: bytes


def resolve(host: str, port: int) -> list[str]:
    """The name's addresses. Raises OSError."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


class Web:
    """Fetches from the public net, and from the intranet hosts that the operator names (`host` or `host:port`)."""

    def __init__(self, intranet: tuple[str, ...] = (), resolve: Resolve = resolve) -> None:
        self._intranet = frozenset(name.lower() for name in intranet)
        self._resolve = resolve

    def get(self, url: str, headers: Mapping[str, str], max_bytes: int) -> Answer:
        """Follows redirects. Raises Invalid for a forbidden address, BodyTooLarge, SourceUnavailable."""
        for _ in range(MAX_REDIRECTS + 1):
            answer = self._once(url, headers, max_bytes)
            if answer.status not in (301, 302, 303, 307, 308) or "location" not in answer.headers:
                return answer
            if urlsplit(following := urljoin(url, answer.headers["location"]))[:2] != urlsplit(url)[:2]:
                headers = {name: value for name, value in headers.items() if name.lower() != "authorization"}
            url = following
        raise SourceUnavailable(f"{url[:200]}: more than {MAX_REDIRECTS} redirects")

    def _once(self, url: str, headers: Mapping[str, str], max_bytes: int) -> Answer:
        scheme, host, port, path = _parts(url)
        try:
            address = self._address(host, port)
            connection = _Pinned(host, port, address, scheme == "https")
            try:
                connection.request("GET", path, headers={"User-Agent": AGENT, "Accept-Encoding": "identity", **headers})
                response = connection.getresponse()
                told = {name.lower(): value for name, value in response.getheaders()}
                if told.get("content-encoding", "identity").lower() != "identity":
                    raise SourceUnavailable(f"{url[:200]}: answered in an encoding that was not asked for")
                return Answer(url, response.status, told, _body(response, max_bytes))
            finally:
                connection.close()
        except (OSError, HTTPException, UnicodeError) as error:
            raise SourceUnavailable(f"{url[:200]}: {type(error).__name__}: {str(error)[:200]}") from error

    def _address(self, host: str, port: int) -> str:
        addresses = self._resolve(host, port)
        if {host.lower(), f"{host.lower()}:{port}"} & self._intranet:
            return addresses[0]
        if not addresses or not all(is_public(address) for address in addresses):
            raise Invalid(
                f"{host[:200]} is not on the public net: an operator may name it among the source's `intranet` hosts"
            )
        return addresses[0]


def is_public(address: str) -> bool:
    """Whether the address is one of the public net, as itself and as whatever address is wrapped in it."""
    ip: IPv4Address | IPv6Address | None = ip_address(address.partition("%")[0])
    if isinstance(ip, IPv6Address):
        if ip.teredo is not None:
            return False
        wrapped = ip.ipv4_mapped or ip.sixtofour or (IPv4Address(int(ip) & 0xFFFFFFFF) if ip in _NAT64 else None)
        ip = wrapped or ip
    return ip is not None and ip.is_global and not ip.is_multicast


class _Pinned(HTTPConnection):
    """A connection to an address that was checked, under the host's own name."""

    def __init__(self, host: str, port: int, address: str, tls: bool) -> None:
        super().__init__(host, port, timeout=TIMEOUT_S)
        self._address = address
        self._tls = tls
        if tls and port == 443 or not tls and port == 80:
            self.default_port = port  # so that `Host` goes without it

    def connect(self) -> None:
        self.sock = socket.create_connection((self._address, self.port), self.timeout)
        if self._tls:
            self.sock = ssl.create_default_context().wrap_socket(self.sock, server_hostname=self.host)


def _parts(url: str) -> tuple[str, str, int, str]:
    try:
        parts = urlsplit(url)
        port = parts.port or PORTS.get(parts.scheme, 0)
    except ValueError as error:
        raise Invalid(f"{url[:200]!r} is no web address") from error
    if parts.scheme not in PORTS or not parts.hostname or parts.username is not None:
        raise Invalid(f"{url[:200]!r} is no web address")
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    if not path.isascii() or any(ord(c) <= 32 for c in path):
        raise Invalid(f"{url[:200]!r} holds characters that must be percent-encoded")
    return parts.scheme, parts.hostname, port, path


def _body(response: HTTPResponse, max_bytes: int) -> bytes:
    give_up = time.monotonic() + TOTAL_S
    body = bytearray()
    while part := response.read1(65536):
        body += part
        if len(body) > max_bytes:
            raise BodyTooLarge(f"the answer is larger than {max_bytes} bytes")
        if time.monotonic() > give_up:
            raise TimeoutError(f"no end after {TOTAL_S:.0f} s")
    return bytes(body)
