"""The parser's process: a warm zygote that forks a confined child for each document, and never reads one itself.

Started by `ingest/sandbox.py` as `python -m ingest.parse_child FD ENTRY`. Over the unix socket FD it is sent a message
for each document: a JSON header with two descriptors, the content to read and a pipe for the answer. It says which
process it forked, enforces the wall clock, and says how that process ended. ENTRY is the `module:function` that parses.
"""

import contextlib
import gc
import importlib
import json
import os
import resource
import select
import signal
import socket
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, NoReturn

from core.errors import ParserLimit, Unparseable
from core.records import ParsedDocument
from ingest.answer import pack_document, pack_error
from ingest.confine import Isolation, ParseLimits, close_off, die_with_parent, isolation, leave_network, limit

Entry = Callable[[bytes, str | None, str | None, ParseLimits], ParsedDocument]

HEADER_BYTES = 64 * 1024


def main(descriptor: int, entry_name: str) -> None:
    """Serve until the other end of the socket is closed."""
    worker = os.getppid()
    namespace = leave_network()  # before anything starts a second thread, which would forbid it
    # The kernel also signals when only the thread ends that started us, so the handler looks at the process.
    signal.signal(signal.SIGUSR1, lambda *_: os._exit(0) if os.getppid() != worker else None)
    die_with_parent(worker, signal.SIGUSR1)
    control = socket.socket(fileno=descriptor)
    entry = _entry(entry_name)
    gc.freeze()  # the children's collectors leave alone what they share with us, so it is never copied
    _say(control, ready=asdict(_probe(namespace)), held_bytes=_resident_bytes())
    while (message := _receive(control)) is not None:
        _serve(control, entry, *message)


def _entry(name: str) -> Entry:
    """The function that parses, after its module's `warm()`, where it has one, has loaded what it needs."""
    module_name, _, function = name.partition(":")
    module = importlib.import_module(module_name)
    getattr(module, "warm", lambda: None)()
    entry: Entry = getattr(module, function)
    return entry


def _probe(namespace: bool) -> Isolation:
    """What a child finds when it tries the walls."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        close_off()
        os.write(writing, json.dumps(asdict(isolation(namespace))).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        found = json.loads(pipe.read() or b"{}")
    os.waitpid(child, 0)
    return Isolation(**found) if found else Isolation(namespace, *[False] * 4)


def _resident_bytes() -> int:
    """Not getrusage's maximum, which is inherited from the worker through exec."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def _say(control: socket.socket, **message: Any) -> None:
    control.send(json.dumps(message).encode())


def _receive(control: socket.socket) -> tuple[dict[str, Any], int, int] | None:
    """The next request: its header, its content to read and where to write the answer; None at the end."""
    while True:
        message, descriptors, _, _ = socket.recv_fds(control, HEADER_BYTES, 2)
        if not message:
            return None
        if len(descriptors) == 2:  # anything else was a call to stop a document that had ended by itself
            return json.loads(message), descriptors[0], descriptors[1]


def _serve(control: socket.socket, entry: Entry, header: dict[str, Any], content: int, answer: int) -> None:
    """Fork a child for one document, wait for it as long as it may take, and say how it ended."""
    limits = ParseLimits(**header["limits"])
    zygote = os.getpid()
    child = os.fork()
    if child == 0:
        control.close()
        _confine(zygote, limits)
        _answer(entry, header, limits, content, answer)
    os.close(content)
    os.close(answer)
    with contextlib.suppress(OSError):  # it was faster, or has ended
        os.setpgid(child, child)
    _say(control, started=child)
    timed_out = not _ends_in_time(child, control, limits.wall_seconds)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)  # with whatever it forked; it is not reaped, so the number is still its own
    _, status, usage = os.wait4(child, 0)
    _say(control, status=os.waitstatus_to_exitcode(status), timed_out=timed_out, peak_bytes=usage.ru_maxrss * 1024)


def _ends_in_time(child: int, control: socket.socket, seconds: float) -> bool:
    """Wait for the child; False when its time is over, or the worker says to stop it or is gone."""
    watched = os.pidfd_open(child)
    try:
        ready, _, _ = select.select([watched, control.fileno()], [], [], seconds)
        return watched in ready
    finally:
        os.close(watched)


def _confine(zygote: int, limits: ParseLimits) -> None:
    os.setpgid(0, 0)
    die_with_parent(zygote, signal.SIGKILL)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):  # what a library prints may quote the document, and logs are not under its labels
        os.dup2(nowhere, standard)
    limit(limits)
    close_off()


def _answer(entry: Entry, header: dict[str, Any], limits: ParseLimits, content: int, answer: int) -> NoReturn:
    """Parse and write the answer; whatever happens, this process ends here."""
    status = 1
    try:
        packed = _pack(entry, header, limits, content)
        with os.fdopen(answer, "wb", closefd=False) as pipe:
            pipe.write(packed)
        status = 0
    finally:
        os._exit(status)


def _pack(entry: Entry, header: dict[str, Any], limits: ParseLimits, content: int) -> bytes:
    """The answer; anything but a refusal or a want of memory ends the process, which the worker hears of."""
    try:
        with os.fdopen(content, "rb") as file:
            document = entry(file.read(), header["filename"], header["declared"], limits)
        packed = pack_document(document)
        if len(packed) > limits.output_bytes:
            raise ParserLimit(f"the file's text takes {len(packed)} bytes; {limits.output_bytes} are allowed")
        return packed
    except Unparseable as refusal:
        return pack_error(refusal)
    except MemoryError:
        return pack_error(ParserLimit(f"the file needs more than {limits.memory_bytes} bytes of memory to read"))


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
