"""Upkeep: what an index needs from time to time, step by step. Each may be run alone, again, and killed."""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

from core.errors import Conflict
from core.records import Profile
from ingest.fingerprint import fingerprint
from ingest.pipeline import Pipeline
from ingest.reembed import Target, catch_up
from ingest.sweep import delete_unused, sweep_blobs
from models.embedder import Embedder
from store import asked, copies, kept_profiles, retention, upkeep
from store.blobs import BlobStore
from store.pool import Conn, Store, alone, writing

log = logging.getLogger("citadel.upkeep")

DEAD_SHARE = 0.1  # of a table's rows: autovacuum comes at 0.2, and a graph loses by every dead row it leads over
LEAST_DEAD = 1000
BATCH = 200  # documents whose versions are looked for at once
JOBS = 5000  # deleted in one transaction

TEXTS = 20  # whole ones, in memory at once

ModelOf = Callable[[Profile], Embedder]
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Upkeep:
    """What upkeep works with."""

    store: Store
    blobs: BlobStore
    model_of: ModelOf
    dry_run: bool = False  # count what would be done, and do nothing
    dead_share: float = DEAD_SHARE
    least_dead: int = LEAST_DEAD
    grace_s: float = 86_400.0
    say: Say = lambda text: None


@dataclass(frozen=True, slots=True)
class Report:
    """What a step did, or with `dry_run` would have done."""

    step: str
    counts: dict[str, int] = field(default_factory=dict)
    skipped: str = ""  # why it did nothing


def run(work: Upkeep, steps: Sequence[str]) -> Iterator[Report]:
    """Do the steps in their order. Raises Conflict while another upkeep runs, and what a step raises."""
    with upkeep.only_one(work.store) as mine:
        if not mine:
            raise Conflict("another upkeep is running: wait for its end")
        for step in STEPS:
            if step in steps:
                work.say(f"upkeep: {step}")
                yield STEPS[step](work)


def keep_up(pipeline: Pipeline, grace_s: float) -> str:
    """Every step, for the schedule; `busy` while another one is at it."""
    model_of = partial(pipeline.shelf.fitting, pipeline.embedder)
    try:
        reports = list(
            run(Upkeep(pipeline.store, pipeline.blobs, model_of, grace_s=grace_s, say=log.info), tuple(STEPS))
        )
    except Conflict:
        return "busy"
    return "; ".join(f"{report.step}: {report.skipped or report.counts}" for report in reports)


def _retention(work: Upkeep) -> Report:
    """Versions that the tenants do not keep, and their bytes."""
    counts = {"documents": 0, "versions": 0, "blobs": 0}
    while True:
        with writing(work.store) as conn:
            found = retention.due(conn, None if work.dry_run else BATCH)
        for due in found:
            keys: list[str] = []
            if not work.dry_run:
                with writing(work.store) as conn:
                    keys = retention.remove_before(conn, due.document_id, due.oldest)
            counts["blobs"] += delete_unused(work.store, work.blobs, keys) if keys else 0
            counts["documents"] += 1
            counts["versions"] += due.versions
        if work.dry_run or not found:
            return Report("retention", counts)


def _jobs(work: Upkeep) -> Report:
    """Jobs that ended longer ago than their tenants keep them."""
    removed = 0
    while not work.dry_run:
        with writing(work.store) as conn:
            gone = retention.remove_jobs(conn, JOBS)
        removed += gone
        if not gone:
            return Report("jobs", {"jobs": removed})
    with writing(work.store) as conn:
        return Report("jobs", {"jobs": retention.count_jobs(conn)})


def _questions(work: Upkeep) -> Report:
    """Questions that the tenants do not keep any longer, and what was said of their answers."""
    with writing(work.store) as conn:
        return Report("questions", {"questions": asked.count_due(conn) if work.dry_run else asked.expire(conn)})


def _orphans(work: Upkeep) -> Report:
    """Chunks that no search can find, and vectors and codes without a chunk."""
    with writing(work.store) as conn:
        look = upkeep.count_orphans if work.dry_run else upkeep.delete_orphans
        return Report("orphans", look(conn))


def _blobs(work: Upkeep) -> Report:
    """Bytes that no version refers to."""
    return Report("blobs", {"blobs": sweep_blobs(work.store, work.blobs, work.grace_s, dry_run=work.dry_run)})


def _copies(work: Upkeep) -> Report:
    """Documents that were not compared with others yet: indexed before copies were linked, or two at once."""
    documents = 0
    if work.dry_run:
        with writing(work.store) as conn:
            return Report("copies", {"documents": copies.count_waiting(conn)})
    while True:
        with writing(work.store) as conn:
            found = copies.without(conn, TEXTS)
            linked = sum(copies.keep(conn, document_id, fingerprint(text)) for document_id, text in found)
        with writing(work.store) as conn:
            linked += sum(copies.link(conn, document_id) for document_id in copies.unlinked(conn, BATCH))
        documents += linked
        if not linked:
            return Report("copies", {"documents": documents})


def _profiles(work: Upkeep) -> Report:
    """The profiles that were live before, brought up to now, so that going back is quick."""
    documents = 0
    with writing(work.store) as conn:
        kept = [(tenant_id, each.profile) for tenant_id in kept_profiles.tenants(conn)
                for each in kept_profiles.kept(conn, tenant_id) if each.role == "previous"]  # fmt: skip
    for tenant_id, profile in kept:
        with writing(work.store) as conn:
            behind = kept_profiles.count_behind(conn, tenant_id, profile.id)
        if behind and not work.dry_run:
            behind = catch_up(work.store, Target(tenant_id, profile, work.model_of(profile)))
        documents += behind
    return Report("profiles", {"documents": documents})


def _reindex(work: Upkeep) -> Report:
    """Graphs on tables with many dead rows. Before the vacuum, which a graph without dead rows makes quick."""
    return _worn("reindex", work, _reindexed)


def _vacuum(work: Upkeep) -> Report:
    """Tables with many dead rows."""
    return _worn("vacuum", work, _vacuumed)


def _worn(step: str, work: Upkeep, mend: Callable[[Upkeep, Conn, upkeep.Worn], int]) -> Report:
    with alone(work.store) as conn:
        if not upkeep.may_maintain(conn):
            return Report(step, skipped="needs Postgres 17 and `citadel migrate` by a role that may grant pg_maintain")
        done = {worn.table: mend(work, conn, worn) for worn in upkeep.worn(conn, work.dead_share, work.least_dead)}
    return Report(step, {table: count for table, count in done.items() if count})


def _reindexed(work: Upkeep, conn: Conn, worn: upkeep.Worn) -> int:
    graphs = upkeep.graphs_of(conn, worn.table)
    for name in [name for name, whole, _ in graphs if not whole]:
        work.say(f"upkeep: {name} is what an interrupted reindex left: DROP INDEX {name}, as citadel_owner")
    graphs = [graph for graph in graphs if graph[1]]
    for name, _, dimensions in graphs if not work.dry_run else ():
        work.say(f"upkeep: reindex {name}")
        upkeep.reindex(conn, name, worn.live, dimensions)
    return len(graphs)


def _vacuumed(work: Upkeep, conn: Conn, worn: upkeep.Worn) -> int:
    if not work.dry_run:
        work.say(f"upkeep: vacuum {worn.table}")
        upkeep.vacuum(conn, worn.table)
    return worn.dead


STEPS: dict[str, Callable[[Upkeep], Report]] = {
    "retention": _retention,
    "jobs": _jobs,
    "questions": _questions,
    "orphans": _orphans,
    "blobs": _blobs,
    "copies": _copies,
    "profiles": _profiles,
    "reindex": _reindex,
    "vacuum": _vacuum,
}
