"""`citadel demo`: the main job on the example company, start to end, over HTTP and through Celery."""

import json
import os
import time
import urllib.request
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from cli.access import read_groups
from cli.options import as_json, pass_settings, show
from cli.sources import wait_for_indexing, wait_for_job
from cli.stack import open_searcher, opened_store, tenant_of
from cli.up import KEY_FILE, bring_up, take_down
from core.config import Settings
from core.errors import CitadelError, Conflict, Misconfigured
from core.records import Labels
from embedded.supervisor import Supervisor
from eval.golden import read_golden
from eval.report import make_report, to_dict
from eval.run import run_golden
from ingest.schedule import add_folder, request_refresh
from retrieval.search import search
from store import access, jobs, sources
from store.pool import reading_tenant, writing

SOURCE = "acme"
QUESTION = "How much runway do we have?"
PEOPLE = ("user:ana@acme.example", "user:ben@acme.example")
CUTOFFS = (1, 3, 5, 10)

Say = Callable[[str], None]


@click.command(epilog="Example: citadel demo --json")
@click.option("--example", type=click.Path(exists=True, file_okay=False, path_type=Path), default="examples/acme",
              show_default=True, help="A folder with files/, groups.yaml and golden.jsonl.")  # fmt: skip
@click.option("--question", default=QUESTION, show_default=True)
@as_json
@pass_settings
def demo(settings: Settings, example: Path, question: str, as_json: bool) -> None:
    """Start the stack, ingest the example company, ask as two people, run its golden set, stop."""

    def say(text: str) -> None:
        click.echo(text, err=as_json)

    os.umask(0o077)
    # never a database, a broker or a bucket of the caller's: the demo replaces groups and adds documents
    own = replace(Settings(), state=settings.state / "demo", port=0, worker_processes=settings.worker_processes)
    try:
        with Supervisor(own.state, say) as supervisor:
            running = bring_up(supervisor, own, dict(os.environ), say)
            outcome = _run(running, example, question, say)
    finally:
        take_down(own.state)
    show(outcome, as_json, _text(outcome))
    if outcome["forbidden"] or not outcome["citations_resolve"] or not outcome["answers_differ"]:
        raise CitadelError("the demo did not hold what it promises; its figures are above")


def _run(settings: Settings, example: Path, question: str, say: Say) -> dict[str, Any]:
    counts = _ingest(settings, example, say)
    key = (settings.state / KEY_FILE).read_text().strip()
    say("asking over HTTP, and reading back each citation")
    asked = [_ask(settings.api_url, key, question, subject) for subject in PEOPLE]
    say("running the golden set")
    with open_searcher(settings) as searcher:
        tenant_id = tenant_of(searcher.store, settings)
        golden = read_golden(example / "golden.jsonl")
        run = run_golden(lambda p, r: search(searcher, p, r), tenant_id, golden, CUTOFFS)
    report = to_dict(make_report(run))
    seen = [{c["document_id"] for c in answer["citations"]} for answer in asked]
    return {
        "counts": counts,
        "questions": asked,
        "citations_resolve": all(c["resolves"] for answer in asked for c in answer["citations"]),
        "answers_differ": seen[0] != seen[1],
        "golden_questions": len(golden.queries),
        "measures": report["measures"],
        "P@5": report["measures"]["P@5"],
        "forbidden": report["forbidden"]["count"],
    }


def _ingest(settings: Settings, example: Path, say: Say) -> dict[str, Any]:
    started = time.perf_counter()
    members, clearances = read_groups(example / "groups.yaml")
    with opened_store(settings) as store:
        tenant_id = tenant_of(store, settings)
        with writing(store) as conn:
            access.replace_groups(conn, tenant_id, members, clearances)
        config = {"path": str((example / "files").resolve())}
        try:
            source_id = add_folder(store, tenant_id, SOURCE, config, Labels(), None, 0.3).id
        except Conflict:  # a second demo in the same folder
            with reading_tenant(store, tenant_id) as conn:
                source_id = sources.named(conn, tenant_id, SOURCE).id
        say("ingesting the example through Celery")
        job = wait_for_job(store, tenant_id, request_refresh(store, tenant_id, source_id))
        wait_for_indexing(store, tenant_id)
        with reading_tenant(store, tenant_id) as conn:
            states = jobs.outcomes(conn, tenant_id)
    if states.keys() - {"done"}:
        raise CitadelError(f"not everything was indexed: {states}; see `citadel jobs list --state failed`")
    return {"files": job.detail["counts"], "jobs": states, "seconds": round(time.perf_counter() - started, 1)}


def _ask(api_url: str, key: str, question: str, subject: str) -> dict[str, Any]:
    answer = _call(api_url, "/v1/search", key, subject, {"query": question, "top_k": 3})
    citations = []
    for passage in answer["passages"]:
        citation = passage["citation"]
        span = f"version={citation['version']}&start={citation['start']}&end={citation['end']}"
        text = _call(api_url, f"/v1/documents/{citation['document_id']}/text?{span}", key, subject)["text"]
        citations.append({**citation, "text": passage["text"], "resolves": text == passage["text"]})
    return {"question": question, "as": subject, "citations": citations, "degraded": answer["degraded"]}


def _call(api_url: str, path: str, key: str, subject: str, body: dict[str, Any] | None = None) -> Any:
    headers = {"Authorization": f"Bearer {key}", "X-Citadel-Act-For": subject, "Content-Type": "application/json"}
    data = None if body is None else json.dumps(body).encode()
    try:
        with urllib.request.urlopen(urllib.request.Request(api_url + path, data, headers), timeout=60) as response:
            return json.load(response)
    except OSError as error:
        raise Misconfigured(f"the API at {api_url} did not answer {path}: {error}") from error


def _text(outcome: dict[str, Any]) -> str:
    lines = [f"\n{outcome['counts']['jobs']['done']} documents indexed in {outcome['counts']['seconds']} s"]
    for answer in outcome["questions"]:
        lines.append(f"\n{answer['as']} asks: {answer['question']}")
        for citation in answer["citations"]:
            page = f", page {citation['page']}" if citation["page"] else ""
            lines.append(f"  {citation['marker']} {citation['external_id']}{page}, "
                         f"characters {citation['start']}–{citation['end']}"
                         f"{'' if citation['resolves'] else '  DOES NOT RESOLVE'}")  # fmt: skip
            lines.append(f"      {' '.join(citation['text'].split())[:160]}…")
    lines.append(f"\n{outcome['golden_questions']} golden questions" + "".join(f"{f'@{k}':>8}" for k in CUTOFFS))
    for name in ("P", "R", "nDCG", "RR"):
        values = "".join(f"{outcome['measures'][f'{name}@{k}']:8.3f}" for k in CUTOFFS)
        lines.append(f"{name:20}{values}")
    lines.append(f"forbidden documents returned: {outcome['forbidden']}")
    return "\n".join(lines)
