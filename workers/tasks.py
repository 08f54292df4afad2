"""The tasks: short, idempotent, each one call. Any of them may be delivered twice."""

import time
from typing import Any
from uuid import UUID

from celery import Celery
from celery.exceptions import Reject

from core.config import Settings
from core.errors import Retryable
from ingest.attempt import attempt
from ingest.erase import finish_erasures
from ingest.sweep import sweep_blobs
from store.broker import QUEUES
from store.calibrations import keep_counts
from store.standing import trim_changes
from workers.process import pipeline_of

TASKS = {"index": "citadel.index", "refresh": "citadel.refresh"}  # by kind of job
UPKEEP = "citadel.upkeep"
SWEEP = "citadel.sweep"

INDEX_LIMITS_S = {"soft_time_limit": 15 * 60, "time_limit": 20 * 60}
# A first refresh of a large source takes hours. What it has brought in stays when it is cut, and is not read again.
REFRESH_LIMITS_S = {"soft_time_limit": 12 * 3600, "time_limit": 12 * 3600 + 300}
AWAY_S = 1.0


def register(app: Celery, settings: Settings) -> None:
    """Bind the tasks to the application."""

    def attempt_job(job_id: str) -> Any:
        try:
            return attempt(pipeline_of(settings), UUID(job_id))
        except Retryable as error:  # nothing was claimed, for want of Postgres: the message goes back
            time.sleep(AWAY_S)
            raise Reject(str(error), requeue=True) from error

    app.task(name=TASKS["index"], **INDEX_LIMITS_S)(attempt_job)
    app.task(name=TASKS["refresh"], **REFRESH_LIMITS_S)(attempt_job)

    @app.task(name=UPKEEP)  # type: ignore[untyped-decorator]
    def upkeep() -> None:
        pipeline = pipeline_of(settings)
        finish_erasures(pipeline.store, pipeline.blobs)
        keep_counts(pipeline.store)
        trim_changes(pipeline.store)

    @app.task(name=SWEEP)  # type: ignore[untyped-decorator]
    def sweep() -> Any:
        pipeline = pipeline_of(settings)
        return sweep_blobs(pipeline.store, pipeline.blobs, settings.blob_grace_s)


def routes() -> dict[str, dict[str, str]]:
    """The queue of each task."""
    kinds = {**{task: kind for kind, task in TASKS.items()}, UPKEEP: "upkeep", SWEEP: "upkeep"}
    return {task: {"queue": QUEUES[kind]} for task, kind in kinds.items()}
