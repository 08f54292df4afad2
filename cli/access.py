"""Commands about who may see what: API keys, groups and clearances."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click
import yaml

from cli.options import as_json, pass_settings, show, table
from cli.stack import opened_store, tenant_of
from core.config import Settings
from core.errors import InvalidRules, NotFound
from store import access, audit, keys
from store.pool import writing

ACTOR = "service:cli"


@click.group("keys")
def keys_group() -> None:
    """Make, list, rotate and revoke API keys."""


@keys_group.command(
    "create", epilog="Example: citadel keys create agent --scope search --scope act_for --require-act-for"
)
@click.argument("name")
@click.option("--scope", "scopes", multiple=True, required=True, type=click.Choice(sorted(keys.SCOPES)))
@click.option("--ceiling", multiple=True, help="An allow label that the key may use; repeat. Without: no ceiling.")
@click.option("--max-classification", help="The highest classification that the key may see.")
@click.option("--require-act-for", is_flag=True, help="Refuse calls that name no end user.")
@click.option("--days", type=click.IntRange(min=1), help="Days until it expires. Without: it does not.")
@as_json
@pass_settings
def create(
    settings: Settings,
    name: str,
    scopes: tuple[str, ...],
    ceiling: tuple[str, ...],
    max_classification: str | None,
    require_act_for: bool,
    days: int | None,
    as_json: bool,
) -> None:
    """Make a key and print its secret, once."""
    expires = datetime.now(UTC) + timedelta(days=days) if days else None
    with opened_store(settings) as store:
        tenant_id = tenant_of(store, settings)
        with writing(store) as conn:
            secret = keys.create_key(
                conn, tenant_id, name, scopes, ceiling=ceiling or None, max_classification=max_classification,
                require_act_for=require_act_for, expires_at=expires,
            )  # fmt: skip
        audit.record(
            store, tenant_id, "key.create", actor=ACTOR, resource=f"key:{name}", detail={"scopes": list(scopes)}
        )
    show({"name": name, "key": secret}, as_json, secret)


@keys_group.command("list")
@as_json
@pass_settings
def list_keys(settings: Settings, as_json: bool) -> None:
    """List keys, without their secrets."""
    with opened_store(settings) as store:
        tenant_id = tenant_of(store, settings)
        with writing(store) as conn:
            found = keys.list_keys(conn, tenant_id)
    show(found, as_json, table(found))


@keys_group.command("rotate", epilog="Example: citadel keys rotate agent --overlap-hours 24")
@click.argument("name")
@click.option("--overlap-hours", type=click.FloatRange(0, 24 * 90), default=24.0, show_default=True,
              help="How long the old secret still opens the key.")  # fmt: skip
@as_json
@pass_settings
def rotate(settings: Settings, name: str, overlap_hours: float, as_json: bool) -> None:
    """Give a key a new secret and print it, once. A secret from an earlier rotation dies now."""
    with opened_store(settings) as store:
        tenant_id = tenant_of(store, settings)
        with writing(store) as conn:
            secret, until = keys.rotate_key(conn, tenant_id, name, timedelta(hours=overlap_hours))
        audit.record(store, tenant_id, "key.rotate", actor=ACTOR, resource=f"key:{name}",
                     detail={"old_secret_until": until.isoformat()})  # fmt: skip
    show({"name": name, "key": secret, "old_secret_until": until}, as_json, secret)


@keys_group.command("revoke", epilog="Example: citadel keys revoke agent")
@click.argument("name")
@as_json
@pass_settings
def revoke(settings: Settings, name: str, as_json: bool) -> None:
    """Revoke a key; its next call is refused."""
    with opened_store(settings) as store:
        tenant_id = tenant_of(store, settings)
        with writing(store) as conn:
            if not keys.revoke_key(conn, tenant_id, name):
                raise NotFound(f"there is no live key {name!r}: `citadel keys list` shows all")
        audit.record(store, tenant_id, "key.revoke", actor=ACTOR, resource=f"key:{name}")
    show({"name": name, "revoked": True}, as_json, f"{name} is revoked")


@click.group()
def groups() -> None:
    """Load groups and clearances."""


@groups.command("load", epilog="Example: citadel groups load examples/acme/groups.yaml")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@as_json
@pass_settings
def load_groups(settings: Settings, file: Path, as_json: bool) -> None:
    """Make the groups and clearances of FILE the tenant's; they hold at the next query.

    \b
    groups:
      group:staff: [group:finance, user:ben@acme.example]    # members: users or, nested, groups
      group:finance: [user:ana@acme.example]
    clearances:                                              # above the tenant's default, internal
      user:ana@acme.example: confidential
    """
    members, clearances = read_groups(file)
    with opened_store(settings) as store:
        tenant_id = tenant_of(store, settings)
        with writing(store) as conn:
            access.replace_groups(conn, tenant_id, members, clearances)
        audit.record(store, tenant_id, "groups.change", actor=ACTOR, detail={"groups": sorted(members)})
    show({"groups": len(members), "clearances": len(clearances)}, as_json,
         f"{len(members)} groups and {len(clearances)} clearances loaded")  # fmt: skip


def read_groups(file: Path) -> tuple[dict[str, list[str]], dict[str, str]]:
    """Groups (label → members) and clearances (subject → classification). Raises InvalidRules."""
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InvalidRules(f"{file} is not YAML: {error}") from error
    if not isinstance(content, dict) or set(content) - {"groups", "clearances"}:
        raise InvalidRules(f"{file} must be a mapping with `groups` and `clearances`")
    members: Any = content.get("groups") or {}
    clearances: Any = content.get("clearances") or {}
    if not isinstance(members, dict) or not all(isinstance(each, list) for each in members.values()):
        raise InvalidRules(f"{file}: `groups` maps each group to a list of its members")
    if not isinstance(clearances, dict):
        raise InvalidRules(f"{file}: `clearances` maps a user to a classification")
    return {str(k): [str(m) for m in v] for k, v in members.items()}, {str(k): str(v) for k, v in clearances.items()}
