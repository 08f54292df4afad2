"""Starts the processes of the stack by their command lines, watches them, and leaves none behind.

    with Supervisor(state, say) as supervisor:
        database = supervisor.adopt(start_postgres(state))
        supervisor.start(Child("api", (sys.executable, "-m", "…"), env, ready=…))
        return supervisor.watch()

However the block ends, all are stopped in the reverse order of their start. Children are tied to this process by a
parent-death signal, and what they start in turn by `reaper.py`, so that `kill -9` leaves nothing either.
"""

import hashlib
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, TracebackType
from typing import IO, Protocol, TypeVar

from core.errors import Misconfigured
from embedded import reaper
from embedded.process import Running, spawn, wait_until
from embedded.state import hold_lock, log_file, open_state

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_WATCH_SECONDS = 0.2


class Service(Protocol):
    """What can be watched and stopped: a `Server`, or a child's `Running`."""

    @property
    def name(self) -> str: ...
    @property
    def log(self) -> Path: ...
    @property
    def pid(self) -> int: ...
    def last_lines(self) -> str: ...
    def exit_code(self) -> int | None: ...
    def stop(self) -> None: ...


S = TypeVar("S", bound=Service)


@dataclass(frozen=True, slots=True)
class Child:
    """A process to start: its command line, its whole environment, and when it counts as ready."""

    name: str
    argv: tuple[str, ...]
    env: Mapping[str, str]
    ready: Callable[[], bool] = lambda: True
    ready_seconds: float = 60.0
    stop_seconds: float = 15.0  # between SIGTERM and SIGKILL


class StopRequested(KeyboardInterrupt):
    """A signal asked the supervisor to stop."""


def _ending(code: int) -> str:
    return f"ended with exit code {code}" if code >= 0 else f"was ended by {signal.Signals(-code).name}"


class Supervisor:
    """A context in which processes live. One at a time on a state folder; main thread only."""

    def __init__(self, state: Path, say: Callable[[str], None] = print) -> None:
        self.state = open_state(state)
        self._say = say
        self._services: list[Service] = []
        # The folder's part is the same for every supervisor of it, so that the next one knows what the last one left.
        self._family = hashlib.sha256(os.fsencode(self.state)).hexdigest()[:16] + "-"
        self._token = self._family + secrets.token_hex(8)

    def __enter__(self) -> "Supervisor":
        self._lock = hold_lock(self.state / "up.lock", "`citadel up`")
        try:
            self._end_leftovers()
            self._reaper = self._start_reaper()
        except BaseException:
            self._lock.close()
            raise
        self._handlers = {number: signal.signal(number, self._on_signal) for number in _SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_IGN)  # a second Ctrl-C does not cut the stopping short
        with ExitStack() as last_first:
            last_first.callback(self._lock.close)
            for number, handler in self._handlers.items():
                last_first.callback(signal.signal, number, handler)
            # Closes its input; it ends what is left, and then itself.
            last_first.callback(self._reaper.communicate, timeout=30)
            for service in self._services:
                last_first.callback(service.stop)
                last_first.callback(self._say, f"stopping {service.name}")

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        raise StopRequested(signal.Signals(number).name)

    def _end_leftovers(self) -> None:
        """Kill what an earlier supervisor of this folder left; whoever holds the lock is the only one alive."""
        if not reaper.kill_all(self._family, set()):
            left = sorted(reaper.marked_processes(self._family))
            raise Misconfigured(f"processes {left} of an earlier run cannot be ended: end them, then start again")

    def _start_reaper(self) -> "subprocess.Popen[bytes]":
        return subprocess.Popen(
            [sys.executable, "-I", reaper.__file__, self._token],
            env={},
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )

    def adopt(self, server: S) -> S:
        """Watch a server that runs already, and stop it at the end."""
        self._services.append(server)
        self._say(f"{server.name}: process {server.pid}, log {server.log}")
        return server

    def start(self, child: Child) -> Running:
        """Start a child and wait until it is ready. Raises Misconfigured, with the end of its log, when it is not."""
        running = spawn(
            child.name,
            child.argv,
            env={**child.env, reaper.MARKER: self._token},
            log=log_file(self.state, child.name),
            stop_steps=((signal.SIGTERM, child.stop_seconds), (signal.SIGKILL, 10.0)),
        )
        self._tell_reaper(running.pid)
        self.adopt(running)
        if not wait_until(lambda: self._ready(child), child.ready_seconds):
            raise Misconfigured(
                f"{child.name} was not ready in {child.ready_seconds:.0f} s; the last lines of {running.log}:\n"
                f"{running.last_lines()}"
            )
        return running

    def _ready(self, child: Child) -> bool:
        self.check()
        return child.ready()

    def _tell_reaper(self, session: int) -> None:
        pipe: IO[bytes] | None = self._reaper.stdin
        assert pipe is not None
        pipe.write(b"%d\n" % session)
        pipe.flush()

    def report(self) -> str | None:
        """What to say of the first process that has ended by itself, with its last lines; None while all run."""
        for service in self._services:
            code = service.exit_code()
            if code is not None:
                return f"{service.name} {_ending(code)}; the last lines of {service.log}:\n{service.last_lines()}"
        if self._reaper.poll() is not None:
            return f"the supervisor's reaper {_ending(self._reaper.returncode)}"
        return None

    def check(self) -> None:
        """Raises Misconfigured when a process has ended by itself."""
        if report := self.report():
            raise Misconfigured(report)

    def watch(self) -> int:
        """Return 0 when a signal asks to stop, 1 when a process ends by itself, after saying which."""
        try:
            while (report := self.report()) is None:
                time.sleep(_WATCH_SECONDS)
        except StopRequested as request:
            self._say(f"{request}: stopping")
            return 0
        self._say(report)
        return 1


def supervise(state: Path, bring_up: Callable[[Supervisor], None], say: Callable[[str], None] = print) -> int:
    """Call `bring_up` in a supervisor, then watch. The exit code: 0 after a signal, 1 after a child's death."""
    with Supervisor(state, say) as supervisor:
        try:
            bring_up(supervisor)
        except StopRequested as request:
            say(f"{request}: stopping")
            return 0
        return supervisor.watch()
