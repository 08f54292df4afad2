"""The state folder of an embedded stack: what it remembers, its locks and its logs.

<state>/postgres.json, redis.json     id, password and port of each server; mode 0600
<state>/postgres, redis               their data, mode 0700, unless their account cannot come here (place.py)
<state>/logs/NAME.log                 the output of each process
<state>/*.lock                        held while a supervisor or a server is at work here
"""

import fcntl
import json
import os
import secrets
import socket
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO

from core.errors import Misconfigured

_LOCK_SECONDS = 1.0  # how long the lock of a process that was just killed may take to go
_LOG_BYTES = 10_000_000  # a log larger than this is set aside at the next start


@dataclass(frozen=True, slots=True)
class Memory:
    """What a server is called, opened with and found at; the same at every start."""

    id: str  # names the server's folder where that lies outside of the state folder
    password: str = field(repr=False)
    port: int


def open_state(state: Path) -> Path:
    """The resolved state folder with its `logs`, made where absent. Raises Misconfigured when it is not ours to use.

    Root's servers run as another account, which must pass through the folder: it is made 0711 then, else 0700. A
    folder that exists already keeps its mode.
    """
    state = state.resolve()
    try:
        if not state.exists():
            state.mkdir(parents=True)
            state.chmod(0o711 if os.geteuid() == 0 else 0o700)
        state.joinpath("logs").mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise Misconfigured(f"{state} cannot be made or written ({error}): choose another state folder") from error
    if not os.access(state, os.R_OK | os.W_OK | os.X_OK):
        raise Misconfigured(f"{state} belongs to another user: choose another state folder")
    return state


def log_file(state: Path, name: str) -> Path:
    """Where that process writes; a log grown too large is set aside as `NAME.log.1` first."""
    log = state / "logs" / f"{name}.log"
    if log.exists() and log.stat().st_size > _LOG_BYTES:
        log.replace(log.with_suffix(".log.1"))
    log.touch(mode=0o600)
    return log


def last_lines(log: Path, count: int = 20, since: int = 0) -> str:
    """The last lines that were written after byte `since`, each indented by two spaces."""
    with log.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(since, size - 65_536))
        lines = file.read().decode(errors="replace").splitlines()
    return "\n".join(f"  {line}" for line in lines[-count:])


def recall(state: Path, name: str) -> Memory | None:
    """What is remembered of a server. Raises Misconfigured when the file cannot be read."""
    file = state / f"{name}.json"
    try:
        return Memory(**json.loads(file.read_text()))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError) as error:
        raise Misconfigured(f"{file} cannot be read ({error}): restore it, or remove {state} and its data") from error


def remember(state: Path, name: str, memory: Memory) -> Memory:
    """Write it, whole or not at all, readable by us alone."""
    fresh = state / f"{name}.json.new"
    fresh.unlink(missing_ok=True)
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        json.dump(asdict(memory), file)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(state / f"{name}.json")
    return memory


def new_memory() -> Memory:
    """A fresh id, a password of 256 random bits, and no port yet (0)."""
    return Memory(id=secrets.token_hex(8), password=secrets.token_urlsafe(32), port=0)


def free_port(preferred: int) -> int:
    """`preferred` when it is free on 127.0.0.1 now, else another that is."""
    for port in (preferred, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise Misconfigured("no port is free on 127.0.0.1: end some of the servers on this machine")


def hold_port(host: str, port: int) -> socket.socket:
    """A socket that is bound to the port, or with 0 to any that is free, and does not listen.

    Until it is closed the system gives the port to nobody who asks for any, nor to a client's connection; a server that
    names it and sets SO_REUSEADDR may listen there. Raises Misconfigured.
    """
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    held = socket.socket(family, kind, protocol)
    try:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind(address)
    except OSError as error:
        held.close()
        why = error.strerror or error
        raise Misconfigured(f"{host} port {port}: {why}: set CITADEL_PORT to another, or to 0 for any") from error
    return held


def _locked(lock: IO[str]) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def hold_lock(file: Path, purpose: str) -> IO[str]:
    """An exclusive lock until it is closed or this process ends. Raises Misconfigured while another has it."""
    lock = os.fdopen(os.open(file, os.O_RDWR | os.O_CREAT, 0o600), "r+")
    deadline = time.monotonic() + _LOCK_SECONDS
    while not _locked(lock):
        if time.monotonic() > deadline:
            holder = lock.read().strip() or "unknown"
            lock.close()
            raise Misconfigured(
                f"{purpose} is already running on {file.parent} (process {holder}): "
                "stop it, or choose another state folder"
            )
        time.sleep(0.02)
    lock.truncate(0)
    lock.write(str(os.getpid()))
    lock.flush()
    return lock
