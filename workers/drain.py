"""Drain a host: its workers finish what they do and take no more, so that stopping it cuts nothing."""

import socket
import time

from celery import Celery

from core.errors import BrokerUnavailable, NotFound

REPLY_S = 2.0
POLL_S = 0.5


def drain_host(app: Celery) -> list[str]:
    """Close this host's workers to new work and wait until they do nothing; returns their names.

    A worker that is started anew takes work again. Raises NotFound when none answers.
    """
    queues = _queues(app)
    for name, consumed in queues.items():
        for queue in consumed:
            app.control.cancel_consumer(queue, destination=[name])
    while any((app.control.inspect(list(queues), timeout=REPLY_S).active() or {}).values()):
        time.sleep(POLL_S)
    return sorted(queues)


def _queues(app: Celery) -> dict[str, list[str]]:
    """This host's workers, with the queues that they take work from."""
    try:
        found = app.control.inspect(timeout=REPLY_S).active_queues() or {}
    except OSError as error:
        raise BrokerUnavailable(f"Redis did not answer: {error}") from error
    here = f"@{socket.gethostname()}"
    mine = {name: [queue["name"] for queue in queues] for name, queues in found.items() if name.endswith(here)}
    if not mine:
        raise NotFound(f"no worker of {socket.gethostname()} answers")
    return mine
