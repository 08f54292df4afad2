"""What the two embedded servers have in common: a port that is kept, a first answer, and an end."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from core.errors import Misconfigured, StoreUnavailable
from embedded.process import Running
from embedded.state import free_port

_START_SECONDS = 120.0  # replaying the log of a killed database may take most of a minute on a slow disk
_ATTEMPTS = 5


@dataclass(frozen=True, slots=True)
class Server:
    """A running Postgres or Redis that is ours alone."""

    name: str
    url: str = field(repr=False)  # with the password
    port: int  # on 127.0.0.1
    folder: Path  # its data
    seconds: float  # from the call to the first answer
    running: Running
    lock: IO[str] = field(repr=False)

    @property
    def pid(self) -> int:
        return self.running.pid

    @property
    def log(self) -> Path:
        return self.running.log

    def last_lines(self) -> str:
        """The end of its log since its start, indented."""
        return self.running.last_lines()

    def exit_code(self) -> int | None:
        """None while it runs; else as `Running.exit_code`."""
        return self.running.exit_code()

    def stop(self) -> None:
        """Stop it cleanly and let go of its folder. Does nothing twice."""
        self.running.stop()
        self.lock.close()


@dataclass(frozen=True, slots=True)
class Launch:
    """How a server is started at a port, how it is known to answer, and which endings deserve another try."""

    start: Callable[[int], Running]
    answers: Callable[[int], bool]  # raises Misconfigured when it answers, but not to us
    passing: tuple[str, ...]  # in the log of a failed start: another try, at another port, may do


def _first_answer(launch: Launch, running: Running, port: int) -> bool:
    """Whether it came; False when the server ended before. Raises StoreUnavailable when time ran out."""
    deadline = time.monotonic() + _START_SECONDS
    while running.exit_code() is None:
        if launch.answers(port):
            return True
        if time.monotonic() > deadline:
            raise StoreUnavailable(f"{running.name} did not answer in {_START_SECONDS:.0f} s: see {running.log}")
        time.sleep(0.02)
    return False


def launch_server(launch: Launch, remembered_port: int) -> tuple[int, Running]:
    """The port and the process of a server that answers. Raises Misconfigured with the end of its log."""
    port = remembered_port
    for attempt in range(_ATTEMPTS):
        port = free_port(port)
        running = launch.start(port)
        try:
            if _first_answer(launch, running, port):
                return port, running
        except BaseException:
            running.stop()
            raise
        running.stop()
        said = running.last_lines()
        if attempt == _ATTEMPTS - 1 or not any(reason in said for reason in launch.passing):
            break
        time.sleep(0.2 * attempt)
    raise Misconfigured(f"{running.name} did not start; the last lines of {running.log}:\n{said}")
