"""`citadel migrate`: roles, tables, the default profile and the tenant, from an administrator's connection."""

from dataclasses import dataclass

from core.config import Settings
from core.errors import Misconfigured
from core.records import Profile
from models.embedder import open_embedder
from store.migrate import as_owner, migrate
from store.profiles import ensure_profile, ensure_tenant


@dataclass(frozen=True, slots=True)
class Prepared:
    """What was done to the database."""

    applied: list[str]  # names of migrations
    profile: Profile
    tenant: str


def prepare_database(settings: Settings) -> Prepared:
    """Bring the database up to this code; running it again changes nothing. Raises Misconfigured."""
    if not settings.database_url:
        raise Misconfigured("set CITADEL_DATABASE_URL to a role that may create roles and the extension `vector`")
    passwords = {"citadel_app": settings.app_password, "citadel_maintenance": settings.maintenance_password}
    applied = migrate(settings.database_url, passwords)
    with as_owner(settings.database_url) as conn:
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
