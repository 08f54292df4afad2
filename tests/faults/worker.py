"""A Celery worker as `citadel worker` runs it, that dies where the plan says: python -m tests.faults.worker NAME."""

import os
import sys
from functools import cache, partial
from pathlib import Path
from typing import Any
from uuid import UUID

from core.config import Settings, load_settings
from ingest import attempt as attempting
from ingest.pipeline import Pipeline
from models.fake_embedder import FakeEmbedder
from store.pool import open_store
from tests.faults.deadly import DeadlyBlobs, DeadlyParser, Plan, arm_statements, around
from workers import tasks
from workers.app import make_app, worker_options

PLAN, SLOW_S, VISIBILITY_S = "FAULTS_PLAN", "FAULTS_SLOW_S", "FAULTS_VISIBILITY_S"


class DeadlyEmbedder(FakeEmbedder):
    """Whoever embeds may die before or after."""

    def __init__(self, plan: Plan) -> None:
        self.embed_documents_with_tokens = around(  # type: ignore[method-assign]
            plan, super().embed_documents_with_tokens, "embed", "embedded"
        )


@cache
def pipeline_of(plan: Plan, settings: Settings) -> Pipeline:
    """In each child, after the fork."""
    store = open_store("", settings.maintenance_database_url, size=3)
    blobs = DeadlyBlobs(settings.blob_store_url(), plan)
    parser = DeadlyParser(plan, float(os.environ[SLOW_S]))
    return Pipeline(store, blobs, parser, DeadlyEmbedder(plan), settings.lease_s)


def main(name: str) -> None:
    settings = load_settings(os.environ, running_stack=False)
    plan = Plan(Path(os.environ[PLAN]), name)
    arm_statements(plan)
    attempting.index_versions = around(plan, attempting.index_versions, "started", "published")
    tasks.pipeline_of = partial(pipeline_of, plan)  # type: ignore[assignment]
    honest = attempting.attempt

    def counted(pipeline: Pipeline, job_id: UUID) -> Any:
        outcome = honest(pipeline, job_id)
        plan.count(outcome)
        return outcome

    tasks.attempt = counted
    app = make_app(settings)
    visibility_s = float(os.environ[VISIBILITY_S])
    app.conf.worker_lost_wait = 1.0  # as long as the fault goes unnoticed, its place does no work
    app.conf.visibility_timeout = visibility_s
    app.conf.broker_transport_options = {
        **app.conf.broker_transport_options, "visibility_timeout": visibility_s, "unacked_restore_interval": 1,
        "unacked_restore_throttle": 1,
    }  # fmt: skip
    app.worker_main(worker_options(settings.worker_processes, "index,refresh,upkeep", name))


if __name__ == "__main__":
    main(sys.argv[1])
