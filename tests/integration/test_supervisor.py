"""The supervisor with real servers and real signals: it stops everything, however it ends itself."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from core.errors import Misconfigured
from embedded.place import erase_servers
from embedded.process import wait_until
from embedded.supervisor import Child, Supervisor

ROOT = Path(__file__).resolve().parents[2]
GONE_SECONDS = 8.0

# Like a Celery worker: it leaves two processes that do not end with it. One has a session of its own, one hides its
# environment, and both ignore SIGTERM.
WORKER = """
import os, signal, sys, time
from pathlib import Path
signal_ignored = signal.signal(signal.SIGTERM, signal.SIG_IGN)
own_session = os.fork()
if own_session == 0:
    os.setsid()
    time.sleep(600)
    os._exit(0)
hidden = os.fork()
if hidden == 0:
    os.execve(sys.executable, [sys.executable, "-c", "import time; time.sleep(600)"], {})
signal.signal(signal.SIGTERM, signal_ignored)
note = Path(sys.argv[1])
note.with_suffix(".new").write_text(f"{own_session} {hidden}")
note.with_suffix(".new").rename(note)
time.sleep(600)
"""

STACK = """
import functools, json, os, sys
from pathlib import Path
from embedded.postgres import start_postgres
from embedded.redis import start_redis
from embedded.supervisor import Child, supervise
state, worker, note = Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
say = functools.partial(print, flush=True)
def bring_up(supervisor):
    database = supervisor.adopt(start_postgres(state, durable=False))
    broker = supervisor.adopt(start_redis(state, durable=False))
    argv = (sys.executable, "-c", worker, str(note))
    first = supervisor.start(Child("worker", argv, dict(os.environ), ready=note.exists))
    last = "import sys, time; print('the tape is full', flush=True); sys.stdin.read(); time.sleep(600)"
    said = lambda: "full" in (state / "logs/recorder.log").read_text()
    second = supervisor.start(Child("recorder", (sys.executable, "-c", last), dict(os.environ), ready=said))
    pids = {service.name: service.pid for service in (database, broker, first, second)}
    say("UP " + json.dumps({**pids, "grandchildren": [int(pid) for pid in note.read_text().split()]}))
sys.exit(supervise(state, bring_up, say))
"""


@pytest.fixture
def state() -> Iterator[Path]:
    """A state folder that an account without rights can pass through, unlike pytest's own."""
    parent = Path(tempfile.mkdtemp(prefix="citadel-"))
    parent.chmod(0o711)
    yield parent / "state"
    erase_servers(parent / "state")
    shutil.rmtree(parent)


def _alive(pid: int) -> bool:
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return status.rpartition(")")[2].split()[0] not in ("Z", "X")


class Stack:
    """A supervising process with two servers, two children and two grandchildren."""

    def __init__(self, state: Path, note: str) -> None:
        self.said: list[str] = []
        argv = [sys.executable, "-c", STACK, str(state), WORKER, str(state.parent / note)]
        self.process = subprocess.Popen(argv, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.said.append(line)
            if line.startswith("UP "):
                break
        else:
            raise AssertionError("".join(self.said))
        told = json.loads(line.removeprefix("UP "))
        self.grandchildren: list[int] = told.pop("grandchildren")
        self.pids: dict[str, int] = told
        assert all(_alive(pid) for pid in self.everything())

    def everything(self) -> list[int]:
        return [*self.pids.values(), *self.grandchildren]

    def ends(self) -> int:
        """The exit code, once all processes are gone."""
        said, _ = self.process.communicate(timeout=30)
        self.said += said.splitlines(keepends=True)
        gone = wait_until(lambda: not any(map(_alive, self.everything())), GONE_SECONDS)
        assert gone, (self.pids, self.grandchildren, self.said)
        return self.process.returncode


@pytest.fixture
def launch(state: Path) -> Iterator[Callable[[str], Stack]]:
    """Starts a stack on the state folder; whatever a failed test leaves of it is ended."""
    started: list[Stack] = []

    def start(note: str) -> Stack:
        started.append(Stack(state, note))
        return started[-1]

    yield start
    for stack in started:
        stack.process.kill()
        stack.process.communicate()


def test_sigint_stops_all_in_reverse(state: Path, launch: Callable[[str], Stack]) -> None:
    stack = launch("first")
    stack.process.send_signal(signal.SIGINT)
    assert stack.ends() == 0
    stopped = [line.split()[1] for line in stack.said if line.startswith("stopping ")]
    assert stopped == ["recorder", "worker", "redis", "postgres"]
    assert "database system is shut down" in state.joinpath("logs/postgres.log").read_text()


@pytest.mark.parametrize("victim", ["recorder", "postgres"])
def test_all_stop_when_one_dies(state: Path, launch: Callable[[str], Stack], victim: str) -> None:
    stack = launch("first")
    os.kill(stack.pids[victim], signal.SIGKILL)
    assert stack.ends() == 1
    said = "".join(stack.said)
    assert f"{victim} was ended by SIGKILL" in said
    assert {"recorder": "the tape is full", "postgres": "ready to accept connections"}[victim] in said


def test_kill_9_of_the_supervisor_leaves_nothing_and_it_starts_again(
    state: Path, launch: Callable[[str], Stack]
) -> None:
    stack = launch("first")
    with pytest.raises(Misconfigured, match="citadel up` is already running"), Supervisor(state):
        pass
    stack.process.kill()
    again = launch("again")
    assert stack.ends() == -signal.SIGKILL
    again.process.send_signal(signal.SIGTERM)
    assert again.ends() == 0


def test_kill_9_of_supervisor_and_reaper_is_mended_by_the_next(state: Path, launch: Callable[[str], Stack]) -> None:
    stack = launch("first")
    reapers = Path(f"/proc/{stack.process.pid}/task/{stack.process.pid}/children").read_text().split()
    stack.process.send_signal(signal.SIGSTOP)
    for pid in {int(pid) for pid in reapers} - set(stack.pids.values()):
        os.kill(pid, signal.SIGKILL)
    stack.process.kill()
    own_session, hidden = stack.grandchildren
    assert _alive(own_session)
    with Supervisor(state):
        assert wait_until(lambda: not _alive(own_session), GONE_SECONDS)
    os.kill(hidden, signal.SIGKILL)  # nothing can know it any more
    stack.ends()


def test_a_child_that_does_not_get_ready_is_named(state: Path) -> None:
    said: list[str] = []
    dying = Child("api", (sys.executable, "-c", "raise SystemExit('no such port')"), {}, ready=lambda: False)
    slow = Child("beat", (sys.executable, "-c", "import time; time.sleep(600)"), {}, lambda: False, ready_seconds=0.3)
    for child, reason in ((dying, "api ended with exit code 1.*no such port"), (slow, "beat was not ready")):
        with pytest.raises(Misconfigured, match=f"(?s){reason}"), Supervisor(state, said.append) as supervisor:
            supervisor.start(child)
    assert said[-1] == "stopping beat"
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
