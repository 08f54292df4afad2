"""No files but the libraries': a parser that a file has taken over must not answer with somebody else's document.

Landlock (Linux 5.13 and newer, and allowed in Docker's default profile) lets a process give up the file system by
itself. Without it the process reads what its user may.
"""

import ctypes
import os
import sys
from collections.abc import Iterable
from pathlib import Path

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # the same numbers on every architecture
_VERSION = 1  # LANDLOCK_CREATE_RULESET_VERSION
_PATH_BENEATH = 1  # LANDLOCK_RULE_PATH_BENEATH
_READ = 1 << 2 | 1 << 3  # files and folders
_ALL = (1 << 13) - 1  # everything that the first version knows: execute, write, read, make, remove
_TRUNCATE = 1 << 14  # from the third


class _Ruleset(ctypes.Structure):
    _fields_ = (("handled_access_fs", ctypes.c_uint64),)


class _Beneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("allowed_access", ctypes.c_uint64), ("parent_fd", ctypes.c_int32))


def library_folders() -> tuple[Path, ...]:
    """Where Python, its packages, shared libraries and fonts lie."""
    system = ("/usr/lib", "/usr/lib64", "/lib", "/lib64", "/usr/share", "/etc/fonts")
    return tuple(Path(folder) for folder in (sys.prefix, sys.base_prefix, *system) if Path(folder).is_dir())


def close_files(readable: Iterable[Path]) -> bool:
    """Open no file from here on but to read those beneath these folders; whether the kernel can do that.

    The process must have set PR_SET_NO_NEW_PRIVS.
    """
    call = ctypes.CDLL(None, use_errno=True).syscall
    version = call(_CREATE_RULESET, None, 0, _VERSION)
    if version < 1:
        return False
    ruleset = _Ruleset(_ALL | (_TRUNCATE if version >= 3 else 0))
    rules = call(_CREATE_RULESET, ctypes.byref(ruleset), ctypes.c_size_t(ctypes.sizeof(ruleset)), 0)
    if rules < 0:
        return False
    try:
        for folder in readable:
            beneath = os.open(folder, os.O_PATH | os.O_CLOEXEC)
            try:
                call(_ADD_RULE, rules, _PATH_BENEATH, ctypes.byref(_Beneath(_READ, beneath)), 0)
            finally:
                os.close(beneath)
        return bool(call(_RESTRICT_SELF, rules, 0) == 0)
    finally:
        os.close(rules)
