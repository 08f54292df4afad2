"""`citadel eval scratch`: the tenants that collections were indexed into."""

from typing import Any

import click

from cli.options import as_json, pass_settings, plain, progress_option, show, table
from cli.scratch import bar, standing
from cli.stack import opened_store
from core.config import Settings
from core.errors import Invalid
from eval.scratch import PREFIX, delete_scratch
from store.blobs import FsspecBlobs
from store.pool import writing
from store.scratch import Scratch, scratches


@click.group("scratch")
def scratch_group() -> None:
    """Tenants that collections were indexed into; they stay, so that a second run indexes nothing."""


@scratch_group.command("list", epilog="Example: citadel eval scratch list")
@as_json
@pass_settings
def list_command(settings: Settings, as_json: bool) -> None:
    """What there are, oldest first, and how much each holds."""
    with standing(settings) as running, opened_store(running, reads=False) as store, writing(store) as conn:
        found = scratches(conn, PREFIX)
    show({"scratch": [plain(each) for each in found]}, as_json, table([_row(each) for each in found]))


@scratch_group.command("delete", epilog="Example: citadel eval scratch delete eval/scifact/0c1d2e3f4a5b6c7d/9a8b7c6d")
@click.argument("names", nargs=-1)
@click.option("--all", "every", is_flag=True, help="All of them.")
@progress_option
@as_json
@pass_settings
def delete_command(settings: Settings, names: tuple[str, ...], every: bool, progress: bool, as_json: bool) -> None:
    """Delete scratch tenants NAMES with their documents and blobs; no other tenant has such a name."""
    if every == bool(names):
        raise Invalid("name the scratch tenants, as `citadel eval scratch list` does, or give --all")
    with standing(settings) as running, opened_store(running, reads=False) as store:
        blobs = FsspecBlobs(running.blob_store_url())
        with writing(store) as conn:
            known = {each.name: each for each in scratches(conn, PREFIX)}
        if missing := [name for name in names if name not in known]:
            raise Invalid(f"there is no scratch tenant {missing[0]!r}: `citadel eval scratch list` names them")
        for name in names or known:
            with bar(f"deleting {name}", progress) as step:
                delete_scratch(store, blobs, known[name], step)
    deleted = list(names or known)
    show({"deleted": deleted}, as_json, f"{len(deleted)} scratch tenants deleted")


def _row(each: Scratch) -> dict[str, Any]:
    return {"name": each.name, "documents": each.documents, "chunks": each.chunks, "profile": each.profile,
            "made": each.created_at.date()}  # fmt: skip
