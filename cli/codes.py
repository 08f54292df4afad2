"""`citadel fill-codes`: token codes for what was indexed before there were any."""

import click

from cli.options import as_json, pass_settings, progress_option, show
from cli.scratch import bar
from cli.stack import opened_store, tenant_of
from core.config import Settings
from ingest.fill_codes import fill_codes
from models.embedder import open_embedder
from store.pool import reading_tenant
from store.profiles import live_profile


@click.command("fill-codes", epilog="Example: citadel fill-codes    (interrupted, it goes on where it was)")
@progress_option
@as_json
@pass_settings
def fill_codes_command(settings: Settings, progress: bool, as_json: bool) -> None:
    """Give chunks of the live profile token codes, which late interaction reads, where they have none.

    Needed once, after an upgrade from a release without them. Readers and writers go on.
    """
    with opened_store(settings) as store:
        tenant_id = tenant_of(store, settings)
        with reading_tenant(store, tenant_id) as conn:
            profile = live_profile(conn, tenant_id)
        embedder = open_embedder(
            settings.model, settings.model_cache(), settings.model_threads or None, profile.precision
        )
        with bar("filling in", progress) as step:
            filled = fill_codes(store, embedder, profile, step)
    show({"profile": profile.name, "filled": filled}, as_json, f"{filled} chunks of {profile.name} have codes now")
