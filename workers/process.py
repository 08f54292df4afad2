"""What a worker process ingests with, opened once in each process, after the fork."""

from functools import cache

from core.config import Settings
from ingest.pipeline import Pipeline
from ingest.sandbox import ParserSandbox
from models.embedder import check_model, open_embedder
from store.blobs import FsspecBlobs
from store.pool import open_store, writing
from store.profiles import live_profile, tenant_named


@cache
def pipeline_of(settings: Settings) -> Pipeline:
    """This process's pipeline. Raises ModelMismatch when the model is not the live profile's."""
    store = open_store("", settings.maintenance_database_url, size=4)
    with writing(store) as conn:
        profile = live_profile(conn, tenant_named(conn, settings.tenant))
    threads = settings.model_threads or None
    embedder = open_embedder(settings.model, settings.model_cache(), threads, profile.precision)
    check_model(embedder, profile)
    return Pipeline(store, FsspecBlobs(settings.blob_store_url()), ParserSandbox(), embedder, settings.lease_s,
                    settings.max_backlog)  # fmt: skip
