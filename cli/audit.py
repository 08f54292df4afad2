"""`citadel audit`: check the trail, keep a proof of it elsewhere, export it, and decide how long it is kept."""

import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import click

from cli.options import as_json, pass_settings, plain, show
from cli.stack import opened_store
from core.config import Settings
from core.errors import Invalid, Misconfigured
from store import audit, chain
from store.chain import Anchor, Verdict
from store.migrate import as_owner
from store.pool import writing
from store.profiles import tenant_named

ACTOR = "service:cli"


@click.group("audit")
def audit_group() -> None:
    """Check, export and keep the audit trail."""


@audit_group.command("anchor", epilog="Example: citadel audit anchor --json > /mnt/elsewhere/anchor.json")
@as_json
@pass_settings
def anchor_command(settings: Settings, as_json: bool) -> None:
    """Print the chain's last row, to be kept where whoever owns the database cannot write."""
    with opened_store(settings, reads=False) as store, writing(store) as conn:
        head = chain.head(conn, tenant_named(conn, settings.tenant))
    told = {"tenant": head.tenant_id, "seq": head.seq, "hash": head.hash.hex(), "at": head.at}
    show(told, as_json, f"row {head.seq} of {head.at}: {head.hash.hex()}")


@audit_group.command("verify", epilog="Example: citadel audit verify --anchor /mnt/elsewhere/anchor.json")
@click.option("--anchor", "anchor_file", type=click.Path(exists=True, dir_okay=False, path_type=Path),
              help="What `citadel audit anchor --json` printed. Without: a chain written anew would hold.")  # fmt: skip
@as_json
@pass_settings
@click.pass_context
def verify_command(ctx: click.Context, settings: Settings, anchor_file: Path | None, as_json: bool) -> None:
    """Walk the chain; ends with status 1 at the first row that is not as it was written."""
    anchor = read_anchor(anchor_file) if anchor_file else None
    with opened_store(settings, reads=False) as store:
        with writing(store) as conn:
            tenant_id = tenant_named(conn, settings.tenant)
        with writing(store) as conn:
            verdict = chain.verify(conn, tenant_id, anchor)
    show({"ok": verdict.problem is None, "verdict": verdict}, as_json, as_text(verdict))
    ctx.exit(0 if verdict.problem is None else 1)


def read_anchor(file: Path) -> Anchor:
    """An anchor as it was printed. Raises Invalid."""
    try:
        told = json.loads(file.read_text())
        at = None if told["at"] is None else datetime.fromisoformat(told["at"])
        return Anchor(UUID(told["tenant"]), int(told["seq"]), bytes.fromhex(told["hash"]), at)
    except (ValueError, TypeError, KeyError) as error:
        raise Invalid(f"{file} is not what `citadel audit anchor --json` prints: {error!r}") from error


def as_text(verdict: Verdict) -> str:
    """A verdict in a sentence."""
    if verdict.problem is not None:
        return f"BROKEN: row {verdict.broken_seq} {verdict.problem} ({verdict.rows} rows before it hold)"
    known = "and the anchor stands" if verdict.anchored else "without an anchor: a chain written anew would hold too"
    return f"{verdict.rows} rows hold, {verdict.first_seq} to {verdict.last_seq}, {known}"


@audit_group.command("export", epilog="Example: citadel audit export --since 2026-01-01 --until 2026-02-01 > jan.jsonl")
@click.option("--since", type=click.DateTime(), help="UTC. Without: from the first row that is kept.")
@click.option("--until", type=click.DateTime(), help="UTC, not included. Without: to the last row.")
@pass_settings
def export_command(settings: Settings, since: datetime | None, until: datetime | None) -> None:
    """Print rows as JSON lines, in the chain's order. Names of actions are never renamed nor removed."""
    with opened_store(settings, reads=False) as store, writing(store) as conn:
        tenant_id = tenant_named(conn, settings.tenant)
        for row in audit.export(conn, tenant_id, _utc(since), _utc(until)):
            sys.stdout.write(json.dumps(plain({**plain(row), "at": row.at.isoformat()}), ensure_ascii=False) + "\n")


def _utc(moment: datetime | None) -> datetime | None:
    return None if moment is None else moment.replace(tzinfo=UTC)


@audit_group.command("retention", epilog="Example: citadel audit retention --months 24")
@click.option("--months", type=click.IntRange(min=1), required=True, help="Whole months kept, beside this one.")
@as_json
@pass_settings
def retention_command(settings: Settings, months: int, as_json: bool) -> None:
    """Drop older months, of every tenant; each chain goes on from the last dropped row's hash."""
    if not settings.database_url:
        raise Misconfigured("set CITADEL_DATABASE_URL to a role that may become citadel_owner: others only add rows")
    with as_owner(settings.database_url) as conn:
        dropped = audit.retain(conn, months, ACTOR)
    show({"dropped": dropped}, as_json, f"dropped: {', '.join(dropped) or 'nothing'}; make a new anchor now")


@audit_group.command("query-text", epilog="Example: citadel audit query-text on")
@click.argument("switch", type=click.Choice(["on", "off"]))
@as_json
@pass_settings
def query_text_command(settings: Settings, switch: str, as_json: bool) -> None:
    """Keep the text of queries from now on, or only their keyed hashes."""
    with opened_store(settings, reads=False) as store, writing(store) as conn:
        tenant_id = tenant_named(conn, settings.tenant)
        audit.keep_queries(conn, tenant_id, switch == "on")
        audit.add(conn, tenant_id, "audit.query_text", actor=ACTOR, detail={"switch": switch})
    show(
        {"query_text": switch},
        as_json,
        f"the text of queries is {'' if switch == 'on' else 'not '}kept from now on",
    )
