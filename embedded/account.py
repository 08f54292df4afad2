"""As whom do the servers run? As ourselves; or, since Postgres refuses root, as an account without rights."""

import os
import pwd
import subprocess
from dataclasses import dataclass
from pathlib import Path

from core.errors import Misconfigured

# The first that exists: a dedicated account where the operator made one, else the one that every Linux has.
_CANDIDATES = ("citadel", "nobody")


@dataclass(frozen=True, slots=True)
class Account:
    """An account that a child process is switched to before it runs."""

    name: str
    uid: int
    gid: int


def _account(entry: pwd.struct_passwd) -> Account:
    return Account(entry.pw_name, entry.pw_uid, entry.pw_gid)


def unprivileged_account() -> Account:
    """The account that servers run as when we are root. Raises Misconfigured where there is none."""
    known = {entry.pw_name: entry for entry in pwd.getpwall()}
    for name in _CANDIDATES:
        if name in known and known[name].pw_uid != 0:
            return _account(known[name])
    raise Misconfigured(
        "Postgres does not run as root, and this machine has no account `nobody`: make one with "
        "`useradd --system citadel`, run as an ordinary user, or set CITADEL_DATABASE_URL and CITADEL_REDIS_URL"
    )


def owner_account(folder: Path) -> Account:
    """The account that owns a server's folder, which that server must go on running as. Raises Misconfigured."""
    uid = folder.stat().st_uid
    try:
        entry = pwd.getpwuid(uid)
    except KeyError as error:
        raise Misconfigured(f"{folder} belongs to user id {uid}, which has no account here: give it one") from error
    if uid == 0:
        raise Misconfigured(f"{folder} belongs to root, which no server here runs as: give it to another account")
    return _account(entry)


def succeeds_as(account: Account | None, *argv: str) -> bool:
    """Whether a command ends 0 as that account; the kernel's own word, with access lists and mount options."""
    try:
        done = subprocess.run(
            argv,
            user=account.uid if account else None,
            group=account.gid if account else None,
            extra_groups=[] if account else None,
            cwd="/",
            env={"PATH": os.defpath},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=30,
        )
    except OSError:
        return False
    return done.returncode == 0
