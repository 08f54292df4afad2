"""`citadel fusion`: how a tenant's dense and lexical legs become one list."""

import click

from cli.access import ACTOR
from cli.options import as_json, pass_settings, show
from cli.stack import opened_store, tenant_of
from core.config import Settings
from core.records import Fusion, FusionMethod
from store import audit
from store.pool import Store, reading_tenant
from store.profiles import fusion_of, set_fusion


@click.command(
    "fusion",
    epilog="Example: citadel fusion --dense-weight 0.5    (measured first: citadel eval legs scifact/)",
)
@click.option("--method", type=click.Choice(["convex", "rrf"]), help="Convex combination of scores, or ranks alone.")
@click.option("--dense-weight", type=click.FloatRange(0, 1), help="Of the convex combination.")
@as_json
@pass_settings
def fusion_command(settings: Settings, method: FusionMethod | None, dense_weight: float | None, as_json: bool) -> None:
    """Show the tenant's fusion, or change it for every search from now on."""
    with opened_store(settings) as store:
        fusion = _changed(store, settings, method, dense_weight)
    weight = f", dense weight {fusion.dense_weight:g}" if fusion.method == "convex" else ""
    show(fusion, as_json, f"{fusion.method}{weight}")


def _changed(store: Store, settings: Settings, method: FusionMethod | None, dense_weight: float | None) -> Fusion:
    tenant_id = tenant_of(store, settings)
    with reading_tenant(store, tenant_id) as conn:
        held = fusion_of(conn, tenant_id)
    if method is None and dense_weight is None:
        return held
    fusion = Fusion(method or held.method, held.dense_weight if dense_weight is None else dense_weight)
    detail = {"method": fusion.method, "dense_weight": fusion.dense_weight}
    with audit.audited(store) as conn:
        set_fusion(conn, tenant_id, fusion)
        audit.add(conn, tenant_id, "fusion.change", actor=ACTOR, detail=detail)
    return fusion
