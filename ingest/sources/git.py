"""A git repository: the files of a branch, by the git binary, which is given nothing of the repository to run."""

import os
import re
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote, urlsplit

from core.errors import BodyTooLarge, Invalid, InvalidRules, SourceUnavailable
from core.records import Labels, Source, Submission
from ingest.rules import RULE_FILE
from ingest.source import Listed, Memory, Page, pages
from ingest.sources.config import Secrets, check_url, checked
from ingest.sources.folder import MAX_BYTES
from ingest.sources.front_matter import file_submission
from ingest.sources.owners import Owners
from ingest.sources.rule_files import MAX_RULE_BYTES, RuleFiles, check_none_gone
from ingest.sources.ssh import check_ssh, ssh_environment

TIMEOUT_S = 600.0
COMMIT = "commit"  # of the source's memory
PROTOCOLS = ("https", "http", "file", "ssh")
# Neither hooks nor submodules, no helper that a configuration names, no protocol that runs a command (`ext::`), no
# question to anybody, and no redirect to a host that was not named.
SETTINGS = {"core.hooksPath": "/dev/null", "protocol.allow": "never", "http.followRedirects": "false",
            "submodule.recurse": "false", "fetch.recurseSubmodules": "false", "core.fsmonitor": "false",
            "credential.helper": "", "core.askPass": "", "gc.auto": "0", "maintenance.auto": "false"}  # fmt: skip


class GitSource:
    """The files of one commit. Links, submodules and hidden files are not documents."""

    def __init__(self, source: Source, memory: Memory, scratch: Path) -> None:
        """Asks nothing yet. Raises Invalid."""
        config = checked(source, ["url"], {"branch": str, "folder": str, "max_bytes": int, "uri_prefix": str,
                                           "owners": str, "owner_labels": dict, "secrets": dict})  # fmt: skip
        self._url = check_url(config["url"])
        self._protocol = urlsplit(self._url).scheme
        if self._protocol not in PROTOCOLS:
            raise Invalid(f"{self._url[:80]!r} is no URL of a repository: it begins with https://, ssh:// or file://")
        self._branch: str = config.get("branch") or "HEAD"
        if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._/-]*", self._branch):
            raise Invalid(f"{self._branch[:80]!r} is no name of a branch")
        self._source, self._memory, self._secrets = source, memory, Secrets(config)
        self._folder = (config.get("folder") or "").strip("/")
        self._max_bytes: int = config.get("max_bytes") or MAX_BYTES
        self._uri_prefix: str = config.get("uri_prefix") or self._url.removesuffix(".git").rstrip("/") + "/"
        self._owners_file: str | None = config.get("owners")
        self._owner_labels: dict[str, str] = config.get("owner_labels") or {}
        if self._protocol == "ssh":
            check_ssh(self._url, self._secrets)
        self._ssh: dict[str, str] = {}
        self._scratch, self._repository = scratch, scratch / "repository.git"
        self._commit: str | None = None
        self._owners: Owners | None = None
        self._rule_blobs: dict[str, str] = {}
        self._rules = RuleFiles(self._read_rules, memory.state)

    def enumerate(self, cursor: str | None = None) -> Iterator[Page]:
        """Every file of the branch's last commit; git names each by the hash of its bytes. Raises SourceUnavailable."""
        commit = self._ready()
        folders = {""}
        for page in pages(self._walk(folders)):
            if page.complete:
                check_none_gone(self._rules, self._memory.state, folders, self._source.name)
                page = replace(page, state={**self._rules.state(), COMMIT: commit})
            yield page

    def permissions(self, item: Listed) -> Labels:
        """By the nearest rule file, else the labels of the path's owners, else the source's.

        Where the owners have no label, nobody but an operator sees the file. Raises InvalidRules.
        """
        self._ready()
        labels = self._rules.labels_for(item.external_id)
        if labels is None and self._owners is not None:
            path = f"{self._folder}/{item.external_id}" if self._folder else item.external_id
            labels = self._owners.labels_for(path, self._source.labels.classification)
        return self._source.labels if labels is None else labels

    def fetch(self, item: Listed, labels: Labels) -> Submission:
        """The file's bytes as they are in the commit. Raises SourceUnavailable, Invalid."""
        self._ready()
        content = self._blob(item.fingerprint or "", self._max_bytes)
        uri = self._uri_prefix + quote(item.external_id)
        return file_submission(self._source.name, item.external_id, content, labels, uri)

    def _ready(self) -> str:
        """The commit, fetched without history."""
        if self._commit is None:
            self._ssh = ssh_environment(self._secrets, self._scratch) if self._protocol == "ssh" else {}
            self._run("init", "--quiet", "--bare", str(self._repository), inside=False)
            self._run("fetch", "--quiet", "--depth=1", "--no-tags", "--no-recurse-submodules", "--end-of-options",
                      self._url, self._branch)  # fmt: skip
            self._commit = self._run("rev-parse", "--verify", "FETCH_HEAD^{commit}").decode().strip()
            self._rule_blobs = {path: blob for path, blob in self._files() if path.rpartition("/")[2] == RULE_FILE}
            if self._owners_file is not None:
                self._owners = self._read_owners(self._commit, self._owners_file)
        return self._commit

    def _walk(self, folders: set[str]) -> Iterator[Listed]:
        for path, blob in self._files():
            folder, _, name = path.rpartition("/")
            folders.add(folder)
            if name == RULE_FILE:
                self._rules.at(folder)
            elif not any(part.startswith(".") for part in path.split("/")):
                yield Listed(path, blob)

    def _files(self) -> Iterator[tuple[str, str]]:
        """(path, blob) of the commit's files. Raises InvalidRules for a rule file that is a link: not as if there were
        none, for it may close files."""
        where = f"{self._commit}:{self._folder}" if self._folder else str(self._commit)
        for entry in self._run("ls-tree", "-r", "-z", "--full-tree", where).split(b"\0"):
            described, _, path = entry.partition(b"\t")
            mode, kind, blob = described.split() if described else (b"", b"", b"")
            if kind == b"blob" and mode.startswith(b"100"):  # else a submodule, or a link
                yield os.fsdecode(path), blob.decode()
            elif path.rpartition(b"/")[2] == RULE_FILE.encode():
                raise InvalidRules(f"{os.fsdecode(path)!a} must be a file of the repository, not a link")

    def _read_rules(self, path: str) -> bytes | None:
        self._ready()
        return self._blob(self._rule_blobs[path], MAX_RULE_BYTES) if path in self._rule_blobs else None

    def _read_owners(self, commit: str, path: str) -> Owners:
        listed = self._run("ls-tree", "-z", "--full-tree", commit, "--", path).split()
        if listed[1:2] != [b"blob"] or not listed[0].startswith(b"100"):
            raise InvalidRules(f"the repository has no owners file {path}, or a link, so nobody knows who may see what")
        return Owners.read(self._blob(listed[2].decode(), MAX_RULE_BYTES), self._owner_labels)

    def _blob(self, name: str, max_bytes: int) -> bytes:
        if not re.fullmatch("[0-9a-f]{40,64}", name):
            raise Invalid("it is no file of the repository")
        if int(self._run("cat-file", "-s", name)) > max_bytes:
            raise BodyTooLarge(f"the file is larger than {max_bytes} bytes, the source's `max_bytes`")
        return self._run("cat-file", "blob", name)

    def _run(self, *arguments: str, inside: bool = True) -> bytes:
        command = ["git", *(("--git-dir", str(self._repository)) if inside else ()), *arguments]
        try:
            done = subprocess.run(command, env=self._environment(), capture_output=True, stdin=subprocess.DEVNULL,
                                  timeout=TIMEOUT_S, cwd="/", check=False)  # fmt: skip
        except (OSError, subprocess.TimeoutExpired) as error:
            raise SourceUnavailable(f"git {arguments[0]}: {type(error).__name__}") from None
        if done.returncode != 0:
            said = self._secrets.redact(done.stderr.decode("utf-8", "replace"))[-500:].strip()
            raise SourceUnavailable(f"git {arguments[0]} of {self._url} failed: {said}")
        return done.stdout

    def _environment(self) -> dict[str, str]:
        """Nothing of the worker's own, which names databases, and no other configuration; no secret is an argument."""
        settings = SETTINGS | {f"protocol.{self._protocol}.allow": "always"}
        if credential := self._secrets.get("authorization"):
            settings["http.extraHeader"] = f"Authorization: {credential}"
        numbered = {f"GIT_CONFIG_{part}_{n}": text for n, pair in enumerate(settings.items())
                    for part, text in zip(("KEY", "VALUE"), pair, strict=True)}  # fmt: skip
        return {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "HOME": "/nonexistent", "GIT_CONFIG_NOSYSTEM": "1",
                "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_TERMINAL_PROMPT": "0",
                "GIT_LITERAL_PATHSPECS": "1", "GIT_CONFIG_COUNT": str(len(settings)), **numbered,
                **self._ssh}  # fmt: skip
