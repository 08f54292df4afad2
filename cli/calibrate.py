"""`citadel calibrate`: the graph of a large tenant, and from where on its searches go through it."""

from dataclasses import asdict
from typing import Any

import click

from cli.options import as_json, pass_settings, show, table
from cli.stack import opened_store
from core.config import Settings
from core.errors import Misconfigured
from core.records import AccessScope
from retrieval.calibrate import GRAPH_FROM, Point, calibrate
from store import calibrations, kept_profiles
from store.pool import writing
from store.profiles import live_profile, tenant_named
from store.vectors import Calibration

ACTOR = "service:cli"


@click.command("calibrate", epilog="Example: citadel calibrate --json")
@click.option("--graph-from", type=click.IntRange(min=1), default=GRAPH_FROM, show_default=True,
              help="Chunks from which on a graph is built; below, every search scans.")  # fmt: skip
@click.option("--profile", "name", help="One that is kept beside the live one.  [default: the live one]")
@as_json
@pass_settings
def calibrate_command(settings: Settings, graph_from: int, name: str | None, as_json: bool) -> None:
    """Measure which way to the nearest vectors is the right one, and use it from now on.

    Builds the tenant's graph when it has chunks enough (some seconds for each 10,000; readers and writers go on), then
    asks questions both ways as people who see less and less. Run it again when the tenant has grown several times, or
    on another machine.
    """
    if not settings.database_url:
        raise Misconfigured("set CITADEL_DATABASE_URL to a role that may become citadel_owner: others build no index")
    with opened_store(settings) as store:
        with writing(store) as conn:
            tenant_id = tenant_named(conn, settings.tenant)
            kept = kept_profiles.kept_named(conn, tenant_id, name).profile if name else None
            profile = kept or live_profile(conn, tenant_id)
            total = sum(calibrations.counts(conn, tenant_id, profile.id).values())
        built, found, points = False, None, list[Point]()
        calibrations.vacuum_vectors(settings.database_url, profile.id)
        if total >= graph_from:
            built = calibrations.build_graph(settings.database_url, profile, tenant_id, total)
            found, points = calibrate(store, AccessScope(tenant_id, ACTOR, (), 0), profile)
        detail = {"chunks": total, "built": built, "routes": asdict(found) if found else None}
    rows = [asdict(point) for point in points]
    show({**detail, "points": rows}, as_json, as_text(total, found, rows))


def as_text(total: int, found: Calibration | None, rows: list[dict[str, Any]]) -> str:
    """What was measured, and what follows from it."""
    if found is None:
        return f"{total:,} chunks: every search scans what its caller may see, which is exact"
    if not found.ef_search:
        rule = "the graph misses too much: every search scans"
    else:
        rule = (
            f"who sees more than {found.exact_rows:,} is answered by the graph, or by a scan where little of what is "
            "near is visible; all others by a scan"
        )
    return f"{table(rows)}\n{total:,} chunks: {rule}"
