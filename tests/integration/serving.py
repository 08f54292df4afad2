"""The API on a real socket, and an identity provider that publishes its keys on another."""

import base64
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import jwt
import uvicorn
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from api.app import create_app
from api.service import Service
from store import keys, providers
from store.pool import writing
from tests.conftest import World
from tests.integration.rows import fetch

ISSUER, AUDIENCE = "https://id.acme.example", "api://citadel"
USER = "urn:ietf:params:scim:schemas:core:2.0:User"
ENTERPRISE = "urn:ietf:params:scim:schemas:extension:enterprise:2.0:User"
GROUP = "urn:ietf:params:scim:schemas:core:2.0:Group"
PATCH = "urn:ietf:params:scim:api:messages:2.0:PatchOp"
ERROR = "urn:ietf:params:scim:api:messages:2.0:Error"
SCIM_JSON = "application/scim+json"

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey


class NoBroker:
    """A queue that nothing waits in."""

    def queue_length(self) -> int:
        return 0


@contextmanager
def serving(service: Service) -> Iterator[httpx.Client]:
    """A client of the API, served on a free port."""
    app = create_app(lambda: nullcontext(service), max_body_bytes=2**20)
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning", access_log=False, http="h11"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.005)
    port = server.servers[0].sockets[0].getsockname()[1]
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
        yield client
    server.should_exit = True
    thread.join(10)


def make_key(world: World, name: str, *scopes: str, **more: Any) -> str:
    """A new key's secret."""
    with writing(world.store) as conn:
        return keys.create_key(conn, world.tenant_id, name, scopes, **more)


def bearer(credential: str, **more: str) -> dict[str, str]:
    """Headers."""
    return {"Authorization": f"Bearer {credential}", **more}


def documents_of(client: httpx.Client, headers: Any) -> set[str]:
    """The external ids that a caller lists."""
    answer = client.get("/v1/documents", headers=headers)
    assert answer.status_code == 200, answer.text
    return {document["external_id"] for document in answer.json()["documents"]}


@dataclass
class KeyServer:
    """Publishes a JWKS, or whatever it is told to answer instead, and counts who asks."""

    keys: list[dict[str, Any]] = field(default_factory=list)
    answer: tuple[int, dict[str, str], bytes] | None = None
    asked: list[str] = field(default_factory=list)
    url: str = ""


@contextmanager
def key_server() -> Iterator[KeyServer]:
    """One on a free port."""
    state = KeyServer()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            state.asked.append(self.path)
            document = json.dumps({"keys": state.keys}).encode()
            status, headers, body = state.answer or (200, {}, document)
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    state.url = f"http://127.0.0.1:{server.server_port}/keys"
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()


def rsa_key(bits: int = 2048) -> rsa.RSAPrivateKey:
    """A new private key."""
    return rsa.generate_private_key(public_exponent=65537, key_size=bits)


def public_jwk(key: PrivateKey, kid: str, **more: Any) -> dict[str, Any]:
    """The public half as a JWKS lists it."""
    kind = {rsa.RSAPrivateKey: "RS256", ec.EllipticCurvePrivateKey: "ES256", ed25519.Ed25519PrivateKey: "EdDSA"}
    algorithm = next(name for each, name in kind.items() if isinstance(key, each))
    made = jwt.get_algorithm_by_name(algorithm).to_jwk(key.public_key(), as_dict=True)
    return {**{k: v for k, v in made.items() if k != "key_ops"}, "kid": kid, "use": "sig", **more}


def claims(**changed: Any) -> dict[str, Any]:
    """Of a token that is good for five minutes; None takes a claim out."""
    now = int(time.time())
    whole = {"iss": ISSUER, "aud": AUDIENCE, "sub": "ana@acme.example", "iat": now, "nbf": now, "exp": now + 300}
    return {name: value for name, value in {**whole, **changed}.items() if value is not None}


def token(key: Any, kid: Any = "k1", algorithm: str = "RS256", header: dict[str, Any] | None = None,
          **changed: Any) -> str:  # fmt: skip
    """A signed token."""
    return jwt.encode(claims(**changed), key, algorithm, headers={"kid": kid, **(header or {})})


def b64(value: Any) -> str:
    """As a JWT's segments are written."""
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


RSA, EC = rsa_key(), ec.generate_private_key(ec.SECP256R1())  # what the provider signs with


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


@dataclass(frozen=True)
class Push:
    """A directory's side: calls with its key; and a reader's side: who sees what."""

    world: World
    client: httpx.Client
    key: str
    agent: str

    def call(self, method: str, path: str, body: Any = None, **more: Any) -> httpx.Response:
        headers = bearer(self.key, **{"Content-Type": f"{SCIM_JSON}; charset=utf-8"})
        return self.client.request(method, f"/scim/v2{path}", headers=headers, json=body, **more)

    def made(self, path: str, body: Any) -> dict[str, Any]:
        answer = self.call("POST", path, body)
        assert answer.status_code == 201, answer.text
        assert answer.headers["content-type"] == SCIM_JSON
        return dict(answer.json())

    def patch(self, path: str, *operations: dict[str, Any]) -> httpx.Response:
        return self.call("PATCH", path, {"schemas": [PATCH], "Operations": list(operations)})

    def user(self, user_name: str, **more: Any) -> str:
        return str(self.made("/Users", {"schemas": [USER], "userName": user_name, "active": True, **more})["id"])

    def group(self, name: str, *members: str) -> str:
        body = {"schemas": [GROUP], "displayName": name, "members": [{"value": each} for each in members]}
        return str(self.made("/Groups", body)["id"])

    def reader(self, user: str) -> httpx.Response:
        return self.client.get("/v1/documents", headers=bearer(self.agent, **{"X-Citadel-Act-For": user}))

    def sees(self, user: str) -> set[str]:
        return documents_of(self.client, bearer(self.agent, **{"X-Citadel-Act-For": user}))

    def epoch(self) -> int:
        rows = fetch(self.world, "SELECT access_epoch FROM tenants WHERE id = %s", self.world.tenant_id)
        return int(rows[0][0])


def pushing(world: World, client: httpx.Client) -> Push:
    return Push(world, client, make_key(world, "directory", "provision"), make_key(world, "agent", "search", "act_for"))
