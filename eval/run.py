"""A run: each question of a golden set, asked as the principal that it names."""

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from uuid import UUID

from core.errors import Invalid
from core.records import Citation, Mode, Principal, SearchAnswer, SearchRequest
from eval.golden import GoldenQuery, GoldenSet
from eval.judged import Judged
from store.runs import StoredStages

# The measures look at the first k passages. More are asked for, because a forbidden document is a leak at any rank:
# the search orders what it may show before it cuts, so asking for more does not change which the first k are (they may
# be longer by a neighbour that came further down).
DEPTH = 5

PLAIN = SearchRequest("")
BATCH = 25  # answers that are kept at once: so many are asked again when a run is interrupted

Search = Callable[[Principal, SearchRequest], SearchAnswer]


@dataclass(frozen=True, slots=True)
class Answered:
    """One question's answer."""

    query: GoldenQuery
    passages: tuple[Citation, ...]  # best first; several may be of one document
    ms: float | None  # of the whole search, as its caller waited; None where its legs were kept ones
    degraded: tuple[str, ...]  # stages that the answer went without: it does not measure them
    scores: tuple[float, ...] = ()  # of the passages
    tokens: int = 0  # of the passages within the largest cutoff
    stages: tuple[StoredStages, ...] = ()  # where each relevant document stood


@dataclass(frozen=True, slots=True)
class Run:
    """The answers to a golden set, in its order, under one configuration."""

    golden: GoldenSet
    cutoffs: tuple[int, ...]  # ascending, distinct
    mode: Mode
    answers: tuple[Answered, ...]
    judged: Judged | None = None  # a collection's: what it ranks; None: the documents of the first k passages

    def degraded(self) -> dict[str, int]:
        """How many answers went without each stage."""
        return dict(Counter(stage for answered in self.answers for stage in answered.degraded))


def run_golden(
    search: Search,
    tenant_id: UUID,
    golden: GoldenSet,
    cutoffs: Sequence[int],
    mode: Mode = "hybrid",
    progress: Callable[[int], None] = lambda answered: None,
    options: SearchRequest = PLAIN,
    judged: Judged | None = None,
) -> Run:
    """Ask every question once, one after another; `progress` is told how many have been answered.

    `options` has what else the searches are asked with, such as a reranker. Cutoffs count passages, as `top_k` does;
    of a collection, whose judgements `judged` has, the chunks as they are ranked, and else the answer's passages. An
    error of the search is the run's: a figure over the questions that happened to work would look like a better one.
    """
    request = request_of(cutoffs, mode, options, judged)
    answers = []
    for number, query in enumerate(golden.queries, start=1):
        answers.append(ask(search, tenant_id, query, request)[0])
        progress(number)
    return Run(golden, tuple(sorted(set(cutoffs))), mode, tuple(answers), judged)


def ask_each(
    asked: Callable[[GoldenQuery], Answered],
    golden: GoldenSet,
    already: Mapping[str, Answered],
    workers: int,
    keep: Callable[[Sequence[Answered]], None],
    progress: Callable[[int], None],
) -> tuple[Answered, ...]:
    """Ask what is not answered already, several at once, and hand over what is new in batches; in the set's order.

    The first error ends it, once what came before has been handed over.
    """
    answers, fresh = dict(already), []
    left = [query for query in golden.queries if query.id not in already]
    with ThreadPoolExecutor(workers, "eval") as pool:
        futures = [pool.submit(asked, query) for query in left]
        try:
            for future in as_completed(futures):
                answered = future.result()
                answers[answered.query.id] = answered
                fresh.append(answered)
                if len(fresh) == BATCH:
                    keep(fresh)
                    fresh = []
                progress(len(answers))
        finally:
            for future in futures:
                future.cancel()
            if fresh:
                keep(fresh)
    return tuple(answers[query.id] for query in golden.queries)


def request_of(cutoffs: Sequence[int], mode: Mode, options: SearchRequest, judged: Judged | None) -> SearchRequest:
    """What every question is asked with."""
    if not cutoffs or min(cutoffs) < 1:
        raise Invalid(f"a cutoff is a number of passages from 1 on, such as 5; got {list(cutoffs)}")
    return replace(options, top_k=DEPTH * max(cutoffs), mode=mode, as_ranked=judged is not None)


def ask(search: Search, tenant_id: UUID, query: GoldenQuery, request: SearchRequest) -> tuple[Answered, SearchAnswer]:
    """Ask the question as its principal; and the answer itself."""
    started = time.perf_counter()
    answer = search(Principal(tenant_id, query.subject, via="service:eval"), replace(request, query=query.query))
    ms = (time.perf_counter() - started) * 1000
    citations, scores = tuple(p.citation for p in answer.passages), tuple(p.score for p in answer.passages)
    return Answered(query, citations, ms, answer.degraded, scores), answer
