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
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import UUID

from core.records import Principal
from tests.conftest import Api
from tests.leaks.world import BOT, COMMON, PEOPLE, WORDS, Item, Realm, Secret, admits, canary_word, may_see

ABSENT = UUID("00000000-0000-4000-8000-000000000000")
NOISE = re.compile(r'"request_id":"[^"]*"|"ms":[0-9.e-]+')
MODES = ("hybrid", "dense", "lexical")
ACT_FOR = "X-Citadel-Act-For"


@dataclass(frozen=True, slots=True)
class Caller:
    """Somebody with a key: what it sends, whom the reference takes it for, and what else its key may do."""

    name: str
    headers: dict[str, str]
    who: Principal
    writer: bool = False  # may ingest
    operator: bool = False  # sees jobs: knows of every document of its tenant that it is there, never what it says


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
    """Keys for each tenant, and the callers that hold them."""
    callers = tuple(caller for realm in realms for caller in _callers(Api(api.http, realm.world)))
    hidden = {c.name: [_sign(r, c, s) for r in realms for s in r.secrets if not admits(r, c.who, s)] for c in callers}
    denied = {c.name: {s.item.id for r in realms for s in r.secrets if not admits(r, c.who, s)} for c in callers}
    documents = {name: len(ids) for name, ids in denied.items()}
    return Run(api, realms, callers, random.Random(seed), Tally(), hidden, documents)


def _sign(realm: Realm, caller: Caller, secret: Secret) -> tuple[str, str]:
    known = shows(realm, caller, secret.item) or (caller.operator and secret.tenant_id == caller.who.tenant_id)
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


# --- the probes: each is named by the registry --------------------------------------------------------------------


def probe_search_all(run: Run, caller: Caller) -> None:
    """A word of every document finds exactly the visible ones, in each mode, and counts no other."""
    realm = run.realm_of(caller)
    visible = {item.external_id for item in realm.items if shows(realm, caller, item)}
    for mode in MODES:
        more = run.chance.choice(({}, {"queries": [run.chance.choice(WORDS)]}, {"explain": True}, {"max_tokens": 9000}))
        body = {"query": f"{COMMON} {run.chance.choice(WORDS)}", "mode": mode, "top_k": 100, **more}
        answer = search(run, caller, body)
        if answer.status_code != 200:
            run.leak(caller, f"search {body}: {answer.status_code}")
            continue
        told = answer.json()
        found = {passage["citation"]["external_id"] for passage in told["passages"]}
        figures = [stage["candidates"] for stage in told["activity"] if "candidates" in stage]
        if found != visible or any(figure != len(visible) for figure in figures):
            run.leak(caller, f"search {body}: {len(found)} found, {figures} counted, {len(visible)} visible")


def probe_search_word(run: Run, caller: Caller) -> None:
    """A hidden document's word is, to search, a word that no document has."""
    word = run.chance.choice(run.hidden[caller.name])[0]
    none = canary_word(-1, run.chance.randrange(10**6))
    for wrap in ("{}", "{} " + COMMON, "Title {}", run.chance.choice(WORDS) + " {}"):
        one, two = (search(run, caller, {"query": wrap.format(w), "mode": "lexical"}) for w in (word, none))
        alike(run, caller, one, two, f"search for {wrap}")
    for mode in ("hybrid", "dense"):
        search(run, caller, {"query": word, "mode": mode, "queries": [COMMON], "top_k": run.chance.randint(1, 100)})


def probe_search_filter(run: Run, caller: Caller) -> None:
    """A filter on what a hidden document has matches as much as one on what none has."""
    item = run.chance.choice(run.items(caller, visible=False))
    none = canary_word(-2, run.chance.randrange(10**6))
    filters = run.chance.sample(FILTERS, 3)
    for mode, make in zip(run.chance.sample(MODES, 3), filters, strict=True):
        asked = [{"query": f"{COMMON} title", "mode": mode, "top_k": 100, "filters": make(w)}
                 for w in (item.canary, none)]  # fmt: skip
        one, two = (search(run, caller, body) for body in asked)
        alike(run, caller, one, two, f"search filtered {asked[0]['filters']}")


FILTERS: tuple[Callable[[str], dict[str, Any]], ...] = (
    lambda w: {"external_id": f"doc-{w}"},
    lambda w: {"external_id": {"$in": [f"doc-{w}", "nothing"]}},
    lambda w: {"external_id": {"$ne": f"doc-{w}"}},
    lambda w: {"metadata.secret": w},
    lambda w: {"metadata.secret": {"$in": [w]}},
    lambda w: {"metadata.secret": {"$gte": w, "$lte": w}},
    lambda w: {"title": f"Title {w}"},
    lambda w: {"title": {"$gte": f"Title {w}", "$lte": f"Title {w}~"}},
    lambda w: {"uri": f"x:doc-{w}"},
    lambda w: {"$or": [{"external_id": f"doc-{w}"}, {"metadata.secret": w}]},
    lambda w: {"$and": [{"metadata.n": 1}, {"title": {"$gt": f"Title {w}", "$lt": f"Title {w}"}}]},
)


def probe_document(run: Run, caller: Caller) -> None:
    """A hidden document is absent by its id; a visible one is there."""
    item = run.chance.choice(run.items(caller, visible=False))
    absent = ask(run, caller, "GET", "/v1/documents/{document_id}", at=ABSENT)
    alike(run, caller, ask(run, caller, "GET", "/v1/documents/{document_id}", at=item.id), absent, "document")
    for seen in run.chance.sample(run.items(caller, visible=True), 1) if run.items(caller, visible=True) else ():
        if ask(run, caller, "GET", "/v1/documents/{document_id}", at=seen.id).status_code != 200:
            run.leak(caller, f"document {seen.external_id}: hidden from who may see it")


def probe_text(run: Run, caller: Caller) -> None:
    """No version or span of a hidden document, nor a hidden version of a visible one, is told from an absent one."""
    path, item = "/v1/documents/{document_id}/text", run.chance.choice(run.items(caller, visible=False))
    start = run.chance.randrange(60)
    spans: list[dict[str, int]] = [{}, {"version": 1}, {"version": 2, "start": start}, {"start": 1, "end": start}]
    for params in spans:
        one, two = (ask(run, caller, "GET", path, at=at, params=params) for at in (item.id, ABSENT))
        alike(run, caller, one, two, f"text {params}")
    for realm, secret in [(r, s) for r in run.realms for s in r.secrets if shows(r, caller, s.item)]:
        if run.chance.random() < 0.2:
            _text_of(run, caller, realm, secret)


def _text_of(run: Run, caller: Caller, realm: Realm, secret: Secret) -> None:
    path, told = "/v1/documents/{document_id}/text", admits(realm, caller.who, secret)
    answer = ask(run, caller, "GET", path, at=secret.item.id, params={"version": secret.version})
    if told != (answer.status_code == 200):
        run.leak(caller, f"text of version {secret.version}: {answer.status_code}, told by the reference: {told}")
    elif not told:
        absent = ask(run, caller, "GET", path, at=secret.item.id, params={"version": 99})
        alike(run, caller, answer, absent, "text of a hidden version")


def probe_list(run: Run, caller: Caller) -> None:
    """The pages are the visible documents, complete and in order, whatever the limit."""
    realm, limit = run.realm_of(caller), run.chance.randint(1, 40)
    source = run.chance.choice((None, "left", "right", "nowhere"))
    expected = [i.external_id for i in realm.items if shows(realm, caller, i)
                and source in (None, "left" if i.external_id[-3] in "02468ace" else "right")]  # fmt: skip
    names, cursor = [], None
    while True:
        params = {"limit": limit, "source": source, "cursor": cursor}
        answer = ask(run, caller, "GET", "/v1/documents", params={k: v for k, v in params.items() if v is not None})
        names += [document["external_id"] for document in answer.json()["documents"]]
        cursor = answer.json()["next_cursor"]
        if cursor is None:
            break
    if names != expected:
        run.leak(caller, f"list by {limit} of {source}: {len(names)} told, {len(expected)} visible")


def probe_cursor(run: Run, caller: Caller) -> None:
    """Another caller's place, at a document that is hidden here, is a place like any other."""
    other = run.chance.choice(run.callers)
    page = ask(run, other, "GET", "/v1/documents", params={"limit": run.chance.randint(1, 20)}).json()
    if page["next_cursor"] is None:
        return
    at, row_id = base64.urlsafe_b64decode(page["next_cursor"]).decode().split(" ")
    beside = base64.urlsafe_b64encode(f"{at} {UUID(int=UUID(row_id).int ^ 1)}".encode()).decode()
    limit = run.chance.randint(1, 20)
    places = ({"cursor": place, "limit": limit} for place in (page["next_cursor"], beside))
    one, two = (ask(run, caller, "GET", "/v1/documents", params=params) for params in places)
    own = {str(item.id) for item in run.items(caller, visible=True)}
    if not ({row_id} & own):  # else the place itself is told, or not, as it should be
        alike(run, caller, one, two, "list from another's place")
    if {document["document_id"] for document in one.json()["documents"]} - own:
        run.leak(caller, "list from another's place: a hidden document")


def probe_jobs(run: Run, caller: Caller) -> None:
    """Jobs tell a tenant's writers nothing of what a document says, and others nothing at all."""
    params = {"limit": run.chance.randint(1, 200), **run.chance.choice(({}, {"state": "done"}, {"state": "accepted"}))}
    answer = ask(run, caller, "GET", "/v1/jobs", params=params)
    words = [secret.canary for realm in run.realms for secret in realm.secrets]
    if any(word in raw_of(answer) for word in words):
        run.leak(caller, "jobs: content")
    if (answer.status_code == 200) != caller.operator:
        run.leak(caller, f"jobs: {answer.status_code}")


def probe_job(run: Run, caller: Caller) -> None:
    """A job of another tenant is absent."""
    for other in run.callers:
        if other.operator and other.who.tenant_id != caller.who.tenant_id:
            theirs = run.chance.choice(ask(run, other, "GET", "/v1/jobs", params={"limit": 200}).json()["jobs"])
            one, two = (ask(run, caller, "GET", "/v1/jobs/{job_id}", at=at) for at in (theirs["job_id"], ABSENT))
            alike(run, caller, one, two, "job")
    if caller.operator:
        own = ask(run, caller, "GET", "/v1/jobs", params={"limit": 5}).json()["jobs"]
        ask(run, caller, "GET", "/v1/jobs/{job_id}", at=own[0]["job_id"])


def probe_explain(run: Run, caller: Caller) -> None:
    """What the key does not reach is explained as what is absent; to all but operators, nothing is explained."""
    path, asked = "/v1/access/explain", run.chance.choice(PEOPLE)
    item = run.chance.choice(run.items(caller, visible=False))
    answers = []
    for at in (str(item.id), str(ABSENT)):  # the answer repeats the id that was asked about, and tells nothing by it
        params = {"as": asked, "document_id": at}
        answer = run.api.http.get(path, headers=caller.headers, params=params)
        answers.append((answer.status_code, answer.text.replace(at, "")))
    if answers[0] != answers[1]:
        run.leak(caller, "explain: hidden and absent differ")
    own = run.items(caller, visible=True) if caller.operator else []
    for at in [seen.id for seen in own] or [ABSENT]:
        answer = ask(run, caller, "GET", path, params={"as": asked, "document_id": str(at)})
        if (answer.status_code == 200) != caller.operator:
            run.leak(caller, f"explain: {answer.status_code}")


SCIM_ROUTES = (
    *((method, f"/scim/v2/{kind}") for kind in ("Users", "Groups") for method in ("get", "post")),
    *((method, f"/scim/v2/{path}") for path in ("Users/{user_id}", "Groups/{group_id}")
      for method in ("get", "put", "patch", "delete")),
    ("get", "/scim/v2/ResourceTypes"),
    ("get", "/scim/v2/ServiceProviderConfig"),
)  # fmt: skip


def probe_scim(run: Run, caller: Caller) -> None:
    """A directory's routes are for keys with the scope `provision`, which no reader of documents has."""
    for method, path in SCIM_ROUTES:
        answer = ask(run, caller, method.upper(), path, at=ABSENT, **({} if method == "get" else {"json": {}}))
        if answer.status_code != 403:
            run.leak(caller, f"{method} {path}: {answer.status_code}")


def probe_sources(run: Run, caller: Caller) -> None:
    """Sources are a tenant's, and for its writers."""
    answer = ask(run, caller, "GET", "/v1/sources")
    if (answer.status_code == 200) != caller.operator:
        run.leak(caller, f"sources: {answer.status_code}")
    if caller.operator:
        name = f"s{run.chance.getrandbits(60):x}"
        mine = ask(run, caller, "POST", "/v1/sources", json={"name": name, "path": "/nowhere"})
        ask(run, caller, "POST", "/v1/sources/{source_id}/refresh", at=mine.json()["source_id"])
        for other in run.callers:
            if other.who.tenant_id != caller.who.tenant_id:
                one, two = (ask(run, other, "POST", "/v1/sources/{source_id}/refresh", at=at)
                            for at in (mine.json()["source_id"], ABSENT))  # fmt: skip
                alike(run, other, one, two, "refresh")


def probe_writes(run: Run, caller: Caller) -> None:
    """Who may not write a document learns nothing from trying; a name that is taken elsewhere is free here."""
    foreign = run.chance.choice([i for i in run.items(caller, False) if i.tenant_id != caller.who.tenant_id])
    hidden = run.chance.choice(run.items(caller, visible=False))
    for item in (foreign,) if caller.writer else (foreign, hidden):
        for method, path, more in (("PUT", "/v1/documents/{document_id}/labels", {"json": {"allow": ["public"]}}),
                                   ("DELETE", "/v1/documents/{document_id}", {})):  # fmt: skip
            for etag in ({}, {"If-Match": '"1"'}, {"If-Match": '"7"'}):
                one, two = (ask(run, caller, method, path, at=at, headers=etag, **more) for at in (item.id, ABSENT))
                alike(run, caller, one, two, f"{method} {etag}")
    if caller.writer:
        _submit_twins(run, caller)


def _submit_twins(run: Run, caller: Caller) -> None:
    """As in another tenant: the same words under the same name, by each way in, and away again."""
    name = f"twin-{run.chance.getrandbits(60):x}"
    fields = {"external_id": name, "title": "Twin", "labels": {"allow": ["group:g2"]}}
    for other in [caller, *(c for c in run.callers if c.writer and c.who.tenant_id != caller.who.tenant_id)][:2]:
        body = {**fields, "text": "the twin's words"}
        sent = [
            ask(run, other, "POST", "/v1/documents", json=body),
            ask(run, other, "POST", "/v1/documents", json=body),
            ask(run, other, "POST", "/v1/documents/batch", content=json.dumps(body) + "\n{"),
            ask(run, other, "POST", "/v1/documents/upload", files={"file": ("t.txt", b"the twin's words")},
                data={"document": json.dumps({**fields, "external_id": f"{name}-file"})}),
        ]  # fmt: skip
        if [answer.status_code for answer in sent] != [202, 200, 200, 202]:
            run.leak(other, f"twins: {[answer.status_code for answer in sent]}")
        for answer in (sent[0], sent[3]):
            path = "/v1/documents/{document_id}"
            ask(run, other, "PUT", f"{path}/labels", at=answer.json()["document_id"], json={"allow": ["group:g2"]})
            ask(run, other, "DELETE", path, at=answer.json()["document_id"])


def probe_names(run: Run, caller: Caller) -> None:
    """Names that are nearly another's, or no user's, or two: refused, or somebody who sees what that name may."""
    person = run.chance.choice(PEOPLE)
    odd = ["user:U0", f"{person} ", f" {person}", f"{person},{PEOPLE[1]}", "group:g0", BOT, "public", "", "user:*",
           f"{person}\u200b", person.replace("u", "U"), f"{person}%00"]  # fmt: skip
    for name in odd:
        headers = {key.encode(): value.encode() for key, value in {**caller.headers, ACT_FOR: name}.items()}
        answer = run.api.http.get("/v1/documents", headers=headers)
        run.tally.requests += 1
        if answer.status_code == 200 and name.strip(" \t") not in PEOPLE:
            seen = Caller(caller.name, caller.headers, replace(caller.who, subject=name, bypass=False))
            allowed = {i.external_id for r in run.realms for i in r.items if shows(r, seen, i)}
            told = {document["external_id"] for document in answer.json()["documents"]}
            if told - allowed:
                run.leak(caller, f"acting for {name!r}: {len(told - allowed)} documents too many")
    two = [*caller.headers.items(), (ACT_FOR, PEOPLE[0]), (ACT_FOR, PEOPLE[1])]
    if run.api.http.get("/v1/documents", headers=two).status_code == 200:
        run.leak(caller, "acting for two")


def probe_keyless(run: Run, caller: Caller) -> None:
    """Without a live key every route of content answers 401, for what is there and what is not alike."""
    item = run.chance.choice(run.items(caller, visible=False))
    for wrong in ("", "Bearer ", "Bearer ck_nothing", "Basic x", caller.headers["Authorization"] + "x"):
        nobody = replace(caller, headers={"Authorization": wrong} if wrong else {})
        for path in ("/v1/documents/{document_id}", "/v1/documents/{document_id}/text"):
            one, two = (ask(run, nobody, "GET", path, at=at) for at in (item.id, ABSENT))
            alike(run, caller, one, two, "without a key")
            if one.status_code != 401:
                run.leak(caller, f"without a key: {one.status_code}")


def probe_metrics(run: Run, caller: Caller) -> None:
    """A tenant's figures, for its operators."""
    answer = ask(run, caller, "GET", "/metrics")
    words = [secret.canary for realm in run.realms for secret in realm.secrets]
    if any(word in raw_of(answer) for word in words) or (answer.status_code == 200) != caller.operator:
        run.leak(caller, f"metrics: {answer.status_code}")


def probe_open_routes(run: Run, caller: Caller) -> None:
    """What answers without a key holds nothing of anybody's."""
    for path in ("/healthz", "/readyz", "/openapi.json", "/docs", "/docs/assets/swagger-ui.css"):
        ask(run, caller, "GET", path)


PROBES: dict[str, Callable[[Run, Caller], None]] = {
    name.removeprefix("probe_"): value for name, value in list(globals().items()) if name.startswith("probe_")
}
OFTEN = ("search_all", "search_word", "search_filter", "document", "text", "list", "cursor")


def sweep(run: Run) -> Iterator[int]:
    """Every probe once, as every caller that tells them apart; yields the count now and then."""
    for name, probe in PROBES.items():
        for caller in run.callers if name in OFTEN else run.callers[5::6] + run.callers[-2:]:
            if run.hidden[caller.name]:
                probe(run, caller)
                yield run.tally.probes


def wander(run: Run, probes: int) -> Iterator[int]:
    """Random probes until the count is reached; yields the count now and then."""
    while run.tally.probes < probes:
        PROBES[run.chance.choice(OFTEN)](run, run.chance.choice([c for c in run.callers if run.hidden[c.name]]))
        yield run.tally.probes
