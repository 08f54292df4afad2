"""Opens what commands work with, from settings, and closes it again."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from uuid import UUID

from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from core.config import Settings
from core.errors import Misconfigured
from core.records import Profile
from models.embedder import Embedder, open_embedder
from models.reranker import CrossEncoderReranker
from models.shelf import Shelf
from retrieval.legs import POOL
from retrieval.lexical import Bm25, LexicalIndex, RankBm25Index
from retrieval.rerank import Boxed, late_interaction
from retrieval.search import Searcher
from retrieval.trained import Trained
from store import profiles
from store.pool import Store, open_store, reading_tenant

NOT_RUNNING = "nothing is running here: start it with `citadel up`, or set {}"


@contextmanager
def opened_store(settings: Settings, *, reads: bool = True) -> Iterator[Store]:
    """Postgres, as both roles, or for a process that never reads in a caller's name as maintenance alone.

    Raises Misconfigured when no database is known.
    """
    for name in ("app_database_url", "maintenance_database_url") if reads else ("maintenance_database_url",):
        if not getattr(settings, name):
            raise Misconfigured(NOT_RUNNING.format(f"CITADEL_{name.upper()}"))
    store = open_store(settings.app_database_url, settings.maintenance_database_url)
    try:
        yield store
    finally:
        store.close()


def warmed(profile: Profile, open_it: Callable[[], Embedder]) -> Embedder:
    """Opened now; the first call of a compiled model is many times slower, so that is this one."""
    embedder = open_it()
    embedder.embed_queries(["warm"])
    return embedder


@contextmanager
def open_searcher(
    settings: Settings, opened: Callable[[Profile, Callable[[], Embedder]], Embedder] = warmed
) -> Iterator[Searcher]:
    """What a search needs; `opened` makes the profile's embedder of what opens it."""
    with opened_store(settings) as store, open_lexical(settings, store) as lexical:
        with reading_tenant(store, None) as conn:
            profile = profiles.live_profile(conn, profiles.tenant_named(conn, settings.tenant))
        rerankers = late_boxed(settings)
        if settings.reranker:
            rerankers["cross-encoder"] = Boxed(CrossEncoderReranker(settings.reranker), settings.reranker_box_s)
        searcher = Searcher(
            store=store,
            embedder=opened(profile, partial(embedder_of, settings, profile)),
            shelf=open_shelf(settings),
            lexical=lexical,
            rerankers=rerankers,
            pool=_at_most_pool("CITADEL_POOL", settings.pool),
            trained=open_trained(settings),
            deadline_s=settings.search_deadline_s,
            at_least_wait_s=settings.at_least_wait_s,
        )
        threadpool_limits(1, "blas")  # a search's products take 1.8 ms on one thread, on two busy cores 35 ms on two
        try:
            yield searcher
        finally:
            searcher.threads.shutdown(wait=False, cancel_futures=True)


def late_boxed(settings: Settings, ready: bool = True) -> dict[str, Boxed]:
    """Late interaction as the settings have it. Raises Misconfigured."""
    if not 0 <= settings.late_weight <= 1:
        raise Misconfigured(f"CITADEL_LATE_WEIGHT lies between 0 and 1, not at {settings.late_weight:g}")
    pool = _at_most_pool("CITADEL_LATE_POOL", settings.late_pool)
    return late_interaction(settings.late_box_s, settings.late_weight, pool, ready)


def _at_most_pool(name: str, value: int) -> int:
    if not 1 <= value <= POOL:
        raise Misconfigured(f"{name} lies between 1 and {POOL}, not at {value}")
    return value


@contextmanager
def open_lexical(settings: Settings, store: Store) -> Iterator[LexicalIndex]:
    """The lexical engine that the settings name. Raises Misconfigured."""
    bm25 = Bm25(settings.bm25_k1, settings.bm25_b)
    if settings.lexical == "rank-bm25":
        yield RankBm25Index(store, bm25=bm25)
        return
    if settings.lexical != "fast":
        raise Misconfigured(f"CITADEL_LEXICAL is fast or rank-bm25, not {settings.lexical!r}")
    from retrieval import bm25 as words
    from retrieval import matrix
    from retrieval.replica_index import ReplicaIndex

    words.compile_loops()
    matrix.compile_loops()
    index = ReplicaIndex(store, settings.replicas(), bm25, vectors=keeps_vectors(settings))
    try:
        yield index
    finally:
        index.close()


def keeps_vectors(settings: Settings) -> bool:
    """Whether this host's replicas hold vectors. Raises Misconfigured."""
    if settings.dense not in ("replica", "pgvector"):
        raise Misconfigured(f"CITADEL_DENSE is replica or pgvector, not {settings.dense!r}")
    return settings.dense == "replica"


def embedder_of(settings: Settings, profile: Profile) -> Embedder:
    """The profile's embedder, opened. Raises Misconfigured, ModelMismatch."""
    return open_embedder(profile.model, settings.model_cache(), settings.model_threads or None, profile.precision)


def open_trained(settings: Settings) -> Trained:
    """What opens the rerankers that tenants had trained."""
    return Trained(settings.trained(), settings.late_box_s, settings.reranker_box_s)


def open_shelf(settings: Settings) -> Shelf:
    """What opens the models of other profiles, when one is needed."""
    threads = settings.model_threads or None
    return Shelf(lambda model, precision: open_embedder(model, settings.model_cache(), threads, precision))


def tenant_of(store: Store, settings: Settings) -> UUID:
    """The id of the tenant that the settings name. Raises NotFound."""
    with reading_tenant(store, None) as conn:
        return profiles.tenant_named(conn, settings.tenant)
