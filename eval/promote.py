"""May a profile become the live one? Golden sets are asked under both, each question as its own principal.

The gate decides, with the burden of proof on the candidate: it passes when what it can have lost, at the low end of the
paired interval of nDCG@10, is no more than was agreed to, and when no answer held a forbidden document. An answer that
went without a stage measures something else, and blocks as well.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from uuid import UUID

from ir_measures import nDCG

from core.errors import Invalid, ReplicaUnavailable
from core.records import Principal, Profile, SearchRequest
from eval.gate import Limits, gate
from eval.gate import Verdict as Gated
from eval.golden import GoldenSet
from eval.measures import forbidden_returned, query_values
from eval.run import Run, run_golden
from retrieval.search import Searcher, search
from store.pool import Conn
from store.profiles import Ways, ways_of

MAIN = nDCG @ 10
MAX_DROP = 0.03  # of nDCG@10; with 300 questions an equal candidate's interval reaches some 0.02 to either side
POLL_S = 0.5

Progress = Callable[[int, int], None]  # (questions asked, of how many)


@dataclass(frozen=True, slots=True)
class Verdict:
    """A golden set under the live profile and under the candidate."""

    golden: str
    questions: int  # with something relevant
    live: float  # mean nDCG@10
    candidate: float
    gated: Gated  # the candidate against the live one, paired by question
    degraded: int  # of the candidate's answers went without a stage

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why it may not be promoted; none: it may."""
        found = [check.told for check in self.gated.checks if not check.passed]
        return (*found, f"{self.degraded} answers went without a stage") if self.degraded else tuple(found)


def beside(searcher: Searcher, candidate: Profile) -> Searcher:
    """A searcher that asks the candidate's index, whichever is live."""
    return replace(searcher, ways_of=partial(_by, candidate), answers=None)


def evaluate(
    searcher: Searcher,
    tenant_id: UUID,
    candidate: Profile,
    goldens: Sequence[GoldenSet],
    max_drop: float = MAX_DROP,
    progress: Progress = lambda done, of: None,
    wait_s: float = 300.0,
) -> list[Verdict]:
    """A verdict on each golden set. Raises Invalid without one that has answers, ReplicaUnavailable when this host's
    lexical replica of the candidate does not come."""
    if not goldens:
        raise Invalid("name a golden set: without one nobody knows whether quality falls")
    other = beside(searcher, candidate)
    _await_replica(other, tenant_id, goldens[0], wait_s)
    verdicts, total, asked = [], 2 * sum(len(golden.queries) for golden in goldens), 0
    for golden in goldens:
        live = _run(searcher, tenant_id, golden, partial(_told, progress, asked, total))
        asked += len(golden.queries)
        after = _run(other, tenant_id, golden, partial(_told, progress, asked, total))
        asked += len(golden.queries)
        verdicts.append(judge(live, after, max_drop))
    return verdicts


def judge(live: Run, candidate: Run, max_drop: float) -> Verdict:
    """What the two runs of one golden set come to. Raises Invalid when too few of its questions have an answer."""
    before, after = query_values(live), query_values(candidate)
    if not before:
        raise Invalid(f"{live.golden.name}: no question names a relevant document: there is nothing to compare")
    was, now = (sum(of[query][str(MAIN)] for query in before) / len(before) for of in (before, after))
    gated = gate(before, after, len(forbidden_returned(candidate)), Limits({str(MAIN): max_drop}, proven=True))
    degraded = sum(1 for answered in candidate.answers if answered.degraded)
    return Verdict(live.golden.name, len(before), was, now, gated, degraded)


def _await_replica(searcher: Searcher, tenant_id: UUID, golden: GoldenSet, wait_s: float) -> None:
    """Until the follower of this host has made the candidate's."""
    first, give_up = golden.queries[0], time.monotonic() + wait_s
    request, who = SearchRequest(first.query, mode="lexical"), Principal(tenant_id, first.subject, via="service:eval")
    while "lexical" in search(searcher, who, request).degraded:
        if time.monotonic() > give_up:
            raise ReplicaUnavailable(
                f"this host has no lexical replica of the candidate after {wait_s:g} s: is `citadel follow` running?"
            )
        time.sleep(POLL_S)


def _run(searcher: Searcher, tenant_id: UUID, golden: GoldenSet, progress: Callable[[int], None]) -> Run:
    return run_golden(partial(search, searcher), tenant_id, golden, (MAIN["cutoff"],), progress=progress)


def _told(progress: Progress, asked: int, total: int, done: int) -> None:
    progress(asked + done, total)


def _by(profile: Profile, conn: Conn, tenant_id: UUID) -> Ways:
    return replace(ways_of(conn, tenant_id), profile=profile)
