"""Parsers that misbehave, for the sandbox to hold: the content says how."""

import contextlib
import ctypes
import os
import signal
import socket
import time
from pathlib import Path

from core.errors import EmptyDocument
from core.records import Element, ParsedDocument
from ingest.answer import PREFIX
from ingest.confine import ParseLimits


def misbehave(content: bytes, filename: str | None, declared: str | None, limits: ParseLimits) -> ParsedDocument:
    """Do what the content names; answer with what was found out."""
    what, _, argument = content.decode().partition(" ")
    found = _BEHAVIOURS[what](argument)
    return ParsedDocument(found, (Element("paragraph", 0, len(found)),), "text/plain")


def _echo(argument: str) -> str:
    return argument


def _spin(_: str) -> str:
    while True:
        pass


def _sleep(_: str) -> str:
    time.sleep(3600)
    return "awake"


def _fork_and_sleep(_: str) -> str:
    with contextlib.suppress(PermissionError):  # where the kernel has a filter of system calls
        os.fork()
    time.sleep(3600)
    return "awake"


def _hog(_: str) -> str:
    return str(sum(len(bytearray(16 * 1024**2)) for _ in iter(_keep, None)))


_kept: list[bytearray] = []


def _keep() -> bool:
    _kept.append(bytearray(b"x" * 16 * 1024**2))
    return True


def _hog_in_c(_: str) -> str:
    """As a C library that does not check what malloc returns."""
    libc = ctypes.CDLL(None)
    libc.malloc.restype = ctypes.c_void_p
    while True:
        ctypes.memset(libc.malloc(16 * 1024**2), 1, 16 * 1024**2)


def _crash(argument: str) -> str:
    if argument == "abort":
        os.abort()
    if argument == "segv":
        ctypes.string_at(0)
    os._exit(7)


def _flood(argument: str) -> str:
    return "x" * int(argument)


def _refuse(argument: str) -> str:
    raise EmptyDocument(argument)


def _lie(argument: str) -> str:
    """Write an answer of one's own making to every open descriptor, and end well."""
    payload = argument.encode()
    for descriptor in range(3, 64):
        with contextlib.suppress(OSError):
            os.write(descriptor, PREFIX.pack(len(payload)) + payload)
    os._exit(0)


def _escape(argument: str) -> str:
    """What became of an attempt on the machine or the worker."""
    worker = int(argument.partition(" ")[2] or 0)
    attempts = {
        "unix": lambda: socket.socket(socket.AF_UNIX),
        "inet": lambda: socket.create_connection(("127.0.0.1", 9), timeout=1),
        "kill": lambda: os.kill(worker, 0),
        "execute": lambda: os.execv("/bin/true", ["true"]),
        "session": os.setsid,
        "environ": lambda: Path(f"/proc/{worker}/environ").read_bytes(),
        "write": lambda: Path("/tmp/from-the-sandbox").write_bytes(b"x" * 1024**2),  # noqa: S108
        "read": lambda: Path("/etc/passwd").read_bytes(),
        "list": lambda: list(Path("/").iterdir()),
        "fork": os.fork,
    }
    try:
        attempts[argument.partition(" ")[0]]()
    except OSError as error:
        return type(error).__name__
    return "done"


def _environment(_: str) -> str:
    return " ".join(sorted(os.environ))


def _signal_group(_: str) -> str:
    os.killpg(os.getpgid(0), signal.SIGTERM)
    return "sent"


_BEHAVIOURS = {
    "echo": _echo,
    "spin": _spin,
    "sleep": _sleep,
    "fork": _fork_and_sleep,
    "hog": _hog,
    "hog_in_c": _hog_in_c,
    "crash": _crash,
    "flood": _flood,
    "refuse": _refuse,
    "lie": _lie,
    "escape": _escape,
    "environment": _environment,
}
