"""The Celery application: how messages are carried. What is carried is a job's id; its truth is in Postgres.

Settings answer faults that were seen: see `docs/decisions/0005-celery.md`.
"""

from typing import Any

from celery import Celery

from core.config import Settings
from store.broker import QUEUE
from workers import tasks

HARD_LIMIT_S = 20 * 60
SOFT_LIMIT_S = 15 * 60
VISIBILITY_S = 3 * HARD_LIMIT_S  # more than two hard limits: Redis must not redeliver what still runs

CONFIG: dict[str, Any] = {
    "task_default_queue": QUEUE,
    "task_serializer": "json",
    "accept_content": ["json"],
    "task_ignore_result": True,
    "task_acks_late": True,
    "task_reject_on_worker_lost": True,  # a poison document does not loop: the claim counts its attempts
    "task_soft_time_limit": SOFT_LIMIT_S,
    "task_time_limit": HARD_LIMIT_S,
    "worker_prefetch_multiplier": 1,
    "worker_max_tasks_per_child": 200,
    "worker_proc_alive_timeout": 60,
    "worker_cancel_long_running_tasks_on_connection_loss": True,
    "worker_soft_shutdown_timeout": 30,
    "worker_hijack_root_logger": False,
    "broker_connection_retry_on_startup": True,
    "broker_transport_options": {"visibility_timeout": VISIBILITY_S, "socket_timeout": 30, "socket_keepalive": True},
    "result_backend_transport_options": {"visibility_timeout": VISIBILITY_S},
    "visibility_timeout": VISIBILITY_S,
    "beat_max_loop_interval": 5,
}


def make_app(settings: Settings) -> Celery:
    """The application, with its tasks bound to these settings."""
    app = Celery("citadel", broker=settings.redis_url)
    app.conf.update(CONFIG)
    app.conf.beat_schedule = {
        "schedule": {"task": tasks.SCHEDULE, "schedule": settings.sweep_every_s, "options": {"expires": 60}}
    }
    tasks.register(app, settings)
    return app
