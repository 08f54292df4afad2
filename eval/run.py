"""A run: each question of a golden set, asked as the principal that it names."""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from uuid import UUID

from core.errors import Invalid
from core.records import Citation, Mode, Principal, SearchAnswer, SearchRequest
from eval.golden import GoldenQuery, GoldenSet
from eval.judged import Judged

# The measures look at the first k passages. More are asked for, because a forbidden document is a leak at any rank:
# the search orders what it may show before it cuts, so asking for more does not change which the first k are (they may
# be longer by a neighbour that came further down).
DEPTH = 5

PLAIN = SearchRequest("")

Search = Callable[[Principal, SearchRequest], SearchAnswer]


@dataclass(frozen=True, slots=True)
class Answered:
    """One question's answer."""

    query: GoldenQuery
    passages: tuple[Citation, ...]  # best first; several may be of one document
    ms: float  # of the whole search, as its caller waited
    degraded: tuple[str, ...]  # stages that the answer went without: it does not measure them


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
    if not cutoffs or min(cutoffs) < 1:
        raise Invalid(f"a cutoff is a number of passages from 1 on, such as 5; got {list(cutoffs)}")
    top_k, options = DEPTH * max(cutoffs), replace(options, as_ranked=judged is not None)
    answers = []
    for number, query in enumerate(golden.queries, start=1):
        answers.append(_ask(search, tenant_id, query, replace(options, query=query.query, top_k=top_k, mode=mode)))
        progress(number)
    return Run(golden, tuple(sorted(set(cutoffs))), mode, tuple(answers), judged)


def _ask(search: Search, tenant_id: UUID, query: GoldenQuery, request: SearchRequest) -> Answered:
    started = time.perf_counter()
    answer = search(Principal(tenant_id, query.subject, via="service:eval"), request)
    ms = (time.perf_counter() - started) * 1000
    return Answered(query, tuple(passage.citation for passage in answer.passages), ms, answer.degraded)
