"""Ends what a supervisor leaves behind when it dies without a word, as after `kill -9`.

A parent-death signal reaches direct children only. Celery's prefork children outlive a killed worker: each inherits
its siblings' pipes, so none ever reads an end of file. This process waits for its standard input to close, which the
kernel does for a dead supervisor, and then kills every process that carries the supervisor's token in its environment
or belongs to the session of one of its children.

It runs as a script of its own (`python -I reaper.py TOKEN`) and imports the standard library only, so it starts in
milliseconds and needs nothing of ours on the path.
"""

import contextlib
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

MARKER = "CITADEL_SUPERVISED_BY"
_PROC = Path("/proc")


def process_ids() -> Iterator[int]:
    """Every process id on this machine, but this process's own."""
    own = os.getpid()
    return (int(entry.name) for entry in _PROC.iterdir() if entry.name.isdigit() and int(entry.name) != own)


def _read(pid: int, name: str) -> bytes:
    try:
        return (_PROC / str(pid) / name).read_bytes()
    except OSError:  # it ended meanwhile, or belongs to someone else
        return b""


def marked_processes(token: str) -> set[int]:
    """Processes whose environment carries a marker that begins with `token`."""
    wanted = f"{MARKER}={token}".encode()
    return {pid for pid in process_ids() if any(v.startswith(wanted) for v in _read(pid, "environ").split(b"\0"))}


def session_processes(sessions: set[int]) -> set[int]:
    """Living processes of these sessions; a title set by the process hides its environment, never its session."""
    found = set()
    for pid in process_ids():
        # The command's name may hold spaces and brackets: the fields begin after its last bracket (man 5 proc).
        fields = _read(pid, "stat").rpartition(b")")[2].split()
        if len(fields) > 3 and int(fields[3]) in sessions and fields[0] not in (b"Z", b"X"):
            found.add(pid)
    return found


def kill_all(token: str, sessions: set[int], seconds: float = 10.0) -> bool:
    """Kill until none is left, since a process may fork while it is being looked for. False when time ran out."""
    deadline = time.monotonic() + seconds
    while left := marked_processes(token) | session_processes(sessions):
        if time.monotonic() > deadline:
            return False
        for pid in left:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.05)
    return True


def main(token: str) -> int:
    """Read one session id a line until the supervisor is gone, then end what is left of it."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    sessions = {int(line) for line in sys.stdin if line.strip().isdigit()}
    return 0 if kill_all(token, sessions) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
