"""What a process that parses a stranger's file may do: compute for a while in some memory, and nothing else.

Linux only. Every measure is taken by the process on itself and cannot be undone by it. The system call filter is what
keeps it from the network and from unix sockets (Postgres, Redis); the namespace is a second wall where the kernel lets
an ordinary user have one (Docker's default profile does not).
"""

import contextlib
import ctypes
import os
import platform
import resource
import signal
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ingest.landlock import close_files, library_folders

_PR_SET_PDEATHSIG = 1
_PR_SET_NO_NEW_PRIVS = 38
_PR_SET_SECCOMP = 22
_SECCOMP_MODE_FILTER = 2
_CLONE_NEWUSER = 0x10000000
_CLONE_NEWNET = 0x40000000

# Classic BPF over struct seccomp_data {int nr; u32 arch; u64 ip; u64 args[6]} (linux/seccomp.h, linux/filter.h).
_LOAD = 0x20  # BPF_LD | BPF_W | BPF_ABS
_EQUAL = 0x15  # BPF_JMP | BPF_JEQ | BPF_K
_AT_LEAST = 0x35  # BPF_JMP | BPF_JGE | BPF_K
_ANY_BIT = 0x45  # BPF_JMP | BPF_JSET | BPF_K
_RETURN = 0x06
_ALLOW, _REFUSE, _KILL = 0x7FFF0000, 0x00050001, 0x80000000  # refuse: SECCOMP_RET_ERRNO with EPERM
_UNKNOWN = 0x00050026  # ENOSYS: glibc then asks by clone, whose flags a filter can read
_CLONE3, _CLONE_THREAD = 435, 0x10000
_NUMBER, _ARCHITECTURE, _FIRST_ARGUMENT = 0, 4, 16
_X32 = 0x40000000  # system calls of the x32 ABI would slip past the numbers below


@dataclass(frozen=True, slots=True)
class ParseLimits:
    """What one document may cost."""

    memory_bytes: int = 2 * 1024**3  # of address space, on top of what the warm parser holds
    cpu_seconds: int = 60
    wall_seconds: float = 90.0
    output_bytes: int = 64 * 1024**2  # of the answer, and of any file it writes
    input_bytes: int = 128 * 1024**2
    pages: int = 5000
    attachments: int = 100  # files of a message that become documents; 0: none does
    attachment_bytes: int = 32 * 1024**2  # of one of them, and of all that come with one message
    attachment_depth: int = 3  # how far below the topmost message they may hang
    cells: int = 500_000  # of a workbook or table, that are not empty; rows behind them are cut
    ocr_languages: str = ""  # that text on pictures is in, as tesseract names them; empty: it is not read
    ocr_page_seconds: float = 30.0
    ocr_seconds: float = 300.0  # for all pages; of processor or wall time; the limits above must leave room for it
    ocr_pixels: int = 25_000_000  # of one page; A4 at 300 dpi has 8.7 million


USUAL = ParseLimits()


@dataclass(frozen=True, slots=True)
class Isolation:
    """Which walls stand around a parser's process, as one of them found when it tried to climb them."""

    network_namespace: bool
    no_sockets: bool  # neither the network nor a unix socket
    no_programs: bool
    no_processes: bool  # of its own
    no_files: bool  # but the libraries'


@dataclass(frozen=True, slots=True)
class _Calls:
    """System call numbers of one architecture."""

    audit: int  # AUDIT_ARCH_*
    refused: tuple[int, ...]
    tgkill: int  # allowed to itself: abort() needs it
    clone: int  # allowed for threads


# socket connect bind listen accept accept4 | execve execveat | kill tkill setpgid setsid ptrace process_vm_readv
# process_vm_writev pidfd_send_signal pidfd_getfd | unshare setns mount io_uring_setup bpf perf_event_open userfaultfd
# keyctl | fork vfork (clone without a thread and clone3 are told apart below)
_CALLS = {
    "x86_64": _Calls(
        0xC000003E,
        (41, 42, 49, 50, 43, 288, 59, 322, 62, 200, 109, 112, 101, 310, 311, 424, 438)
        + (272, 308, 165, 425, 321, 298, 323, 250, 57, 58),
        234,
        56,
    ),
    "aarch64": _Calls(
        0xC00000B7,
        (198, 203, 200, 201, 202, 242, 221, 281, 129, 130, 154, 157, 117, 270, 271, 424, 438)
        + (97, 268, 40, 425, 280, 241, 282, 219),
        131,
        220,
    ),
}


class _Instruction(ctypes.Structure):
    _fields_ = (("code", ctypes.c_ushort), ("jt", ctypes.c_ubyte), ("jf", ctypes.c_ubyte), ("k", ctypes.c_uint))


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.POINTER(_Instruction)))


def die_with_parent(parent: int, number: signal.Signals) -> None:
    """Be sent a signal when the parent dies; exit at once when it is already dead."""
    _prctl(_PR_SET_PDEATHSIG, number)
    if os.getppid() != parent:
        os._exit(1)


def leave_network() -> bool:
    """Enter a network namespace of one's own, in which there is nothing; whether the kernel allowed it."""
    user, group = os.getuid(), os.getgid()
    if ctypes.CDLL(None, use_errno=True).unshare(_CLONE_NEWUSER | _CLONE_NEWNET) != 0:
        return False
    maps = (("setgroups", "deny"), ("uid_map", f"{user} {user} 1"), ("gid_map", f"{group} {group} 1"))
    for name, value in maps:  # without them files are still opened as before, only os.getuid() is 65534
        with contextlib.suppress(OSError), Path(f"/proc/self/{name}").open("w") as handle:
            handle.write(value)
    return True


def limit(limits: ParseLimits) -> None:
    """Cap address space, processor time, written and open files; no core dumps."""
    held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    caps = {
        resource.RLIMIT_AS: held + limits.memory_bytes,
        resource.RLIMIT_FSIZE: limits.output_bytes,
        resource.RLIMIT_NOFILE: 256,
        resource.RLIMIT_CORE: 0,
    }
    for which, cap in caps.items():
        resource.setrlimit(which, (cap, cap))
    resource.setrlimit(resource.RLIMIT_CPU, (limits.cpu_seconds, limits.cpu_seconds + 1))  # SIGXCPU, then SIGKILL
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)  # Python ignores it and would call the file damaged


def close_off() -> None:
    """Sockets, programs, processes, signals to others and all files but the libraries' are refused from here on."""
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    close_files(library_folders())
    _filter_system_calls()


def _filter_system_calls() -> bool:
    """Whether this architecture and kernel can."""
    calls = _CALLS.get(platform.machine())
    if calls is None:
        return False
    code = _filter(calls, os.getpid())
    array = (_Instruction * len(code))(*code)
    program = _Program(len(code), array)
    return _prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.addressof(program)) == 0


def _filter(calls: _Calls, own: int) -> list[_Instruction]:
    """Kill a foreign architecture, refuse what is listed, processes and signals to others, allow the rest."""
    # A jump counts the instructions that it skips.
    last = [
        _Instruction(_EQUAL, 0, 1, _CLONE3),
        _Instruction(_RETURN, 0, 0, _UNKNOWN),
        _Instruction(_EQUAL, 0, 2, calls.clone),
        _Instruction(_LOAD, 0, 0, _FIRST_ARGUMENT),
        _Instruction(_ANY_BIT, 3, 4, _CLONE_THREAD),
        _Instruction(_EQUAL, 0, 2, calls.tgkill),
        _Instruction(_LOAD, 0, 0, _FIRST_ARGUMENT),
        _Instruction(_EQUAL, 0, 1, own),
        _Instruction(_RETURN, 0, 0, _ALLOW),
        _Instruction(_RETURN, 0, 0, _REFUSE),
    ]
    after = len(calls.refused) + len(last) - 1  # what lies between the first of the refused and the refusal
    return [
        _Instruction(_LOAD, 0, 0, _ARCHITECTURE),
        _Instruction(_EQUAL, 1, 0, calls.audit),
        _Instruction(_RETURN, 0, 0, _KILL),
        _Instruction(_LOAD, 0, 0, _NUMBER),
        _Instruction(_AT_LEAST, after, 0, _X32),
        *(_Instruction(_EQUAL, after - place - 1, 0, number) for place, number in enumerate(calls.refused)),
        *last,
    ]


def isolation(network_namespace: bool) -> Isolation:
    """Try the walls from inside."""
    return Isolation(
        network_namespace,
        no_sockets=not _may(_open_socket),
        no_programs=not _may(_run_program),
        no_processes=not _may(_fork),
        no_files=not _may(Path("/proc/self/status").read_bytes),
    )


def _may(attempt: Callable[[], object]) -> bool:
    """Whether the attempt is not forbidden; it may still fail."""
    try:
        attempt()
    except PermissionError:
        return False
    except OSError:
        return True
    return True


def _open_socket() -> None:
    socket.socket(socket.AF_UNIX).close()


def _run_program() -> None:
    os.execv("/nonexistent", ["nonexistent"])


def _fork() -> None:
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)


def _prctl(option: int, *arguments: int) -> int:
    padded = [ctypes.c_ulong(argument) for argument in (*arguments, 0, 0, 0, 0)[:4]]
    return int(ctypes.CDLL(None, use_errno=True).prctl(option, *padded))
