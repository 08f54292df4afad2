"""Commands about accepted work: look at it, end it, accept it again."""

import getpass
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import click

from cli.options import as_json, pass_settings, plain, show, table
from cli.stack import opened_store, tenant_of
from core.config import Settings
from core.errors import Invalid, NotFound
from core.records import Job
from store import jobs, operations, sources
from store.audit import Actor, audited
from store.operations import Choice
from store.pool import Conn, Store, reading_tenant, writing

STATES = ("accepted", "parsing", "embedding", "indexing", "running", *jobs.ENDED)
OPEN = tuple(state for state in STATES if state not in jobs.ENDED)
REOPENED = ("failed", "quarantined", "cancelled")
Change = Callable[[Conn, UUID, list[UUID], Actor], int]


def operator() -> Actor:
    """Whom the audit names for a command: the account that runs it."""
    return Actor(f"service:cli:{getpass.getuser()}")


@click.group("jobs", invoke_without_command=True, epilog="Example: citadel jobs")
@as_json
@pass_settings
@click.pass_context
def jobs_group(ctx: click.Context, settings: Settings, as_json: bool) -> None:
    """Look at accepted work, end it, or try it again. Alone: how much there is of what, and why it waits."""
    if ctx.invoked_subcommand is not None:
        return
    with opened_store(settings) as store:
        tenant_id = tenant_of(store, settings)
        with reading_tenant(store, tenant_id) as conn:
            found = operations.piles(conn, tenant_id)
    rows = [
        {"kind": p.kind, "state": p.state, "reason": p.error_code, "jobs": p.jobs,
         "oldest": "" if p.state in jobs.ENDED else _ago(p.oldest), "next try": _ahead(p.next_try_at)}
        for p in found
    ]  # fmt: skip
    show({"jobs": found}, as_json, table(rows))


@jobs_group.command("list", epilog="Example: citadel jobs list --state failed")
@click.option("--state", type=click.Choice(STATES))
@click.option("--limit", type=click.IntRange(1, 1000), default=20, show_default=True)
@as_json
@pass_settings
def list_jobs(settings: Settings, state: str | None, limit: int, as_json: bool) -> None:
    """List the latest jobs, newest first."""
    with opened_store(settings) as store:
        tenant_id = tenant_of(store, settings)
        with reading_tenant(store, tenant_id) as conn:
            found = jobs.recent(conn, tenant_id, state, limit)
    show(found, as_json, table([_row(job) for job in found]))


@jobs_group.command("show", epilog="Example: citadel jobs show 8c5f…")
@click.argument("job_id", type=click.UUID)
@as_json
@pass_settings
def show_job(settings: Settings, job_id: UUID, as_json: bool) -> None:
    """Show one job."""
    with opened_store(settings) as store, reading_tenant(store, tenant_of(store, settings)) as conn:
        job = jobs.get(conn, job_id)
    show(job, as_json, "\n".join(f"{key:12} {value}" for key, value in plain(job).items() if value is not None))


def _choosing(states: tuple[str, ...]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """The arguments by which a command takes some of the jobs in these states."""
    options = (
        click.argument("job_ids", type=click.UUID, nargs=-1),
        click.option("--state", type=click.Choice(states), help="Those in this state."),
        click.option("--kind", type=click.Choice(("index", "refresh", "eval"))),
        click.option("--source", help="A source's refreshes, and the jobs of its documents."),
        click.option("--error", "error_code", help="Those with this error code, e.g. worker_lost."),
        click.option("--yes", is_flag=True, help="Do not ask."),
        as_json,
        pass_settings,
    )

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


@jobs_group.command("retry", epilog="Example: citadel jobs retry --state quarantined --error worker_lost --yes")
@_choosing(REOPENED)
def retry(settings: Settings, as_json: bool, yes: bool, job_ids: tuple[UUID, ...], **choice: str | None) -> None:
    """Accept failed, quarantined or cancelled jobs again, attempts forgotten: those named, or all that fit."""
    _change(settings, "try again", operations.retry, REOPENED, job_ids, choice, yes, as_json)


@jobs_group.command("cancel", epilog="Example: citadel jobs cancel --source handbook --yes")
@_choosing(OPEN)
def cancel(settings: Settings, as_json: bool, yes: bool, job_ids: tuple[UUID, ...], **choice: str | None) -> None:
    """End open jobs: those named, or all that fit. What works on one stops at its next commit."""
    _change(settings, "cancel", operations.cancel, OPEN, job_ids, choice, yes, as_json)


def _change(
    settings: Settings, verb: str, change: Change, states: tuple[str, ...], job_ids: tuple[UUID, ...],
    choice: dict[str, str | None], yes: bool, as_json: bool,
) -> None:  # fmt: skip
    if bool(job_ids) == any(choice.values()):
        raise Invalid("name jobs by their ids, or say which by --state, --kind, --source, --error")
    with opened_store(settings) as store:
        tenant_id = tenant_of(store, settings)
        meant = list(job_ids) or [job.id for job in _meant(store, tenant_id, choice, states)]
        if not job_ids and meant and not yes:
            click.confirm(f"{verb} {len(meant)} jobs?", abort=True, err=True)
        with audited(store) as conn:
            changed = change(conn, tenant_id, meant, operator())
    if changed < len(job_ids):
        raise NotFound(
            f"{changed} of {len(job_ids)} jobs; the others are not {', '.join(states)}, or not this tenant's"
        )
    show({"jobs": changed}, as_json, f"{changed} jobs: {verb}")


def _meant(store: Store, tenant_id: UUID, choice: dict[str, str | None], states: tuple[str, ...]) -> list[Job]:
    with writing(store) as conn:  # documents are out of sight of a reader without a scope
        source = sources.named(conn, tenant_id, choice["source"]).id if choice["source"] else None
        found = Choice(choice["state"], choice["kind"], choice["error_code"], source)
        return operations.chosen(conn, tenant_id, found, states)


def _row(job: Job) -> dict[str, Any]:
    tries = f"{job.attempts}" + (f" (+{job.faults} waited)" if job.faults else "")
    return {"job": job.id, "kind": job.kind, "state": job.state, "age": _ago(job.created_at), "attempts": tries,
            "next try": _ahead(job.next_try_at), "reason": job.error or _refused(job)}  # fmt: skip


def _refused(job: Job) -> str:
    """Which attachments became no documents, and why."""
    return "; ".join(f"{each['name']}: {each['code']}" for each in job.detail.get("refused", ()))


def _ago(at: datetime) -> str:
    return _span((datetime.now(UTC) - at).total_seconds())


def _ahead(at: datetime | None) -> str:
    seconds = (at - datetime.now(UTC)).total_seconds() if at else 0.0
    return f"in {_span(seconds)}" if seconds >= 1 else ("now" if at else "")


def _span(seconds: float) -> str:
    """One unit is enough: 45 s, 12 min, 3 h, 2 d."""
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"
