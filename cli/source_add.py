"""`citadel sources add`: a place of any kind that documents come from."""

from pathlib import Path
from typing import Any

import click
import yaml

from cli.jobs import operator
from cli.options import as_json, pass_settings, show
from cli.stack import opened_store, tenant_of
from core.config import Settings
from core.errors import Invalid
from core.labels import make_labels
from ingest.schedule import Plan, add_source

# Where a kind's place stands in its configuration.
PLACES = {
    "folder": "path",
    "files": "url",
    "git": "url",
    "website": "url",
    "mail": "url",
    "sql": "query",
    "reader": "reader",
}

EXAMPLES = """\b
Examples (more in docs/sources.md):
  citadel sources add acme examples/acme/files --schedule '*/15 * * * *'
  citadel sources add reports s3://acme-docs/reports --kind files --secret key=env:S3_KEY --secret secret=env:S3_SECRET
  citadel sources add handbook https://git.acme.example/handbook.git --kind git --set branch=main
  citadel sources add docs https://docs.acme.example/ --kind website --schedule '0 2 * * *' --timezone Europe/Berlin
  citadel sources add support imaps://help@mail.acme.example/ --kind mail --secret password=file:/run/secrets/imap
  citadel sources add notes "SELECT id, body AS text, who AS labels, at AS modified FROM notes" --kind sql \\
    --secret url=env:NOTES_DSN
  citadel sources add pages llama_index.readers.web:SimpleWebPageReader --kind reader --set 'load={urls: [https://a.example]}'"""


@click.command("add", epilog=EXAMPLES)
@click.argument("name")
@click.argument("place")
@click.option("--kind", type=click.Choice(list(PLACES)), default="folder", show_default=True)
@click.option("--set", "settings_of_kind", multiple=True, metavar="KEY=VALUE", help="A setting of the kind, in YAML.")
@click.option("--option", "options", multiple=True, metavar="KEY=VALUE", help="An option of the file system, in YAML.")
@click.option(
    "--secret",
    "secrets",
    multiple=True,
    metavar="KEY=REFERENCE",
    help="env:NAME or file:/path, read where the workers run.",
)
@click.option("--schedule", help="Cron. Without: refreshed on request only.")
@click.option("--timezone", default="UTC", show_default=True, help="Whose clock the schedule is read by.")
@click.option("--jitter", type=click.IntRange(0, 86400), default=0, show_default=True, metavar="SECONDS",
              help="Each time up to so much later, so that sources do not start together.")  # fmt: skip
@click.option("--allow", multiple=True, help="Allow label for what no rule covers; repeat. Without: nobody.")
@click.option("--deny", multiple=True, help="Deny label for what no rule covers; repeat.")
@click.option("--classification", default="internal", show_default=True)
@click.option("--max-deleted-share", type=click.FloatRange(0, 1), default=0.3, show_default=True,
              help="A refresh that would delete more of the source stops and waits.")  # fmt: skip
@click.option("--uri-prefix", help="What a citation's uri starts with. Default: the place's own.")
@as_json
@pass_settings
def add(
    settings: Settings, name: str, place: str, kind: str, settings_of_kind: tuple[str, ...], options: tuple[str, ...],
    secrets: tuple[str, ...], schedule: str | None, timezone: str, jitter: int, allow: tuple[str, ...],
    deny: tuple[str, ...], classification: str, max_deleted_share: float, uri_prefix: str | None, as_json: bool,
) -> None:  # fmt: skip
    """Add PLACE as a source: a folder, a URL, a query or a reader's module:Class, by its kind."""
    config: dict[str, Any] = {PLACES[kind]: _folder(place) if kind == "folder" else place}
    config |= {key: _yaml(key, value) for key, value in _pairs("--set", settings_of_kind).items()}
    config |= (
        {"options": {key: _yaml(key, value) for key, value in _pairs("--option", options).items()}} if options else {}
    )
    config |= {"secrets": _pairs("--secret", secrets)} if secrets else {}
    config |= {"uri_prefix": uri_prefix} if uri_prefix else {}
    plan = None if schedule is None else Plan(schedule, timezone, jitter)
    labels = make_labels(allow, deny, classification)
    with opened_store(settings) as store:
        source = add_source(store, tenant_of(store, settings), name, kind, config, labels, plan, max_deleted_share,
                            by=operator())  # fmt: skip
    show(source, as_json, f"added; next: citadel refresh {name} --wait")


def _folder(place: str) -> str:
    if not Path(place).is_dir():
        raise Invalid(f"{place!r} is no folder here; for a place of another kind give --kind")
    return str(Path(place).resolve())


def _pairs(option: str, given: tuple[str, ...]) -> dict[str, str]:
    pairs = [pair.partition("=") for pair in given]
    if wrong := [key for key, equals, _ in pairs if not equals or not key]:
        raise Invalid(f"{option} takes KEY=VALUE, not {wrong[0]!r}")
    return {key: value for key, _, value in pairs}


def _yaml(key: str, value: str) -> Any:
    try:
        return yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise Invalid(f"the value of {key} is no YAML: {value[:80]!r}") from error
