"""Embedding profiles, and the tenants that live on them."""

from dataclasses import asdict, dataclass
from uuid import UUID

from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from core.errors import Invalid, ModelMismatch, NotFound
from core.records import MOST_RRF_K, Fusion, Profile
from core.trained import TrainedReranker
from store.audit import Hashing
from store.pool import Conn, one_row

BY_NAME = "SELECT id, name, model, dimensions, precision, chunk_tokens, chunker FROM profiles WHERE name = %s"
LIVE = """
    SELECT p.id, p.name, p.model, p.dimensions, p.precision, p.chunk_tokens, p.chunker
    FROM tenants t JOIN profiles p ON p.id = t.live_profile WHERE t.id = %s
"""
WAYS = """
    SELECT p.id, p.name, p.model, p.dimensions, p.precision, p.chunk_tokens, p.chunker, t.fusion, t.dense_weight,
           t.rrf_k, t.hash_key, t.keep_queries, t.trace_rate, t.reranker
    FROM tenants t JOIN profiles p ON p.id = t.live_profile WHERE t.id = %s
"""
FUSION = "SELECT fusion AS method, dense_weight, rrf_k FROM tenants WHERE id = %s"
SET_FUSION = "UPDATE tenants SET fusion = %s, dense_weight = %s, rrf_k = %s WHERE id = %s"
SET_RERANKER = "UPDATE tenants SET reranker = %s WHERE id = %s"
ADD = "SELECT add_profile(%s, %s, %s, %s, %s, %s)"
TENANT = "SELECT id FROM tenants WHERE name = %s"
ADD_TENANT = "INSERT INTO tenants (name, live_profile) VALUES (%s, %s) ON CONFLICT (name) DO NOTHING RETURNING id"
ADD_SCALE = "INSERT INTO classifications (tenant_id, name, rank) VALUES (%s, %s, %s)"

SCALE = ("public", "internal", "confidential", "restricted")  # lowest first; the default clearance is `internal`


def ensure_profile(conn: Conn, wanted: Profile) -> Profile:
    """The profile of that name, made with its index tables when absent; `wanted.id` is ignored. Runs as the owner.

    Raises ModelMismatch when the stored profile has other settings: vectors of two models do not mix.
    """
    found = _by_name(conn, wanted.name)
    if found is None:
        conn.execute(ADD, (wanted.name, wanted.model, wanted.dimensions, wanted.precision, wanted.chunk_tokens,
                           wanted.chunker))  # fmt: skip
        found = _by_name(conn, wanted.name)
        assert found is not None
    same = (found.model, found.dimensions, found.precision, found.chunk_tokens, found.chunker)
    if same != (wanted.model, wanted.dimensions, wanted.precision, wanted.chunk_tokens, wanted.chunker):
        raise ModelMismatch(f"profile {wanted.name!r} is stored as {found}; give the new settings a new profile name")
    return found


def ensure_tenant(conn: Conn, name: str, profile_id: int) -> UUID:
    """The tenant of that name, made with the standard classification scale when absent."""
    row = conn.execute(ADD_TENANT, (name, profile_id)).fetchone()
    if row is None:
        return tenant_named(conn, name)
    for rank, classification in enumerate(SCALE):
        conn.execute(ADD_SCALE, (row[0], classification, rank))
    return UUID(str(row[0]))


def tenant_named(conn: Conn, name: str) -> UUID:
    """A tenant's id. Raises NotFound."""
    found = find_tenant(conn, name)
    if found is None:
        raise NotFound(f"there is no tenant {name!r}: `citadel migrate` makes the one that CITADEL_TENANT names")
    return found


def find_tenant(conn: Conn, name: str) -> UUID | None:
    """A tenant's id; None when there is none of that name."""
    row = conn.execute(TENANT, (name,)).fetchone()
    return None if row is None else UUID(str(row[0]))


def live_profile(conn: Conn, tenant_id: UUID) -> Profile:
    """The profile whose index answers this tenant's searches."""
    return one_row(conn, Profile, LIVE, (tenant_id,), "the tenant has no live profile")


@dataclass(frozen=True, slots=True)
class Ways:
    """How a tenant's searches are answered, and how the audit keeps them."""

    profile: Profile  # whose index answers
    fusion: Fusion
    hashing: Hashing
    reranker: TrainedReranker | None = None  # that it had trained


def ways_of(conn: Conn, tenant_id: UUID) -> Ways:
    """Everything that a search asks of its tenant, in one round trip."""
    row = conn.execute(WAYS, (tenant_id,), prepare=True).fetchone()
    if row is None:
        raise NotFound("the tenant has no live profile")
    trained = row[13] and TrainedReranker(**row[13])
    return Ways(Profile(*row[:7]), Fusion(*row[7:10]), Hashing(*row[10:13]), trained)


def profile_named(conn: Conn, name: str) -> Profile:
    """A profile by its name. Raises NotFound."""
    found = _by_name(conn, name)
    if found is None:
        raise NotFound(f"there is no profile {name!r}: see `citadel profile list`")
    return found


def fusion_of(conn: Conn, tenant_id: UUID) -> Fusion:
    """How this tenant's legs become one list."""
    return one_row(conn, Fusion, FUSION, (tenant_id,), "there is no such tenant")


def set_fusion(conn: Conn, tenant_id: UUID, fusion: Fusion) -> None:
    """From this commit on, for every search of the tenant. Raises Invalid for a weight or constant out of range."""
    if not 0 <= fusion.dense_weight <= 1:
        raise Invalid(f"the dense leg's weight lies between 0 and 1, not at {fusion.dense_weight:g}")
    if not 1 <= fusion.rrf_k <= MOST_RRF_K:
        raise Invalid(f"the constant of RRF lies between 1 and {MOST_RRF_K}, not at {fusion.rrf_k}")
    conn.execute(SET_FUSION, (fusion.method, fusion.dense_weight, fusion.rrf_k, tenant_id))


def set_reranker(conn: Conn, tenant_id: UUID, reranker: TrainedReranker | None) -> None:
    """From this commit on, for every search of the tenant behind that profile; None: late interaction as it ships."""
    conn.execute(SET_RERANKER, (Jsonb(asdict(reranker)) if reranker else None, tenant_id))


def _by_name(conn: Conn, name: str) -> Profile | None:
    with conn.cursor(row_factory=class_row(Profile)) as cursor:
        return cursor.execute(BY_NAME, (name,)).fetchone()
