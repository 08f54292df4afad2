"""A run that is kept: under a frozen configuration, in Postgres, going on where it was interrupted."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from importlib.metadata import version
from typing import Any
from uuid import UUID

from ir_measures import Measure

from core.records import Citation, Fusion, Mode, Place, Principal, SearchRequest
from eval import exchange
from eval.asking import Relevant, Setting
from eval.golden import GoldenQuery, GoldenSet
from eval.judged import Judged
from eval.legs import code_hash
from eval.report import RunReport, make_report, summary_of
from eval.run import Answered, Run, ask_each, request_of
from eval.scratch import index_state
from eval.slices import slices_of
from retrieval.legs import POOL
from store import access, chunks, golden, runs
from store.golden import StoredGolden
from store.pool import Store, reading_tenant, writing
from store.profiles import live_profile, ways_of
from store.runs import StoredAnswer, StoredPassage, StoredRun, StoredStages


@dataclass(frozen=True, slots=True)
class Plan:
    """What is asked, of which index, and how it is measured."""

    owner: UUID  # the tenant that keeps the golden set and the run
    searched: UUID  # whose documents are asked for
    name: str
    golden: GoldenSet
    cutoffs: tuple[int, ...]
    measures: tuple[Measure, ...]  # beside the default ones
    mode: Mode = "hybrid"
    options: SearchRequest = SearchRequest("")
    judged: Judged | None = None  # a collection's
    workers: int = 2
    pool: int = POOL

    def request(self) -> SearchRequest:
        """What every question is asked with: as deep as the deepest measure."""
        request = request_of(self.cutoffs, self.mode, self.options, self.judged)
        deepest = max((int(m.params["cutoff"]) for m in self.measures if "cutoff" in m.params), default=0)
        return replace(request, top_k=min(POOL, max(request.top_k, deepest)))


def keep_golden(store: Store, owner: UUID, questions: GoldenSet) -> StoredGolden:
    """The set as a version of its name; the same questions and judgements are the same version."""
    lines = [exchange.to_line(query) for query in questions.queries]
    with writing(store) as conn:
        return golden.keep(
            conn, owner, questions.name.removesuffix(".jsonl"), exchange.content_digest(questions), lines
        )


def record(
    store: Store,
    plan: Plan,
    engine: Mapping[str, Any],
    asker: Callable[[Setting], Callable[[GoldenQuery], Answered]],
    progress: Callable[[int], None] = lambda answered: None,
) -> tuple[StoredRun, RunReport]:
    """Ask, keep and measure. `engine` is what only the caller knows: the lexical engine with its settings."""
    set_row = keep_golden(store, plan.owner, plan.golden)
    config = frozen(store, plan, set_row, engine)
    key = hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()
    with writing(store) as conn:
        run = runs.begin(conn, plan.owner, plan.name, set_row.id, plan.searched, config, key)
        already = _answered((runs.answers(conn, run.id), runs.passages(conn, run.id), runs.stages(conn, run.id)),
                            plan.golden)  # fmt: skip
    setting = Setting(plan.searched, plan.mode, plan.request(), Fusion(**config["fusion"]), plan.cutoffs[-1],
                      relevant_chunks(store, plan), plan.pool)  # fmt: skip
    keep = partial(_keep, store, plan.owner, run.id)
    answers = ask_each(asker(setting), plan.golden, already, plan.workers, keep, progress)
    measured = make_report(
        Run(plan.golden, plan.cutoffs, plan.mode, answers, plan.judged), plan.measures,
        judged_spans(store, plan.searched, plan.golden), slices_of(store, plan.searched, plan.golden),
    )  # fmt: skip
    values = {query.id: query.values for query in measured.queries if query.values}
    with writing(store) as conn:
        runs.finish(conn, plan.owner, run.id, summary_of(measured), values)
        return runs.named(conn, plan.owner, str(run.id)), measured


def frozen(store: Store, plan: Plan, set_row: StoredGolden, engine: Mapping[str, Any]) -> dict[str, Any]:
    """Everything that the answers and figures follow from."""
    state = index_state(store, plan.searched, {query.subject for query in plan.golden.queries})
    scopes = hashlib.sha256(json.dumps(state.pop("scopes"), sort_keys=True).encode()).hexdigest()
    with reading_tenant(store, plan.searched) as conn:
        ways = ways_of(conn, plan.searched)
    return {
        **state, **engine, "grants": scopes, "golden": f"{set_row.name}@{set_row.version}", "digest": set_row.digest,
        "cutoffs": list(plan.cutoffs), "measures": [str(measure) for measure in plan.measures], "mode": plan.mode,
        "fusion": asdict(plan.options.fusion or ways.fusion), "rerank": plan.options.rerank,
        "trained": ways.reranker and asdict(ways.reranker), "as_ranked": plan.judged is not None,
        "version": version("citadel-rag"), "code": code_hash(fused=True),
    }  # fmt: skip


def relevant_chunks(store: Store, plan: Plan) -> dict[str, tuple[Relevant, ...]]:
    """By question id, its relevant documents as its asker sees them."""
    found: dict[str, tuple[Relevant, ...]] = {}
    for subject in {query.subject for query in plan.golden.queries}:
        asked = [query for query in plan.golden.queries if query.subject == subject]
        names = sorted({name for query in asked for name in query.gains()})
        with reading_tenant(store, plan.searched) as conn:
            access.enter_scope(conn, Principal(plan.searched, subject))
            profile = live_profile(conn, plan.searched)
            rows = chunks.of_documents(conn, plan.searched, profile.id, names)
        by_name: dict[str, dict[int, tuple[UUID, Place]]] = {}
        for chunk_id, (document_id, place) in rows.items():
            by_name.setdefault(place.external_id, {})[chunk_id] = (document_id, place)
        found |= {query.id: _relevant(query, by_name, plan.judged) for query in asked}
    return found


def _relevant(
    query: GoldenQuery, by_name: Mapping[str, Mapping[int, tuple[UUID, Place]]], judged: Judged | None
) -> tuple[Relevant, ...]:
    spans = judged is not None and judged.unit == "passage"
    found = []
    for name in (name for name, grade in query.gains().items() if grade > 0):
        rows = {
            chunk_id: (document_id, place)
            for chunk_id, (document_id, place) in by_name.get(name, {}).items()
            if not spans or (judged is not None and judged.key(place) in judged.grades.get(query.id, {}))
        }
        if rows:
            document_id = next(iter(rows.values()))[0]
            found.append(Relevant(document_id, name, frozenset(rows), tuple(place for _, place in rows.values())))
    return tuple(found)


def judged_spans(store: Store, tenant_id: UUID, questions: GoldenSet) -> dict[str, list[Place]]:
    """The judged text of each question all of whose judgements say where it is: by span, or by a quote that stands."""
    judged = [(query, j) for query in questions.queries for j in query.relevant if j.grade > 0]
    with writing(store) as conn:
        rows = golden.standing(conn, tenant_id, [(j.document, j.quote) for _, j in judged])
    at = {row.n - 1: row.at for row in reversed(rows)}
    found: dict[str, list[Place]] = {}
    unclear = set()
    for place, (query, judgement) in enumerate(judged):
        start = at.get(place)
        if judgement.span:
            found.setdefault(query.id, []).append(Place(judgement.document, *judgement.span))
        elif judgement.quote and start is not None:
            found.setdefault(query.id, []).append(Place(judgement.document, start, start + len(judgement.quote)))
        else:
            unclear.add(query.id)
    return {query_id: places for query_id, places in found.items() if query_id not in unclear}


# --- kept ---------------------------------------------------------------------------------------------------------

Rows = tuple[dict[str, StoredAnswer], list[StoredPassage], list[StoredStages]]


def _keep(store: Store, owner: UUID, run_id: UUID, answered: Sequence[Answered]) -> None:
    rows = [StoredAnswer(a.query.id, a.ms, a.degraded, a.tokens) for a in answered]
    passages = [
        StoredPassage(a.query.id, rank, c.document_id, c.external_id, c.version, c.start, c.end, c.page, score)
        for a in answered
        for rank, (c, score) in enumerate(zip(a.passages, a.scores, strict=True), start=1)
    ]
    with writing(store) as conn:
        runs.add_answers(conn, owner, run_id, rows, passages, [stage for a in answered for stage in a.stages])


def _answered(rows: Rows, questions: GoldenSet) -> dict[str, Answered]:
    answers, passages, stages = rows
    return {
        query.id: Answered(
            query,
            tuple(_citation(p) for p in passages if p.query_id == query.id),
            answers[query.id].ms,
            answers[query.id].degraded,
            tuple(p.score for p in passages if p.query_id == query.id),
            answers[query.id].tokens,
            tuple(each for each in stages if each.query_id == query.id),
        )
        for query in questions.queries
        if query.id in answers
    }


def _citation(p: StoredPassage) -> Citation:
    return Citation(f"[{p.rank}]", p.document_id, p.external_id, p.version, None, None, p.page, (), p.start, p.end, "")
