"""With servers of one's own: `citadel up` starts no embedded ones, and each process runs on its own role alone."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
import uuid
from pathlib import Path

import pytest

from cli.up import KEY_FILE, answers
from core.config import read_runtime
from embedded.server import Server
from embedded.state import hold_port
from store.migrate import create_database, role_url
from tests.acceptance.conftest import ROOT

COMMAND = [sys.executable, "-m", "cli.main"]


@pytest.fixture
def own_database(postgres: Server) -> str:
    """An administrator's URL of an empty database."""
    return create_database(postgres.url, f"own_{uuid.uuid4().hex[:10]}")


def clean(**variables: str) -> dict[str, str]:
    """This process's environment with these settings and no others."""
    return {k: v for k, v in os.environ.items() if not k.startswith("CITADEL_")} | variables


def test_up_uses_the_servers_it_is_given(own_database: str, redis_server: Server, tmp_path: Path) -> None:
    state = tmp_path / "state"
    environment = clean(CITADEL_STATE=str(state), CITADEL_PORT="0", CITADEL_DATABASE_URL=own_database,
                        CITADEL_REDIS_URL=redis_server.url)  # fmt: skip
    with (tmp_path / "up.log").open("wb") as log:
        up = subprocess.Popen([*COMMAND, "up"], env=environment, stdout=log, stderr=log, cwd=ROOT)
    try:
        give_up = time.monotonic() + 90
        while not (url := read_runtime(state).get("api_url")) or not answers(f"{url}/readyz"):
            assert time.monotonic() < give_up and up.poll() is None, (tmp_path / "up.log").read_text()
            time.sleep(0.2)
        assert not (state / "logs" / "postgres.log").exists()
        assert not (state / "logs" / "redis.log").exists()
        assert (state / KEY_FILE).stat().st_mode & 0o077 == 0
        up.send_signal(signal.SIGTERM)
        assert up.wait(60) == 0
        assert read_runtime(state) == {}
    finally:
        up.kill()
        up.wait()


def test_each_process_runs_on_its_own_role_alone(own_database: str, redis_server: Server, tmp_path: Path) -> None:
    """As docker-compose.yml gives them out: the administrator's URL to migrate only, the app's to the API only."""
    state = str(tmp_path / "state")
    migrate = clean(CITADEL_DATABASE_URL=own_database, CITADEL_APP_PASSWORD="app-password",
                    CITADEL_MAINTENANCE_PASSWORD="maintenance-password", CITADEL_STATE=state)  # fmt: skip
    subprocess.run([*COMMAND, "migrate"], env=migrate, check=True, cwd=ROOT, timeout=90)
    writes = clean(
        CITADEL_MAINTENANCE_DATABASE_URL=role_url(own_database, "citadel_maintenance", "maintenance-password"),
        CITADEL_REDIS_URL=redis_server.url,
        CITADEL_STATE=state,
    )
    held = hold_port("127.0.0.1", 0)
    port = str(held.getsockname()[1])
    reads = writes | {
        "CITADEL_APP_DATABASE_URL": role_url(own_database, "citadel_app", "app-password"),
        "CITADEL_PORT": port,
    }
    started = [
        subprocess.Popen([*COMMAND, name], env=environment, cwd=ROOT)
        for name, environment in (("worker", writes), ("dispatch", writes), ("beat", writes), ("serve", reads))
    ]
    try:
        made = subprocess.run([*COMMAND, "keys", "create", "all", "--scope", "ingest", "--json"], env=reads, check=True,
                              cwd=ROOT, capture_output=True)  # fmt: skip
        key = json.loads(made.stdout)["key"]
        base = f"http://127.0.0.1:{port}"
        give_up = time.monotonic() + 90
        while not answers(f"{base}/readyz"):
            assert time.monotonic() < give_up
            time.sleep(0.2)
        job = call(f"{base}/v1/documents", key, {"external_id": "a", "text": "One role each."})["job_id"]
        while (state_now := call(f"{base}/v1/jobs/{job}", key)["state"]) != "done":
            assert time.monotonic() < give_up and state_now not in ("failed", "quarantined")
            time.sleep(0.2)
        assert all(process.poll() is None for process in started)
    finally:
        held.close()
        for process in started:
            process.terminate()
        for process in started:
            process.wait(60)


def call(url: str, key: str, body: dict[str, object] | None = None) -> dict[str, str]:
    """The answer's JSON."""
    data = None if body is None else json.dumps(body).encode()
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    with urllib.request.urlopen(urllib.request.Request(url, data, headers), timeout=30) as response:
        return dict(json.load(response))
