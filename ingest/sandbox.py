"""Where strangers' files are parsed: in a process that may only compute, and that can be killed.

Each sandbox keeps one warm child (`ingest/parse_child.py`), which forks for each document; forking costs some
milliseconds, importing the parsers costs seconds. Plain subprocesses, because Celery's own children are daemonic and
may not use multiprocessing.
"""

import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from core.errors import Misconfigured, ParserCrashed, ParserLimit
from core.records import ParsedDocument
from ingest.answer import PREFIX, unpack
from ingest.confine import Isolation, ParseLimits

__all__ = ["Isolation", "ParseLimits", "ParserSandbox"]

_ROOT = Path(__file__).resolve().parent.parent
# Nothing of the worker's environment: it names databases and holds secrets.
_ENVIRONMENT = {
    "PATH": "/usr/bin:/bin",
    "LANG": "C.UTF-8",
    "HOME": "/nonexistent",
    "SCARF_NO_ANALYTICS": "true",
    "DO_NOT_TRACK": "true",
    "UNSTRUCTURED_DISABLE_NOTICE": "1",
    "HF_HUB_OFFLINE": "1",
    "OMP_THREAD_LIMIT": "1",
    "OMP_NUM_THREADS": "1",  # a second thread would forbid namespaces, and does not live through a fork
    "OPENBLAS_NUM_THREADS": "1",
    "PYTHONDONTWRITEBYTECODE": "1",
}
_START_SECONDS = 120.0  # to import the parsers on a busy machine; 3 to 6 where it is idle
_GRACE_SECONDS = 1.0  # after the wall clock, before the zygote itself is taken for hung
_PIPE_BYTES = 1024 * 1024
_MESSAGE_BYTES = 64 * 1024
# A process that ends badly with this much of its memory in use ended for want of more: C code aborts or crashes then.
_STARVED_SHARE = 0.5  # of the memory limit


class _ZygoteDied(Exception):
    """The warm child is gone, and the document has no answer."""


@dataclass(frozen=True, slots=True)
class _Zygote:
    """A warm child, ready for documents."""

    process: "subprocess.Popen[bytes]"
    control: socket.socket
    isolation: Isolation
    held_bytes: int  # without a document
    owner: int  # the process that started it; a fork of that one must not talk to it


@dataclass(frozen=True, slots=True)
class _End:
    """How a document's process ended."""

    answer: bytes
    overflow: bool  # the answer was longer than is allowed, and the process was stopped for it
    timed_out: bool
    status: int  # an exit status, or a negative signal number
    peak_bytes: int


class ParserSandbox:
    """Parses one document at a time; threads queue. Nothing runs before the first document."""

    def __init__(self, limits: ParseLimits | None = None, entry: str = "ingest.parse:parse_file") -> None:
        """`entry` is the `module:function` that the child parses with."""
        self._limits = limits or ParseLimits()
        self._entry = entry
        self._lock = threading.Lock()
        self._zygote: _Zygote | None = None

    def parse(
        self,
        content: bytes,
        filename: str | None = None,
        declared_mime: str | None = None,
        limits: ParseLimits | None = None,
    ) -> ParsedDocument:
        """The file's canonical text. Raises the errors under Unparseable, and Misconfigured when no child starts."""
        limits = limits or self._limits
        if len(content) > limits.input_bytes:
            raise ParserLimit(f"the file has {len(content)} bytes; {limits.input_bytes} are allowed")
        header = {"filename": (filename or "")[-255:] or None, "declared": declared_mime, "limits": asdict(limits)}
        with self._lock:
            try:
                return self._attempt(content, header, limits)
            except _ZygoteDied:
                pass
            try:
                return self._attempt(content, header, limits)
            except _ZygoteDied as error:
                raise ParserCrashed("the parser's parent process died twice over this file") from error

    @property
    def limits(self) -> ParseLimits:
        """What a document may cost, unless its caller says otherwise."""
        return self._limits

    @property
    def isolation(self) -> Isolation:
        """Which walls stand around the parser here; starts the child."""
        with self._lock:
            return self._running().isolation

    @property
    def child_pid(self) -> int:
        """The warm child's process id; starts the child."""
        with self._lock:
            return self._running().process.pid

    def close(self) -> None:
        """End the child. The sandbox may be used again afterwards."""
        with self._lock:
            self._discard()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _attempt(self, content: bytes, header: Mapping[str, Any], limits: ParseLimits) -> ParsedDocument:
        zygote = self._running()
        try:
            end = _exchange(zygote, content, header, limits)
        except (OSError, EOFError) as error:
            self._discard()
            if isinstance(error, TimeoutError):
                raise ParserLimit(_too_slow(limits)) from error
            raise _ZygoteDied from error
        return _judge(end, limits, zygote.held_bytes)

    def _running(self) -> _Zygote:
        if self._zygote is not None and self._zygote.owner != os.getpid():
            self._zygote.control.close()  # our copy of it; the process that forked us goes on with its own
            self._zygote = None
        if self._zygote is None or self._zygote.process.poll() is not None:
            self._discard()
            self._zygote = _start(self._entry)
        return self._zygote

    def _discard(self) -> None:
        zygote, self._zygote = self._zygote, None
        if zygote is None:
            return
        zygote.control.close()
        try:
            zygote.process.wait(_GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            zygote.process.kill()
            zygote.process.wait()


def _start(entry: str) -> _Zygote:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    command = [sys.executable, "-m", "ingest.parse_child", str(theirs.fileno()), entry]
    try:
        with theirs:
            process = subprocess.Popen(
                command,
                pass_fds=[theirs.fileno()],
                env=_ENVIRONMENT,
                cwd=_ROOT,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C in a terminal is for the worker, which finishes its document
            )
    except OSError as error:
        ours.close()
        raise Misconfigured(f"the parser's process cannot be started: {error}") from error
    ours.settimeout(_START_SECONDS)
    try:
        ready = json.loads(ours.recv(_MESSAGE_BYTES))
    except (OSError, ValueError) as error:
        ours.close()
        process.kill()
        status = process.wait()
        raise Misconfigured(
            f"the parser's process did not start (status {status}); its error is in this log"
        ) from error
    return _Zygote(process, ours, Isolation(**ready["ready"]), ready["held_bytes"], os.getpid())


def _exchange(zygote: _Zygote, content: bytes, header: Mapping[str, Any], limits: ParseLimits) -> _End:
    """Hand a document over and wait for its end. Raises TimeoutError, and OSError or EOFError when the zygote died."""
    reading, writing = os.pipe()
    try:
        with os.fdopen(os.memfd_create("document"), "wb") as file:
            file.write(content)
            file.flush()
            os.lseek(file.fileno(), 0, os.SEEK_SET)
            socket.send_fds(zygote.control, [json.dumps(header).encode()], [file.fileno(), writing])
        os.close(writing)
        writing = -1
        return _await(zygote, reading, limits)
    finally:
        os.close(reading)
        if writing >= 0:
            os.close(writing)


def _await(zygote: _Zygote, reading: int, limits: ParseLimits) -> _End:
    """Read the answer while it comes, until its process has ended; a zygote that lets it run on is given up."""
    deadline = time.monotonic() + limits.wall_seconds + _GRACE_SECONDS
    answer, overflow, child = bytearray(), False, 0
    ended: dict[str, Any] | None = None
    with selectors.DefaultSelector() as waiting:
        waiting.register(reading, selectors.EVENT_READ)
        waiting.register(zygote.control, selectors.EVENT_READ)
        while ended is None or reading in waiting.get_map():
            ready = [key.fd for key, _ in waiting.select(deadline - time.monotonic())]
            if not ready:
                _kill_group(child)
                zygote.process.kill()
                raise TimeoutError
            if reading in ready:
                piece = os.read(reading, _PIPE_BYTES)
                if not piece:
                    waiting.unregister(reading)
                if not overflow:
                    answer += piece
                if len(answer) > limits.output_bytes + PREFIX.size and not overflow:
                    overflow = True
                    answer.clear()
                    zygote.control.send(b"stop")
            if zygote.control.fileno() in ready:
                message = _hear(zygote.control)
                child = message.get("started", child)
                ended = message if "status" in message else None
    return _End(bytes(answer), overflow, ended["timed_out"], ended["status"], ended["peak_bytes"])


def _hear(control: socket.socket) -> dict[str, Any]:
    message = control.recv(_MESSAGE_BYTES)
    if not message:
        raise EOFError
    heard: dict[str, Any] = json.loads(message)
    return heard


def _kill_group(child: int) -> None:
    with suppress(ProcessLookupError):
        if child:
            os.killpg(child, signal.SIGKILL)


def _judge(end: _End, limits: ParseLimits, held_bytes: int) -> ParsedDocument:
    """The document, or why there is none. Raises the errors under Unparseable."""
    if end.overflow or end.status == -signal.SIGXFSZ:
        raise ParserLimit(f"the file's text takes more than {limits.output_bytes} bytes")
    if end.timed_out:
        raise ParserLimit(_too_slow(limits))
    if end.status == 0:
        return unpack(end.answer)
    if end.status == -signal.SIGXCPU:
        raise ParserLimit(f"the file needs more than {limits.cpu_seconds} s of processor time to read")
    starved = end.peak_bytes - held_bytes > _STARVED_SHARE * limits.memory_bytes
    if end.status == -signal.SIGKILL or starved:  # nobody but the kernel kills it: it ran out of the machine's memory
        raise ParserLimit(f"the file needs more than {limits.memory_bytes} bytes of memory to read")
    how = signal.Signals(-end.status).name if end.status < 0 else f"status {end.status}"
    raise ParserCrashed(f"the parser died on this file ({how}); it may be damaged or made to do that")


def _too_slow(limits: ParseLimits) -> str:
    return f"the file takes more than {limits.wall_seconds:g} s to read"
