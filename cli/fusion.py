"""`citadel fusion`: how a tenant's dense and lexical legs become one list."""

from dataclasses import asdict, replace
from typing import Any
from uuid import UUID

import click

from cli.access import ACTOR
from cli.options import as_json, pass_settings, show
from cli.stack import opened_store, tenant_of
from core.config import Settings
from core.records import MOST_RRF_K, Fusion, FusionMethod
from store import audit
from store.pool import Store, reading_tenant
from store.profiles import fusion_of, set_fusion


@click.command(
    "fusion",
    epilog="Example: citadel fusion --dense-weight 0.5    (measured first: citadel eval legs scifact/)",
)
@click.option("--method", type=click.Choice(["convex", "rrf"]), help="Convex combination of scores, or ranks alone.")
@click.option("--dense-weight", type=click.FloatRange(0, 1), help="Of the convex combination.")
@click.option("--rrf-k", type=click.IntRange(1, MOST_RRF_K), help="Of ranks alone: how slowly a rank's worth falls.")
@as_json
@pass_settings
def fusion_command(
    settings: Settings, method: FusionMethod | None, dense_weight: float | None, rrf_k: int | None, as_json: bool
) -> None:
    """Show the tenant's fusion, or change it for every search from now on."""
    with opened_store(settings) as store:
        fusion = _changed(store, settings, method, dense_weight, rrf_k)
    show(fusion, as_json, fusion_text(fusion))


def fusion_text(fusion: Fusion) -> str:
    """The fusion, with what of it counts."""
    return f"convex, dense weight {fusion.dense_weight:g}" if fusion.method == "convex" else f"rrf, k {fusion.rrf_k}"


def _changed(
    store: Store, settings: Settings, method: FusionMethod | None, dense_weight: float | None, rrf_k: int | None
) -> Fusion:
    tenant_id = tenant_of(store, settings)
    with reading_tenant(store, tenant_id) as conn:
        held = fusion_of(conn, tenant_id)
    given: dict[str, Any] = {"method": method, "dense_weight": dense_weight, "rrf_k": rrf_k}
    wanted = replace(held, **{name: value for name, value in given.items() if value is not None})
    if any(value is not None for value in given.values()):
        change_fusion(store, tenant_id, wanted)
    return wanted


def change_fusion(store: Store, tenant_id: UUID, fusion: Fusion) -> None:
    """Set it, together with its row in the audit. Raises Invalid."""
    with audit.audited(store) as conn:
        set_fusion(conn, tenant_id, fusion)
        audit.add(conn, tenant_id, "fusion.change", actor=ACTOR, detail=asdict(fusion))
