"""`citadel profile`: move a tenant to another embedding model or chunking, without its searches noticing."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any
from uuid import UUID

import click

from cli.access import ACTOR
from cli.options import as_json, asker_option, pass_settings, show, table
from cli.scratch import bar
from cli.stack import embedder_of, open_searcher, opened_store, tenant_of
from core.config import Settings
from core.errors import Conflict, Misconfigured, NotFound
from core.records import Profile
from eval.golden import read_golden
from eval.promote import MAX_DROP, Verdict, evaluate
from ingest.reembed import Target, Why, catch_up, flip
from models.embedder import open_embedder
from store import audit, kept_profiles
from store.audit import Actor
from store.migrate import as_owner
from store.pool import Store, writing
from store.profiles import ensure_profile, live_profile, profile_named

DROPPED = 2000  # chunks a transaction
SETTLED_S = 60.0  # after which no search looks at a profile that was live: a statement's limit

_golden = click.option("--golden", "goldens", multiple=True, required=True, metavar="FILE",
                       type=click.Path(exists=True, path_type=Path),
                       help="A golden set about the tenant's documents; repeat.")  # fmt: skip
_drop = click.option("--max-drop", type=click.FloatRange(0, 1), default=MAX_DROP, show_default=True,
                     help="Of nDCG@10, that the low end of the interval may show.")  # fmt: skip


def judged(command: Callable[..., None]) -> Callable[..., None]:
    """The options of a command that asks golden sets under both profiles."""
    return _golden(asker_option(_drop(as_json(pass_settings(click.pass_context(command))))))


@click.group("profile")
def profile_group() -> None:
    """Change the embedding model or the chunking: build beside, evaluate, promote, and back again."""


@profile_group.command("list", epilog="Example: citadel profile list --json")
@as_json
@pass_settings
def list_command(settings: Settings, as_json: bool) -> None:
    """List the live profile and those kept beside it, with how many documents each is behind."""
    with opened_store(settings) as store:
        tenant_id = tenant_of(store, settings)
        with writing(store) as conn:
            live, beside = live_profile(conn, tenant_id), kept_profiles.kept(conn, tenant_id)
            behind = {each.profile.id: kept_profiles.count_behind(conn, tenant_id, each.profile.id) for each in beside}
    rows = [{**asdict(live), "role": "live", "behind": 0}]
    rows += [{**asdict(each.profile), "role": each.role, "behind": behind[each.profile.id]} for each in beside]
    shown = ("name", "role", "behind", "model", "chunk_tokens")
    show(rows, as_json, table([{key: row[key] for key in shown} for row in rows]))


@profile_group.command("build", epilog="Example: citadel profile build small --chunk-tokens 120")
@click.argument("name")
@click.option("--model", help="all-MiniLM-L6-v2, or any sentence-transformers model.  [default: the live profile's]")
@click.option("--precision", type=click.Choice(["f32", "bf16"]), help="[default: the live profile's of that model]")
@click.option("--chunk-tokens", type=click.IntRange(16), help="[default: the live profile's]")
@click.option("--chunker", help="structure, or a LlamaIndex node parser.  [default: the live profile's]")
@as_json
@pass_settings
def build_command(
    settings: Settings, name: str, model: str | None, precision: str | None, chunk_tokens: int | None,
    chunker: str | None, as_json: bool,
) -> None:  # fmt: skip
    """Build profile NAME beside the live one, from the stored texts; searches and writes go on.

    Run it again when it was interrupted, or to catch up: it goes on where it was.
    """
    with opened_store(settings) as store:
        tenant_id = tenant_of(store, settings)
        profile = _made(settings, store, tenant_id, name, (model, precision, chunk_tokens, chunker))
        with writing(store) as conn:
            kept_profiles.keep(conn, tenant_id, profile.id)
        with _catching_up() as step:
            done = catch_up(store, _target(settings, tenant_id, profile), step)
    told = f"{done} documents built into {name}; next: citadel profile evaluate {name} --golden FILE"
    show({"profile": profile, "documents": done}, as_json, told)


@profile_group.command("evaluate", epilog="Example: citadel profile evaluate small --golden golden.jsonl")
@click.argument("name")
@judged
def evaluate_command(
    ctx: click.Context, settings: Settings, name: str, goldens: tuple[Path, ...], subject: str | None, max_drop: float,
    as_json: bool,
) -> None:  # fmt: skip
    """Ask golden sets under profile NAME and under the live one; ends with status 1 when NAME may not be promoted."""
    verdicts = _evaluated(settings, name, goldens, subject, max_drop)
    show(_told(verdicts), as_json, _text(verdicts))
    ctx.exit(1 if _blocked(verdicts) else 0)


@profile_group.command("promote", epilog="Example: citadel profile promote small --golden golden.jsonl")
@click.argument("name")
@judged
def promote_command(
    ctx: click.Context, settings: Settings, name: str, goldens: tuple[Path, ...], subject: str | None, max_drop: float,
    as_json: bool,
) -> None:  # fmt: skip
    """Evaluate profile NAME and make it the live one; ends with status 1 when its quality does not allow that.

    It catches up first, and what was written meanwhile is in it when it goes live. The profile before stays, for
    `citadel profile rollback`, until `citadel profile drop`.
    """
    with opened_store(settings) as store:
        target = _kept_target(settings, store, name)
        with _catching_up() as step:
            catch_up(store, target, step)
        verdicts = _evaluated(settings, name, goldens, subject, max_drop)
        blocked = _blocked(verdicts)
        if not blocked:
            flip(store, target, Why("profile.promote", Actor(ACTOR), {"verdicts": _told(verdicts)}))
    end = "BLOCKED: the live profile stays" if blocked else f"{name} is live"
    show({"promoted": not blocked, "verdicts": _told(verdicts)}, as_json, f"{_text(verdicts)}\n{end}")
    ctx.exit(1 if blocked else 0)


@profile_group.command("rollback", epilog="Example: citadel profile rollback")
@as_json
@pass_settings
def rollback_command(settings: Settings, as_json: bool) -> None:
    """Make the profile before the last promotion live again, with what was written since."""
    with opened_store(settings) as store:
        tenant_id = tenant_of(store, settings)
        with writing(store) as conn:
            before = [each for each in kept_profiles.kept(conn, tenant_id) if each.role == "previous"]
        if not before:
            raise NotFound("there is no profile to go back to: none was promoted, or it was dropped since")
        profile = before[-1].profile
        with _catching_up() as step:
            target = _target(settings, tenant_id, profile)
            catch_up(store, target, step)
            flip(store, target, Why("profile.rollback", Actor(ACTOR)))
    show({"live": profile.name}, as_json, f"{profile.name} is live again")


@profile_group.command("drop", epilog="Example: citadel profile drop small")
@click.argument("name")
@as_json
@pass_settings
def drop_command(settings: Settings, name: str, as_json: bool) -> None:
    """Reclaim a profile that is not live: its chunks, vectors and codes, and its tables when no tenant uses them."""
    _needs_owner(settings, "others drop no tables")
    with opened_store(settings) as store:
        tenant_id = tenant_of(store, settings)
        with writing(store) as conn:
            profile = profile_named(conn, name)
            if live_profile(conn, tenant_id).id == profile.id:
                raise Conflict(f"{name} is live: promote another, or roll back, first")
            settled_in_s = SETTLED_S - kept_profiles.not_live_for_s(conn, tenant_id, profile.id)
        time.sleep(max(0.0, settled_in_s))
        with writing(store) as conn:
            if live_profile(conn, tenant_id).id == profile.id:
                raise Conflict(f"{name} was made live meanwhile")
            kept_profiles.release(conn, tenant_id, profile.id)
        chunks = 0
        while gone := _drop_some(store, tenant_id, profile.id):
            chunks += gone
        with writing(store) as conn:
            used = kept_profiles.is_used(conn, profile.id)
        if not used:
            kept_profiles.drop_tables(settings.database_url, profile.id)
        audit.record(store, tenant_id, "profile.drop", actor=ACTOR, resource=f"profile:{name}")
    show({"chunks": chunks, "tables": not used}, as_json, f"{chunks} chunks of {name} are gone"
         + ("; another tenant uses its tables" if used else ", and its tables"))  # fmt: skip


def _drop_some(store: Store, tenant_id: UUID, profile_id: int) -> int:
    with writing(store) as conn:
        return kept_profiles.drop_rows(conn, tenant_id, profile_id, DROPPED)


def _made(
    settings: Settings,
    store: Store,
    tenant_id: UUID,
    name: str,
    wanted: tuple[str | None, str | None, int | None, str | None],
) -> Profile:
    """The profile of that name; made, with its tables, when absent."""
    model, precision, chunk_tokens, chunker = wanted
    with writing(store) as conn:
        live = live_profile(conn, tenant_id)
        try:
            live = held = profile_named(conn, name)
        except NotFound:
            held = None
    embedder = open_embedder(
        model or live.model, settings.model_cache(), settings.model_threads or None,
        precision or (live.precision if model in (None, live.model) else None),
    )  # fmt: skip
    asked = Profile(0, name, embedder.name, embedder.dimensions, embedder.precision,
                    chunk_tokens or live.chunk_tokens, chunker or live.chunker)  # fmt: skip
    if held is not None and replace(asked, id=held.id) == held:
        return held
    _needs_owner(settings, "others make no tables")
    with as_owner(settings.database_url) as conn:
        return ensure_profile(conn, asked)


def _needs_owner(settings: Settings, why: str) -> None:
    if not settings.database_url:
        raise Misconfigured(f"set CITADEL_DATABASE_URL to a role that may become citadel_owner: {why}")


def _target(settings: Settings, tenant_id: UUID, profile: Profile) -> Target:
    return Target(tenant_id, profile, embedder_of(settings, profile))


def _kept_target(settings: Settings, store: Store, name: str) -> Target:
    tenant_id = tenant_of(store, settings)
    with writing(store) as conn:
        profile = kept_profiles.kept_named(conn, tenant_id, name).profile
    return _target(settings, tenant_id, profile)


@contextmanager
def _catching_up() -> Iterator[Any]:
    with bar("documents", sys.stderr.isatty()) as step:
        yield step


def _evaluated(
    settings: Settings, name: str, goldens: tuple[Path, ...], subject: str | None, max_drop: float
) -> list[Verdict]:
    sets = [read_golden(path, subject) for path in goldens]
    with open_searcher(settings) as searcher, bar("questions", sys.stderr.isatty()) as step:
        tenant_id = tenant_of(searcher.store, settings)
        with writing(searcher.store) as conn:
            candidate = kept_profiles.kept_named(conn, tenant_id, name).profile
        return evaluate(searcher, tenant_id, candidate, sets, max_drop, step)


def _blocked(verdicts: list[Verdict]) -> bool:
    return any(verdict.reasons for verdict in verdicts)


def _told(verdicts: list[Verdict]) -> list[dict[str, Any]]:
    return [{**asdict(verdict), "reasons": list(verdict.reasons)} for verdict in verdicts]


def _text(verdicts: list[Verdict]) -> str:
    return "\n".join(
        f"{v.golden}: nDCG@10 {v.live:.3f} → {v.candidate:.3f} ({v.questions} questions): "
        + ("; ".join(v.reasons) or f"passes: {v.gated.checks[0].told}")
        for v in verdicts
    )
