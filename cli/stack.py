"""Opens what commands work with, from settings, and closes it again."""

import logging
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from uuid import UUID

from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from api.service import Service
from core.config import Settings
from core.errors import CitadelError, Misconfigured
from core.records import Profile
from ingest.room import Room
from models.embedder import Embedder, open_embedder
from models.reranker import CrossEncoderReranker
from models.shelf import Shelf
from retrieval.lexical import Bm25, LexicalIndex, RankBm25Index
from retrieval.recall import KeptAnswers, code_digest
from retrieval.rerank import Boxed, late_interaction
from retrieval.search import Searcher
from retrieval.trained import Trained
from store import kept_profiles, profiles
from store.answers import RedisPlaces
from store.blobs import FsspecBlobs
from store.broker import RedisBroker
from store.pool import Store, open_store, reading_tenant, writing
from store.standing import HOLDS_HOURS

log = logging.getLogger("citadel.models")

MAX_ANSWERS_S = HOLDS_HOURS * 3600  # longer than it stands no answer need be kept
LOOK_S = 5.0  # between looks for profiles whose models a promotion may ask for
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
        threads = settings.model_threads or None
        rerankers = late_interaction(settings.late_box_s)
        if settings.reranker:
            rerankers["cross-encoder"] = Boxed(CrossEncoderReranker(settings.reranker), settings.reranker_box_s)
        searcher = Searcher(
            store=store,
            embedder=opened(
                profile, lambda: open_embedder(profile.model, settings.model_cache(), threads, profile.precision)
            ),
            shelf=open_shelf(settings),
            lexical=lexical,
            rerankers=rerankers,
            trained=open_trained(settings),
            deadline_s=settings.search_deadline_s,
            at_least_wait_s=settings.at_least_wait_s,
        )
        threadpool_limits(1, "blas")  # a search's products take 1.8 ms on one thread, on two busy cores 35 ms on two
        try:
            yield searcher
        finally:
            searcher.threads.shutdown(wait=False, cancel_futures=True)


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


@contextmanager
def open_service(settings: Settings) -> Iterator[Service]:
    """What the API needs."""
    with (
        open_searcher(settings) as searcher,
        open_answers(settings, searcher) as answers,
        models_at_hand(searcher),
    ):
        yield Service(
            searcher.store,
            FsspecBlobs(settings.blob_store_url()),
            replace(searcher, answers=answers),
            RedisBroker(settings.redis_url),
            settings.max_body_bytes,
            tuple(Path(root) for root in settings.source_roots.split(os.pathsep) if root),
            Room(settings.max_backlog),
            tuple(settings.source_urls.split()),
        )


@contextmanager
def open_answers(settings: Settings, searcher: Searcher) -> Iterator[KeptAnswers | None]:
    """Where the API keeps answers for equal searches; nowhere when the settings say so, or know no Redis.

    Raises Misconfigured.
    """
    if settings.answers_s == 0 or not settings.redis_url:
        yield None
        return
    if not 0 < settings.answers_s <= MAX_ANSWERS_S or settings.answers_bytes <= 0:
        raise Misconfigured(f"CITADEL_ANSWERS_S lies between 0 and {MAX_ANSWERS_S}, CITADEL_ANSWERS_BYTES above 0")
    places = RedisPlaces(settings.redis_url, settings.answers_bytes, settings.answers_s)
    embedder, bm25 = searcher.embedder, (settings.bm25_k1, settings.bm25_b)
    engine = (
        embedder.name,
        embedder.precision,
        settings.lexical,
        settings.dense,
        bm25,
        settings.reranker,
        code_digest(),
    )
    try:
        yield KeptAnswers(places, repr(engine))
    finally:
        places.close()


def open_trained(settings: Settings) -> Trained:
    """What opens the rerankers that tenants had trained."""
    return Trained(settings.trained(), settings.late_box_s, settings.reranker_box_s)


def open_shelf(settings: Settings) -> Shelf:
    """What opens the models of other profiles, when one is needed."""
    threads = settings.model_threads or None
    return Shelf(lambda model, precision: open_embedder(model, settings.model_cache(), threads, precision))


@contextmanager
def models_at_hand(searcher: Searcher, every_s: float = LOOK_S) -> Iterator[None]:
    """Open the models of profiles that are kept beside live ones, before a promotion makes searches need them."""
    closing = threading.Event()

    def look() -> None:
        while not closing.wait(every_s):
            try:
                with writing(searcher.store) as conn:
                    wanted = kept_profiles.in_use(conn)
                for profile in wanted:
                    searcher.shelf.fitting(searcher.embedder, profile)
            except CitadelError as error:
                log.warning("a profile's model cannot be opened here: %s", error)

    thread = threading.Thread(target=look, name="models", daemon=True)
    thread.start()
    try:
        yield
    finally:
        closing.set()


def tenant_of(store: Store, settings: Settings) -> UUID:
    """The id of the tenant that the settings name. Raises NotFound."""
    with reading_tenant(store, None) as conn:
        return profiles.tenant_named(conn, settings.tenant)
