"""`citadel upkeep` and `citadel retention`: what is taken away in time, and how the rest is kept quick."""

from functools import partial

import click

from cli.access import ACTOR
from cli.options import as_json, pass_settings, show
from cli.stack import open_shelf, opened_store, tenant_of
from core.config import Settings
from ingest.upkeep import DEAD_SHARE, STEPS, Report, Upkeep, run
from store import audit, retention
from store.blobs import FsspecBlobs
from store.pool import Store, writing
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
    orphans    chunks that no search can find, vectors and codes without a chunk
    blobs      bytes that no version refers to
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


@click.command("retention", epilog="Example: citadel retention --versions 5 --days 30")
@click.option("--versions", type=click.IntRange(0), help="Keep so many versions before the current one.")
@click.option("--days", type=click.IntRange(0), help="Keep versions that were replaced no longer ago.")
@click.option("--all", "everything", is_flag=True, help="Keep every version.")
@as_json
@pass_settings
def retention_command(
    settings: Settings, versions: int | None, days: int | None, everything: bool, as_json: bool
) -> None:
    """Show which versions of a document the tenant keeps, or change it; with both limits, what either one keeps.

    The current version always stays. The others go with the next upkeep, and who follows a citation to one of them is
    answered 410.
    """
    with opened_store(settings) as store:
        kept = _changed(store, settings, versions, days, everything)
    limits = [f"{kept.versions} before the current one"] * (kept.versions is not None)
    limits += [f"those replaced in the last {kept.days} days"] * (kept.days is not None)
    show(kept, as_json, f"versions kept: {' and '.join(limits) or 'all'}")


def _changed(store: Store, settings: Settings, versions: int | None, days: int | None, everything: bool) -> Retention:
    tenant_id = tenant_of(store, settings)
    if versions is None and days is None and not everything:
        with writing(store) as conn:
            return retention.of_tenant(conn, tenant_id)
    wanted = Retention(None, None) if everything else Retention(versions, days)
    with writing(store) as conn:
        retention.set_retention(conn, tenant_id, wanted)
    audit.record(store, tenant_id, "retention.change", actor=ACTOR,
                 detail={"versions": wanted.versions, "days": wanted.days})  # fmt: skip
    return wanted


def _text(reports: list[Report]) -> str:
    return "\n".join(f"{report.step:10} {_line(report)}" for report in reports)


def _line(report: Report) -> str:
    counted = ", ".join(f"{count:,} {what}" for what, count in report.counts.items() if count)
    return f"skipped: {report.skipped}" if report.skipped else counted or "nothing to do"
