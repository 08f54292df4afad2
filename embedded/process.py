"""Child processes that die with their parent, and how each is stopped."""

import contextlib
import ctypes
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from core.errors import Misconfigured
from embedded.account import Account
from embedded.reaper import process_ids
from embedded.state import last_lines

StopSteps = tuple[tuple[signal.Signals, float], ...]  # each signal, and the seconds that it is given to work

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_POLL_SECONDS = 0.02


@dataclass(frozen=True, slots=True)
class Running:
    """A started child process: the leader of a session and a process group of its own."""

    name: str
    process: "subprocess.Popen[bytes]"
    log: Path
    log_start: int  # the byte of the log at which its own output begins
    stop_steps: StopSteps

    @property
    def pid(self) -> int:
        return self.process.pid

    def last_lines(self) -> str:
        """The end of its output, indented."""
        return last_lines(self.log, since=self.log_start)

    def exit_code(self) -> int | None:
        """None while it runs; else its exit status, or minus the number of the signal that ended it.

        The process is not reaped here, so that its id, which is its group's too, cannot be given to another before
        `stop` has killed what is left of the group.
        """
        if self.process.returncode is not None:
            return self.process.returncode
        seen = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if seen is None:
            return None
        return seen.si_status if seen.si_code == os.CLD_EXITED else -seen.si_status

    def stop(self) -> None:
        """Signal it step by step until it has ended, then kill what is left of its group. Does nothing twice."""
        if self.process.returncode is not None:
            return
        for number, seconds in self.stop_steps:
            if self.exit_code() is None:
                os.kill(self.pid, number)
                wait_until(lambda: self.exit_code() is not None, seconds)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        self.process.wait()


def wait_until(done: Callable[[], bool], seconds: float) -> bool:
    """Whether `done` came true within that time."""
    deadline = time.monotonic() + seconds
    while not done():
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL_SECONDS)
    return True


def tie_to_parent(death_signal: signal.Signals) -> Callable[[], None]:
    """What a new child calls before it runs its program, so that the kernel signals it when its parent dies.

    `subprocess` calls it after the switch to another user, which would clear the setting (man 2 prctl). The parent is
    the *thread* that forks, hence only the main thread may. Raises Misconfigured where there is no Linux.
    """
    if threading.current_thread() is not threading.main_thread():
        raise RuntimeError("start child processes from the main thread: they are killed when their thread ends")
    if not hasattr(os, "waitid") or not Path("/proc/self/stat").exists():
        raise Misconfigured(
            "the embedded servers need Linux: set CITADEL_DATABASE_URL and CITADEL_REDIS_URL to servers of your own"
        )
    prctl = ctypes.PyDLL(None).prctl  # loaded before the fork; PyDLL: no lock is let go between fork and exec
    prctl.argtypes = [ctypes.c_int, *[ctypes.c_ulong] * 4]
    parent = os.getpid()

    def tie() -> None:
        # A parent that died before the call sends no signal any more.
        if prctl(_PR_SET_PDEATHSIG, death_signal, 0, 0, 0) != 0 or os.getppid() != parent:
            os._exit(127)

    return tie


def spawn(
    name: str,
    argv: Sequence[str],
    *,
    env: Mapping[str, str],
    log: Path,
    stop_steps: StopSteps,
    death_signal: signal.Signals = signal.SIGKILL,
    account: Account | None = None,
    stdin: bytes = b"",
) -> Running:
    """Start a child with its output appended to `log`. What it writes is for its own account alone (umask 077)."""
    with log.open("ab") as output:
        log_start = output.seek(0, os.SEEK_END)
        process = subprocess.Popen(
            argv,
            env=env,
            user=account.uid if account else None,
            group=account.gid if account else None,
            extra_groups=[] if account else None,
            umask=0o077,
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # a Ctrl-C in the terminal reaches the parent only, which stops each in turn
            preexec_fn=tie_to_parent(death_signal),
        )
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError), process.stdin as pipe:
        pipe.write(stdin)
    return Running(name, process, log, log_start, stop_steps)


def _holds(pid: int, folder: Path, program: str) -> bool:
    entry = Path("/proc") / str(pid)
    try:
        if entry.joinpath("comm").read_text().strip() != program:
            return False
        if os.fsencode(folder) in entry.joinpath("cmdline").read_bytes().split(b"\0"):
            return True
        return entry.joinpath("cwd").readlink() == folder
    except OSError:  # it ended meanwhile, or belongs to someone else
        return False


def holders(folder: Path, program: str) -> set[int]:
    """Processes of `program` that work in `folder`, or were given it as an argument, whoever started them."""
    return {pid for pid in process_ids() if _holds(pid, folder, program)}


def end_holders(folder: Path, program: str, steps: StopSteps) -> None:
    """Stop the servers that an earlier owner of `folder` left running. Call it only while holding the folder's lock.

    A postmaster's own id file is not enough: backends outlive a killed postmaster, and the next one refuses to start.
    """
    for number, seconds in (*steps, (signal.SIGKILL, 5.0)):
        found = holders(folder, program)
        for pid in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        if not found or wait_until(lambda: not holders(folder, program), seconds):
            return
    raise Misconfigured(f"{program} processes {sorted(holders(folder, program))} use {folder} and cannot be stopped")
