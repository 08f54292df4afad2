"""Requests to every route as every kind of caller, and what no answer to them may hold.

What counts as a probe: one *distinct* request (caller, route, parameters, body), together with one document of which
the reference denies something to that caller, when each denied word of it and, where the document itself is denied,
its id were looked for in that answer's status line, headers, body and decoded cursors. A request made twice counts
once. Comparisons (hidden against absent, a page against the reference's set) add nothing to the count.
"""

import base64
import json
import random
import re
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from core.records import Principal
from store import providers
from store.pool import writing
from tests.conftest import Api
from tests.integration.serving import EC, ISSUER, public_jwk, token
from tests.leaks.world import BOT, PEOPLE, Item, Realm, Secret, admits, may_see

ABSENT = UUID("00000000-0000-4000-8000-000000000000")
NOISE = re.compile(r'"request_id":"[^"]*"|"ms":[0-9.e-]+')
MODES = ("hybrid", "dense", "lexical")
ACT_FOR = "X-Citadel-Act-For"
BEARERS = (("token", "u1", ("g2", "g4")), ("token", "u1", ()), ("token", "guest", ("g0", "g3")),
           ("watch", "u2", ("g1", "g5")))  # fmt: skip


@dataclass(frozen=True, slots=True)
class Caller:
    """Somebody with a key or a token: what it sends, whom the reference takes it for, and what else its key may do."""

    name: str
    headers: dict[str, str]
    who: Principal
    writer: bool = False  # may ingest
    operator: bool = False  # may watch jobs, sources and figures, and ask for explanations

    @property
    def knows_all(self) -> bool:
        """Whether it may know of every document of its tenant that it is there, never what it says: by its jobs."""
        return self.writer or self.who.bypass and self.who.ceiling is None and self.who.max_classification is None


@dataclass(slots=True)
class Tally:
    """What was asked, what was seen of the contract, and what leaked."""

    probes: int = 0
    requests: int = 0
    leaks: list[str] = field(default_factory=list)
    routes: Counter[tuple[str, str]] = field(default_factory=Counter)
    fields: set[tuple[str, str, str]] = field(default_factory=set)  # (method, path, field) of 2xx bodies
    asked: set[str] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class Run:
    """One API over some realms, with callers of each."""

    api: Api
    realms: tuple[Realm, ...]
    callers: tuple[Caller, ...]
    directories: tuple[Caller, ...]  # keys that provision, one of each tenant: they are told of no document at all
    chance: random.Random
    tally: Tally
    hidden: dict[str, list[tuple[str, str]]]  # of each caller: (word, document id or '')
    documents: dict[str, int]  # of each caller: how many documents those words are of

    def realm_of(self, caller: Caller) -> Realm:
        """The caller's tenant."""
        return next(realm for realm in self.realms if realm.world.tenant_id == caller.who.tenant_id)

    def items(self, caller: Caller, visible: bool) -> list[Item]:
        """The documents, of any tenant, that the reference shows the caller; or those that it does not."""
        return [i for realm in self.realms for i in realm.items if shows(realm, caller, i) == visible]

    def leak(self, caller: Caller, what: str) -> None:
        """Write one down."""
        self.tally.leaks.append(f"{caller.name}: {what}")


def shows(realm: Realm, caller: Caller, item: Item) -> bool:
    """Whether the reference shows the document to the caller."""
    return item.labels is not None and item.tenant_id == caller.who.tenant_id and may_see(realm.grants, caller.who,
                                                                                          item.labels)  # fmt: skip


def open_run(api: Api, realms: tuple[Realm, ...], seed: int) -> Run:
    """Keys and tokens for each tenant, and the callers that hold them."""
    callers = tuple(c for realm in realms for make in (_callers, _bearers) for c in make(Api(api.http, realm.world)))
    directories = tuple(_directory(Api(api.http, realm.world)) for realm in realms)
    hidden = {c.name: [_sign(r, c, s) for r in realms for s in r.secrets if not admits(r, c.who, s)] for c in callers}
    denied = {c.name: {s.item.id for r in realms for s in r.secrets if not admits(r, c.who, s)} for c in callers}
    every = [(secret.canary, str(secret.item.id)) for realm in realms for secret in realm.secrets]
    hidden |= {c.name: every for c in directories}
    denied |= {c.name: {item.id for realm in realms for item in realm.items} for c in directories}
    documents = {name: len(ids) for name, ids in denied.items()}
    return Run(api, realms, callers, directories, random.Random(seed), Tally(), hidden, documents)


def _sign(realm: Realm, caller: Caller, secret: Secret) -> tuple[str, str]:
    known = shows(realm, caller, secret.item) or (caller.knows_all and secret.tenant_id == caller.who.tenant_id)
    return secret.canary, "" if known else str(secret.item.id)


def _callers(api: Api) -> Iterator[Caller]:
    tenant = api.world.tenant_id
    name = f"{tenant.hex[:4]}"
    agent = api.key("agent", "search", "act_for")
    cut = api.key("cut", "search", "act_for", ceiling=["group:g1", "public", "user:u0"])
    low = api.key("low", "search", "act_for", max_classification="public")
    top = api.key("top", "search", "ingest", "act_for", "operate")
    for person in PEOPLE:
        yield Caller(f"{name} {person}", {**agent, ACT_FOR: person}, Principal(tenant, person))
    for key, kind, limits in ((cut, "cut", {"ceiling": ("group:g1", "public", "user:u0")}),
                              (low, "low", {"max_classification": "public"}), (top, "top", {})):  # fmt: skip
        yield Caller(f"{name} {kind} u0", {**key, ACT_FOR: PEOPLE[0]}, Principal(tenant, PEOPLE[0], **limits))
    yield Caller(f"{name} bot", api.key("bot", "search"), Principal(tenant, BOT))
    yield Caller(f"{name} top", top, Principal(tenant, "service:top", bypass=True), True, True)
    boxed = api.key("boxed", "search", "operate", ceiling=["group:g2"], max_classification="internal")
    yield Caller(f"{name} boxed", boxed, Principal(tenant, "service:boxed", ("group:g2",), "internal", bypass=True),
                 operator=True)  # fmt: skip


def _bearers(api: Api) -> Iterator[Caller]:
    """Users with tokens: their groups stand in a claim, some beside stored ones, of a stranger alone."""
    tenant = api.world.tenant_id
    for kind, scopes in (("token", ("search",)), ("watch", ("search", "operate"))):
        with writing(api.world.store) as conn:
            providers.add_provider(conn, tenant, kind, ISSUER, f"{kind} {tenant}", algorithms=("ES256",), scopes=scopes,
                                   jwks={"keys": [public_jwk(EC, "k1")]}, group_claim="groups")  # fmt: skip
    for kind, subject, groups in BEARERS:
        a_day = int(time.time()) + 86_400
        sent = token(EC, "k1", "ES256", aud=f"{kind} {tenant}", sub=subject, groups=list(groups), exp=a_day)
        who = Principal(tenant, f"user:{subject}", claims=tuple(f"group:{group}" for group in groups))
        name = f"{tenant.hex[:4]} {kind} {subject} {' '.join(groups)}"
        yield Caller(name, {"Authorization": f"Bearer {sent}"}, who, operator=kind == "watch")


def _directory(api: Api) -> Caller:
    tenant = api.world.tenant_id
    who = Principal(tenant, "service:directory")
    return Caller(f"{tenant.hex[:4]} directory", api.key("directory", "provision"), who)


# --- asking, and looking at the raw answer ------------------------------------------------------------------------


def ask(run: Run, caller: Caller, method: str, path: str, *, at: object = None, **more: Any) -> Any:
    """The answer to a request, after a look at all of it for what the caller may not know."""
    headers = {**caller.headers, **more.pop("headers", {})}
    url = re.sub(r"\{\w+\}", str(at), path)
    answer = run.api.http.request(method, url, headers=headers, **more)
    key = repr((caller.name, method, url, sorted(headers.items()), more))
    run.tally.requests += 1
    look(run, caller, answer, f"{method} {path} {more}", count=key not in run.tally.asked)
    run.tally.asked.add(key)
    run.tally.routes[(method.lower(), path)] += 1
    if answer.status_code < 300 and path.startswith("/v1/") and "json" in answer.headers.get("content-type", ""):
        _note_fields(run.tally, method.lower(), path, answer.text)
    return answer


def look(run: Run, caller: Caller, answer: Any, about: str, count: bool = True) -> None:
    """Look for each secret that the caller may not know."""
    raw = raw_of(answer)
    for word, document_id in run.hidden[caller.name]:
        if word in raw or (document_id and document_id in raw):
            run.leak(caller, f"{about}: told of {word}")
    if answer.status_code >= 500 and "/readyz" not in about:
        run.leak(caller, f"{about}: {answer.status_code}")
    run.tally.probes += run.documents[caller.name] if count else 0


def raw_of(answer: Any) -> str:
    """Everything that was answered, with each cursor as it was before its encoding."""
    cursors = [c for c in re.findall(r'"next_cursor":"([^"]+)"', answer.text)]
    decoded = [base64.urlsafe_b64decode(cursor).decode(errors="replace") for cursor in cursors]
    return "\n".join((str(answer.status_code), repr(sorted(answer.headers.items())), answer.text, *decoded)).lower()


def _note_fields(tally: Tally, method: str, path: str, text: str) -> None:
    for line in text.splitlines():
        tally.fields |= {(method, path, name) for name in _names(json.loads(line), "")}


def _names(value: Any, prefix: str) -> Iterator[str]:
    if isinstance(value, list):
        for each in value:
            yield from _names(each, f"{prefix}[]")
    elif isinstance(value, dict):
        for key, each in value.items():
            yield f"{prefix}.{key}".lstrip(".")
            yield from _names(each, f"{prefix}.{key}")


def alike(run: Run, caller: Caller, hidden: Any, absent: Any, about: str) -> None:
    """Byte-equal but for request id and milliseconds."""
    one, two = ((a.status_code, sorted(a.headers.items()), NOISE.sub("", a.text)) for a in (hidden, absent))
    lengths = ("content-length",)  # which the request id does not move, but the digits of milliseconds do
    one, two = ((s, [h for h in heads if h[0] not in lengths], body) for s, heads, body in (one, two))
    if one != two:
        run.leak(caller, f"{about}: hidden and absent differ")


def search(run: Run, caller: Caller, body: Mapping[str, Any]) -> Any:
    """One search."""
    return ask(run, caller, "POST", "/v1/search", json=dict(body))
