"""`citadel migrate`: roles, tables, the default profile and the tenant, from an administrator's connection."""

import json
import secrets
from dataclasses import dataclass, replace
from pathlib import Path

from core.config import Settings
from core.errors import Misconfigured
from core.records import Profile
from models.embedder import open_embedder
from store.migrate import as_owner, migrate, role_url
from store.profiles import ensure_profile, ensure_tenant, find_tenant, live_profile


@dataclass(frozen=True, slots=True)
class Prepared:
    """What was done to the database."""

    applied: list[str]  # names of migrations
    profile: Profile
    tenant: str


def prepare_database(settings: Settings, again: bool = True) -> Prepared:
    """Bring the database up to this code; running it again changes nothing. Raises Misconfigured.

    Without `again`, a tenant that is there keeps what it has, and no model is opened to see what it might have.
    """
    if not settings.database_url:
        raise Misconfigured("set CITADEL_DATABASE_URL to a role that may create roles and the extension `vector`")
    passwords = {"citadel_app": settings.app_password, "citadel_maintenance": settings.maintenance_password}
    applied = migrate(settings.database_url, passwords)
    with as_owner(settings.database_url) as conn:
        if not again and (tenant_id := find_tenant(conn, settings.tenant)):
            return Prepared(applied, live_profile(conn, tenant_id), settings.tenant)
        profile = ensure_profile(conn, _default_profile(settings))
        ensure_tenant(conn, settings.tenant, profile.id)
    return Prepared(applied, profile, settings.tenant)


def _default_profile(settings: Settings) -> Profile:
    embedder = open_embedder(
        settings.model, settings.model_cache(), settings.model_threads or None, settings.precision or None
    )
    name = f"{embedder.name}/{embedder.precision}/{settings.chunker}/{settings.chunk_tokens}"
    return Profile(
        id=0,
        name=name,
        model=embedder.name,
        dimensions=embedder.dimensions,
        precision=embedder.precision,
        chunk_tokens=settings.chunk_tokens,
        chunker=settings.chunker,
    )


def with_roles(settings: Settings, database_url: str) -> Settings:
    """The settings with that database, for each role; passwords are made on first use and kept in the state folder."""
    passwords = _passwords(settings.state / "roles.json")
    return replace(
        settings,
        database_url=database_url,
        app_password=passwords["app"],
        maintenance_password=passwords["maintenance"],
        app_database_url=settings.app_database_url or role_url(database_url, "citadel_app", passwords["app"]),
        maintenance_database_url=settings.maintenance_database_url
        or role_url(database_url, "citadel_maintenance", passwords["maintenance"]),
        blob_url=settings.blob_store_url(),
    )


def _passwords(path: Path) -> dict[str, str]:
    if not path.is_file():
        write_private(path, json.dumps({role: secrets.token_urlsafe(32) for role in ("app", "maintenance")}))
    return dict(json.loads(path.read_text()))


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner may read."""
    path.unlink(missing_ok=True)
    path.touch(mode=0o600)
    path.write_text(text)
