"""Opens what the API works with, and keeps the models of profiles at hand that may become live ones."""

import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from api.service import Service
from cli.stack import open_searcher
from core.config import Settings
from core.errors import CitadelError, Misconfigured
from ingest.room import Room
from retrieval.recall import KeptAnswers, code_digest
from retrieval.search import Searcher
from store import kept_profiles
from store.answers import RedisPlaces
from store.blobs import FsspecBlobs
from store.broker import RedisBroker
from store.pool import writing
from store.standing import HOLDS_HOURS

log = logging.getLogger("citadel.models")

MAX_ANSWERS_S = HOLDS_HOURS * 3600  # longer than it stands no answer need be kept
LOOK_S = 5.0  # between looks for profiles whose models a promotion may ask for


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
            replace(searcher, answers=answers, traced=True),
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
        (settings.pool, settings.late_weight, settings.late_pool),
        code_digest(),
    )
    try:
        yield KeptAnswers(places, repr(engine))
    finally:
        places.close()


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
