"""`citadel documents`: which documents say the same."""

import click

from cli.access import ACTOR
from cli.options import as_json, pass_settings, show, table
from cli.stack import opened_store, tenant_of
from core.config import Settings
from core.records import Principal
from store import access, audit, copies
from store.copies import Family
from store.pool import reading_tenant

SHOWN = 3  # names in a line


@click.group("documents")
def documents_group() -> None:
    """What is known of the documents."""


@documents_group.command("duplicates", epilog="Example: citadel documents duplicates --as user:ana@acme.example --json")
@click.option("--as", "subject", help="What this user or service sees; else everything, as the operator.")
@click.option("--limit", type=click.IntRange(1, 10_000), default=50, show_default=True, help="Families, largest first.")
@click.option("--names", type=click.IntRange(1, 10_000), default=20, show_default=True, help="Documents named of each.")
@as_json
@pass_settings
def duplicates_command(settings: Settings, subject: str | None, limit: int, names: int, as_json: bool) -> None:
    """List exact and near copies. Documents under different labels are never put together.

    Near copies have nine tenths of their runs of five words in common. What was indexed before copies were linked is
    compared by `citadel upkeep --step copies`.
    """
    with opened_store(settings) as store:
        tenant_id = tenant_of(store, settings)
        who = Principal(tenant_id, subject) if subject else Principal(tenant_id, ACTOR, bypass=True)
        audit.record(store, tenant_id, "list", actor=ACTOR, acting_for=subject, detail={"listed": "duplicates"})
        with reading_tenant(store, tenant_id) as conn:
            access.enter_scope(conn, who)
            found = copies.families(conn, tenant_id, limit, names)
    show(found, as_json, table([_row(family) for family in found]))


def _row(family: Family) -> dict[str, object]:
    more = ", …" if family.documents > SHOWN else ""
    return {
        "documents": family.documents,
        "copies": "exact" if family.texts == 1 else f"{family.texts} texts",
        "labels": f"{', '.join(family.allow) or 'nobody'} ({family.classification})",
        "names": ", ".join(family.names[:SHOWN]) + more,
    }
