"""Commands about sources and their refreshes."""

import sys
import time
from uuid import UUID

import click

from cli.jobs import operator
from cli.options import as_json, pass_settings, plain, show, table
from cli.source_add import add
from cli.stack import opened_store, tenant_of
from core.config import Settings
from core.errors import Permanent
from core.records import Job, Source
from ingest.removal import remove
from ingest.schedule import pause, request_refresh, resume
from store import jobs, operations, sources
from store.operations import Choice
from store.pool import Store, reading_tenant, writing

SHOWN = 20  # documents that a refresh could not index, by their reasons


@click.group("sources")
def sources_group() -> None:
    """Add, list, pause and remove sources."""


sources_group.add_command(add)


@sources_group.command("list")
@as_json
@pass_settings
def list_sources(settings: Settings, as_json: bool) -> None:
    """List sources with their schedules and last success."""
    with opened_store(settings) as store:
        tenant_id = tenant_of(store, settings)
        with reading_tenant(store, tenant_id) as conn:
            found = sources.all_of(conn, tenant_id)
    show(found, as_json, table([_row(source) for source in found]))


def _row(source: Source) -> dict[str, object]:
    zone = "" if source.timezone == "UTC" else f" {source.timezone}"
    times = {"next refresh": source.next_due_at, "last success": source.last_success_at,
             "content as of": source.content_as_of, "permissions as of": source.permissions_as_of}  # fmt: skip
    return {
        "name": source.name,
        "kind": source.kind,
        "schedule": source.schedule and source.schedule + zone,
        **{name: at and f"{at:%Y-%m-%d %H:%M:%S}" for name, at in times.items()},
        "paused": source.paused_at and f"{source.paused_at:%Y-%m-%d %H:%M:%S}",
        "lag": f"{source.lag_s:.0f} s" if source.lag_s else "",
    }


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


@sources_group.command(
    "remove", epilog="Examples: citadel sources remove handbook --keep; citadel sources remove wiki --delete --wait"
)
@click.argument("name")
@click.option("--keep", is_flag=True, help="Its documents stay as they are now: nobody follows their labels any more.")
@click.option("--delete", is_flag=True, help="Its documents are erased with it, by a job.")
@click.option("--wait", is_flag=True, help="Until they are.")
@as_json
@pass_settings
def remove_source(settings: Settings, name: str, keep: bool, delete: bool, wait: bool, as_json: bool) -> None:
    """Refresh a source no more, and --keep or --delete its documents: one of both has to be said.

    Kept documents are searched as before, as those that are pushed to a source of this name. Deleted ones are gone from
    every reader one by one, leave tombstones, and take the source with them.
    """
    with opened_store(settings) as store:
        tenant_id = tenant_of(store, settings)
        with writing(store) as conn:
            count = sources.count_documents(conn, sources.named(conn, tenant_id, name).id)
        if keep == delete:
            raise click.UsageError(f"source {name!r} has {count} documents: say --keep or --delete")
        job_id = remove(store, tenant_id, name, keep=keep, by=operator())
        if job_id is not None and wait:
            click.echo(f"deleting {count} documents", err=True)
            wait_for_job(store, tenant_id, job_id)
    said = f"{count} documents are kept" if job_id is None else f"{count} documents: citadel jobs show {job_id}"
    show({"documents": count, "job_id": job_id and str(job_id)}, as_json, f"{name} is removed; {said}")


@click.command("refresh", epilog="Examples: citadel refresh acme --wait; citadel sources refresh acme --permissions")
@click.argument("name")
@click.option("--wait", is_flag=True, help="Until the refresh and the indexing that follows are at their end.")
@click.option("--permissions", is_flag=True, help="Who may see what, alone: nothing is fetched, added or deleted.")
@click.option("--allow-mass-delete", is_flag=True, help="Delete what is gone, however much.")
@click.option("--allow-missing-rules", is_flag=True, help="Go on without the .citadel.yaml that was there before.")
@as_json
@pass_settings
def refresh_command(
    settings: Settings, name: str, wait: bool, permissions: bool, allow_mass_delete: bool, allow_missing_rules: bool,
    as_json: bool,
) -> None:  # fmt: skip
    """Refresh a source now. With --wait the exit status is 1 when a document that it brought in was not indexed."""
    with opened_store(settings) as store:
        tenant_id = tenant_of(store, settings)
        with reading_tenant(store, tenant_id) as conn:
            source = sources.named(conn, tenant_id, name)
        job_id = request_refresh(store, tenant_id, source.id, allow_mass_delete=allow_mass_delete, by=operator(),
                                 permissions_only=permissions, allow_missing_rules=allow_missing_rules)  # fmt: skip
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


sources_group.add_command(refresh_command)


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
