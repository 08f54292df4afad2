"""A search, top to bottom: who asks, what they may see, what is near, what has the words, and where it stands."""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from uuid import UUID, uuid4

from core.errors import Invalid, Overloaded, Permanent
from core.records import Fusion, Principal, SearchAnswer, SearchRequest
from models.embedder import Embedder
from models.reranker import Question
from models.shelf import Shelf
from retrieval import read
from retrieval.assemble import put_together
from retrieval.explain import Pool, explain
from retrieval.fuse import fuse
from retrieval.legs import POOL, Ground, await_words, dense, ground, lexical, look
from retrieval.lexical import LexicalIndex
from retrieval.questions import Questions
from retrieval.recall import Asked, KeptAnswers, recall
from retrieval.recency import fresher
from retrieval.rerank import NONE, Boxed, chosen, late_interaction
from retrieval.stages import Proposed, Stages, StageThreads
from retrieval.traced import trace
from retrieval.trail import Answered, record_search
from retrieval.trained import Trained
from store import access, profiles
from store.chunks import Scan
from store.filters import compile_filter
from store.pool import Conn, Store, reading_tenant

SEARCHES = 5  # at once in a process; each holds up to three connections, and the pool has 16

Leg = Callable[["Searcher", Ground, tuple[str, ...], float], Proposed]


@dataclass(frozen=True, slots=True)
class Searcher:
    """What a process searches with."""

    store: Store
    embedder: Embedder  # of the profile that was live when the process started
    lexical: LexicalIndex
    rerankers: Mapping[str, Boxed] = field(default_factory=late_interaction)
    pool: int = POOL  # of what a leg proposes, so many are fused
    deadline_s: float = 10.0
    at_least_wait_s: float = 5.0
    trained: Trained = field(default_factory=Trained)  # tenants' own rerankers
    shelf: Shelf = field(default_factory=Shelf)  # of other profiles' models
    ways_of: Callable[[Conn, UUID], profiles.Ways] = profiles.ways_of  # or another profile's, to evaluate it
    questions: Questions = field(default_factory=Questions)
    answers: KeptAnswers | None = None  # None: none is kept
    traced: bool = False  # whether questions are kept of tenants that chose so: people's are, an evaluation's are not
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    legs: Mapping[str, "Leg"] = field(default_factory=lambda: {"dense": _dense, "lexical": _lexical})
    threads: StageThreads = field(default_factory=lambda: StageThreads(SEARCHES))
    slots: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(SEARCHES))


def search(
    searcher: Searcher, principal: Principal, request: SearchRequest, request_id: UUID | None = None
) -> SearchAnswer:
    """Passages that the principal may see, best first, with citations and a context string.

    A leg or a reranker that is late or broken leaves the answer, which names it in `degraded`. What decides about
    access never does: its failure is the search's. Nor is there an answer without its row in the audit, which names
    `principal.via`, or else the subject, as who asked. Raises Invalid, NotYetIndexed, Overloaded, StoreUnavailable.
    """
    if not searcher.slots.acquire(timeout=searcher.deadline_s):
        raise Overloaded(f"no search could start within {searcher.deadline_s:g} s: ask again later")
    try:
        return _audited(searcher, principal, request, request_id or uuid4())
    finally:
        searcher.slots.release()


def _audited(searcher: Searcher, principal: Principal, request: SearchRequest, request_id: UUID) -> SearchAnswer:
    try:
        answered = _search(searcher, principal, request, request_id)
    except Permanent as error:
        record_search(searcher.store, principal, request, request_id, error)
        raise
    record_search(searcher.store, principal, request, request_id, answered)
    if searcher.traced:
        trace(searcher.store, principal, request, answered)
    return answered.answer


def _search(searcher: Searcher, principal: Principal, request: SearchRequest, request_id: UUID) -> Answered:
    stages = Stages(searcher.deadline_s, searcher.threads)
    where = compile_filter(request.filters)
    if not request.query.strip():
        raise Invalid("a search needs a query that is not blank")
    _begun = _embedding(searcher, principal, request)
    await_words(searcher.store, searcher.lexical, principal, request, searcher.at_least_wait_s)
    with reading_tenant(searcher.store, principal.tenant_id) as conn:
        with stages.timed("authorize") as note:
            scope = access.enter_scope(conn, principal, searcher.store.scopes)
            ways = searcher.ways_of(conn, scope.tenant_id)
            fusion = request.fusion or ways.fusion
            boxed = chosen(searcher.rerankers, request, searcher.trained.own(ways.reranker, ways.profile.id))
            searcher = replace(searcher, embedder=searcher.shelf.fitting(searcher.embedder, ways.profile))
            scan = Scan(scope, ways.profile.id, where)
            note.update(label_sets=len(scope.label_set_ids), epoch=scope.epoch)
        known = Asked(principal, scope, ways.profile, fusion, request, ways.reranker)
        memory = recall(searcher.answers, conn, known)
        if memory.ranked is None:
            sight = stages.attempt("look", partial(look, conn, searcher.lexical, scan))
            pool = _pool(searcher, stages, ground(conn, scan, ways.profile, sight), request, fusion)
        else:
            pool, boxed = Pool(memory.replay(stages)), None
        pool = replace(pool, fused=fresher(conn, pool.fused, request.recency, searcher.now()))
        question = Question(request.query, partial(searcher.questions.tokens, searcher.embedder, scope, request.query))
        asked = read.Asked(scan, request, boxed, question)
        found = read.read(conn, stages, pool.fused, asked)
    found = read.finish(stages, found, asked)
    with stages.timed("assemble") as note:
        spans, count_tokens = partial(read.read_spans, searcher.store, principal), searcher.embedder.count_tokens
        answer = put_together(found.groups, request.max_tokens, count_tokens, spans)
        note.update(over_budget=answer.over_budget, duplicates=answer.duplicates)
    memory.keep(stages, answer.used)
    told = explain(pool, found.ranked, found.rows, answer) if request.explain else None
    of_stages = (stages.degraded(), stages.activity())
    whole = SearchAnswer(request_id, answer.passages, answer.context, *of_stages, told, memory.ranked is not None)
    return Answered(whole, scope, ways.hashing)


def _embedding(searcher: Searcher, principal: Principal, request: SearchRequest) -> object:
    """The question's vectors, which take longest and need nobody's leave, are made meanwhile; for who holds this."""
    dense, reranked = request.mode != "lexical", request.rerank not in (None, NONE)
    texts = (request.query, *request.queries) if dense else (request.query,) if reranked else ()
    submit = partial(searcher.threads.submit, "embed")
    return searcher.questions.begin(submit, searcher.embedder, principal, texts)


def _pool(searcher: Searcher, stages: Stages, ground: Ground, request: SearchRequest, fusion: Fusion) -> Pool:
    """What the legs propose, fused."""
    asked, legs = (searcher, ground, (request.query, *request.queries)), searcher.legs
    dense_leg = request.mode != "lexical" and stages.start("dense", legs["dense"], *asked)
    lexical_leg = request.mode != "dense" and stages.start("lexical", legs["lexical"], *asked)
    near, worded = (stages.finish(leg)[: searcher.pool] for leg in (dense_leg, lexical_leg))
    with stages.timed("fuse"):
        return Pool(fuse(fusion, near, worded, POOL), near, worded)


def _dense(searcher: Searcher, ground: Ground, questions: tuple[str, ...], timeout_s: float) -> Proposed:
    embed = partial(searcher.questions.vectors, searcher.embedder, ground.scan.scope, questions)
    return dense(searcher.store, ground, embed, timeout_s)


def _lexical(searcher: Searcher, ground: Ground, questions: tuple[str, ...], timeout_s: float) -> Proposed:
    return lexical(searcher.lexical, ground, questions, timeout_s)
