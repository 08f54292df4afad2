"""The embedded Postgres and Redis: who may come in, what a second start finds, and where they live."""

import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from core.errors import Misconfigured
from embedded.account import succeeds_as, unprivileged_account
from embedded.place import OUTSIDE, erase_servers, runnable
from embedded.postgres import start_postgres
from embedded.process import wait_until
from embedded.redis import start_redis
from embedded.server import Server
from embedded.state import hold_port

ROOT = Path(__file__).resolve().parents[2]
AS_ROOT = os.geteuid() == 0
only_root = pytest.mark.skipif(not AS_ROOT, reason="needs root, whose servers run as another account")

# The pgvector server floor: 0.8.4, as our threat list has it.
VECTOR_FLOOR = (0, 8, 4)


@pytest.fixture
def state() -> Iterator[Path]:
    """A state folder that an account without rights can pass through, unlike pytest's own."""
    parent = Path(tempfile.mkdtemp(prefix="citadel-"))
    parent.chmod(0o711)
    yield parent / "state"
    erase_servers(parent / "state")
    shutil.rmtree(parent)


@pytest.fixture(scope="module")
def servers() -> Iterator[tuple[Server, Server]]:
    """Postgres and Redis for the tests that only look."""
    parent = Path(tempfile.mkdtemp(prefix="citadel-"))
    parent.chmod(0o711)
    database, broker = start_postgres(parent / "state"), start_redis(parent / "state")
    yield database, broker
    broker.stop()
    database.stop()
    shutil.rmtree(parent)


def _alive(pid: int) -> bool:
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return status.rpartition(")")[2].split()[0] not in ("Z", "X")


def _one_row(server: Server, query: str) -> tuple[object, ...]:
    with psycopg.connect(server.url) as conn:
        row = conn.execute(query.encode()).fetchone()
    assert row is not None
    return tuple(row)


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


# --- the servers ----------------------------------------------------------------------------------------------------


def test_vector_extension(servers: tuple[Server, Server]) -> None:
    with psycopg.connect(servers[0].url) as conn:
        conn.execute("CREATE EXTENSION vector")
        found = conn.execute(
            "SELECT extversion, '[3,4]'::halfvec <#> '[1,2]' FROM pg_extension WHERE extname = 'vector'"
        )
        version, distance = found.fetchone() or ("", 0)
    assert tuple(int(part) for part in version.split(".")) >= VECTOR_FLOOR
    assert distance == -(3 * 1 + 4 * 2)
    assert _one_row(servers[0], "SELECT current_setting('server_version_num')::int >= 180000") == (True,)


def test_postgres_lets_nobody_in_without_the_password(servers: tuple[Server, Server]) -> None:
    for password in ("wrong", ""):
        url = f"postgresql://postgres:{password}@127.0.0.1:{servers[0].port}/postgres"
        with pytest.raises(psycopg.OperationalError, match="password"):
            psycopg.connect(url)
    assert _one_row(servers[0], "SELECT array_agg(DISTINCT auth_method) FROM pg_hba_file_rules") == (["scram-sha-256"],)
    assert _one_row(servers[0], "SELECT rolpassword ~ '^SCRAM-SHA-256' FROM pg_authid WHERE rolpassword <> ''") == (
        True,
    )


def test_postgres_listens_on_loopback_without_a_socket(servers: tuple[Server, Server]) -> None:
    shown = "SELECT current_setting('listen_addresses'), current_setting('unix_socket_directories')"
    assert _one_row(servers[0], shown) == ("127.0.0.1", "")
    locale = (
        "SELECT pg_encoding_to_char(encoding), datlocprovider, datlocale FROM pg_database WHERE datname = 'postgres'"
    )
    assert _one_row(servers[0], locale) == ("UTF8", "b", "C.UTF-8")


def test_fsync_follows_durable(servers: tuple[Server, Server], state: Path) -> None:
    assert _one_row(servers[0], "SHOW fsync") == ("on",)
    throwaway = start_postgres(state, durable=False)
    assert _one_row(throwaway, "SHOW fsync") == ("off",)
    throwaway.stop()


def test_folders_are_for_the_server_alone(servers: tuple[Server, Server]) -> None:
    for server in servers:
        assert _mode(server.folder) == 0o700
        assert _mode(server.log) == 0o600
        assert _mode(server.log.parents[1] / f"{server.name}.json") == 0o600
        assert server.folder.stat().st_uid == Path(f"/proc/{server.pid}").stat().st_uid
        if AS_ROOT:
            assert server.folder.stat().st_uid != 0
        assert not [arg for arg in _arguments(server.pid) if _password(server) in arg]


def _arguments(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/cmdline").read_text().split("\0")


def _password(server: Server) -> str:
    return server.url.split(":")[2].partition("@")[0]


def test_redis_settings(servers: tuple[Server, Server]) -> None:
    client = redis.Redis.from_url(servers[1].url, decode_responses=True)
    wanted = {"maxmemory-policy": "noeviction", "appendonly": "yes", "bind": "127.0.0.1", "appendfsync": "everysec"}
    assert {name: client.config_get(name)[name] for name in wanted} == wanted
    client.close()
    for password in ("wrong", None):
        once = Retry(NoBackoff(), 0)
        intruder = redis.Redis(host="127.0.0.1", port=servers[1].port, password=password, retry=once)
        with pytest.raises((redis.AuthenticationError, redis.ResponseError)):
            intruder.ping()


# --- starting again -------------------------------------------------------------------------------------------------


def test_twice_in_a_row_keeps_data_password_and_port(state: Path) -> None:
    first, broker = start_postgres(state, durable=False), start_redis(state)
    with psycopg.connect(first.url) as conn:
        conn.execute("CREATE TABLE kept (n int); INSERT INTO kept VALUES (7)")
    redis.Redis.from_url(broker.url).set("kept", "8")
    broker.stop()
    first.stop()
    second, broker_again = start_postgres(state, durable=False), start_redis(state)
    assert (second.url, broker_again.url) == (first.url, broker.url)
    assert _one_row(second, "SELECT n FROM kept") == (7,)
    assert redis.Redis.from_url(broker.url).get("kept") == b"8"
    broker_again.stop()
    second.stop()


def test_a_held_port_is_given_to_nobody_until_a_server_names_it() -> None:
    with hold_port("127.0.0.1", 0) as held:
        address = held.getsockname()
        with socket.socket() as other, pytest.raises(OSError, match="in use"):  # as a server that insists on its own
            other.bind(address)
        with socket.create_server(address), pytest.raises(Misconfigured, match="CITADEL_PORT"):
            hold_port(*address)
    with socket.create_server(address):
        pass


def test_another_port_when_the_remembered_one_is_taken(state: Path) -> None:
    first = start_redis(state)
    first.stop()
    with socket.create_server(("127.0.0.1", first.port)):
        second = start_redis(state)
        assert second.port != first.port
        assert redis.Redis.from_url(second.url).ping()
        second.stop()


def test_one_server_at_a_time_on_a_folder(state: Path) -> None:
    server = start_redis(state)
    with pytest.raises(Misconfigured, match=f"already running.*process {os.getpid()}"):
        start_redis(state)
    server.stop()


def _spin(url: str) -> None:
    """Keep a backend at work that never looks whether its postmaster lives."""
    with pytest.raises(psycopg.OperationalError), psycopg.connect(url) as conn:
        conn.execute("DO $$ BEGIN LOOP PERFORM 1; END LOOP; END $$")


def test_after_kill_9_of_the_postmaster(state: Path) -> None:
    server = start_postgres(state, durable=False)
    with psycopg.connect(server.url) as conn:
        conn.execute("CREATE TABLE kept AS SELECT 7 AS n")
    busy = threading.Thread(target=_spin, args=(server.url,))
    busy.start()
    spinning = "SELECT pid FROM pg_stat_activity WHERE query LIKE 'DO %' AND state = 'active'"
    with psycopg.connect(server.url, autocommit=True) as conn:
        assert wait_until(lambda: conn.execute(spinning).fetchone() is not None, 5)
        (backend,) = conn.execute(spinning).fetchone() or (0,)
    os.kill(server.pid, signal.SIGKILL)
    server.stop()
    assert _alive(backend)  # else this test shows nothing
    again = start_postgres(state, durable=False)
    assert not _alive(backend)
    assert _one_row(again, "SELECT n FROM kept") == (7,)
    again.stop()
    busy.join()


def test_a_pid_file_whose_number_another_process_has(state: Path) -> None:
    server = start_postgres(state, durable=False)
    lines = server.folder.joinpath("postmaster.pid").read_text().splitlines()
    os.kill(server.pid, signal.SIGKILL)
    server.stop()
    # The same account, so that Postgres itself may not tell that it is no server.
    account = unprivileged_account() if AS_ROOT else None
    uid, gid = (account.uid, account.gid) if account else (None, None)
    with subprocess.Popen(["sleep", "60"], user=uid, group=gid) as other:
        server.folder.joinpath("postmaster.pid").write_text("\n".join([str(other.pid), *lines[1:]]) + "\n")
        start_postgres(state, durable=False).stop()
        assert other.poll() is None
        other.kill()


def test_a_lost_password_is_an_error_not_an_empty_database(state: Path) -> None:
    start_postgres(state, durable=False).stop()
    state.joinpath("postgres.json").rename(state / "postgres.kept")
    with pytest.raises(Misconfigured, match="is gone"):
        start_postgres(state)
    state.joinpath("postgres.kept").rename(state / "postgres.json")


def test_servers_start_from_the_main_thread_only(state: Path) -> None:
    failed: list[RuntimeError] = []

    def start() -> None:
        try:
            start_redis(state)
        except RuntimeError as error:
            failed.append(error)

    thread = threading.Thread(target=start)
    thread.start()
    thread.join()
    assert "main thread" in str(failed[0])


# --- accounts and closed folders ------------------------------------------------------------------------------------


@only_root
def test_a_state_folder_that_the_account_cannot_reach() -> None:
    closed = Path(tempfile.mkdtemp(prefix="citadel-closed-"))
    assert _mode(closed) == 0o700
    try:
        database, broker = start_postgres(closed / "state", durable=False), start_redis(closed / "state")
        assert _one_row(database, "SELECT 1") == (1,)
        assert redis.Redis.from_url(broker.url).ping()
        for server in (database, broker):
            assert server.folder.is_relative_to(OUTSIDE)
            assert _mode(server.folder) == 0o700
            server.stop()
        assert _mode(closed) == 0o700
        again = start_postgres(closed / "state", durable=False)
        assert (again.folder, again.url) == (database.folder, database.url)
        again.stop()
    finally:
        erase_servers(closed / "state")
        shutil.rmtree(closed)
    assert not database.folder.exists()


@only_root
def test_programs_that_the_account_cannot_reach_are_copied_once(tmp_path: Path) -> None:
    account = unprivileged_account()
    script = f'#!/bin/sh\n# {tmp_path}\nexec cat "$(dirname "$0")/../../libraries/answer"\n'
    for name, text in {"package/bin/tool": script, "package/include/unused": "", "libraries/answer": "42"}.items():
        tmp_path.joinpath(name).parent.mkdir(parents=True, exist_ok=True)
        tmp_path.joinpath(name).write_text(text)
    tmp_path.joinpath("package/bin/tool").chmod(0o700)
    tree = {"package": tmp_path / "package", "libraries": tmp_path / "libraries"}
    copy = runnable("package/bin/tool", tree, account)
    try:
        assert copy.is_relative_to(OUTSIDE)
        assert succeeds_as(account, str(copy))
        assert not copy.parents[1].joinpath("include").exists()
        written = copy.stat().st_mtime_ns, copy.stat().st_ino
        assert runnable("package/bin/tool", tree, account) == copy
        assert (copy.stat().st_mtime_ns, copy.stat().st_ino) == written
    finally:
        shutil.rmtree(copy.parents[2])


# Python itself may lie where an ordinary user cannot read, so this one turns into such a user once all is imported.
AS_USER = """
import encodings.idna, os, sys
from pathlib import Path
from embedded.postgres import start_postgres
from embedded.redis import start_redis
state, uid, gid = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
os.setgroups([])
os.setresgid(gid, gid, gid)
os.setresuid(uid, uid, uid)
for server in (start_postgres(state), start_redis(state)):
    print(server.folder, Path("/proc", str(server.pid)).stat().st_uid, flush=True)
    server.stop()
"""


@only_root
def test_as_an_ordinary_user(state: Path) -> None:
    account = unprivileged_account()
    home = state.parent / "home"
    home.mkdir(mode=0o700)
    os.chown(home, account.uid, account.gid)
    argv = [sys.executable, "-c", AS_USER, str(home / "state"), str(account.uid), str(account.gid)]
    for _ in range(2):
        done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=60)
        wanted = [f"{home}/state/{name} {account.uid}" for name in ("postgres", "redis")]
        assert done.stdout.splitlines() == wanted, done.stderr
    assert _mode(home / "state") == _mode(home / "state" / "postgres") == 0o700
