"""The Celery application: how messages are carried. What is carried is a job's id; its truth is in Postgres.

Settings answer faults that were seen: see `docs/decisions/0005-celery.md`.
"""

from typing import Any

from celery import Celery

from core.config import Settings
from core.errors import Invalid
from eval.schedule import Opening
from store.broker import QUEUES
from workers import tasks

# More than two hard limits of an indexing task. A refresh may outlast it: its message comes back and is refused.
VISIBILITY_S = 3 * tasks.INDEX_LIMITS_S["time_limit"]
SWEEP_EVERY_S = 6 * 3600

CONFIG: dict[str, Any] = {
    "task_default_queue": QUEUES["upkeep"],
    "task_routes": tasks.routes(),
    "task_serializer": "json",
    "accept_content": ["json"],
    "task_ignore_result": True,
    "task_acks_late": True,
    "task_reject_on_worker_lost": True,  # a poison document does not loop: the claim counts its attempts
    "task_soft_time_limit": tasks.INDEX_LIMITS_S["soft_time_limit"],
    "task_time_limit": tasks.INDEX_LIMITS_S["time_limit"],
    "worker_prefetch_multiplier": 1,
    "worker_max_tasks_per_child": 200,
    "worker_proc_alive_timeout": 60,
    # Work goes on without the broker, for its truth is in Postgres; cancelled, it would count as an attempt.
    "worker_cancel_long_running_tasks_on_connection_loss": False,
    "worker_soft_shutdown_timeout": 30,
    "worker_hijack_root_logger": False,
    "broker_connection_retry_on_startup": True,
    "broker_transport_options": {"visibility_timeout": VISIBILITY_S, "socket_timeout": 30, "socket_keepalive": True},
    "result_backend_transport_options": {"visibility_timeout": VISIBILITY_S},
    "visibility_timeout": VISIBILITY_S,
    "beat_max_loop_interval": 5,
}


def worker_options(processes: int, queues: str, name: str) -> list[str]:
    """The command line of a Celery worker for these queues, as `citadel worker --queues` names them.

    Raises Invalid for a queue that there is not.
    """
    wanted = [kind.strip() for kind in queues.split(",") if kind.strip()]
    if not wanted or set(wanted) - QUEUES.keys():
        raise Invalid(f"--queues {queues!r}: there are {', '.join(QUEUES)}")
    return ["worker", "--pool=prefork", f"--concurrency={processes}", "--loglevel=INFO", "--without-gossip",
            "--without-mingle", f"--hostname={name}@%h", f"--queues={','.join(QUEUES[k] for k in wanted)}"]  # fmt: skip


def make_app(settings: Settings, opening: Opening | None = None) -> Celery:
    """The application, with its tasks bound to these settings; `opening` is needed where evaluations are run."""
    app = Celery("citadel", broker=settings.redis_url)
    app.conf.update(CONFIG)
    app.conf.beat_schedule = {
        "upkeep": {"task": tasks.UPKEEP, "schedule": settings.sweep_every_s, "options": {"expires": 60}},
        "sweep": {"task": tasks.SWEEP, "schedule": SWEEP_EVERY_S, "options": {"expires": 3600}},
    }
    tasks.register(app, settings, opening)
    return app
