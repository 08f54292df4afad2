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
from dataclasses import dataclass
from pathlib import Path

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
_RETURN = 0x06
_ALLOW, _REFUSE, _KILL = 0x7FFF0000, 0x00050001, 0x80000000  # refuse: SECCOMP_RET_ERRNO with EPERM
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


@dataclass(frozen=True, slots=True)
class Isolation:
    """Which walls stand around a parser's process, as one of them found when it tried to climb them."""

    network_namespace: bool
    no_sockets: bool  # neither the network nor a unix socket
    no_programs: bool


@dataclass(frozen=True, slots=True)
class _Calls:
    """System call numbers of one architecture."""

    audit: int  # AUDIT_ARCH_*
    refused: tuple[int, ...]
    tgkill: int  # allowed to itself: abort() needs it


# socket connect bind listen accept accept4 | execve execveat | kill tkill setpgid setsid ptrace process_vm_readv
# process_vm_writev pidfd_send_signal pidfd_getfd | unshare setns mount io_uring_setup bpf perf_event_open userfaultfd
# keyctl
_CALLS = {
    "x86_64": _Calls(
        0xC000003E,
        (41, 42, 49, 50, 43, 288, 59, 322, 62, 200, 109, 112, 101, 310, 311, 424, 438)
        + (272, 308, 165, 425, 321, 298, 323, 250),
        234,
    ),
    "aarch64": _Calls(
        0xC00000B7,
        (198, 203, 200, 201, 202, 242, 221, 281, 129, 130, 154, 157, 117, 270, 271, 424, 438)
        + (97, 268, 40, 425, 280, 241, 282, 219),
        131,
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


def filter_system_calls() -> bool:
    """Refuse sockets, programs and signals to others from here on; whether this architecture and kernel can."""
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    calls = _CALLS.get(platform.machine())
    if calls is None:
        return False
    code = _filter(calls, os.getpid())
    array = (_Instruction * len(code))(*code)
    program = _Program(len(code), array)
    return _prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.addressof(program)) == 0


def _filter(calls: _Calls, own: int) -> list[_Instruction]:
    """Kill a foreign architecture, refuse what is listed and signals to other processes, allow the rest."""
    refused = len(calls.refused)
    rules = [
        _Instruction(_LOAD, 0, 0, _ARCHITECTURE),
        _Instruction(_EQUAL, 1, 0, calls.audit),
        _Instruction(_RETURN, 0, 0, _KILL),
        _Instruction(_LOAD, 0, 0, _NUMBER),
        _Instruction(_AT_LEAST, refused + 3, 0, _X32),
    ]
    # A jump counts the instructions that it skips: to the refusal below, three behind the last of these.
    rules += [_Instruction(_EQUAL, refused - place + 2, 0, number) for place, number in enumerate(calls.refused)]
    return [
        *rules,
        _Instruction(_EQUAL, 0, 3, calls.tgkill),
        _Instruction(_LOAD, 0, 0, _FIRST_ARGUMENT),
        _Instruction(_EQUAL, 1, 0, own),
        _Instruction(_RETURN, 0, 0, _REFUSE),
        _Instruction(_RETURN, 0, 0, _ALLOW),
    ]


def isolation(network_namespace: bool) -> Isolation:
    """Try the walls from inside."""
    return Isolation(network_namespace, no_sockets=not _may_open_socket(), no_programs=not _may_run_program())


def _may_open_socket() -> bool:
    try:
        with socket.socket(socket.AF_UNIX):
            return True
    except OSError:
        return False


def _may_run_program() -> bool:
    try:
        os.execv("/nonexistent", ["nonexistent"])
    except PermissionError:
        return False
    except OSError:
        return True


def _prctl(option: int, *arguments: int) -> int:
    padded = [ctypes.c_ulong(argument) for argument in (*arguments, 0, 0, 0, 0)[:4]]
    return int(ctypes.CDLL(None, use_errno=True).prctl(option, *padded))
