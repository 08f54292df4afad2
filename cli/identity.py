"""Commands about identity providers: whose OIDC tokens open the API, and as whom."""

import json
from pathlib import Path
from typing import Any

import click

from api.jwks import check_url, keys_of
from cli.access import ACTOR
from cli.options import as_json, pass_settings, show, table
from cli.stack import opened_store, tenant_of
from core.config import Settings
from core.errors import Invalid, NotFound
from store import audit, providers
from store.pool import writing


@click.group("identity")
def identity_group() -> None:
    """Add, list and remove OIDC identity providers."""


@identity_group.command(
    "add",
    epilog="Example: citadel identity add okta --issuer https://acme.okta.com/oauth2/default --audience api://citadel "
    "--jwks-url https://acme.okta.com/oauth2/default/v1/keys --subject-claim email --group-claim groups",
)
@click.argument("name")
@click.option("--issuer", required=True, help="The tokens' `iss`, letter for letter.")
@click.option("--audience", required=True, help="What must stand in the tokens' `aud`.")
@click.option("--jwks-url", help="Where the provider publishes its keys; https.")
@click.option("--jwks-file", type=click.Path(exists=True, dir_okay=False, path_type=Path),
              help="Or the keys themselves, read now and kept.")  # fmt: skip
@click.option("--algorithm", "algorithms", multiple=True, default=("RS256",), show_default=True,
              type=click.Choice(providers.ALGORITHMS), help="What tokens may be signed with; repeat.")  # fmt: skip
@click.option("--subject-claim", default="sub", show_default=True, help="The claim whose value becomes user:<value>.")
@click.option("--fold-case/--exact-case", default=None,
              help="Read user names in lower case, as SCIM does. Default: yes, but for `sub`.")  # fmt: skip
@click.option("--group-claim", help="The claim that lists groups. Without: tokens give none.")
@click.option("--group-prefix", default="group:", show_default=True, help="What stands before a group's name.")
@click.option("--scope", "scopes", multiple=True, default=("search",), show_default=True,
              type=click.Choice(sorted(providers.SCOPES)), help="What a token may do; repeat.")  # fmt: skip
@as_json
@pass_settings
def add(
    settings: Settings, name: str, issuer: str, audience: str, jwks_url: str | None, jwks_file: Path | None,
    algorithms: tuple[str, ...], subject_claim: str, fold_case: bool | None, group_claim: str | None,
    group_prefix: str, scopes: tuple[str, ...], as_json: bool,
) -> None:  # fmt: skip
    """Believe the tokens of an issuer for an audience, from the next call on."""
    folds = subject_claim != "sub" if fold_case is None else fold_case
    with opened_store(settings) as store:
        tenant_id = tenant_of(store, settings)
        with writing(store) as conn:
            providers.add_provider(
                conn, tenant_id, name, issuer, audience, algorithms=algorithms, subject_claim=subject_claim,
                jwks_url=None if jwks_url is None else check_url(jwks_url),
                jwks=None if jwks_file is None else read_keys(jwks_file),
                fold_case=folds, group_claim=group_claim, group_prefix=group_prefix, scopes=scopes,
            )  # fmt: skip
        detail = {"issuer": issuer, "audience": audience, "scopes": list(scopes)}
        audit.record(store, tenant_id, "identity.add", actor=ACTOR, resource=f"identity:{name}", detail=detail)
    show({"name": name, "issuer": issuer, "audience": audience}, as_json, f"tokens of {issuer} are believed")


@identity_group.command("list")
@as_json
@pass_settings
def list_providers(settings: Settings, as_json: bool) -> None:
    """List identity providers, without their keys."""
    with opened_store(settings) as store:
        tenant_id = tenant_of(store, settings)
        with writing(store) as conn:
            found = providers.list_providers(conn, tenant_id)
    show(found, as_json, table(found))


@identity_group.command("remove", epilog="Example: citadel identity remove okta")
@click.argument("name")
@as_json
@pass_settings
def remove(settings: Settings, name: str, as_json: bool) -> None:
    """Believe a provider's tokens no more, from the next call on."""
    with opened_store(settings) as store:
        tenant_id = tenant_of(store, settings)
        with writing(store) as conn:
            if not providers.remove_provider(conn, tenant_id, name):
                raise NotFound(f"there is no identity provider {name!r}: `citadel identity list` shows all")
        audit.record(store, tenant_id, "identity.remove", actor=ACTOR, resource=f"identity:{name}")
    show({"name": name, "removed": True}, as_json, f"tokens of {name} are refused")


def read_keys(file: Path) -> dict[str, Any]:
    """The JWKS of this file, cut to the public keys that tokens can be checked with. Raises Invalid."""
    try:
        keys = list(keys_of(json.loads(file.read_text(encoding="utf-8"))).values())
    except (ValueError, RecursionError) as error:
        raise Invalid(f"{file} is no JWKS: {error}") from error
    if not keys:
        raise Invalid(f"{file} holds no public key with a `kid` that a token could be checked with")
    return {"keys": keys}
