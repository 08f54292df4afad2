"""`citadel upkeep` and `citadel retention`: what is taken away in time, and how the rest is kept quick."""

from dataclasses import asdict, replace
from functools import partial

import click

from cli.access import ACTOR
from cli.options import as_json, pass_settings, show
from cli.stack import open_shelf, opened_store, tenant_of
from core.config import Settings
from ingest.upkeep import DEAD_SHARE, STEPS, Report, Upkeep, run
from store import audit, retention
from store.audit import audited
from store.blobs import FsspecBlobs
from store.pool import writing
from store.retention import Retention


@click.command("upkeep", epilog="Example: citadel upkeep --step retention --step blobs --dry-run")
@click.option("--step", "steps", multiple=True, type=click.Choice(list(STEPS)), help="Repeat.  [default: all]")
@click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing.")
@click.option("--dead-share", type=click.FloatRange(0, 1), default=DEAD_SHARE, show_default=True,
              help="Of a table's rows, dead ones from which on it is vacuumed and its graphs built anew.")  # fmt: skip
@click.option("--grace-s", type=click.FloatRange(0), help="Blobs that nothing refers to are left alone for so many "
              "seconds.  [default: CITADEL_BLOB_GRACE_S]")  # fmt: skip
@as_json
@pass_settings
def upkeep_command(
    settings: Settings, steps: tuple[str, ...], dry_run: bool, dead_share: float, grace_s: float | None, as_json: bool
) -> None:
    """Do now what the schedule does every six hours. Searches and writes go on.

    \b
    retention  versions that the tenants do not keep, see `citadel retention`
    jobs       jobs that ended longer ago than the tenants keep them, see there
    questions  what was asked and said longer ago than is kept, see `citadel traces`
    orphans    chunks that no search can find, vectors and codes without a chunk
    blobs      bytes that no version refers to
    copies     documents that were not compared with others yet, linked with those that say the same
    profiles   profiles that were live before, brought up to now for a rollback
    reindex    graphs on tables with many dead rows, built anew
    vacuum     tables with many dead rows
    """
    grace_s = settings.blob_grace_s if grace_s is None else grace_s
    with opened_store(settings, reads=False) as store:
        work = Upkeep(
            store, FsspecBlobs(settings.blob_store_url()), partial(open_shelf(settings).fitting, None), dry_run,
            dead_share, grace_s=grace_s, say=lambda text: click.echo(text, err=True),
        )  # fmt: skip
        reports = list(run(work, steps or tuple(STEPS)))
    show({report.step: report.skipped or report.counts for report in reports}, as_json, _text(reports))


@click.command("retention", epilog="Example: citadel retention --versions 5 --days 30 --job-days 90")
@click.option("--versions", type=click.IntRange(0), help="Keep so many versions before the current one.")
@click.option("--days", type=click.IntRange(0), help="Keep versions that were replaced no longer ago.")
@click.option("--all", "everything", is_flag=True, help="Keep every version.")
@click.option("--job-days", type=click.IntRange(0), help="Keep jobs for so many days after their end.")
@click.option("--all-jobs", is_flag=True, help="Keep every job.")
@as_json
@pass_settings
def retention_command(
    settings: Settings, versions: int | None, days: int | None, everything: bool, job_days: int | None, all_jobs: bool,
    as_json: bool,
) -> None:  # fmt: skip
    """Show which versions of a document and which ended jobs the tenant keeps, or change it.

    The current version always stays; with both limits, what either one keeps. The others go with the next upkeep, and
    who follows a citation to one of them is answered 410. Open jobs always stay, and so does the reason why a
    document's latest version could not be read.
    """
    with opened_store(settings) as store:
        tenant_id = tenant_of(store, settings)
        with writing(store) as conn:
            kept = before = retention.of_tenant(conn, tenant_id)
        if everything or versions is not None or days is not None:
            kept = replace(kept, versions=None if everything else versions, days=None if everything else days)
        if all_jobs or job_days is not None:
            kept = replace(kept, job_days=None if all_jobs else job_days)
        if kept != before:
            with audited(store) as conn:
                retention.set_retention(conn, tenant_id, kept)
                audit.add(conn, tenant_id, "retention.change", actor=ACTOR, detail=asdict(kept))
    show(kept, as_json, _kept(kept))


def _kept(kept: Retention) -> str:
    limits = [f"{kept.versions} before the current one"] * (kept.versions is not None)
    limits += [f"those replaced in the last {kept.days} days"] * (kept.days is not None)
    jobs = "all" if kept.job_days is None else f"{kept.job_days} days after their end"
    return f"versions kept: {' and '.join(limits) or 'all'}\njobs kept: {jobs}"


def _text(reports: list[Report]) -> str:
    return "\n".join(f"{report.step:10} {_line(report)}" for report in reports)


def _line(report: Report) -> str:
    counted = ", ".join(f"{count:,} {what}" for what, count in report.counts.items() if count)
    return f"skipped: {report.skipped}" if report.skipped else counted or "nothing to do"
