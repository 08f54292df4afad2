"""The probes of what is for operators and directories: jobs, sources, figures, explanations, users and groups."""

from typing import Any

from tests.leaks.asking import ABSENT, Caller, Run, alike, ask, raw_of, shows
from tests.leaks.world import GROUPS, PEOPLE, canary_word


def probe_jobs(run: Run, caller: Caller) -> None:
    """Jobs tell writers and operators nothing of what a document says, and others nothing at all."""
    params = {"limit": run.chance.randint(1, 200), **run.chance.choice(({}, {"state": "done"}, {"state": "accepted"}))}
    answer = ask(run, caller, "GET", "/v1/jobs", params=params)
    words = [secret.canary for realm in run.realms for secret in realm.secrets]
    if any(word in raw_of(answer) for word in words):
        run.leak(caller, "jobs: content")
    if (answer.status_code == 200) != caller.operator:
        run.leak(caller, f"jobs: {answer.status_code}")
    if caller.operator:
        _all_jobs(run, caller)


def _all_jobs(run: Run, caller: Caller) -> None:
    """Every job of what the caller reaches, and of a limited caller's, none of anything else: its pages too."""
    told = {job["document_id"] for job in _jobs(run, caller, run.chance.randint(20, 200))} - {None}
    realm = run.realm_of(caller)
    known = {str(i.id) for i in realm.items if caller.knows_all or shows(realm, caller, i)}
    if not known <= told or (told - known and not caller.knows_all):
        run.leak(caller, f"jobs: {len(told - known)} documents too many, {len(known - told)} missing")


def _jobs(run: Run, caller: Caller, limit: int = 200) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    cursor = None
    while True:
        params = {"limit": limit, **({"cursor": cursor} if cursor else {})}
        page = ask(run, caller, "GET", "/v1/jobs", params=params).json()
        found, cursor = found + page["jobs"], page["next_cursor"]
        if cursor is None:
            return found


def probe_job(run: Run, caller: Caller) -> None:
    """A job of another tenant, or of a document that a limited caller does not reach, is absent."""
    for other in run.callers:
        if other.writer and (other.who.tenant_id != caller.who.tenant_id or not caller.knows_all):
            realm = run.realm_of(other)
            hidden = {str(i.id) for i in realm.items if not shows(realm, caller, i)}
            theirs = run.chance.choice([job for job in _jobs(run, other) if job["document_id"] in hidden])
            one, two = (ask(run, caller, "GET", "/v1/jobs/{job_id}", at=at) for at in (theirs["job_id"], ABSENT))
            alike(run, caller, one, two, "job")
    if caller.operator:
        for job in _jobs(run, caller)[:1]:
            if ask(run, caller, "GET", "/v1/jobs/{job_id}", at=job["job_id"]).json() != job:
                run.leak(caller, "job: another than in the list")


def probe_job_changes(run: Run, caller: Caller) -> None:
    """Only an operator who reaches every document ends a job or opens one; another tenant's is absent."""
    for change in ("cancel", "retry"):
        path = f"/v1/jobs/{{job_id}}/{change}"
        theirs = [job["job_id"] for other in run.callers if other.writer and other.who.tenant_id != caller.who.tenant_id
                  for job in _jobs(run, other)[:1]]  # fmt: skip
        one, two = (ask(run, caller, "POST", path, at=at) for at in (run.chance.choice(theirs), ABSENT))
        alike(run, caller, one, two, f"{change} of another tenant's job")
        if (one.status_code == 404) != (caller.operator and caller.knows_all and caller.who.bypass):
            run.leak(caller, f"{change}: {one.status_code}")


def probe_explain(run: Run, caller: Caller) -> None:
    """What the key does not reach is explained as what is absent; to all but operators, nothing is explained."""
    path, asked = "/v1/access/explain", run.chance.choice(PEOPLE)
    claims = run.chance.sample(GROUPS, run.chance.randint(0, 2))
    item = run.chance.choice(run.items(caller, visible=False))
    answers = []
    for at in (str(item.id), str(ABSENT)):  # the answer repeats the id that was asked about, and tells nothing by it
        params = {"as": asked, "document_id": at, "claims": claims}
        answer = run.api.http.get(path, headers=caller.headers, params=params)
        answers.append((answer.status_code, answer.text.replace(at, "")))
    if answers[0] != answers[1]:
        run.leak(caller, "explain: hidden and absent differ")
    own = run.items(caller, visible=True) if caller.operator else []
    for target in [seen.id for seen in own] or [ABSENT]:
        answer = ask(run, caller, "GET", path, params={"as": asked, "document_id": str(target), "claims": claims})
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


def probe_directory(run: Run, caller: Caller) -> None:
    """A directory's key opens no route but SCIM's, and there it is told of its own tenant's users and groups alone."""
    mine = next(each for each in run.directories if each.who.tenant_id == caller.who.tenant_id)
    for path, methods in run.api.http.get("/openapi.json").json()["paths"].items():
        for method in methods if path.startswith("/v1/") or path == "/metrics" else ():
            at = run.chance.choice(run.realm_of(caller).items).id
            answer = ask(run, mine, method.upper(), path, at=at, **({} if method == "get" else {"json": {}}))
            if answer.status_code != 403:
                run.leak(mine, f"{method} {path}: {answer.status_code}")
    word = canary_word(-3, run.chance.getrandbits(40))
    pushed = [_push(run, mine, kind, word) for kind in PUSHED]
    for other in run.directories:
        if other.who.tenant_id != caller.who.tenant_id:
            for kind, theirs in zip(PUSHED, pushed, strict=True):
                _ask_after(run, other, kind, theirs, word)
    for kind, resource_id in zip(PUSHED, pushed, strict=True):
        if ask(run, mine, "DELETE", f"/scim/v2/{kind}/{{id}}", at=resource_id).status_code != 204:
            run.leak(mine, f"{kind}: not its own to delete")


PUSHED = {"Users": "userName", "Groups": "displayName"}
PATCHED = {"schemas": ["urn:ietf:params:scim:api:messages:2.0:PatchOp"],
           "Operations": [{"op": "replace", "path": "externalId", "value": "taken"}]}  # fmt: skip


def _push(run: Run, directory: Caller, kind: str, word: str) -> str:
    answer = ask(run, directory, "POST", f"/scim/v2/{kind}", json={PUSHED[kind]: f"{kind}-{word}", "externalId": word})
    if answer.status_code != 201:
        run.leak(directory, f"push of {kind}: {answer.status_code}")
    return str(answer.json()["id"])


def _ask_after(run: Run, other: Caller, kind: str, theirs: str, word: str) -> None:
    """What another tenant's directory pushed is, by its id and by its name, what nobody pushed."""
    name, none = PUSHED[kind], canary_word(-4, run.chance.getrandbits(40))
    listed = run.api.http.get(f"/scim/v2/{kind}", headers=other.headers, params={"count": 200})
    if listed.status_code != 200 or word in listed.text or theirs in listed.text:
        run.leak(other, f"{kind}: another tenant's are listed")
    for field in (name, "externalId", "id"):
        wanted = {name: f"{kind}-{word}", "externalId": word, "id": theirs}[field]
        asked = (f'{field} eq "{value}"' for value in (wanted, str(ABSENT) if field == "id" else none))
        one, two = (ask(run, other, "GET", f"/scim/v2/{kind}", params={"filter": each}) for each in asked)
        alike(run, other, one, two, f"{kind} by {field}")
    bodies: dict[str, Any] = {"GET": {}, "DELETE": {}, "PUT": {"json": {name: none}}, "PATCH": {"json": PATCHED}}
    for method, more in bodies.items():
        one, two = (ask(run, other, method, f"/scim/v2/{kind}/{{id}}", at=at, **more) for at in (theirs, ABSENT))
        alike(run, other, one, two, f"{method} of {kind}")
    members = ({"displayName": none, "members": [{"value": str(at)}]} for at in (theirs, ABSENT))
    one, two = (ask(run, other, "POST", "/scim/v2/Groups", json=body) for body in members)
    alike(run, other, one, two, f"a member of another tenant's {kind}")


def probe_sources(run: Run, caller: Caller) -> None:
    """Sources are a tenant's, and for its writers."""
    answer = ask(run, caller, "GET", "/v1/sources")
    if (answer.status_code == 200) != caller.operator:
        run.leak(caller, f"sources: {answer.status_code}")
    if caller.operator:
        name = f"s{run.chance.getrandbits(60):x}"
        mine = ask(run, caller, "POST", "/v1/sources", json={"name": name, "path": "/nowhere"})
        cut = caller.who.ceiling is not None or caller.who.max_classification is not None or not caller.who.bypass
        for source in answer.json()["sources"] if cut else ():
            own = set(source["labels"]["allow"])
            if source["config"] or (caller.who.ceiling is not None and not own & set(caller.who.ceiling)):
                run.leak(caller, f"sources: {source['name']}")
        if (mine.status_code == 403) != cut:
            run.leak(caller, f"adding a source: {mine.status_code}")
        if cut:
            return
        ask(run, caller, "POST", "/v1/sources/{source_id}/refresh", at=mine.json()["source_id"])
        for other in run.callers:
            if other.who.tenant_id != caller.who.tenant_id:
                one, two = (ask(run, other, "POST", "/v1/sources/{source_id}/refresh", at=at)
                            for at in (mine.json()["source_id"], ABSENT))  # fmt: skip
                alike(run, other, one, two, "refresh")


def probe_fusion(run: Run, caller: Caller) -> None:
    """How a tenant's legs are fused is for whom nothing of it is hidden from, and tells of no document."""
    cut = caller.who.ceiling is not None or caller.who.max_classification is not None or not caller.who.bypass
    held = ask(run, caller, "GET", "/v1/fusion")
    if (held.status_code == 200) != (caller.operator and not cut):
        run.leak(caller, f"fusion: {held.status_code}")
    put = ask(run, caller, "PUT", "/v1/fusion", json={"method": "convex", "dense_weight": 0.4})  # as it is
    if put.status_code != held.status_code or (put.status_code == 200 and put.json() != held.json()):
        run.leak(caller, f"fusion: {put.status_code} {put.text}")


def probe_metrics(run: Run, caller: Caller) -> None:
    """A tenant's figures, for its operators."""
    answer = ask(run, caller, "GET", "/metrics")
    words = [secret.canary for realm in run.realms for secret in realm.secrets]
    if any(word in raw_of(answer) for word in words) or (answer.status_code == 200) != caller.operator:
        run.leak(caller, f"metrics: {answer.status_code}")
