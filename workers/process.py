"""What a worker process ingests or evaluates with, made once in each process, after the fork.

Nothing heavy is opened before a document needs it: neither a model nor the parser. Who only refreshes has none of them.
"""

from functools import cache

from core.config import Settings
from core.errors import Misconfigured
from core.sensitive import read_policy
from eval.schedule import Evaluating, Opening
from ingest.pipeline import Pipeline
from ingest.sandbox import ParseLimits, ParserSandbox
from models.embedder import Embedder, open_embedder
from models.shelf import Shelf
from store.blobs import FsspecBlobs
from store.pool import open_store


def limits_of(settings: Settings) -> ParseLimits:
    """What one document may cost here. Raises Misconfigured."""
    if settings.ocr not in ("on", "off"):
        raise Misconfigured(f"CITADEL_OCR is on or off, not {settings.ocr!r}")
    usual, reads = ParseLimits(), settings.ocr == "on"
    more = settings.ocr_seconds if reads else 0.0
    return ParseLimits(
        cpu_seconds=usual.cpu_seconds + int(more), wall_seconds=usual.wall_seconds + more,
        cells=settings.sheet_cells,
        ocr_languages=settings.ocr_languages if reads else "", ocr_page_seconds=settings.ocr_page_seconds,
        ocr_seconds=settings.ocr_seconds, ocr_pixels=settings.ocr_pixels,
        attachments=settings.attachments, attachment_bytes=settings.attachment_bytes,
        attachment_depth=settings.attachment_depth,
    )  # fmt: skip


@cache
def pipeline_of(settings: Settings) -> Pipeline:
    """This process's pipeline."""
    threads = settings.model_threads or None

    def opened(model: str, precision: str) -> Embedder:
        return open_embedder(model, settings.model_cache(), threads, precision)

    return Pipeline(open_store("", settings.maintenance_database_url, size=4), FsspecBlobs(settings.blob_store_url()),
                    ParserSandbox(limits_of(settings)), None, settings.lease_s, settings.max_backlog, Shelf(opened),
                    policy=read_policy(settings.sensitive), phone_region=settings.phone_region)  # fmt: skip


@cache
def evaluating(settings: Settings, opening: Opening | None) -> Evaluating:
    """This process's way to evaluate; what a search needs is opened for each run. Raises Misconfigured."""
    if opening is None:
        raise Misconfigured("this process was started without a way to search: evaluations need `citadel worker`")
    return Evaluating(open_store("", settings.maintenance_database_url, size=4), settings.lease_s, settings, opening)
