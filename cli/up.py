"""The whole stack on one machine: servers, then the database, then the processes."""

import json
import re
import secrets
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from cli.prepare import prepare_database, with_roles, write_private
from core.config import RUNTIME_FILE, Settings, environment_of
from embedded.postgres import start_postgres
from embedded.redis import start_redis
from embedded.state import hold_port
from embedded.supervisor import Child, Supervisor
from store import audit, keys
from store.migrate import create_database
from store.pool import open_store, writing
from store.profiles import tenant_named

KEY_FILE = "operator.key"
KEY_SCOPES = ("search", "ingest", "act_for", "operate")
SHARED = ("database_url", "app_database_url", "maintenance_database_url", "redis_url", "api_url", "blob_url")

Say = Callable[[str], None]
_SECRET = re.compile("^CITADEL_.*(DATABASE_URL|PASSWORD)$")  # what the clock, which only sends messages, need not know


def bring_up(supervisor: Supervisor, settings: Settings, base_environment: dict[str, str], say: Say) -> Settings:
    """Start everything under the supervisor; returns the settings that the running stack has.

    `CITADEL_DATABASE_URL` and `CITADEL_REDIS_URL` replace the embedded servers. Raises Misconfigured.
    """
    served = _with_servers(supervisor, settings)
    with hold_port(served.host, served.port) as held:  # nobody is given it before the API listens there
        port = int(held.getsockname()[1])
        running = replace(served, port=port, api_url=f"http://{served.host}:{port}")
        _start_processes(supervisor, running, base_environment, say)
    return running


def _start_processes(supervisor: Supervisor, running: Settings, inherited: dict[str, str], say: Say) -> None:
    say("preparing the database and the model")
    prepared = prepare_database(running)
    say(f"database ready: {len(prepared.applied)} migrations applied, profile {prepared.profile.name}")
    write_private(running.state / RUNTIME_FILE, json.dumps({name: getattr(running, name) for name in SHARED}, indent=2))
    key = _operator_key(running)
    environment = inherited | environment_of(running)
    for child in children(running, environment):
        supervisor.start(child)
    say(f"API          {running.api_url}/docs")
    say(f"operator key {key}")
    say(f"logs         {running.state / 'logs'}")


def take_down(state: Path) -> None:
    """Forget the stack that ran."""
    (state / RUNTIME_FILE).unlink(missing_ok=True)


def _with_servers(supervisor: Supervisor, settings: Settings) -> Settings:
    state = supervisor.state
    database_url, redis_url = settings.database_url, settings.redis_url
    if not database_url:
        database_url = create_database(supervisor.adopt(start_postgres(state)).url, "citadel")
    if not redis_url:
        redis_url = supervisor.adopt(start_redis(state)).url
    return replace(with_roles(replace(settings, state=state), database_url), redis_url=redis_url)


def _operator_key(settings: Settings) -> Path:
    """The file with a key of every scope; a new key when the file's is not one of this database and tenant."""
    path = settings.state / KEY_FILE
    store = open_store(settings.app_database_url, settings.maintenance_database_url, size=1)
    try:
        with writing(store) as conn:
            tenant_id = tenant_named(conn, settings.tenant)
            known = keys.find_key(conn, path.read_text().strip()) if path.is_file() else None
            if known is not None and known.tenant_id == tenant_id:
                return path
            name = f"operator-{secrets.token_hex(3)}"
            secret = keys.create_key(conn, tenant_id, name, KEY_SCOPES)
        audit.record(store, tenant_id, "key.create", actor="service:up", resource=f"key:{name}")
    finally:
        store.close()
    write_private(path, secret)
    return path


def children(settings: Settings, environment: dict[str, str]) -> list[Child]:
    """Our own processes, in the order that they start."""

    def child(name: str, *command: str, ready: Callable[[], bool] = lambda: True) -> Child:
        return Child(name, (sys.executable, "-m", "cli.main", *command), environment, ready=ready)

    def worker(name: str, *options: str) -> Child:
        log = settings.state / "logs" / f"{name}.log"
        return child(name, "worker", "--name", name, *options, ready=lambda: _says(log, "ready."))

    followers = [child("follower", "follow")] if settings.lexical == "fast" else []
    beat = child("beat", "beat")
    return [
        worker("worker", "--queues", "index"),
        worker("fetcher", "--queues", "refresh,upkeep", "--processes", "1"),  # a long refresh holds up no indexing
        worker("evaluator", "--queues", "eval", "--processes", "1"),  # it searches, and so reads as others may
        child("dispatcher", "dispatch"),
        replace(beat, env={name: value for name, value in beat.env.items() if not _SECRET.search(name)}),
        *followers,
        child("api", "serve", ready=lambda: answers(f"{settings.api_url}/readyz")),
    ]


def _says(log: Path, word: str) -> bool:
    return log.is_file() and word in log.read_text(errors="replace")


def answers(url: str) -> bool:
    """Whether a GET of this URL gives 200."""
    try:
        with urllib.request.urlopen(url, timeout=2) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError):
        return False
