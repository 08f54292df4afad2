"""A repository over ssh, of a real sshd: with the key and the host's keys that are given, and nothing else."""

import getpass
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from core.errors import Invalid, SourceUnavailable
from core.records import Labels, Source
from embedded.state import free_port
from ingest.source import NoMemory
from ingest.sources.git import GitSource
from tests.stages import Git

SSHD = shutil.which("sshd", path="/usr/sbin:/usr/bin:/sbin:/bin")
pytestmark = pytest.mark.skipif(
    SSHD is None or shutil.which("ssh-keygen") is None, reason="needs sshd and ssh-keygen: openssh-server"
)
CONFIG = """
Port {port}
ListenAddress 127.0.0.1
HostKey {folder}/host
AuthorizedKeysFile {folder}/user.pub
PidFile none
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin yes
"""


@dataclass(frozen=True, slots=True)
class Server:
    """A repository and an sshd that serves it, with keys."""

    folder: Path
    repository: Git
    port: int

    def opened(self, key: str = "user", known: str = "known_hosts", **config: Any) -> GitSource:
        secrets = {"key": f"file:{self.folder / key}", "known_hosts": f"file:{self.folder / known}"}
        url = f"ssh://{getpass.getuser()}@127.0.0.1:{self.port}{self.repository.root}"
        settings = {"url": url, "folder": "docs", "secrets": secrets, **config}
        scratch = self.folder / uuid4().hex
        scratch.mkdir()
        source = Source(uuid4(), uuid4(), "code", "git", settings, Labels(("public",)), None, 0.3, None)
        return GitSource(source, NoMemory(), scratch)


def keygen(place: Path) -> str:
    """A key pair; the public one."""
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", str(place)], check=True)
    return place.with_suffix(".pub").read_text().strip()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # without it sshd does not start as root
    port = free_port(0)
    for name in ("user", "stranger"):
        keygen(tmp_path / name)
    (tmp_path / "known_hosts").write_text(f"[127.0.0.1]:{port} {keygen(tmp_path / 'host')}\n")
    (tmp_path / "other_hosts").write_text(f"[127.0.0.1]:{port} {keygen(tmp_path / 'other')}\n")
    (tmp_path / "empty").write_text("# nobody\n")
    (tmp_path / "config").write_text(CONFIG.format(port=port, folder=tmp_path))
    repository = Git(tmp_path / "repository")
    assert SSHD is not None
    running = subprocess.Popen([SSHD, "-D", "-e", "-f", str(tmp_path / "config")], stderr=subprocess.DEVNULL)
    try:
        end = time.monotonic() + 10
        while time.monotonic() < end and running.poll() is None:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                time.sleep(0.05)
        if running.poll() is not None:
            pytest.skip("sshd does not start here")
        yield Server(tmp_path, repository, port)
    finally:
        running.kill()
        running.wait()


def listed(source: GitSource) -> dict[str, bytes]:
    items = [item for page in source.enumerate() for item in page.items]
    return {item.external_id: source.fetch(item, source.permissions(item)).content for item in items}


def test_a_repository_over_ssh_is_read(server: Server) -> None:
    server.repository.put("a", "the text")
    assert listed(server.opened()) == {"a.txt": b"the text"}
    server.repository.put("b", "another")
    assert set(listed(server.opened())) == {"a.txt", "b.txt"}


@pytest.mark.parametrize("known", ["other_hosts", "empty"])
def test_a_host_whose_key_is_not_the_one_given_is_not_talked_to(server: Server, known: str) -> None:
    with pytest.raises(SourceUnavailable, match="[Hh]ost key verification failed"):
        listed(server.opened(known=known))


def test_only_the_key_that_is_given_is_tried(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    agent = subprocess.run(["ssh-agent", "-s"], capture_output=True, text=True, check=True).stdout
    told = dict(part.split("=", 1) for part in agent.replace("\n", "").split(";") if "=" in part)
    try:
        monkeypatch.setenv("SSH_AUTH_SOCK", told["SSH_AUTH_SOCK"])
        subprocess.run(["ssh-add", "-q", str(server.folder / "user")], check=True, capture_output=True)
        with pytest.raises(SourceUnavailable, match="Permission denied") as raised:
            listed(server.opened("stranger"))
        assert "PRIVATE KEY" not in str(raised.value)
    finally:
        os.kill(int(told["SSH_AGENT_PID"]), 15)


@pytest.mark.parametrize(
    ("url", "secrets"),
    [
        ("ssh://git@h.example/x", {}),
        ("ssh://git@h.example/x", {"key": "file:/k"}),
        ("ssh://git@-oProxyCommand=x/x", {"key": "file:/k", "known_hosts": "file:/h"}),
        ("ssh://-l@h.example/x", {"key": "file:/k", "known_hosts": "file:/h"}),
        ("ssh://h.example/x", {"key": "file:/k", "known_hosts": "file:/h"}),
    ],
)
def test_what_ssh_lacks_or_could_mistake_is_refused_before_it_is_called(url: str, secrets: dict[str, str]) -> None:
    source = Source(uuid4(), uuid4(), "code", "git", {"url": url, "secrets": secrets}, Labels(), None, 0.3, None)
    with pytest.raises(Invalid):
        GitSource(source, NoMemory(), Path("/nonexistent"))
