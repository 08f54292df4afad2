"""`citadel train`: rerankers that learn from judged questions, and which of them a tenant uses."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal

import click

from cli.golden import questions_of
from cli.options import as_json, asker_option, pass_settings, plain, progress_option, show, table
from cli.scratch import ChunkSize, scratch_settings, standing
from cli.stack import opened_store, tenant_of
from cli.training import Outcome, Wanted, apply, trained
from core.config import Settings
from core.errors import Invalid, Misconfigured
from core.trained import RerankerKind, TrainedReranker
from eval.bootstrap import Estimate
from eval.collection import Part, is_collection, read_collection
from eval.compare import MAIN
from eval.golden import GoldenSet
from eval.trial import Figures
from models.trained import MANIFEST, read_manifest
from store.pool import reading_tenant
from store.profiles import ways_of

NOTHING_SHIPPED = 3  # the exit status when nothing was shown to be better
DEFAULT = "default"  # in place of a name: late interaction as it ships

Kind = Literal["late", "cross-encoder", "both"]


@click.group("train")
def train_group() -> None:
    """Train rerankers on judged questions, and choose which one the tenant's searches use."""


@train_group.command("reranker")
@click.argument("golden")
@click.option("--kind", type=click.Choice(["late", "cross-encoder", "both"]), default="both", show_default=True,
              help="Late interaction's projection and blend, a cross-encoder, or both.")  # fmt: skip
@click.option("--base", type=click.Path(exists=True, file_okay=False, path_type=Path),
              help="What a cross-encoder begins as.  [default: the shipped all-MiniLM-L6-v2]")  # fmt: skip
@click.option("--steps", type=click.IntRange(1), help="[default: 200 for late interaction, 24 for a cross-encoder]")
@click.option("--held-out", "share", type=click.FloatRange(0.1, 0.9), default=0.3, show_default=True,
              help="The share of questions that nothing is learned from.")  # fmt: skip
@click.option("--part", type=click.Choice(["test", "tune", "held"]), default="tune", show_default=True,
              help="Of a collection: which of its questions are split.")  # fmt: skip
@asker_option
@click.option("--pool", type=click.IntRange(2, 50), default=10, show_default=True,
              help="Candidates that a cross-encoder looks at.")  # fmt: skip
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--tenant", help="The tenant to search.  [default: CITADEL_TENANT, or a collection's own]")
@click.option("--name", help="Of what is shipped.  [default: the golden set's, the kind and the date]")
@click.option("--out", type=click.Path(file_okay=False, path_type=Path),
              help="The folder to ship to, in which NAME is made.  [default: CITADEL_RERANKERS, where it is served "
                   "from]")  # fmt: skip
@click.option("--apply", "apply_it", is_flag=True, help="Have the tenant's searches use it from now on.")
@progress_option
@as_json
@pass_settings
@click.pass_context
def reranker_command(
    ctx: click.Context, settings: Settings, golden: str, kind: Kind, base: Path | None, steps: int | None,
    share: float, part: Part, subject: str | None, pool: int, device: str, seed: int, tenant: str | None,
    name: str | None, out: Path | None, apply_it: bool, progress: bool, as_json: bool,
) -> None:  # fmt: skip
    """Train on the questions of GOLDEN, and ship what beats the current reranker on those held out.

    GOLDEN is what `citadel eval run` takes. Its questions are split by their relevant documents, so that the two parts
    share none. What is learned from is what everybody may see: public documents, denied to nobody. The current reranker
    and the trained ones then answer the held-out part, each question as its own principal, and only what the gate's
    statistics show to be better, and what is within its time box, is written to NAME with a manifest.

    Ends with status 3 when nothing is shipped, and says why. Training that was interrupted goes on where it was.

    \b
    Examples:
      citadel train reranker acme --kind late --json
      citadel train reranker scifact/ --steps 100 --name scifact --apply
      citadel train reranker golden.jsonl --base ./MiniLM-L12 --device cuda --steps 2000
    """
    kinds: tuple[RerankerKind, ...] = ("late", "cross-encoder") if kind == "both" else (kind,)
    wanted = Wanted(kinds, base, steps, seed, device_of(device), pool, share, name, out, apply_it, progress)
    if apply_it and out is not None:
        raise Invalid("--apply serves what lies in CITADEL_RERANKERS: leave out --out, or apply later")
    with standing(settings) as running:
        chosen_settings, questions = _questions(running, golden, part, subject, tenant, progress)
        outcome = trained(chosen_settings, questions, wanted)
    show(to_dict(outcome, apply_it), as_json, to_text(outcome, apply_it))
    ctx.exit(0 if outcome.shipped else NOTHING_SHIPPED)


def device_of(wanted: str) -> str:
    """Where it is trained. Raises Misconfigured."""
    import torch

    there = torch.cuda.is_available()
    if wanted == "cuda" and not there:
        raise Misconfigured("this machine has no GPU that torch can use: leave --device at auto")
    return "cuda" if there and wanted != "cpu" else "cpu"


def _questions(
    settings: Settings, golden: str, part: Part, subject: str | None, tenant: str | None, progress: bool
) -> tuple[Settings, GoldenSet]:
    """The settings of the tenant that holds the documents, and the questions."""
    folder = Path(golden)
    if is_collection(folder) and tenant is None:
        collection = read_collection(folder, part, subject)
        questions = replace(collection.golden, name=f"{collection.name}-{part}")
        return scratch_settings(settings, collection, ChunkSize(), progress), questions
    searched = replace(settings, tenant=tenant or settings.tenant)
    return searched, questions_of(searched, golden, subject)


@train_group.command("use", epilog="Examples: citadel train use acme-2    citadel train use default")
@click.argument("name")
@as_json
@pass_settings
def use_command(settings: Settings, name: str, as_json: bool) -> None:
    """Have the tenant's searches use the reranker NAME of the folder CITADEL_RERANKERS, or again the default one."""
    with opened_store(settings) as store:
        with reading_tenant(store, tenant_of(store, settings)) as conn:
            profile = ways_of(conn, tenant_of(store, settings)).profile
        which = None
        if name != DEFAULT:
            found = read_manifest(settings.trained() / name)
            if found.profile != profile.name:
                raise Invalid(f"{name} was proved behind the profile {found.profile!r}, and {profile.name!r} is live: "
                              "train again")  # fmt: skip
            which = TrainedReranker(name, found.kind, found.digest, found.weight, found.pool, profile.id)
        apply(store, settings, which)
    show({"reranker": plain(which)}, as_json, f"in use: {name}")


@train_group.command("list", epilog="Example: citadel train list --json")
@as_json
@pass_settings
def list_command(settings: Settings, as_json: bool) -> None:
    """Show the rerankers of the folder CITADEL_RERANKERS, and which of them the tenant's searches use."""
    with opened_store(settings) as store, reading_tenant(store, tenant_of(store, settings)) as conn:
        used = ways_of(conn, tenant_of(store, settings)).reranker
    folders = sorted(file.parent for file in settings.trained().glob(f"*/{MANIFEST}"))
    found = {folder.name: read_manifest(folder) for folder in folders}
    rows = [
        {"name": name, "kind": each.kind, "gain": f"{each.held_out['gain']['mean']:+.4f}", "profile": each.profile,
         "created": each.created, "used": "yes" if used and used.digest == each.digest else ""}
        for name, each in found.items()
    ]  # fmt: skip
    told = {"used": plain(used), "rerankers": {name: plain(each) for name, each in found.items()}}
    show(told, as_json, table(rows))


# --- shown ----------------------------------------------------------------------------------------------------------


def to_dict(outcome: Outcome, applied: bool) -> dict[str, Any]:
    """The outcome for JSON."""
    parts, shipped = outcome.parts, outcome.shipped
    return {
        "golden": outcome.golden.name, "training": len(parts.training.queries),
        "held_out": len(parts.held_out.queries), "left_out": parts.left_out,
        "current": _figures(outcome.current),
        "trials": [
            {"kind": t.kind, "chosen": t.note, **_figures(t.figures), "gain": asdict(t.gain),
             "at_least": t.check.bound, "reason": t.reason or None}
            for t in outcome.trials
        ],
        "shipped": plain(shipped), "folder": plain(outcome.folder), "applied": applied and shipped is not None,
    }  # fmt: skip


def _figures(of: Figures) -> dict[str, Any]:
    return {str(MAIN): asdict(of.ndcg), "ms": of.ms, "slow_ms": of.slow_ms}


def to_text(outcome: Outcome, applied: bool) -> str:
    """The outcome for a terminal."""
    parts = outcome.parts
    rows = [{"": "current", **_row(outcome.current), "change": "", "at least": ""}]
    for trial in outcome.trials:
        low = "" if trial.check.bound is None else f"{trial.check.bound:+.4f}"
        rows.append({"": trial.kind, **_row(trial.figures), "change": _shown(trial.gain, "+"), "at least": low})
    head = (f"{outcome.golden.name}: {len(parts.training.queries)} questions to learn from, "
            f"{len(parts.held_out.queries)} held out, {parts.left_out} in neither part")  # fmt: skip
    lines = [head, table(rows), *(f"{trial.kind}: {trial.note}" for trial in outcome.trials)]
    lines += [f"{trial.kind} is not shipped: {trial.reason}" for trial in outcome.trials if trial.reason]
    if outcome.shipped is None:
        return "\n".join([*lines, "nothing is shipped: the current reranker stays"])
    then = "in use from now on" if applied else f"use it: citadel train use {outcome.shipped.name}"
    return "\n".join([*lines, f"shipped: {outcome.folder} ({outcome.shipped.kind}); {then}"])


def _row(of: Figures) -> dict[str, str]:
    return {str(MAIN): _shown(of.ndcg), "ms": f"{of.ms:.1f}", "ms, 95 %": f"{of.slow_ms:.1f}"}


def _shown(value: Estimate, sign: str = "") -> str:
    return f"{value.mean:{sign}.3f} [{value.low:{sign}.3f}, {value.high:{sign}.3f}]"
