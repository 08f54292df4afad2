"""The tasks: short, idempotent, each one call. Any of them may be delivered twice."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID

from celery import Celery
from celery.exceptions import Reject

from core.config import Settings
from core.errors import Retryable
from eval import schedule
from eval.schedule import Opening
from ingest.attempt import attempt
from ingest.erase import finish_erasures
from ingest.upkeep import keep_up
from store.broker import QUEUES
from store.calibrations import keep_counts
from store.standing import trim_changes
from workers.process import evaluating, pipeline_of

TASKS = {"index": "citadel.index", "refresh": "citadel.refresh", "eval": "citadel.eval"}  # by kind of job
UPKEEP = "citadel.upkeep"
SWEEP = "citadel.sweep"

INDEX_LIMITS_S = {"soft_time_limit": 15 * 60, "time_limit": 20 * 60}
# A first refresh of a large source takes hours. What it has brought in stays when it is cut, and is not read again.
REFRESH_LIMITS_S = {"soft_time_limit": 12 * 3600, "time_limit": 12 * 3600 + 300}
EVAL_LIMITS_S = {"soft_time_limit": 2 * 3600, "time_limit": 2 * 3600 + 300}  # a run that is cut goes on where it was
SWEEP_LIMITS_S = {"soft_time_limit": 50 * 60, "time_limit": 51 * 60}  # what is left then is the next one's
AWAY_S = 1.0


def register(app: Celery, settings: Settings, opening: Opening | None = None) -> None:
    """Bind the tasks to the application; `opening` is how a process that evaluates comes by what a search needs."""

    def attempt_job(job_id: str) -> Any:
        with _given_back():
            return attempt(pipeline_of(settings), UUID(job_id))

    app.task(name=TASKS["index"], **INDEX_LIMITS_S)(attempt_job)
    app.task(name=TASKS["refresh"], **REFRESH_LIMITS_S)(attempt_job)

    @app.task(name=TASKS["eval"], **EVAL_LIMITS_S)  # type: ignore[untyped-decorator]
    def evaluate(job_id: str) -> Any:
        with _given_back():
            return schedule.attempt(evaluating(settings, opening), UUID(job_id))

    @app.task(name=UPKEEP)  # type: ignore[untyped-decorator]
    def upkeep() -> None:
        pipeline = pipeline_of(settings)
        finish_erasures(pipeline.store, pipeline.blobs)
        keep_counts(pipeline.store)
        trim_changes(pipeline.store)

    @app.task(name=SWEEP, **SWEEP_LIMITS_S)  # type: ignore[untyped-decorator]
    def sweep() -> Any:
        return keep_up(pipeline_of(settings), settings.blob_grace_s)


@contextmanager
def _given_back() -> Iterator[None]:
    """The message goes back when nothing was claimed, for want of Postgres."""
    try:
        yield
    except Retryable as error:
        time.sleep(AWAY_S)
        raise Reject(str(error), requeue=True) from error


def routes() -> dict[str, dict[str, str]]:
    """The queue of each task."""
    kinds = {**{task: kind for kind, task in TASKS.items()}, UPKEEP: "upkeep", SWEEP: "upkeep"}
    return {task: {"queue": QUEUES[kind]} for task, kind in kinds.items()}
