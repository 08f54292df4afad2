"""The dispatcher: hands committed job rows to the broker, and again those that the broker lost.

It keeps the broker's queue short, so that what waits, waits in Postgres. Any number may run: rows are taken with SKIP
LOCKED. Sending comes before the commit that marks a row as sent, so a crash in between sends twice, never not at all.
"""

import logging
import time
from collections.abc import Callable

from celery import Celery
from kombu.exceptions import OperationalError

from core.errors import BrokerUnavailable, Retryable
from store import jobs
from store.broker import RedisBroker
from store.pool import Store, writing
from workers.tasks import ATTEMPT

log = logging.getLogger("citadel.dispatch")

QUEUE_LIMIT = 200  # messages in Redis that no worker has taken
RESEND_AFTER_S = 10.0  # sent, not claimed, and the queue is empty: the message is lost
RESEND_ANYWAY_S = 900.0  # or lost while others kept the queue from emptying; sent twice is done once
POLL_S = 0.2
AWAY_S = 1.0  # between tries while Postgres or Redis is away


def dispatch_forever(store: Store, broker: RedisBroker, app: Celery, running: Callable[[], bool]) -> None:
    """Dispatch while `running()`. Outages are logged and waited out."""
    while running():
        try:
            sent = dispatch_once(store, broker, app)
        except Retryable as error:
            log.warning("%s; trying again", error)
            time.sleep(AWAY_S)
            continue
        if sent == 0:
            time.sleep(POLL_S)


def dispatch_once(store: Store, broker: RedisBroker, app: Celery) -> int:
    """Send what is due, and quarantine what has used up its attempts; returns how many were sent."""
    waiting = broker.queue_length()
    with writing(store) as conn:
        jobs.quarantine_spent(conn)
        resend_after_s = RESEND_ANYWAY_S if waiting else RESEND_AFTER_S
        due = jobs.take_unsent(conn, max(0, QUEUE_LIMIT - waiting), resend_after_s)
        for job_id, _ in due:
            _send(app, str(job_id))
    return len(due)


def _send(app: Celery, job_id: str) -> None:
    try:
        app.send_task(ATTEMPT, (job_id,), retry=False)
    except (OperationalError, OSError) as error:
        raise BrokerUnavailable(f"Redis took no message: {error}") from error
