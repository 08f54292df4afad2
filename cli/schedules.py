"""`citadel eval schedule`: golden sets asked by the clock, and alarms when the search got worse."""

from typing import Any

import click
from ir_measures import nDCG

from cli.jobs import operator
from cli.options import as_json, cutoffs_of, pass_settings, plain, show, table
from cli.sources import wait_for_job
from cli.stack import opened_store, tenant_of
from core.config import Settings
from eval import schedule
from eval.gate import parse_limits
from eval.report import to_line
from eval.schedule import Wanted
from ingest.schedule import Plan
from store import schedules
from store.pool import writing
from store.schedules import Result, Schedule


@click.group("schedule")
def schedule_group() -> None:
    """Ask golden sets by the clock. A running stack does it: `citadel up`, or a dispatcher and an eval worker."""


@schedule_group.command("add")
@click.option("--golden", required=True, metavar="NAME", help="A kept set: its newest version, or NAME@VERSION.")
@click.option("--cron", required=True, help="When, such as '0 6 * * *' or @daily.")
@click.option("--tz", "timezone", default="UTC", show_default=True, help="By the clock of, e.g. Europe/Berlin.")
@click.option("--name", help="Of the schedule, and of its runs.  [default: scheduled-GOLDEN]")
@click.option("--baseline", metavar="RUN", help="A kept run that each of these is held against, by the gate.")
@click.option("--max-drop", "drops", multiple=True, metavar="M=D",
              help="How far a measure's mean may fall; may be given again.  [default: nDCG@10=0.01]")  # fmt: skip
@click.option("--k", "cutoffs", default="1,3,5,10", show_default=True, callback=cutoffs_of, metavar="K,K,…",
              help="Cutoffs: how many passages of an answer count.")  # fmt: skip
@click.option("--measures", default="", metavar="M,M,…", help="More of them, as for `citadel eval run`.")
@as_json
@pass_settings
def add_command(
    settings: Settings, golden: str, cron: str, timezone: str, name: str | None, baseline: str | None,
    drops: tuple[str, ...], cutoffs: tuple[int, ...], measures: str, as_json: bool,
) -> None:  # fmt: skip
    """Ask the kept set GOLDEN whenever the clock says so, and keep the runs.

    An alarm is raised when a forbidden document came back, when a measure fell against the baseline by more than is
    allowed and by more than chance, when small losses of the last runs add up (CUSUM), and when a run could not be
    compared. It is an event of the audit (`eval.alarm`), a gauge of /metrics, and shown by `list`.

    \b
    Example:
      citadel eval schedule add --golden acme --cron '0 6 * * *' --tz Europe/Berlin --baseline main --measures AP@50
    """
    limits = parse_limits(drops or (f"{nDCG @ max(cutoffs)}=0.01",), 0)
    wanted = Wanted(name or f"scheduled-{golden}", golden, Plan(cron, timezone), baseline, cutoffs, measures, limits)
    with opened_store(settings) as store:
        added = schedule.add(store, tenant_of(store, settings), wanted, operator())
    show(added, as_json, f"{added.name}: next at {added.next_due_at:%F %H:%M} UTC")


@schedule_group.command("list", epilog="Example: citadel eval schedule list")
@as_json
@pass_settings
def list_command(settings: Settings, as_json: bool) -> None:
    """Show each schedule with its last result, and its alarms."""
    with opened_store(settings) as store:
        tenant_id = tenant_of(store, settings)
        with writing(store) as conn:
            latest = schedules.latest(conn, tenant_id)
            found = [(each, latest.get(each.id)) for each in schedules.all_of(conn, tenant_id)]
    rows = [_row(each, last) for each, last in found]
    alarms = [f"ALARM  {each.name}: {check.name}: {to_line(check.told, 160)}"
              for each, last in found if last for check in last.alarms()]  # fmt: skip
    told = [{**plain(each), "last": plain(last) if last else None} for each, last in found]
    show({"schedules": told}, as_json, "\n".join([table(rows), *alarms]))


def _row(each: Schedule, last: Result | None) -> dict[str, Any]:
    measured = next((check for check in last.checks if check.name in each.max_drop), None) if last else None
    return {
        "name": each.name, "golden": each.golden, "cron": each.schedule, "tz": each.timezone,
        "baseline": each.baseline, "next": each.next_due_at and each.next_due_at.strftime("%F %R"),
        "last": last and last.at.strftime("%F %R"), "run": last and str(last.run_id)[:8],
        "measure": measured and f"{measured.name} {measured.value:.3f}",
        "alarms": ("none" if not last.alarms() else len(last.alarms())) if last else None,
    }  # fmt: skip


@schedule_group.command("remove", epilog="Example: citadel eval schedule remove scheduled-acme")
@click.argument("name")
@as_json
@pass_settings
def remove_command(settings: Settings, name: str, as_json: bool) -> None:
    """Remove the schedule NAME. Its runs stay."""
    with opened_store(settings) as store:
        schedule.remove(store, tenant_of(store, settings), name, operator())
    show({"removed": name}, as_json, f"{name}: removed")


@schedule_group.command("run", epilog="Example: citadel eval schedule run scheduled-acme --wait")
@click.argument("name")
@click.option("--wait", is_flag=True, help="Until it is done; status 1 when it raised an alarm.")
@as_json
@pass_settings
@click.pass_context
def run_command(ctx: click.Context, settings: Settings, name: str, wait: bool, as_json: bool) -> None:
    """Run the schedule NAME now, as its clock would."""
    with opened_store(settings) as store:
        tenant_id = tenant_of(store, settings)
        job_id = schedule.request(store, tenant_id, name, operator())
        if not wait:
            show({"job_id": job_id}, as_json, f"job {job_id}")
            return
        click.echo(f"job {job_id}: waiting for a worker that evaluates", err=True)
        wait_for_job(store, tenant_id, job_id)
        with writing(store) as conn:
            last = schedules.latest(conn, tenant_id)[schedules.named(conn, tenant_id, name).id]
    lines = [f"{'ALARM' if check.alarm else 'ok':5}  {check.name}: {to_line(check.told, 160)}" for check in last.checks]
    show({"job_id": job_id, **plain(last)}, as_json, "\n".join(lines))
    ctx.exit(1 if last.alarms() else 0)
