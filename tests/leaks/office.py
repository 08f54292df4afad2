"""The probes of what is for operators and directories: jobs, sources, figures, explanations, users and groups."""

from typing import Any

from tests.leaks.asking import ABSENT, Caller, Run, alike, ask, raw_of, shows
from tests.leaks.world import PEOPLE


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


def probe_metrics(run: Run, caller: Caller) -> None:
    """A tenant's figures, for its operators."""
    answer = ask(run, caller, "GET", "/metrics")
    words = [secret.canary for realm in run.realms for secret in realm.secrets]
    if any(word in raw_of(answer) for word in words) or (answer.status_code == 200) != caller.operator:
        run.leak(caller, f"metrics: {answer.status_code}")
