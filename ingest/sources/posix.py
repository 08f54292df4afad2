"""Who may read a file by its owner, group and mode, as labels that the operator names for users and groups.

POSIX takes the first class that fits: the owner is not helped by what the group or others may, nor the group by what
others may. So whom a class keeps out is denied, and where nobody named a label for it, the wider class opens nothing.
Every folder above the file, up to the source's root, must let the class through.
"""

import grp
import json
import os
import pwd
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from core.errors import Invalid
from core.labels import make_labels
from core.records import Labels

ACL = "system.posix_acl_access"


@dataclass(frozen=True, slots=True)
class Standing:
    """A file's owner, group and mode, and whom the folders above let through."""

    uid: int
    gid: int
    mode: int
    owner: bool = True  # each folder above opens to the file's owner, by whatever it is to it
    group: bool = True
    others: bool = True
    acl: bool = False  # it, or a folder above, has an access control list

    @classmethod
    def top(cls, status: os.stat_result, acl: bool) -> Self:
        """A source's root."""
        return cls(status.st_uid, status.st_gid, status.st_mode, acl=acl)

    def below(self, status: os.stat_result, acl: bool) -> "Standing":
        """What lies in this folder."""
        through = bool(self.mode & 0o001) and bool(self.mode & 0o010) and bool(self.mode & 0o100)
        return Standing(
            status.st_uid,
            status.st_gid,
            status.st_mode,
            owner=self.owner and (through or (status.st_uid == self.uid and bool(self.mode & 0o100))),
            group=self.group and (through or (status.st_gid == self.gid and bool(self.mode & 0o010))),
            others=self.others and through,
            acl=self.acl or acl,
        )

    def note(self) -> str:
        """For `Listed.note`."""
        return json.dumps(asdict(self))


@dataclass(frozen=True, slots=True)
class PosixLabels:
    """The operator's labels for users and groups, by name or number."""

    users: Mapping[str, str]
    groups: Mapping[str, str]
    others: str | None  # the label of everybody who is let through as neither owner nor group

    @classmethod
    def of(cls, config: Any) -> Self | None:
        """From a source's configuration; None where it does not ask for modes. Raises Invalid."""
        if config is None:
            return None
        if not isinstance(config, dict) or set(config) - {"users", "groups", "others"}:
            raise Invalid("`posix` has `users`, `groups` (names to labels) and `others` (a label)")
        users, groups = config.get("users") or {}, config.get("groups") or {}
        others = str(config["others"]) if config.get("others") else None
        make_labels([*users.values(), *groups.values(), *([others] if others else [])])
        return cls(_numbers(users, _user), _numbers(groups, _group), others)

    def labels(self, file: Standing) -> Labels:
        """Who may read it; nobody where no label is named for those who may.

        Raises Invalid where an access control list tells more than the mode does.
        """
        if file.acl:
            raise Invalid("it has a POSIX access control list, which is not read: give its path a rule")
        owner, group = self.users.get(str(file.uid)), self.groups.get(str(file.gid))
        may_owner, may_group = file.owner and bool(file.mode & 0o400), file.group and bool(file.mode & 0o040)
        may_others = file.others and bool(file.mode & 0o004)
        deny = [label for label, may in ((owner, may_owner), (group, may_group)) if label and not may]
        closed = (not may_owner and owner is None, not may_group and group is None)  # and no label to deny it with
        allow = [owner] if may_owner and owner else []
        allow += [group] if may_group and group and not closed[0] else []
        allow += [self.others] if may_others and self.others and not any(closed) else []
        return make_labels(allow, deny if set(allow) - {owner} else [])


def has_acl(place: Path) -> bool:
    """Whether more than the mode says who may read it."""
    try:
        os.getxattr(place, ACL, follow_symlinks=False)
    except OSError:  # none, or a file system without
        return False
    return True


def _user(name: str) -> int:
    return pwd.getpwnam(name).pw_uid


def _group(name: str) -> int:
    return grp.getgrnam(name).gr_gid


def _numbers(labels: Mapping[str, str], number: Callable[[str], int]) -> dict[str, str]:
    """Labels by number, for names as this machine's accounts have them."""
    found = {}
    for name, label in labels.items():
        try:
            found[name if name.isdecimal() else str(number(name))] = label
        except KeyError as error:
            raise Invalid(f"`posix` names {name!r}, which is no account here: use its number") from error
    return found
