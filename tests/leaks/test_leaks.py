"""A slice of `make leaks`: no answer tells a caller what the reference denies it; planted bugs are noticed."""

from itertools import chain
from typing import LiteralString

import pytest

from store.migrate import as_owner
from tests.conftest import Api
from tests.leaks.asking import Run, ask, open_run
from tests.leaks.probes import PROBES, sweep, wander
from tests.leaks.registry import missed
from tests.leaks.world import COMMON, admits, generate

SLICE = 5_000


def opened(api: Api, seed: int, size: int = 18) -> Run:
    """A small world with its callers."""
    return open_run(api, generate(api.world, seed, size=size), seed)


def test_no_probe_leaks(api: Api) -> None:
    run = opened(api, seed=1)
    visible = sum(admits(realm, c.who, s) for realm in run.realms for c in run.callers for s in realm.secrets)
    assert visible > 50  # the world is not such that nobody sees anything
    tokens = ("token u1 g2 g4", "token u1 ")
    by_claims, without = (next(c for c in run.callers if c.name.endswith(token)) for token in tokens)
    assert run.items(by_claims, visible=True) != run.items(without, visible=True)  # a token's groups tell
    for _ in chain(sweep(run), wander(run, SLICE)):
        pass
    assert run.tally.leaks == []
    assert run.tally.probes >= SLICE
    assert missed(api.http.app, run.tally) == []  # type: ignore[arg-type]


PLANTED: dict[str, LiteralString] = {
    "documents without a policy": "ALTER TABLE documents DISABLE ROW LEVEL SECURITY",
    "documents to the whole tenant": """
        ALTER POLICY reader ON documents USING (tenant_id = (SELECT scope_tenant()))""",
    "deny forgotten": """
        DO $$ BEGIN EXECUTE replace(pg_get_functiondef('visible_label_sets'::regproc),
                                    'AND NOT s.deny && mine.held', ''); END $$""",
}


@pytest.mark.parametrize("bug", PLANTED)
def test_a_planted_bug_is_caught(api: Api, database_url: str, bug: str) -> None:
    run = opened(api, seed=2)
    with as_owner(database_url) as conn:
        conn.execute(PLANTED[bug])
    for name in ("document", "list", "search_all", "text"):
        for caller in run.callers:
            PROBES[name](run, caller)
    assert run.tally.leaks, bug


def test_the_look_itself_finds_what_stands_there(api: Api) -> None:
    run = opened(api, seed=3, size=6)
    caller = next(c for c in run.callers if run.items(c, visible=True))
    item = run.items(caller, visible=True)[0]
    run.hidden[caller.name].append((item.canary, str(item.id)))  # as if the reference denied it
    for method, path, more in (("POST", "/v1/search", {"json": {"query": COMMON, "top_k": 100}}),
                               ("GET", "/v1/documents", {"params": {"limit": 200}}),
                               ("GET", f"/v1/documents/{item.id}", {})):  # fmt: skip
        before = len(run.tally.leaks)
        ask(run, caller, method, path, **more)
        assert len(run.tally.leaks) > before, path
