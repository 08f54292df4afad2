"""Hosts on one machine: network namespaces whose only way to the others is a link that can be cut."""

import os
import random
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field


def why_not() -> str | None:
    """What keeps this machine from having such hosts; None where it can."""
    if shutil.which("ip") is None:
        return "network namespaces need `ip`, of iproute2"
    probe = f"citprobe{os.getpid()}"
    try:
        _ip("netns", "add", probe)
        _ip("link", "add", probe[:15], "type", "bridge")
        _ip("link", "del", probe[:15])
    except subprocess.CalledProcessError as error:
        return f"network namespaces need root's capabilities here: {error.stderr.decode().strip()[:200]}"
    finally:
        with suppress(subprocess.CalledProcessError):
            _ip("netns", "del", probe)
    return None


@dataclass(slots=True)
class Network:
    """A bridge, which is this host's side, and namespaces that are linked to it."""

    tag: str
    prefix: str  # of the addresses
    hosts: list[str] = field(default_factory=list)

    @property
    def address(self) -> str:
        """Of this host."""
        return f"{self.prefix}.1"

    @property
    def subnet(self) -> str:
        return f"{self.prefix}.0/24"

    def add(self, host: str) -> None:
        """Another host, linked."""
        space, here, there = self._names(host)
        _ip("netns", "add", space)
        self.hosts.append(host)
        _ip("link", "add", here, "type", "veth", "peer", "name", there)
        _ip("link", "set", there, "netns", space)
        _ip("link", "set", here, "master", self.tag, "up")
        _ip("-n", space, "addr", "add", f"{self.prefix}.{1 + len(self.hosts)}/24", "dev", there)
        _ip("-n", space, "link", "set", "lo", "up")
        _ip("-n", space, "link", "set", there, "up")

    def on(self, host: str) -> tuple[str, ...]:
        """What a command begins with to run there."""
        return "ip", "netns", "exec", self._names(host)[0]

    def cut(self, host: str) -> None:
        """Nothing that is sent arrives, and nobody is told."""
        _ip("link", "set", self._names(host)[1], "down")

    def mend(self, host: str) -> None:
        """What is sent arrives again."""
        _ip("link", "set", self._names(host)[1], "up")

    def _names(self, host: str) -> tuple[str, str, str]:
        return f"{self.tag}-{host}", f"{self.tag}{host}", f"{self.tag}{host}e"


@contextmanager
def network() -> Iterator[Network]:
    """One without hosts, and at the end nothing of it."""
    number = random.randrange(256)  # noqa: S311
    made = Network(f"cit{os.getpid() % 10**6}", f"198.18.{number}")  # addresses for measurements, RFC 2544
    _ip("link", "add", made.tag, "type", "bridge")
    try:
        _ip("addr", "add", f"{made.address}/24", "dev", made.tag)
        _ip("link", "set", made.tag, "up")
        yield made
    finally:
        for host in made.hosts:  # the link by itself: a dead host's connections keep the namespace for minutes
            _ip("link", "del", f"{made.tag}{host}")
            _ip("netns", "del", f"{made.tag}-{host}")
        _ip("link", "del", made.tag)


def _ip(*arguments: str) -> None:
    subprocess.run(("ip", *arguments), check=True, capture_output=True)
