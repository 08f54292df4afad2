"""What evaluation keeps of legs in the state folder, and the two ways to answers: behind it, or by the search."""

from collections.abc import Callable, Iterable
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import retrieval
from cli.scratch import follow
from cli.stack import embedder_of, late_boxed, open_searcher, opened_store, tenant_of
from core.config import Settings
from core.records import Mode, Profile, SearchRequest
from eval.asking import Setting, replaying
from eval.asking import asking as asking_by
from eval.golden import GoldenQuery, GoldenSet
from eval.kept import Kept, KeptEmbedder, engine_of, kept_key
from eval.run import Answered
from eval.scratch import index_state
from models.embedder import Embedder
from retrieval.rerank import NONE, chosen
from store.pool import Store, reading_tenant
from store.profiles import live_profile, ways_of

FOLDER = "legs"  # in the state folder: what legs gave, by everything that it follows from


def place_of(settings: Settings, store: Store, subjects: Iterable[str]) -> Path:
    """The file of what is kept for these askers, as the tenant's index and their grants are now."""
    state = index_state(store, tenant_of(store, settings), subjects)
    code = Path(str(retrieval.__file__)).parent
    return settings.state / FOLDER / f"{kept_key({**state, **engine_of(settings)}, code)}.npz"


def kept_embedder(settings: Settings, store: Store, kept: Kept) -> KeptEmbedder:
    """The live profile's embedder, opened only for a text that is not kept."""
    with reading_tenant(store, tenant_of(store, settings)) as conn:
        profile = live_profile(conn, tenant_of(store, settings))
    return KeptEmbedder(profile, kept, partial(embedder_of, settings, profile))


def answering(
    opened: ExitStack, settings: Settings, kept: Kept, questions: GoldenSet, mode: Mode, options: SearchRequest,
    following: bool,
) -> tuple[Store, Callable[[Setting], Callable[[GoldenQuery], Answered]]]:  # fmt: skip
    """By what is kept where that is all there is to ask, else by a searcher, which is opened only then.

    `following`: a scratch tenant's lexical replica is brought up to now before it is asked.
    """
    request = SearchRequest("", mode=mode, rerank=options.rerank)
    rerankers = late_boxed(settings, ready=False)
    known = request.rerank in (None, NONE, *rerankers)
    store = opened.enter_context(opened_store(settings))
    known = known and not _reranks_by_its_own(settings, store, request)  # the kept scores are not of that one
    if known and all(kept.has(mode, query.subject, query.query) for query in questions.queries):
        embedder = kept_embedder(settings, store, kept)
        return store, partial(replaying, store, kept, embedder, chosen(rerankers, request), questions)
    if following:
        follow(settings)
    searcher = opened.enter_context(open_searcher(settings, partial(_with_kept, kept)))
    return searcher.store, partial(asking_by, searcher, kept)


def _reranks_by_its_own(settings: Settings, store: Store, request: SearchRequest) -> bool:
    """Whether the tenant had a reranker trained, and the search would use it."""
    with reading_tenant(store, tenant_of(store, settings)) as conn:
        trained = ways_of(conn, tenant_of(store, settings)).reranker
    return trained is not None and request.rerank is None and request.mode == "hybrid"


def _with_kept(kept: Kept, profile: Profile, open_it: Callable[[], Embedder]) -> Embedder:
    return KeptEmbedder(profile, kept, open_it)
