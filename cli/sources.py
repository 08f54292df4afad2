"""Commands about sources, refreshes and jobs."""

import sys
import time
from pathlib import Path
from uuid import UUID

import click

from cli.options import as_json, pass_settings, plain, show, table
from cli.stack import opened_store, tenant_of
from core.config import Settings
from core.errors import CitadelError, Permanent
from core.labels import make_labels
from core.records import Job
from ingest.schedule import add_folder, request_refresh
from store import jobs, sources
from store.pool import Store, reading_tenant, writing

ENDED = ("done", "failed", "quarantined")


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
        source = add_folder(store, tenant_id, name, config, labels, schedule, max_deleted_share)
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
    rows = [{"name": s.name, "kind": s.kind, "schedule": s.schedule, "last success": s.last_success_at} for s in found]
    show(found, as_json, table(rows))


@click.command("refresh", epilog="Example: citadel refresh acme --wait")
@click.argument("name")
@click.option("--wait", is_flag=True, help="Until the refresh and the indexing that follows are at their end.")
@click.option("--allow-mass-delete", is_flag=True, help="Delete what is gone, however much.")
@as_json
@pass_settings
def refresh_command(settings: Settings, name: str, wait: bool, allow_mass_delete: bool, as_json: bool) -> None:
    """Refresh a source now."""
    with opened_store(settings) as store:
        tenant_id = tenant_of(store, settings)
        with reading_tenant(store, tenant_id) as conn:
            source = sources.named(conn, tenant_id, name)
        job_id = request_refresh(store, tenant_id, source.id, allow_mass_delete=allow_mass_delete)
        if not wait:
            show({"job_id": str(job_id)}, as_json, f"accepted: citadel jobs show {job_id}")
            return
        job = wait_for_job(store, tenant_id, job_id)
        wait_for_indexing(store, tenant_id)
    counts = ", ".join(f"{n} {kind}" for kind, n in job.detail.get("counts", {}).items()) or "nothing to do"
    problems = "".join(f"\n  {problem}" for problem in job.detail.get("problems", []))
    show(plain(job), as_json, f"{job.state}: {counts}{problems}")


def wait_for_job(store: Store, tenant_id: UUID, job_id: UUID) -> Job:
    """The job at its end. Raises the failure, if it failed."""
    while True:
        with reading_tenant(store, tenant_id) as conn:
            job = jobs.get(conn, job_id)
        if job.state in ENDED:
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


@click.group("jobs")
def jobs_group() -> None:
    """Look at accepted work, and try it again."""


@jobs_group.command("list", epilog="Example: citadel jobs list --state failed")
@click.option("--state", type=click.Choice(["accepted", "parsing", "embedding", "indexing", "running", *ENDED]))
@click.option("--limit", type=click.IntRange(1, 1000), default=20, show_default=True)
@as_json
@pass_settings
def list_jobs(settings: Settings, state: str | None, limit: int, as_json: bool) -> None:
    """List the latest jobs, newest first."""
    with opened_store(settings) as store:
        tenant_id = tenant_of(store, settings)
        with reading_tenant(store, tenant_id) as conn:
            found = jobs.recent(conn, tenant_id, state, limit)
    rows = [{"job": j.id, "kind": j.kind, "state": j.state, "attempts": j.attempts, "error": j.error} for j in found]
    show(found, as_json, table(rows))


@jobs_group.command("show")
@click.argument("job_id", type=click.UUID)
@as_json
@pass_settings
def show_job(settings: Settings, job_id: UUID, as_json: bool) -> None:
    """Show one job."""
    with opened_store(settings) as store, reading_tenant(store, tenant_of(store, settings)) as conn:
        job = jobs.get(conn, job_id)
    show(job, as_json, "\n".join(f"{key:12} {value}" for key, value in plain(job).items() if value is not None))


@jobs_group.command("retry", epilog="Example: citadel jobs retry 8c5f…")
@click.argument("job_id", type=click.UUID)
@as_json
@pass_settings
def retry(settings: Settings, job_id: UUID, as_json: bool) -> None:
    """Accept a failed or quarantined job again, with its attempts forgotten."""
    with opened_store(settings) as store, writing(store) as conn:
        if not jobs.reopen(conn, tenant_of(store, settings), job_id):
            raise CitadelError("only a failed or quarantined job of this tenant can be tried again")
    show({"job_id": str(job_id), "state": "accepted"}, as_json, "accepted again")
