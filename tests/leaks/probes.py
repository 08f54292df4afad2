"""Probes of every route: what no answer may hold, or tell by being another. Each is named by the registry."""

import base64
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any
from uuid import UUID

from tests.leaks import office
from tests.leaks.asking import ABSENT, ACT_FOR, Caller, Run, alike, ask, search, shows
from tests.leaks.world import BOT, COMMON, PEOPLE, WORDS, Realm, Secret, admits, canary_word

MODES = ("hybrid", "dense", "lexical")


def probe_search_all(run: Run, caller: Caller) -> None:
    """A word of every document finds exactly the visible ones, in each mode, and counts no other."""
    realm = run.realm_of(caller)
    visible = {item.external_id for item in realm.items if shows(realm, caller, item)}
    for mode in MODES:
        more = run.chance.choice(
            (
                {},
                {"queries": [run.chance.choice(WORDS)]},
                {"explain": True},
                {"max_tokens": 9000},
                {"at_least": run.chance.randrange(300)},
            )
        )
        body = {"query": f"{COMMON} {run.chance.choice(WORDS)}", "mode": mode, "top_k": 100, **more}
        answer = search(run, caller, body)
        if answer.status_code != 200:
            run.leak(caller, f"search {body}: {answer.status_code}")
            continue
        told = answer.json()
        found = {passage["citation"]["external_id"] for passage in told["passages"]}
        found |= {each["external_id"] for each in told.get("explanation", ())}
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
    lambda w: {"$or": [{"language": w}, {"title": f"Title {w}", "language": {"$ne": "en"}}]},
    lambda w: {"$or": [{"external_id": f"doc-{w}"}, {"metadata.secret": w}]},
    lambda w: {"$and": [{"metadata.n": 1}, {"title": {"$gt": f"Title {w}", "$lt": f"Title {w}"}}]},
)


def probe_feedback(run: Run, caller: Caller) -> None:
    """Nobody learns of another's request that it was; nor, of what is said to be missing, whether there is such."""
    path, other = "/v1/feedback", run.chance.choice([c for c in run.callers if c.headers != caller.headers])
    foreign, own = (search(run, c, {"query": COMMON, "top_k": 3}).json() for c in (other, caller))
    for more in ({"helpful": True}, {"used": ["[1]"]}, {"used": ["[100]"]}, {"helpful": False, "query": COMMON},
                 {"helpful": False, "query": "other words"}):  # fmt: skip
        ids = (foreign["request_id"], str(ABSENT))
        one, two = (ask(run, caller, "POST", path, json={"request_id": each, **more}) for each in ids)
        alike(run, caller, one, two, f"feedback {more}")
        if one.status_code != 404:
            run.leak(caller, f"feedback on another's request: {one.status_code}")
    item = run.chance.choice(run.items(caller, visible=False))
    for one_of_two in ({"document": item.external_id}, {"document": "none"}), ({"text": item.canary}, {"text": "none"}):
        one, two = (ask(run, caller, "POST", path, json={"request_id": own["request_id"], "missing": [missing]})
                    for missing in one_of_two)  # fmt: skip
        alike(run, caller, one, two, "feedback on what is missing")
        if one.status_code != 200:
            run.leak(caller, f"feedback on its own request: {one.status_code}")


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


def probe_open_routes(run: Run, caller: Caller) -> None:
    """What answers without a key holds nothing of anybody's."""
    for path in ("/healthz", "/readyz", "/openapi.json", "/docs", "/docs/assets/swagger-ui.css"):
        ask(run, caller, "GET", path)


PROBES: dict[str, Callable[[Run, Caller], None]] = {
    name.removeprefix("probe_"): value
    for name, value in [*globals().items(), *vars(office).items()]
    if name.startswith("probe_")
}
OFTEN = ("search_all", "search_word", "search_filter", "document", "text", "list", "cursor")


def sweep(run: Run) -> Iterator[int]:
    """Every probe once, as every caller that tells them apart; yields the count now and then."""
    for name, probe in PROBES.items():
        for number, caller in enumerate(run.callers):
            apart = name in OFTEN or number % 6 == 5 or caller.operator
            if apart and run.hidden[caller.name]:
                probe(run, caller)
                yield run.tally.probes


def wander(run: Run, probes: int) -> Iterator[int]:
    """Random probes until the count is reached; yields the count now and then."""
    while run.tally.probes < probes:
        PROBES[run.chance.choice(OFTEN)](run, run.chance.choice([c for c in run.callers if run.hidden[c.name]]))
        yield run.tally.probes
