"""The tasks: short, idempotent, each one call. Any of them may be delivered twice."""

from typing import Any
from uuid import UUID

from celery import Celery

from core.config import Settings
from ingest.attempt import attempt
from ingest.erase import finish_erasures
from ingest.schedule import schedule_due
from store.calibrations import keep_counts
from store.standing import trim_changes
from workers.process import pipeline_of

ATTEMPT = "citadel.attempt"
SCHEDULE = "citadel.schedule"


def register(app: Celery, settings: Settings) -> None:
    """Bind the tasks to the application."""

    @app.task(name=ATTEMPT)  # type: ignore[untyped-decorator]
    def attempt_job(job_id: str) -> Any:
        return attempt(pipeline_of(settings), UUID(job_id))

    @app.task(name=SCHEDULE)  # type: ignore[untyped-decorator]
    def schedule() -> Any:
        pipeline = pipeline_of(settings)
        due = schedule_due(pipeline.store)
        finish_erasures(pipeline.store, pipeline.blobs)
        keep_counts(pipeline.store)
        trim_changes(pipeline.store)
        return due
