"""Where may an embedded server live? In the state folder; or, when its account cannot reach that, under /var/lib.

Started by root, the servers run as an account without rights. Where a parent folder is closed to that account (a
checkout under /root), neither modes nor owners of folders that are not ours are changed: data and programs go to
/var/lib/citadel-embedded instead.
"""

import contextlib
import hashlib
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from core.errors import Misconfigured
from embedded.account import Account, owner_account, succeeds_as, unprivileged_account
from embedded.state import recall

OUTSIDE = Path("/var/lib/citadel-embedded")


@dataclass(frozen=True, slots=True)
class Place:
    """A server's own folder, which may not exist yet, and the account it runs as (None: ours)."""

    folder: Path
    account: Account | None


def _outside(name: str, server_id: str) -> Path:
    # By the id that the state folder remembers, not by that folder's path: the data follows a folder that is moved,
    # and one that is deleted and made again does not meet the old data.
    return OUTSIDE / f"{name}-{server_id}" / name


def _ensure_folder(folder: Path, mode: int) -> None:
    if not folder.exists():
        folder.mkdir()
        folder.chmod(mode)  # whatever our umask is


def _can_enter(account: Account, folder: Path) -> bool:
    return succeeds_as(account, "test", "-x", str(folder))


def _place_for_root(state: Path, name: str, server_id: str) -> Place:
    inside, outside = state / name, _outside(name, server_id)
    for folder in (inside, outside):
        if folder.exists():
            account = owner_account(folder)
            if not _can_enter(account, folder):
                raise Misconfigured(f"{folder} cannot be reached by its owner {account.name}: open its parent folders")
            return Place(folder, account)
    account = unprivileged_account()
    return Place(inside if _can_enter(account, state) else outside, account)


def find_place(state: Path, name: str, server_id: str) -> Place:
    """Where that server's data is, or is to be made. Raises Misconfigured when it can no longer be reached."""
    if os.geteuid() != 0:
        return Place(state / name, None)
    place = _place_for_root(state, name, server_id)
    if place.folder.parent != state:
        _ensure_folder(OUTSIDE, 0o755)
        _ensure_folder(place.folder.parent, 0o711)
        place.folder.parent.joinpath("belongs-to").write_text(f"{state}\n")
    return place


def make_folder(folder: Path, account: Account | None) -> None:
    """A folder for that account alone, empty; what an interrupted earlier attempt left in its place is deleted."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700)
    if account:
        os.chown(folder, account.uid, account.gid)


def _digest(tree: Mapping[str, Path]) -> str:
    """Of every file's name and content: another version of a library beside the same program is another tree."""
    sha = hashlib.sha256()
    for name, source in sorted(tree.items()):
        for path in sorted(source.rglob("*")) if source.is_dir() else [source]:
            if path.is_file():
                sha.update(f"{name}/{path.relative_to(source)}\n{path.stat().st_size}\n".encode())
                sha.update(path.read_bytes())
    return sha.hexdigest()[:16]


def _copy(tree: Mapping[str, Path], target: Path) -> None:
    for name, source in tree.items():
        copy = target / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, copy, symlinks=True, ignore=shutil.ignore_patterns("include", "*.a"))
        else:
            shutil.copy2(source, copy)
    for path in (target, *target.rglob("*")):
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)


def runnable(program: str, tree: Mapping[str, Path], account: Account | None) -> Path:
    """The path at which that account can run `program`, which is a path below `tree`'s keys.

    `tree` maps each name to where it lies now; it keeps its shape when it is copied, since programs find their
    libraries by relative paths. The copy is made once for each content. Raises Misconfigured when it does not run.
    """
    top = next(name for name in tree if program == name or program.startswith(f"{name}/"))
    source = tree[top] / program[len(top) + 1 :] if program != top else tree[top]
    if succeeds_as(account, str(source), "--version"):
        return source
    target = OUTSIDE / f"programs-{_digest(tree)}"
    if account and not target.exists():
        _ensure_folder(OUTSIDE, 0o755)
        with tempfile.TemporaryDirectory(dir=OUTSIDE) as scratch:
            _copy(tree, Path(scratch) / "programs")
            with contextlib.suppress(OSError):  # another start was faster: the same content
                Path(scratch, "programs").rename(target)
    if not succeeds_as(account, str(target / program), "--version"):
        raise Misconfigured(f"{source} does not run as {account.name if account else 'this user'}: see its `--version`")
    return target / program


def erase_servers(state: Path) -> None:
    """Delete the data of the embedded servers of this state folder, wherever it lies. They must be stopped."""
    for name in ("postgres", "redis"):
        memory = recall(state.resolve(), name)
        if memory:
            shutil.rmtree(_outside(name, memory.id).parent, ignore_errors=True)
        shutil.rmtree(state / name, ignore_errors=True)
        state.joinpath(f"{name}.json").unlink(missing_ok=True)
