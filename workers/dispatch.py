"""The dispatcher: hands committed job rows to the broker, and again those that the broker lost.

It keeps the broker's queues short, so that what waits, waits in Postgres. Any number may run: rows are taken with SKIP
LOCKED. Sending comes before the commit that marks a row as sent, so a crash in between sends twice, never not at all.
It also adds the refreshes and evaluations that are due: a tick that went through a queue would wait behind the work.
"""

import logging
import time
from collections.abc import Callable

from celery import Celery
from kombu.exceptions import OperationalError

from core.errors import BrokerUnavailable, Retryable
from eval import schedule as evaluations
from ingest.schedule import schedule_due
from store import jobs, turns
from store.broker import RedisBroker
from store.pool import Store, writing
from workers.tasks import TASKS

log = logging.getLogger("citadel.dispatch")

QUEUE_LIMIT = 200  # messages of a kind in Redis that no worker has taken
RESEND_AFTER_S = 10.0  # sent, not claimed, and the queue is empty: the message is lost
OVERTAKEN_S = 30.0  # or one that was sent so much later is under way
RESEND_ANYWAY_S = 900.0  # whatever the queue looks like; sent twice is done once
POLL_S = 0.2
AWAY_S = 1.0  # between tries while Postgres or Redis is away


def dispatch_forever(
    store: Store, broker: RedisBroker, app: Celery, running: Callable[[], bool], schedule_every_s: float = 5.0
) -> None:
    """Dispatch while `running()`, and look for what is due. Outages are logged and waited out."""
    scheduled = float("-inf")
    while running():
        try:
            if time.monotonic() - scheduled >= schedule_every_s:
                schedule_due(store)
                evaluations.schedule_due(store)
                scheduled = time.monotonic()
            sent = dispatch_once(store, broker, app)
        except Retryable as error:
            log.warning("%s; trying again", error)
            time.sleep(AWAY_S)
            continue
        if sent == 0:
            time.sleep(POLL_S)


def dispatch_once(store: Store, broker: RedisBroker, app: Celery) -> int:
    """Send what is due, and quarantine what has used up its attempts; returns how many were sent."""
    with writing(store) as conn:
        jobs.quarantine_spent(conn)
    return sum(_send_due(store, broker, app, kind) for kind in TASKS)


def _send_due(store: Store, broker: RedisBroker, app: Celery, kind: str) -> int:
    waiting = broker.queue_length(kind)
    resend_after_s = RESEND_ANYWAY_S if waiting else RESEND_AFTER_S
    with writing(store) as conn:
        due = turns.take_unsent(conn, kind, max(0, QUEUE_LIMIT - waiting), resend_after_s, OVERTAKEN_S)
        for job_id in due:
            _send(app, TASKS[kind], str(job_id))
    return len(due)


def _send(app: Celery, task: str, job_id: str) -> None:
    try:
        app.send_task(task, (job_id,), retry=False)
    except (OperationalError, OSError) as error:
        raise BrokerUnavailable(f"Redis took no message: {error}") from error
