"""Commands about sources and their refreshes."""

import sys
import time
from pathlib import Path
from uuid import UUID

import click

from cli.jobs import operator
from cli.options import as_json, pass_settings, plain, show, table
from cli.stack import opened_store, tenant_of
from core.config import Settings
from core.errors import Permanent
from core.labels import make_labels
from core.records import Job, Source
from ingest.schedule import add_folder, pause, request_refresh, resume
from store import jobs, operations, sources
from store.operations import Choice
from store.pool import Store, reading_tenant, writing

SHOWN = 20  # documents that a refresh could not index, by their reasons


@click.group("sources")
def sources_group() -> None:
    """Add and list sources."""


@sources_group.command("add", epilog="Example: citadel sources add acme examples/acme/files --schedule '*/15 * * * *'")
@click.argument("name")
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--schedule", help="Cron, in UTC. Without: refreshed on request only.")
@click.option("--allow", multiple=True, help="Allow label for files that no rule covers; repeat. Without: nobody.")
@click.option("--deny", multiple=True, help="Deny label for files that no rule covers; repeat.")
@click.option("--classification", default="internal", show_default=True)
@click.option("--max-deleted-share", type=click.FloatRange(0, 1), default=0.3, show_default=True,
              help="A refresh that would delete more of the source stops and waits.")  # fmt: skip
@click.option("--uri-prefix", help="What a citation's uri starts with. Default: the folder's file URL.")
@as_json
@pass_settings
def add(
    settings: Settings, name: str, folder: Path, schedule: str | None, allow: tuple[str, ...], deny: tuple[str, ...],
    classification: str, max_deleted_share: float, uri_prefix: str | None, as_json: bool,
) -> None:  # fmt: skip
    """Add FOLDER as a source; its `.citadel.yaml` says who may see what."""
    config = {"path": str(folder.resolve())} | ({"uri_prefix": uri_prefix} if uri_prefix else {})
    labels = make_labels(allow, deny, classification)
    with opened_store(settings) as store:
        tenant_id = tenant_of(store, settings)
        source = add_folder(store, tenant_id, name, config, labels, schedule, max_deleted_share, by=operator())
    show(source, as_json, f"added; next: citadel refresh {name} --wait")


@sources_group.command("list")
@as_json
@pass_settings
def list_sources(settings: Settings, as_json: bool) -> None:
    """List sources with their schedules and last success."""
    with opened_store(settings) as store:
        tenant_id = tenant_of(store, settings)
        with reading_tenant(store, tenant_id) as conn:
            found = sources.all_of(conn, tenant_id)
    rows = [
        {"name": s.name, "kind": s.kind, "schedule": s.schedule, "last success": s.last_success_at,
         "paused": s.paused_at}
        for s in found
    ]  # fmt: skip
    show(found, as_json, table(rows))


@sources_group.command("pause", epilog="Example: citadel sources pause handbook")
@click.argument("name")
@as_json
@pass_settings
def pause_source(settings: Settings, name: str, as_json: bool) -> None:
    """Leave a source alone: no refresh begins, and one that is under way stops at its next commit and waits."""
    with opened_store(settings) as store:
        source = pause(store, tenant_of(store, settings), name, by=operator())
    show(source, as_json, f"paused; to take it up again: citadel sources resume {name}")


@sources_group.command("resume", epilog="Example: citadel sources resume handbook")
@click.argument("name")
@as_json
@pass_settings
def resume_source(settings: Settings, name: str, as_json: bool) -> None:
    """Take a paused source up again: what waited goes on, and what fell due meanwhile is due now."""
    with opened_store(settings) as store:
        source = resume(store, tenant_of(store, settings), name, by=operator())
    show(source, as_json, "resumed")


@click.command("refresh", epilog="Example: citadel refresh acme --wait")
@click.argument("name")
@click.option("--wait", is_flag=True, help="Until the refresh and the indexing that follows are at their end.")
@click.option("--allow-mass-delete", is_flag=True, help="Delete what is gone, however much.")
@as_json
@pass_settings
def refresh_command(settings: Settings, name: str, wait: bool, allow_mass_delete: bool, as_json: bool) -> None:
    """Refresh a source now. With --wait the exit status is 1 when a document that it brought in was not indexed."""
    with opened_store(settings) as store:
        tenant_id = tenant_of(store, settings)
        with reading_tenant(store, tenant_id) as conn:
            source = sources.named(conn, tenant_id, name)
        job_id = request_refresh(store, tenant_id, source.id, allow_mass_delete=allow_mass_delete, by=operator())
        if not wait:
            show({"job_id": str(job_id)}, as_json, f"accepted: citadel jobs show {job_id}")
            return
        job = wait_for_job(store, tenant_id, job_id)
        wait_for_indexing(store, tenant_id)
        lost = not_indexed(store, tenant_id, source, job)
    counts = ", ".join(f"{n} {kind}" for kind, n in job.detail.get("counts", {}).items()) or "nothing to do"
    problems = "".join(f"\n  {problem}" for problem in job.detail.get("problems", []))
    failed = "".join(f"\n  not indexed: {each.document_id}: {each.error}" for each in lost[:SHOWN])
    more = f"\n  {len(lost)} in all: citadel jobs list --state failed" if lost else ""
    show({**plain(job), "not_indexed": plain(lost)}, as_json, f"{job.state}: {counts}{problems}{failed}{more}")
    if lost:
        raise SystemExit(1)


def not_indexed(store: Store, tenant_id: UUID, source: Source, refresh: Job) -> list[Job]:
    """Jobs of the source's documents that were accepted since the refresh was, and did not end well."""
    with writing(store) as conn:
        choice = Choice(kind="index", source_id=source.id)
        found = operations.chosen(conn, tenant_id, choice, ("failed", "quarantined", "cancelled"))
    return [job for job in found if job.created_at >= refresh.created_at]


def wait_for_job(store: Store, tenant_id: UUID, job_id: UUID) -> Job:
    """The job at its end. Raises the failure, if it failed."""
    while True:
        with reading_tenant(store, tenant_id) as conn:
            job = jobs.get(conn, job_id)
        if job.state in jobs.ENDED:
            break
        time.sleep(0.1)
    if job.state != "done":
        raise Permanent(f"{job.state}: {job.error}")
    return job


def wait_for_indexing(store: Store, tenant_id: UUID) -> None:
    """Until no job of the tenant is open, with a progress bar on a terminal."""
    with reading_tenant(store, tenant_id) as conn:
        left = total = jobs.count_open(conn, tenant_id)
    with click.progressbar(length=total, label="indexing", file=sys.stderr, hidden=not sys.stderr.isatty()) as bar:
        while left:
            time.sleep(0.2)
            with reading_tenant(store, tenant_id) as conn:
                now = jobs.count_open(conn, tenant_id)
            bar.update(max(0, left - now))
            left = now
