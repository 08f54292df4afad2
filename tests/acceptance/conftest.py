"""`citadel up`, as a user starts it: one stack for all acceptance tests, with the shipped model."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from citadel_client import CitadelClient

from cli.up import KEY_FILE, answers
from core.config import read_runtime
from embedded.place import erase_servers

ROOT = Path(__file__).parents[2]
START_S = 120


@dataclass(frozen=True, slots=True)
class Stack:
    """A running stack."""

    state: Path
    url: str
    key: str
    environment: dict[str, str]

    def client(self) -> CitadelClient:
        """A client with a key of every scope."""
        return CitadelClient(self.url, self.key, timeout=60)

    def citadel(self, *arguments: str, status: int = 0) -> str:
        """What `citadel …` prints. Fails unless it ends with `status`."""
        command = [sys.executable, "-m", "cli.main", *arguments]
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=300, cwd=ROOT)
        assert done.returncode == status, (
            f"{command} ended {done.returncode}: {done.stdout[-2000:]}\n{done.stderr[-4000:]}"
        )
        return done.stdout


@pytest.fixture(scope="session")
def stack() -> Iterator[Stack]:
    """Started once, stopped by Ctrl-C at the end, which must leave status 0."""
    state = Path(tempfile.mkdtemp(prefix="citadel-up-"))
    state.chmod(0o711)
    environment = {k: v for k, v in os.environ.items() if not k.startswith("CITADEL_")}
    environment |= {"CITADEL_STATE": str(state), "CITADEL_PORT": "0", "CITADEL_LEASE_S": "5"}
    environment["CITADEL_SOURCE_ROOTS"] = tempfile.gettempdir()
    with (state / "up.log").open("wb") as log:
        up = subprocess.Popen(
            [sys.executable, "-m", "cli.main", "up"], env=environment, stdout=log, stderr=log, cwd=ROOT
        )
    try:
        url = _wait(state, up)
        yield Stack(state, url, (state / KEY_FILE).read_text().strip(), environment)
        up.send_signal(signal.SIGINT)
        assert up.wait(60) == 0, (state / "up.log").read_text()
    finally:
        up.kill()
        up.wait()
        erase_servers(state)
        shutil.rmtree(state, ignore_errors=True)


def _wait(state: Path, up: subprocess.Popen[bytes]) -> str:
    """The API's URL, once it is ready."""
    give_up = time.monotonic() + START_S
    while time.monotonic() < give_up and up.poll() is None:
        url = read_runtime(state).get("api_url")
        if url and answers(f"{url}/readyz"):
            return url
        time.sleep(0.2)
    raise AssertionError(f"`citadel up` did not get ready:\n{(state / 'up.log').read_text()}")
