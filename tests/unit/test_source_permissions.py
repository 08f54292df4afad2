"""Owner and mode as labels, checked against the kernel's own answer; owners files; secrets and configurations."""

import os
import shutil
import stat
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from itertools import product
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from core.errors import CitadelError, Invalid, InvalidRules, Misconfigured, SourceUnavailable
from core.records import Labels, Source
from ingest.sources.config import Secrets, labels_of
from ingest.sources.files import fingerprint
from ingest.sources.open import open_source
from ingest.sources.owners import Owners
from ingest.sources.posix import PosixLabels, Standing

OWNER, GROUP, OTHERS = "user:owner@acme.example", "group:finance", "group:staff"
OWNER_ID, GROUP_ID, OTHER_ID = 61001, 61002, 61003
MAPPED = PosixLabels({str(OWNER_ID): OWNER}, {str(GROUP_ID): GROUP}, OTHERS)
# Who asks: (uid, gid), and the labels that such an account holds; everybody is staff.
WHO = {"owner": (OWNER_ID, OTHER_ID, {OWNER, OTHERS}), "member": (OTHER_ID, GROUP_ID, {GROUP, OTHERS}),
       "other": (OTHER_ID, OTHER_ID, {OTHERS})}  # fmt: skip

PROBE = """
import os, sys
uid, gid, *paths = sys.argv[1:]
os.setgroups([]); os.setgid(int(gid)); os.setuid(int(uid))
def may(path):
    try:
        os.close(os.open(path, os.O_RDONLY)); return "1"
    except PermissionError:
        return "0"
print("".join(map(may, paths)))
"""


def sees(labels: Labels, held: set[str]) -> bool:
    """As `visible_label_sets` has it: an allow label held, no deny label held."""
    return bool(held & set(labels.allow)) and not held & set(labels.deny)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files to others and becomes them")
def test_labels_open_a_file_to_nobody_whom_the_kernel_keeps_out() -> None:
    """Every mode of a file, below every mode of a folder whose group is another's or the same."""
    root = Path(tempfile.mkdtemp(prefix="citadel-posix-"))
    root.chmod(0o755)
    cases = []
    for n, (folder_mode, folder_gid, file_mode) in enumerate(
        product((0o755, 0o750, 0o705, 0o700, 0o711, 0o077), (GROUP_ID, OTHER_ID),
                [r << 6 | g << 3 | o for r, g, o in product((4, 0), repeat=3)])
    ):  # fmt: skip
        folder = root / str(n)
        folder.mkdir()
        (folder / "f").write_text("x")
        os.chown(folder / "f", OWNER_ID, GROUP_ID)
        (folder / "f").chmod(file_mode)
        os.chown(folder, OWNER_ID, folder_gid)
        folder.chmod(folder_mode)
        standing = Standing.top(root.stat(), False).below(folder.stat(), False).below((folder / "f").stat(), False)
        cases.append((folder / "f", MAPPED.labels(standing)))
    opened = total = 0
    for uid, gid, held in WHO.values():
        command = [sys.executable, "-c", PROBE, str(uid), str(gid), *(str(path) for path, _ in cases)]
        kernel = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
        for (path, labels), may in zip(cases, kernel, strict=True):
            assert not sees(labels, held) or may == "1", (path, oct(path.stat().st_mode), labels, uid)
            opened, total = opened + sees(labels, held), total + (may == "1")
    shutil.rmtree(root)
    assert opened >= 0.75 * total, "closed where labels cannot say what POSIX does, and seldom otherwise"


@pytest.mark.parametrize(
    ("posix", "mode", "labels"),
    [
        (MAPPED, 0o644, Labels((GROUP, OTHERS, OWNER))),
        (MAPPED, 0o640, Labels((GROUP, OWNER))),
        (MAPPED, 0o600, Labels((OWNER,))),
        (MAPPED, 0o604, Labels((OTHERS, OWNER), (GROUP,))),
        (PosixLabels({}, {}, OTHERS), 0o644, Labels((OTHERS,))),
        (PosixLabels({}, {}, OTHERS), 0o604, Labels()),  # its group is kept out, and has no label to deny
        (PosixLabels({}, {}, None), 0o644, Labels()),
        (MAPPED, 0o000, Labels()),
    ],
)
def test_a_mode_as_labels(posix: PosixLabels, mode: int, labels: Labels) -> None:
    assert posix.labels(Standing(OWNER_ID, GROUP_ID, stat.S_IFREG | mode)) == labels


def test_an_access_control_list_is_not_guessed_at() -> None:
    with pytest.raises(Invalid, match="access control list"):
        MAPPED.labels(Standing(OWNER_ID, GROUP_ID, 0o644, acl=True))
    with pytest.raises(Invalid, match="no account here"):
        PosixLabels.of({"users": {"no-such-account": "user:a@b"}})


# GitHub's own examples: docs.github.com, "About code owners".
OWNERS = b"""
*       @global
*.js    @js #inline comment
/build/logs/ @doctocat
docs/*  docs@example.com
apps/ @octocat
/docs/ @docs
/scripts/ @doctocat @octocat
**/logs @logs
/apps/github
"""


@pytest.mark.parametrize(
    ("path", "owners"),
    [("README.md", "@global"), ("src/a.js", "@js"), ("build/logs/x/y.txt", "@doctocat"), ("build/x.txt", "@global"),
     ("docs/getting-started.md", "@docs"), ("docs/build-app/troubleshooting.md", "@docs"), ("apps/x/y", "@octocat"),
     ("src/apps/x", "@octocat"), ("scripts/x", "@doctocat @octocat"), ("deeply/nested/logs", "@logs"),
     ("deeply/logs/x", "@logs"), ("logs", "@logs"), ("apps/github", ""), ("apps/github/x", "")],
)  # fmt: skip
def test_owners_are_found_as_github_documents_it(path: str, owners: str) -> None:
    names = ["@global", "@js", "@doctocat", "docs@example.com", "@octocat", "@docs", "@logs"]
    rules = Owners.read(OWNERS, {name: f"group:{name.strip('@').partition('@')[0]}" for name in names})
    wanted = tuple(sorted(f"group:{owner.strip('@')}" for owner in owners.split()))
    got = rules.labels_for(path, "internal")
    assert got is not None and (got.allow == wanted or path.startswith("build/logs"))


def test_an_owner_without_a_label_opens_nothing_and_a_path_without_a_line_is_the_sources() -> None:
    rules = Owners.read(b"/a @x @y\n", {"@x": "group:x"})
    assert rules.labels_for("a/b", "internal") == Labels(("group:x",)) and rules.labels_for("c", "internal") is None
    assert Owners.read(b"/a @y", {}).labels_for("a", "internal") == Labels()
    for line in (b"!a @x", b"[ab] @x", b"a\\ b @x", b"\xff"):
        with pytest.raises(InvalidRules):
            Owners.read(line, {})


# --- configurations and secrets -------------------------------------------------------------------------------------


def source(kind: str, **config: Any) -> Source:
    return Source(uuid4(), uuid4(), "s", kind, config, Labels(), None, 0.3, None)


@pytest.mark.parametrize(
    ("kind", "config"),
    [
        ("files", {}), ("files", {"url": "/etc"}), ("files", {"url": "file:///etc"}),
        ("files", {"url": "s3://b", "x": 1}),
        ("files", {"url": "s3://key:secret@b"}), ("files", {"url": "s3://b", "options": {"secret": "in clear"}}),
        ("files", {"url": "s3://b", "options": {"password": "x"}}),
        ("files", {"url": "s3://b", "secrets": {"key": "AKIA"}}),
        ("files", {"url": "s3://b", "max_bytes": "5"}), ("files", {"url": "s3://b", "max_bytes": True}),
        ("git", {"url": "ext::sh -c id"}), ("git", {"url": "-u/tmp"}),
        ("git", {"url": "git@host:x"}), ("git", {"url": "/x"}),
        ("git", {"url": "https://a.example/x", "branch": "--upload-pack=id"}), ("git", {"url": "ssh://a.example/x"}),
        ("website", {"url": "https://a:b@c.example/"}), ("mail", {"url": "imaps://a@b/"}), ("mail", {"url": "pop://a@b/"}),
        ("mail", {"url": "mbox://relative/x"}), ("sql", {"query": "SELECT 1"}),
        ("sql", {"query": "SELECT 1", "url": "postgresql://a:b@c/d"}), ("reader", {"reader": "os.system"}),
        ("reader", {"reader": "os:system; x"}), ("reader", {"reader": "a:B", "init": {"api_key": "in clear"}}),
    ],
)  # fmt: skip
def test_a_configuration_that_is_not_its_kinds_is_refused(kind: str, config: dict[str, Any]) -> None:
    with pytest.raises(Invalid):
        open_source(source(kind, **config))


def test_secrets_are_read_by_reference_and_hidden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "token").write_text("from a/file\n")
    monkeypatch.setenv("CITADEL_TEST_TOKEN", "from-env")
    secrets = Secrets({"secrets": {"a": "env:CITADEL_TEST_TOKEN", "b": f"file:{tmp_path}/token"}})
    assert secrets.values() == {"a": "from-env", "b": "from a/file"}
    assert secrets.redact("x from-env from a/file from%20a%2Ffile y") == "x [secret] [secret] [secret] y"
    with pytest.raises(SourceUnavailable) as told, secrets.asking("the server", ValueError):
        raise ValueError("password from-env is wrong")
    assert "[secret]" in str(told.value) and told.value.__cause__ is None and told.value.__suppress_context__
    monkeypatch.delenv("CITADEL_TEST_TOKEN")
    with pytest.raises(Misconfigured, match="CITADEL_TEST_TOKEN"):
        secrets.values()


def test_labels_that_are_not_there_are_not_nobodys_but_unknown() -> None:
    assert labels_of("group:a, group:b", "internal") == labels_of(["group:b", "group:a"], "internal")
    assert labels_of("", "internal") == Labels()
    for unknown in (None, 7, [None], {"allow": []}, "nonsense"):
        with pytest.raises(CitadelError):
            labels_of(unknown, "internal")


def test_a_size_alone_is_no_fingerprint() -> None:
    assert fingerprint({"name": "a", "size": 3, "type": "file"}, 0.0) is None
    one, two = ({"size": 3, "ETag": tag} for tag in ("1", "2"))
    assert fingerprint(one, 0.0) == fingerprint({"name": "b", **one}, 0.0) != fingerprint(two, 0.0)


def test_what_was_written_in_this_second_has_no_fingerprint() -> None:
    """A server that tells whole seconds tells the same of what is written over it in the same second."""
    written = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    info = {"etag": "x", "modified": written, "size": 3}
    assert fingerprint(info, written.timestamp() + 1.0) is None
    assert fingerprint(info, written.timestamp() + 3.0) is not None
