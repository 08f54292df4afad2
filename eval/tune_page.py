"""What `citadel tune` found: as text for a terminal, and as a page."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

from core.records import Fusion
from eval import plots
from eval.page import Block, Page, Plot, Section, Table
from eval.tune import Finalist, Tuned, Way

BEST = 12  # settings that are shown, of those that were tried
HEAD = ("setting", "present", "tuned", "change", "95 % of resamples", "p, Holm", "won / lost / same")
VARIABLES = {"late_weight": "CITADEL_LATE_WEIGHT", "late_pool": "CITADEL_LATE_POOL", "pool": "CITADEL_POOL",
             "k1": "CITADEL_BM25_K1", "b": "CITADEL_BM25_B"}  # fmt: skip


def way_text(way: Way) -> str:
    """The setting in one line."""
    chunks = f", chunks of {way.chunks}" if way.chunks else ""
    late = f"late {way.late_weight:g} of {way.late_pool}"
    return f"{fusion_text(way.fusion)}, {late}, {way.pool} a leg, k1 {way.k1:g}, b {way.b:g}{chunks}"


def fusion_text(fusion: Fusion) -> str:
    """The fusion, with what of it counts."""
    return f"convex {fusion.dense_weight:g}" if fusion.method == "convex" else f"rrf {fusion.rrf_k}"


def changed_text(present: Way, way: Way) -> str:
    """What to set to get there, as an operator writes it."""
    told = [f"{VARIABLES[key]}={value:g}" for key, value in asdict(way).items()
            if key in VARIABLES and value != getattr(present, key)]  # fmt: skip
    if way.fusion != present.fusion:
        option = f"--dense-weight {way.fusion.dense_weight:g}" if way.fusion.method == "convex" else \
            f"--rrf-k {way.fusion.rrf_k}"  # fmt: skip
        told.append(f"`citadel fusion --method {way.fusion.method} {option}`")
    if way.chunks != present.chunks:
        told.append(f"chunks of {way.chunks} (`citadel profile add`)")
    return ", ".join(told)


def verdict(found: Tuned) -> str:
    """What to do, in a sentence or two."""
    winner = found.winner()
    if winner is not None:
        alone = found.fusion()
        more = f" Of that, the fusion alone passes as well: {changed_text(found.present, alone.way)}." if (
            alone is not None and alone is not winner) else ""  # fmt: skip
        return (f"Change it: on {found.held} held-out questions {found.measure} rose by {winner.held.change.mean:+.3f} "
                f"with {changed_text(found.present, winner.way)}.{more}")  # fmt: skip
    if not found.finalists:
        return f"Keep what you have: of {len(found.tried)} settings none was better on the training questions."
    least = min(finalist.held.detectable for finalist in found.finalists)
    return (f"Keep what you have: on {found.held} held-out questions nothing beats the present setting beyond chance. "
            f"They would find a difference of {least:.3f} with 80 %; to find less, judge more questions.")  # fmt: skip


def head(found: Tuned) -> str:
    """Of what all figures are."""
    return (f"{found.measure}; chosen on {found.train} questions, measured on {found.held} others, in {found.groups} "
            "groups that share no document")  # fmt: skip


def held_rows(found: Tuned) -> list[tuple[str, ...]]:
    """A row a finalist, under HEAD."""
    return [
        (way_text(f.way), f"{f.held.before:.3f}", f"{f.held.after:.3f}", f"{f.held.change.mean:+.3f}",
         f"[{f.held.change.low:+.3f}, {f.held.change.high:+.3f}]", f"{f.held.p_holm:.4f}",
         f"{f.held.wins} / {f.held.losses} / {f.held.ties}")
        for f in found.finalists
    ]  # fmt: skip


def best_rows(found: Tuned, count: int = BEST) -> list[tuple[str, str]]:
    """The settings that the training questions liked best."""
    ordered = sorted(found.tried, key=lambda tried: -tried.mean)[:count]
    return [(way_text(tried.way), f"{tried.mean:.4f}") for tried in ordered]


def tune_page(found: Tuned, name: str) -> Page:
    """The report."""
    held: list[Block] = [Table(HEAD, tuple(held_rows(found)))] if found.finalists else []
    sections = [
        Section("Verdict", (verdict(found), f"Present setting: {way_text(found.present)}. {head(found)}.")),
        Section("On the questions that were held out", (*held, *map(_deltas, [found] * len(held), found.finalists))),
        Section("On the training questions", (
            f"The best of {len(found.tried)} settings; what was chosen here flatters itself here.",
            Table(("setting", found.measure), tuple(best_rows(found))), *_by_weight(found),
        )),
    ]  # fmt: skip
    return Page(f"Tuning on {name}", tuple(section for section in sections if section.blocks))


def to_dict(found: Tuned) -> dict[str, Any]:
    """For JSON."""
    return {**asdict(found), "verdict": verdict(found), "keep": found.winner() is None}


def _deltas(found: Tuned, finalist: Finalist) -> Plot:
    told = f"Change of {found.measure} of each held-out question, under {way_text(finalist.way)}."
    return Plot(plots.deltas(finalist.deltas, found.measure), told)


def _by_weight(found: Tuned) -> Sequence[Block]:
    """The measure by the dense leg's weight, all else as it is at present."""
    points = sorted(
        (tried.way.fusion.dense_weight, tried.mean) for tried in found.tried
        if tried.way.fusion.method == "convex" and replace(tried.way, fusion=found.present.fusion) == found.present
    )  # fmt: skip
    if len(points) < 3:
        return ()
    table = Table(("dense weight", found.measure), tuple((f"{x:g}", f"{y:.4f}") for x, y in points))
    told = f"{found.measure} by the dense leg's weight in the convex fusion, all else as it is at present."
    return (Plot(plots.curve(points, "dense weight", found.measure), told, table),)
